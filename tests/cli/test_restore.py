import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.client.member import serving
from backstay.client.tools import find_etcd
from backstay.errors import CompactedError
from backstay.report import Report
from kit import needs
from kit.cli import environment

BUMP = 1_000_000_000


@pytest.fixture
def made(cli, identity):
    """A backup; its manifest."""
    return cli("backup", "etcd", "--cluster", "prod", "--json").json


def dump(client):
    return [(kv.key, kv.value, kv.mod_revision, kv.lease) for kv in client.scan()]


def restored(folder):
    needs.binary("etcd")
    return serving(folder, find_etcd(least=(3, 5, 0)), Report())


def test_what_was_lost_comes_back(cli, made, etcd):
    done = cli("restore", "etcd", made["id"], "--data-dir", "data", "--json").json
    assert done["revision"] == made["revision"] + BUMP
    with restored(cli.folder / "data") as member, Client(member.access) as client:
        with Client(etcd.access) as original:
            assert dump(client) == dump(original)
        with pytest.raises(CompactedError), client.watch(start_revision=made["revision"]) as events:
            next(iter(events))
        assert client.put(b"later", b"") > made["revision"] + BUMP
        assert client.leases()


def test_without_a_bump_the_history_is_the_same(cli, made):
    cli("restore", "etcd", made["id"], "--data-dir", "data", "--no-bump")
    with restored(cli.folder / "data") as member, Client(member.access) as client:
        found = client.hashkv(client.endpoints[0], made["revision"])
        assert (found.hash, found.compact_revision) == (
            made["hashkv"]["hash"],
            made["hashkv"]["compact_revision"],
        )


def test_promise_2_a_machine_with_the_url_and_the_identity_is_enough(made, cli, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "backstay.cli.main", "restore", "etcd", "prod/latest-verified"]
    subprocess.run(
        [*command, "--data-dir", "data"],
        cwd=elsewhere,
        env={
            "PATH": os.environ["PATH"],
            "BACKSTAY_REPO": cli.variables["BACKSTAY_REPO"],
            "BACKSTAY_IDENTITY": str(cli.folder / "identity.txt"),
        },
        check=True,
        capture_output=True,
    )
    assert (elsewhere / "data" / "member" / "snap" / "db").is_file()


@pytest.mark.parametrize("there", ["file", "full", "link"])
def test_promise_6_what_stands_there_stays(cli, made, there):
    path = cli.folder / "data"
    if there == "file":
        path.write_text("mine")
    elif there == "full":
        (path / "member").mkdir(parents=True)
        (path / "member" / "mine").write_text("mine")
    else:
        path.symlink_to("nowhere")
    before = sorted(os.listdir(cli.folder))
    done = cli("restore", "etcd", made["id"], "--data-dir", "data", expect=5)
    assert "nothing was changed" in done.err
    assert sorted(os.listdir(cli.folder)) == before
    if there == "full":
        assert (path / "member" / "mine").read_text() == "mine"


def test_an_empty_directory_is_filled(cli, made):
    (cli.folder / "mount").mkdir()
    cli("restore", "etcd", made["id"], "--data-dir", "mount")
    assert os.listdir(cli.folder / "mount") == ["member"]


def test_several_members_come_from_one_full_id(cli, made):
    members = [
        *("--initial-cluster", "m1=http://127.0.0.1:1,m2=http://127.0.0.1:2"),
        *("--name", "m1", "--initial-advertise-peer-urls", "http://127.0.0.1:1"),
    ]
    done = cli("restore", "etcd", "prod/latest", "--data-dir", "m1", *members, expect=5)
    assert made["id"] in done.err
    one = cli("restore", "etcd", made["id"], "--data-dir", "m1", *members, "--json").json
    members[-3:] = ["m2", "--initial-advertise-peer-urls", "http://127.0.0.1:2"]
    two = cli("restore", "etcd", made["id"], "--data-dir", "m2", *members, "--json").json
    for name in ("sha256", "token", "revision"):
        assert one[name] == two[name]


def test_another_backup_has_another_token(cli, made):
    one = cli("restore", "etcd", made["id"], "--data-dir", "a", "--json").json
    other = cli("backup", "etcd", "--cluster", "prod", "--json").json
    two = cli("restore", "etcd", other["id"], "--data-dir", "b", "--json").json
    assert one["token"] != two["token"]


def test_a_wrong_identity_opens_nothing(cli, made):
    cli("keygen", "-o", "other.txt")
    done = cli(
        *("restore", "etcd", made["id"], "--data-dir", "data", "--identity", "other.txt"), expect=1
    )
    assert "other.txt does not open" in done.err or "identity" in done.err
    assert not (cli.folder / "data").exists()


def test_without_an_identity_it_is_asked_for(cli, made):
    del cli.variables["BACKSTAY_IDENTITY"]
    done = cli("restore", "etcd", made["id"], "--data-dir", "data", expect=1)
    assert "--identity" in done.err


def test_the_tool_is_looked_for_before_anything_is_fetched(cli, made, file_repo):
    for path in (file_repo / "clusters").glob("*/objects/*/*"):
        path.unlink()
    (cli.folder / "etcdutl").write_text("#!/bin/sh\necho etcdutl version: 3.4.9\n")
    (cli.folder / "etcdutl").chmod(0o755)
    done = cli(
        *("restore", "etcd", made["id"], "--data-dir", "data", "--etcdutl", "./etcdutl"), expect=1
    )
    assert "etcdutl 3.4.9" in done.err
    assert "backstay export" in done.err


def test_a_tool_that_fails_leaves_nothing(cli, made):
    tool = cli.folder / "etcdutl"
    tool.write_text(
        '#!/bin/sh\nif [ "$1" = version ]; then echo "etcdutl version: 3.5.1"; exit; fi\n'
        'mkdir -p "$5"; echo "Error: the disk is on fire" >&2; exit 1\n'
    )
    tool.chmod(0o755)
    done = cli(
        *("restore", "etcd", made["id"], "--data-dir", "data", "--etcdutl", "./etcdutl"), expect=1
    )
    assert "the disk is on fire" in done.err
    assert sorted(os.listdir(cli.folder)) == ["etcdutl", "identity.txt"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_promise_6_nothing_half_made_stays_when_it_is_stopped(cli, made, number):
    tool = cli.folder / "etcdutl"
    tool.write_text(
        '#!/bin/sh\nif [ "$1" = version ]; then echo "etcdutl version: 3.5.1"; exit; fi\n'
        'mkdir -p "$5/member/snap"; echo half > "$5/member/snap/db"; touch "$HOME/reached"\n'
        "exec sleep 60\n"
    )
    tool.chmod(0o755)
    command = [sys.executable, "-m", "backstay.cli.main", "restore", "etcd", made["id"]]
    with environment({**cli.variables, "HOME": str(cli.folder)}):
        process = subprocess.Popen(
            [*command, "--data-dir", "data", "--etcdutl", "./etcdutl"],
            cwd=cli.folder,
            stderr=subprocess.PIPE,
            text=True,
        )
    deadline = time.monotonic() + 30
    while not (cli.folder / "reached").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate()
    (cli.folder / "reached").unlink()
    subprocess.run(["pkill", "-f", str(cli.folder)], check=False)
    expected = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}
    assert process.returncode == expected[number]
    assert not (cli.folder / "data").exists()
    if number == signal.SIGKILL:
        # Nobody can tidy up after that but the next run.
        cli("restore", "etcd", made["id"], "--data-dir", "data")
        assert sorted(os.listdir(cli.folder)) == ["data", "etcdutl", "identity.txt"]
    else:
        assert sorted(os.listdir(cli.folder)) == ["etcdutl", "identity.txt"]


def test_an_export_is_what_etcd_sent(cli, made, etcdutl):
    done = cli("export", made["id"], "-o", "copy.db", "--json").json
    data = (cli.folder / "copy.db").read_bytes()
    assert hashlib.sha256(data).hexdigest() == made["objects"][0]["sha256"]
    assert data[-32:].hex() == done["sha256"]
    status = subprocess.run(
        [etcdutl, "snapshot", "status", cli.folder / "copy.db", "-w", "json"],
        check=True,
        capture_output=True,
    )
    assert json.loads(status.stdout)["hash"] == made["hash"]


def test_promise_6_an_export_never_overwrites(cli, made):
    (cli.folder / "copy.db").write_text("mine")
    cli("export", made["id"], "-o", "copy.db", expect=5)
    assert (cli.folder / "copy.db").read_text() == "mine"


def test_a_file_can_be_restored_too(cli, made):
    cli("export", made["id"], "-o", "copy.db")
    cli("restore", "etcd", "copy.db", "--data-dir", "data")
    assert (cli.folder / "data" / "member").is_dir()


def test_a_file_without_a_sha256_is_restored_only_when_asked(cli, made):
    cli("export", made["id"], "-o", "copy.db")
    data = (cli.folder / "copy.db").read_bytes()
    (cli.folder / "raw.db").write_bytes(data[:-32])
    done = cli("restore", "etcd", "raw.db", "--data-dir", "data", expect=5)
    assert "--skip-hash-check" in done.err
    cli("restore", "etcd", "raw.db", "--data-dir", "data", "--skip-hash-check")
    assert (cli.folder / "data" / "member").is_dir()


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "gone"])
def test_what_the_store_lost_is_not_restored(cli, made, file_repo, damage):
    path = file_repo / made["objects"][0]["path"]
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "cut":
        del data[-100:]
    elif damage == "grow":
        data += b"x"
    path.write_bytes(data)
    if damage == "gone":
        path.unlink()
    cli("restore", "etcd", made["id"], "--data-dir", "data", expect=1 if damage == "gone" else 3)
    assert sorted(os.listdir(cli.folder)) == ["identity.txt"]
    cli("export", made["id"], "-o", "copy.db", expect=1 if damage == "gone" else 3)
    assert sorted(os.listdir(cli.folder)) == ["identity.txt"]
