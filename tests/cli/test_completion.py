"""Completion, asked for by a real bash as by a user who presses the key."""

import subprocess
import sys

import click
import pytest

from backstay.cli import complete, main

BACKUP = ("backup", "etcd", "--cluster", "prod")


@pytest.fixture
def bash(cli, tmp_path):
    """Press the key behind some words; gives what bash is offered, and what it falls back on."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "backstay"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m backstay.cli.main "$@"\n')
    program.chmod(0o755)
    (cli.folder / "completion").write_text(cli("completion", "bash").out)

    def press(line, **variables):
        words = line.split(" ")
        script = f"""
            source ./completion || exit 9
            compopt() {{ echo "$2"; }}
            COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
            COMP_CWORD={len(words) - 1}
            [[ $(complete -p backstay) == *" -F "* ]] || exit 8
            $(complete -p backstay | sed 's/.*-F \\([^ ]*\\) .*/\\1/') backstay
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=cli.folder,
            env={
                "PATH": f"{folder}:/usr/bin:/bin",
                "HOME": str(tmp_path),
                **{key: value for key, value in cli.variables.items() if key == "BACKSTAY_REPO"},
                **variables,
            },
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stderr == ""
        return [word for word in done.stdout.splitlines() if word]

    return press


def test_bash_completes_commands_and_options(bash):
    assert bash("backstay ver") == ["verify"]
    assert bash("backstay backup ") == ["etcd", "hosted", "okd"]
    assert bash("backstay verify --read") == ["--read-data"]
    assert bash("backstay completion ") == ["bash", "zsh", "fish"]


def test_bash_completes_backups_of_a_directory(cli, file_repo, bash):
    first = cli(*BACKUP, "--json").json["id"]
    second = cli(*BACKUP, "--json").json["id"]
    assert bash("backstay show p") == ["prod/"]
    offered = bash("backstay show prod/")
    assert offered[:2] == ["prod/latest", "prod/latest-verified"]
    assert sorted(offered[2:]) == sorted([first, second])
    assert bash(f"backstay verify {second[:-2]}") == [second]
    assert bash("backstay restore etcd prod/latest-") == ["prod/latest-verified"]
    assert bash("backstay list --cluster ") == ["prod"]
    assert bash("backstay show prod/l", BACKSTAY_REPO="")[:1] == ["prod/latest"]
    assert bash("backstay show p", BACKSTAY_REPO="") == []
    (cli.folder / "backstay.toml").write_text(f'repo = "file://{file_repo}"\n')
    assert bash("backstay show p", BACKSTAY_REPO="") == ["prod/"]


def commands(group=main.backstay, path=()):
    """All commands, as `LazyGroup` has them, with the words that call them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=str)
def test_whatever_takes_a_cluster_or_a_backup_completes_it(name, command):
    for param in command.params:
        if param.name == "cluster":
            assert param._custom_shell_complete == complete.clusters, name
        if param.metavar and "ID" in param.metavar.replace("[", "").replace("]", "|").split("|"):
            assert param._custom_shell_complete in {complete.backups, complete.subjects}, name


def test_a_directory_is_completed_where_one_is_meant(bash):
    assert bash("backstay import x") == ["dirnames"]
    assert bash("backstay restore okd prod/x --output-dir x") == ["dirnames"]


def test_files_are_completed_where_no_backup_is_meant(cli, file_repo, bash):
    cli(*BACKUP)
    assert bash("backstay verify ./x") == ["default"]
    assert bash("backstay verify zzz") == ["default"]
    assert bash("backstay verify pro") == ["prod/"]


@pytest.mark.parametrize(
    "url", ["s3://192.0.2.1/nowhere", "file:///nowhere/at/all", "nonsense", "file://host/x"]
)
def test_no_key_waits_for_a_network_and_none_ends_in_an_error(bash, url):
    assert bash("backstay show p", BACKSTAY_REPO=url) == []


def test_names_that_a_terminal_would_obey_are_not_offered(cli, file_repo, bash):
    (file_repo / "clusters").mkdir(mode=0o700)
    (file_repo / "clusters" / "p\x1b[2J").mkdir()
    (file_repo / "clusters" / "prod").mkdir()
    assert bash("backstay show p") == ["prod/"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_this_program(cli, shell):
    script = cli("completion", shell).out
    assert f"_BACKSTAY_COMPLETE={shell}_complete" in script
    assert cli("completion", shell, "--json").json == {"shell": shell, "script": script[:-1]}
    assert "bash" in cli("completion", "powershell", expect=2).err
