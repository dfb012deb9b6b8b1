"""--json: of every command one document, and what docs/json.md says of it."""

import click
import pytest

from backstay.cli import main
from kit import documented, fixtures

BACKUP = ("backup", "etcd", "--cluster", "prod")


def commands(group=main.backstay, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_every_command_has_json_and_a_row():
    found = dict(commands())
    assert documented.rows().keys() == found.keys()
    for name, command in found.items():
        assert any("--json" in param.opts for param in command.params), name


@pytest.fixture
def say(cli):
    """Run a command with --json; what it prints is held to the docs."""
    return lambda name, *words: cli(*name.split(), *words, "--json").json


def test_each_prints_what_the_docs_say(cli, file_repo, identity, tmp_path, say):
    file = fixtures.write("etcd3516-plain", tmp_path)
    say("keygen")
    spare = say("keygen", "-o", tmp_path / "spare.txt")["recipient"]
    say("init", "--repo", f"file://{tmp_path}/other", "--recipient", spare)
    say("preflight etcd", "--cluster", "prod")
    made = say("backup etcd", *BACKUP[2:])
    assert say("show", "prod/latest") == made
    assert say("list") == [made]
    assert "checks" in say("backup etcd", *BACKUP[2:], "--dry-run")
    say("pin", "prod/latest", "--reason", "why")
    [listed] = say("list")
    assert listed.keys() - made.keys() == {"pins"}
    say("unpin", "prod/latest")
    say("prune", "--keep-last", "1")
    say("verify", "prod/latest")
    say("verify", str(file))
    say("drill", "prod/latest")
    say("export", "prod/latest", "-o", tmp_path / "a.db")
    revision = str(made["revision"])
    say("drill", "prod/latest", "--to-revision", revision)
    say("restore etcd", "prod/latest", "--data-dir", tmp_path / "restored")
    (tmp_path / "taken").mkdir()
    (tmp_path / "a.db").rename(tmp_path / "taken" / "a.db")
    say("import", tmp_path / "taken", "--cluster", "taken")
    say("recipients add", spare)
    say("recipients list")
    say("recipients check", "--identity", identity)
    say("rewrap", "prod/latest")
    say("recipients remove", spare)
    say("metrics")
    say("status", file)
    say("hashkv", file)
    say("completion", "bash")


def test_a_field_that_is_not_in_the_docs_is_told():
    documented.hold(("pin", "prod/latest"), {"backup": "x", "pin": {}})
    for odd in ({"backup": "x"}, {"backup": "x", "pin": {}, "more": 1}):
        with pytest.raises(AssertionError):
            documented.hold(("pin", "prod/latest"), odd)
