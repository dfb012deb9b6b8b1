"""`restore okd --to-revision`: the pair at another revision; what the rules ask is asked of it."""

import os
import signal
import time

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.status import read_status
from kit import okd_host, okd_pair
from kit.cli import etcd_variables
from kit.etcd import Etcd
from kit.okd_host import INFRASTRUCTURE, OkdHost, okd_etcd
from kit.okd_pair import NODE, VERSION
from kit.openshift import KUBE, configuration
from kit.process import start
from kit.world import restored


@pytest.fixture
def taken(tmp_path, places, backup):
    """The snapshot that cluster-backup.sh took, of which `backup` was made."""
    [path] = (tmp_path / "assets").glob("snapshot*.db")
    return path


def restore(places, backup, *words, expect=0):
    target = places.root / "restored"
    return places.cli(
        *("restore", "okd", backup, "--output-dir", target, "--version", VERSION),
        *(*words, "--json"),
        expect=expect,
    )


def revision_of(path):
    with Snapshot.open(path) as snapshot:
        return read_status(snapshot).revision


def live_hash(snapshot, folder, revision):
    """What a member that etcdutl made of a snapshot says of a revision, and what it has last."""
    restored(snapshot, folder, NODE)
    with Etcd.start(folder, name=NODE) as etcd, Client(etcd.access) as client:
        found = client.hashkv(client.endpoints[0], revision)
        return found.hash, client.range(b"\0", b"\0").header.revision


def test_promise_4_the_pair_of_an_earlier_revision_is_what_etcd_had_then(
    places, backup, taken, tmp_path
):
    wanted = revision_of(taken) - 1
    done = restore(places, backup, "--to-revision", wanted)
    assert done.json["point"]["base"] == backup
    assert done.json["point"]["to_revision"] == wanted
    target = tmp_path / "restored"
    assert sorted(os.listdir(target)) == sorted(os.listdir(tmp_path / "assets"))
    assert all((target / name).stat().st_mode & 0o777 == 0o600 for name in os.listdir(target))
    [archive] = target.glob("static*")
    assert archive.read_bytes() == (tmp_path / "assets" / archive.name).read_bytes()
    theirs, last = live_hash(target / taken.name, tmp_path / "then", wanted)
    assert last == wanted
    assert theirs == live_hash(taken, tmp_path / "now", wanted)[0]


def test_its_own_revision_is_the_whole_snapshot(places, backup, taken, tmp_path):
    last = revision_of(taken)
    restore(places, backup, "--to-revision", last)
    assert revision_of(tmp_path / "restored" / taken.name) == last


def test_what_was_not_recorded_is_refused_and_leaves_nothing(places, backup, taken, tmp_path):
    before = sorted(os.listdir(tmp_path))
    done = restore(places, backup, "--to-revision", revision_of(taken) + 1, expect=1)
    assert "recorded" in done.err or "missing" in done.err
    assert sorted(os.listdir(tmp_path)) == before


def test_keys_are_tried_on_what_is_written(places, okd_data, tmp_path):
    """The last writes are encrypted by keys that the archive has not; those before them are not."""
    wrong = configuration(KUBE, 2)
    name = "static-pod-resources/kube-apiserver-pod-6/secrets/encryption-config/encryption-config"
    content = okd_pair.files() | {name: wrong}
    okd_pair.write_pair(tmp_path / "assets", okd_data, content=content)
    [one] = places.taken(tmp_path / "assets", expect=None)
    last = revision_of(next((tmp_path / "assets").glob("snapshot*.db")))
    refused = restore(places, one["id"], "--to-revision", last, "--force", expect=None)
    verdicts = {check["name"]: check["verdict"] for check in refused.json["checks"]}
    assert verdicts["keys"] == "FAIL"
    (tmp_path / "restored").rename(tmp_path / "forced")
    # Revision 2 has one key, in plain.
    early = restore(places, one["id"], "--to-revision", 2, "--force", expect=None)
    verdicts = {check["name"]: check["verdict"] for check in early.json["checks"]}
    assert verdicts["keys"] != "FAIL"


def test_two_points_are_one_too_many(places, backup):
    done = restore(
        places, backup, "--to-revision", 2, "--to-time", "2026-11-20T23:10:00Z", expect=2
    )
    assert "two points" in done.err


def test_promise_4_what_was_recorded_after_the_backup_comes_back_with_its_keys(cli, tmp_path):
    with okd_etcd(tmp_path / "own") as etcd:
        host = OkdHost.make(tmp_path / "master", etcd)
        made = cli("backup", "okd", "--host-root", host.root, "--json").json
        head = recorded(cli, etcd)
        target = tmp_path / "restored"
        done = cli(
            *(
                "restore",
                "okd",
                made["id"],
                "--identity",
                "identity.txt",
                "--version",
                okd_host.VERSION,
            ),
            *("--output-dir", target, "--to-revision", head, "--json"),
        )
        assert done.json["point"]["deltas"] > 0
        with Client(etcd.access) as client:
            theirs = client.hashkv(client.endpoints[0], head).hash
    [snapshot] = target.glob("snapshot*.db")
    assert live_hash(snapshot, tmp_path / "then", head) == (theirs, head)


def recorded(cli, etcd):
    """Write a little while a recorder runs; gives the revision where it ended."""
    variables = cli.variables | etcd_variables(etcd, cli.folder / "tls")
    words = ("record", "etcd", "--cluster", INFRASTRUCTURE, "--every", "500ms")
    process = start(words, cli.folder, variables)
    with Client(etcd.access) as client:
        client.put(b"/later", b"1")
        head = client.put(b"/later", b"2")
    deadline = time.monotonic() + 60
    while last_recorded(cli) < head and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    return head


def last_recorded(cli):
    [found] = cli("timeline", "--cluster", INFRASTRUCTURE, "--json").json
    return found["lineages"][-1]["windows"][-1]["last"]
