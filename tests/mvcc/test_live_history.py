"""Random histories on real etcds: each revision that comes out is what the server had then."""

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backstay.bolt import patch as patch_module
from backstay.client.etcd import Etcd as Client
from backstay.client.member import serving
from backstay.client.tools import find_etcd
from backstay.errors import EtcdError
from backstay.files import new_file
from backstay.mvcc.delta import read_delta
from backstay.mvcc.export import export
from backstay.mvcc.hashkv import compute_hashkv
from backstay.mvcc.history import look_back
from backstay.mvcc.recorded import Recorded
from backstay.mvcc.revision import element_key
from backstay.mvcc.snapshot import Snapshot
from backstay.report import Report
from kit import deltas, needs
from kit.etcd import Etcd
from kit.histories import Player, elements


@dataclass(frozen=True)
class Truth:
    """What a server said of a revision, while it had it."""

    revision: int
    compact_revision: int
    hash: int


@dataclass
class History:
    """What happened on an etcd.

    Attributes:
        log: all changes, as a watch saw them.
        bases: snapshots that were taken on the way.
        truths: HashKV, asked on the way.
    """

    log: list
    bases: list[Path]
    truths: list[Truth]


def live(etcd, folder, seed, *, segments=4, steps=40) -> History:
    """Do things; take snapshots, compact and restart between."""
    player = Player(etcd, seed)
    found = History([], [], [])
    for segment in range(segments):
        start = player.revision
        player.play(steps)
        with Client(etcd.access) as client:
            found.log += elements(client, start + 1, player.revision)
            for revision in sorted({player.random.randint(start, player.revision) for _ in "abc"}):
                said = client.hashkv(client.endpoints[0], revision)
                found.truths.append(Truth(revision, said.compact_revision, said.hash))
        base = folder / f"base-{segment}"
        etcd.ctl("snapshot", "save", str(base))
        found.bases.append(base)
        if segment % 2 == 0:
            compacted = player.random.randint(start, player.revision - 1)
            player.ask("kv/compaction", revision=str(compacted), physical=True)
        else:
            etcd.restart()
    return found


def make(history, base, target, revision, size=17):
    """Write a snapshot at a revision, from one of the history's and what came after it."""
    target.unlink(missing_ok=True)
    with Snapshot.open(base) as source, new_file(target) as out:
        later = [pair for pair in history.log if pair[0] >= element_key(source.revision + 1, 0)]
        if revision <= source.revision:
            return export(source, out, past=look_back(source, revision))
        written = deltas.chain(later, source.revision + 1, size)
        data = deltas.mapped(b"".join(part for one in written for part in one.parts))
        found, at = [], 0
        for one in written:
            found.append(read_delta(data, at, one.size, f"from {one.header.begin}"))
            at += one.size
        changes = Recorded(source, data, found, revision)
        return export(source, out, past=look_back(source, revision, changes))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(patch_module, "BLOCK_SIZE", 1 << 17)


@pytest.mark.parametrize("version", ["3.5", "3.4"])
def test_promise_8_each_revision_is_what_a_live_server_had(tmp_path, version):
    binary = needs.debian("etcd") if version == "3.4" else None
    with Etcd.start(tmp_path / "etcd", tls=None, binary=binary) as etcd:
        history = live(etcd, tmp_path, seed=35 if version == "3.4" else 34)
    proven, ways = 0, set()
    for truth in history.truths:
        for base in history.bases:
            with Snapshot.open(base) as opened:
                reach = opened.compact_revision, opened.revision
            if max(reach[0], 1) > truth.revision or reach[0] > truth.compact_revision:
                continue
            ways.add(truth.revision > reach[1])
            make(history, base, target := tmp_path / "target", truth.revision)
            with Snapshot.open(target) as made:
                assert made.revision == truth.revision
                found = compute_hashkv(made, compact_revision=truth.compact_revision)
            assert found.hash == truth.hash
            proven += 1
    assert proven > len(history.truths) > 6
    assert ways == {True, False}
    boot(target, tmp_path / "booted", truth)


def boot(snapshot, folder, truth):
    """Restore with etcd's own tool and start: the server says the same hash."""
    with restored(snapshot, folder) as client:
        said = client.hashkv(client.endpoints[0], truth.revision)
        assert client.range(b"\0").header.revision == truth.revision
        if said.compact_revision == truth.compact_revision:
            assert said.hash == truth.hash


def data_dir(snapshot, folder):
    subprocess.run(
        [
            *(needs.binary("etcdutl"), "snapshot", "restore", snapshot, "--data-dir", folder),
            *("--name", "default", "--initial-cluster", "default=unix://peer:0"),
            *("--initial-advertise-peer-urls", "unix://peer:0"),
        ],
        check=True,
        capture_output=True,
    )
    return folder


class restored:  # noqa: N801 - reads as a function
    """A client of a throw-away etcd with a snapshot."""

    def __init__(self, snapshot, folder):
        self.member = serving(data_dir(snapshot, folder), find_etcd(least=(3, 5, 0)), Report())

    def __enter__(self):
        self.client = Client(self.member.__enter__().access)
        return self.client

    def __exit__(self, *error):
        self.client.close()
        return self.member.__exit__(*error)


def test_promise_8_changes_that_were_recorded_give_the_bytes_of_a_later_snapshot(tmp_path):
    with Etcd.start(tmp_path / "etcd", tls=None) as etcd:
        history = live(etcd, tmp_path, seed=7, segments=2, steps=60)
        # Nothing was compacted since the second snapshot.
        player = Player(etcd, seed=8)
        player.play(60)
        with Client(etcd.access) as client:
            last = elements(
                client, int.from_bytes(history.log[-1][0][:8], "big") + 1, player.revision
            )
        history.log += last
        etcd.ctl("snapshot", "save", str(tmp_path / "end"))
    make(history, history.bases[1], target := tmp_path / "target", player.revision)
    assert deltas.elements_of(target) == deltas.elements_of(tmp_path / "end")


@pytest.fixture(scope="module")
def expired(tmp_path_factory):
    """A snapshot from after a lease has ended, and the revision at which its key was there."""
    folder = tmp_path_factory.mktemp("leases")
    with Etcd.start(folder / "etcd", tls=None) as etcd, Client(etcd.access) as client:
        lease = client.lease_grant(3600).id
        revision = client.put(b"leased", b"value", lease=lease)
        etcd.ctl("lease", "revoke", f"{lease:x}")
        client.put(b"later", b"")
        etcd.ctl("snapshot", "save", str(folder / "snapshot"))
    return folder / "snapshot", revision, lease


def test_a_key_whose_lease_has_ended_since_expires_again(tmp_path, expired):
    source, revision, lease = expired
    with Snapshot.open(source) as base, new_file(tmp_path / "made") as out:
        assert export(base, out, past=look_back(base, revision, lost_lease_ttl=7)).leases_added == 1
    with restored(tmp_path / "made", tmp_path / "data") as client:
        assert client.lease_ttl(lease, keys=True).keys == (b"leased",)
        assert client.lease_ttl(lease).granted_ttl == 7
        # Without an entry for the lease this ends the member, see below.
        client.put(b"leased", b"changed", ignore_lease=True)
        (pair,) = client.range(b"leased").kvs
        assert (pair.value, pair.lease) == (b"changed", lease)


def test_without_the_entry_one_put_would_end_the_member(tmp_path, expired):
    source, revision, _ = expired
    with Snapshot.open(source) as base, new_file(tmp_path / "made") as out:
        export(base, out, past=replace(look_back(base, revision), leases=()))
    folder = tmp_path / "data"
    folder.mkdir()
    etcd = Etcd._new(
        folder, "default", tls=None, binary=None, flags=(), peers="default=unix://default:0"
    )
    subprocess.run(
        [
            *(needs.binary("etcdutl"), "snapshot", "restore", tmp_path / "made"),
            *("--data-dir", etcd.data_dir, "--name", "default"),
            *("--initial-cluster", "default=unix://default:0"),
            *("--initial-advertise-peer-urls", "unix://default:0"),
        ],
        check=True,
        capture_output=True,
    )
    try:
        etcd.launch()
        with Client(etcd.access) as client, pytest.raises(EtcdError):
            client.put(b"leased", b"changed", ignore_lease=True)
        etcd._keeper.wait(30)
        assert "panic" in etcd.log.read_text(errors="replace")
    finally:
        etcd.kill()
