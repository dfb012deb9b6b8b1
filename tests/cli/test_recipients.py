import json

import pytest

from kit.cli import Cli


@pytest.fixture
def second(cli):
    """Another key pair: the identity's path, and the recipient."""
    recipient = cli("keygen", "-o", "second.txt", "--json").json["recipient"]
    return cli.folder / "second.txt", recipient


@pytest.fixture
def first(cli):
    text = (cli.folder / "identity.txt").read_text()
    return next(line.split()[-1] for line in text.splitlines() if "public key" in line)


def backup(cli):
    return cli("backup", "etcd", "--cluster", "prod", "--json").json


def opened(done):
    return {check["name"]: check["verdict"] for check in done.json["checks"]}


def test_promise_5_a_recipient_is_rotated(cli, repo, first, second):
    """Each backup has the recipients of its time; each identity opens those that name it."""
    identity, recipient = second
    old = backup(cli)
    done = cli("recipients", "add", recipient)
    assert "keep theirs" in done.err
    both = backup(cli)
    config = cli("recipients", "remove", first, "--json").json
    assert config["recipients"] == [recipient]
    assert config["generation"] == 3
    new = backup(cli)
    assert old["recipients"] == [first]
    assert both["recipients"] == sorted([first, recipient])
    assert new["recipients"] == [recipient]

    for key, shut in (("identity.txt", new), ("second.txt", old)):
        check = cli("recipients", "check", "--identity", key, "--json", expect=3)
        wanted = {one["id"]: "FAIL" if one is shut else "PASS" for one in (old, both, new)}
        assert opened(check) == wanted
        table = cli("recipients", "check", "--identity", key, expect=3)
        assert [line.split()[1] for line in table.out.splitlines()[1:]] == [
            "NO" if one is shut else "yes" for one in (old, both, new)
        ]
        cli("export", both["id"], "--identity", key, "-o", f"{key}.db")
        assert (
            "holds the key of none"
            in cli("export", shut["id"], "--identity", key, "-o", "no.db", expect=1).err
        )
    assert opened(cli("recipients", "check", "--identity", identity, "--json", expect=3))

    found = cli("recipients", "list", "--json").json["readers"]
    assert [(one["recipient"], one["current"], one["holdings"]) for one in found] == [
        (recipient, True, 2),
        (first, False, 2),
    ]
    assert "removed" in cli("recipients", "list").out


def test_verify_says_that_an_identity_does_not_open_a_backup_and_does_not_blame_it(
    cli, file_repo, second
):
    made = backup(cli)
    found = cli("verify", made["id"], "--identity", "second.txt", "--json", expect=3).json
    verdicts = {check["name"]: check["verdict"] for check in found["checks"]}
    assert verdicts == {"stored": "PASS", "openable": "FAIL"}
    assert cli("show", "prod/latest-verified", "--json").json["id"] == made["id"]
    cli("verify", made["id"], "--identity", "identity.txt")


def test_promise_5_pins_are_held_and_changed_with_the_recipients(cli, file_repo, first, second):
    _, recipient = second
    settings = cli.folder / "backstay.toml"
    settings.write_text(f"recipient = {json.dumps([recipient])}\n")
    assert "is pinned" in cli("recipients", "add", recipient, expect=5).err
    settings.write_text(f"recipient = {json.dumps([first])}\n")
    assert "Mend what is pinned" in cli("recipients", "add", recipient).err
    assert "is pinned" in cli("backup", "etcd", "--cluster", "prod", expect=5).err
    settings.write_text(f"recipient = {json.dumps([recipient, first])}\n")
    cli("backup", "etcd", "--cluster", "prod")


def test_what_is_refused(cli, file_repo, first, second):
    _, recipient = second
    assert "last recipient" in cli("recipients", "remove", first, expect=5).err
    assert "already" in cli("recipients", "add", first, expect=5).err
    assert "is no recipient of" in cli("recipients", "remove", recipient, expect=1).err
    assert "no age recipient" in cli("recipients", "add", "age1x", expect=2).err
    secret = (cli.folder / "second.txt").read_text().splitlines()[-1]
    done = cli("recipients", "add", secret, expect=2)
    assert secret not in done.err
    assert cli("recipients", "list", "--json").json["generation"] == 1
    cli("recipients", "check", expect=2)


def test_a_repository_that_is_not_encrypted_has_none(cli, tmp_path, second):
    cli.variables["BACKSTAY_REPO"] = f"file://{tmp_path}/open"
    cli("init", "--no-encryption")
    assert "not encrypted" in cli("recipients", "add", second[1], expect=5).err
    assert "not encrypted" in cli("recipients", "check", "--identity", second[0], expect=2).err


def test_promise_4_what_could_not_be_looked_at_is_not_openable(cli, file_repo):
    one, two, three = (backup(cli) for _ in range(3))
    (file_repo / one["objects"][0]["path"]).unlink()
    data = bytearray((file_repo / two["objects"][0]["path"]).read_bytes())
    data[data.index(b"\n--- ") + 6] ^= 1
    (file_repo / two["objects"][0]["path"]).write_bytes(data)
    (file_repo / f"clusters/prod/backups/{three['id'].split('/')[1]}.json").write_text("{")
    found = cli("recipients", "check", "--identity", "identity.txt", "--json", expect=3)
    assert sorted(opened(found).values()) == ["COULD NOT VERIFY", "FAIL", "FAIL"]
    (file_repo / f"clusters/prod/backups/{one['id'].split('/')[1]}.json").unlink()
    (file_repo / f"clusters/prod/backups/{two['id'].split('/')[1]}.json").unlink()
    cli("recipients", "check", "--identity", "identity.txt", expect=4)
    cli("recipients", "check", "--identity", "identity.txt", "--cluster", "other")


def test_the_keys_repository_has_recipients_of_its_own(tmp_path, second, cli):
    from datetime import UTC, datetime

    from backstay.repo import keyring
    from backstay.repo.catalogue import Repository
    from backstay.repo.keyring import Keyring
    from backstay.repo.name import Run
    from backstay.repo.stores.file import FileStore

    now = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
    user = Cli(cli.folder, {"BACKSTAY_REPO": f"file://{tmp_path}/keys"})
    first = user("keygen", "-o", "first.txt", "--json").json["recipient"]
    user("init", "--role", "keys", "--recipient", first)
    user("recipients", "add", second[1])
    user("recipients", "remove", first)
    keys = Repository.open(FileStore(tmp_path / "keys"))
    ring = Keyring(cluster="a.b", kind="hosted", made_at=now, keys=())
    keyring.save(keys, ring, Run.begin("a.b", now), data="0" * 32)
    user("recipients", "check", "--identity", second[0])
    assert " 1 keyrings" in user("recipients", "list").out
    assert "0 of 1 keyrings" in user("recipients", "check", "--identity", "first.txt", expect=3).err
