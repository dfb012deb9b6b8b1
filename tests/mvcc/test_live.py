"""The keys at a revision: all of them, some, and single ones, against dumps and live servers."""

import base64
import hashlib
from random import Random

import pytest

from backstay.errors import UsageError
from backstay.mvcc.keyvalue import KeyValue
from backstay.mvcc.live import count_live, find_live, sample_live
from backstay.mvcc.snapshot import Snapshot
from kit import fixtures
from kit.etcd import Etcd
from kit.gateway import Gateway
from kit.snapfile import Change, bump, delete, put, snapshot


def line(value: KeyValue) -> bytes:
    """A pair as the dumps have it."""
    return b"%b %d %d %d %d %b" % (
        base64.b64encode(value.key),
        value.create_revision,
        value.mod_revision,
        value.version,
        value.lease,
        hashlib.sha256(value.value).hexdigest().encode(),
    )


def sha(lines) -> str:
    return hashlib.sha256(b"".join(one + b"\n" for one in lines)).hexdigest()


@pytest.mark.parametrize("name", [*fixtures.NAMES, "valid"])
def test_all_keys_at_all_dumped_revisions(tmp_path, name):
    """Of some dumps the lines are here, of all of them the checksum."""
    with Snapshot.open(fixtures.write(name, tmp_path)) as file:
        for dump in fixtures.facts(name)["dumps"]:
            revision = dump["revision"]
            assert count_live(file, revision) == dump["keys"]
            found = sample_live(file, revision, 10_000)
            assert sha(map(line, found)) == dump["sha256"]
            assert fixtures.dumps(name).get(revision) in (None, list(map(line, found)))


def test_dumps_are_there():
    assert len(fixtures.dumps("valid")) == 4


def test_samples_are_some_of_all(tmp_path):
    with Snapshot.open(fixtures.write("etcd36-plain", tmp_path)) as file:
        everything = sample_live(file, number=10_000)
        some = sample_live(file, number=30)
        assert len(some) == 30
        assert set(some) < set(everything)
        assert [one.key for one in some] == sorted(one.key for one in some)
        assert sample_live(file, number=30) == some
        assert sample_live(file, number=30, seed=1) != some
        assert sample_live(file, number=0) == ()


def test_every_key_can_be_chosen(tmp_path):
    path = tmp_path / "s.db"
    path.write_bytes(snapshot([put(n + 2, b"k%d" % n) for n in range(10)]))
    with Snapshot.open(path) as file:
        chosen = {one.key for seed in range(60) for one in sample_live(file, number=2, seed=seed)}
    assert len(chosen) == 10


def test_samples_of_a_busy_history_are_the_last_versions(tmp_path):
    """Most puts have been overwritten: enough must be found among the few that have not."""
    random = Random(1)
    versions = {}
    changes = []
    for main in range(2, 6000):
        key = b"k%d" % random.randrange(40)
        version = versions[key].version + 1 if key in versions else 1
        create = versions[key].create_revision if key in versions else main
        versions[key] = KeyValue(key, create, main, version, b"v%d" % main)
        changes.append(put(main, key, create=create, version=version, value=b"v%d" % main))
    path = tmp_path / "s.db"
    path.write_bytes(snapshot(changes))
    with Snapshot.open(path) as file:
        found = sample_live(file, number=15)
        assert len(found) == 15
        assert all(versions[one.key] == one for one in found)
        assert count_live(file) == 40


def test_single_keys(tmp_path):
    path = tmp_path / "s.db"
    changes = [put(2, b"a", value=b"1"), put(3, b"b"), put(4, b"a", create=2, version=2)]
    changes += [delete(5, b"b"), put(6, b"b", lease=7), delete(7, b"a")]
    path.write_bytes(snapshot(changes))
    with Snapshot.open(path) as file:
        assert find_live(file, [b"a", b"x"], 3) == {b"a": KeyValue(b"a", 2, 2, 1, b"1")}
        assert find_live(file, [b"a", b"b"], 4) == {
            b"a": KeyValue(b"a", 2, 4, 2),
            b"b": KeyValue(b"b", 3, 3, 1),
        }
        assert find_live(file, [b"a", b"b"], 5) == {b"a": KeyValue(b"a", 2, 4, 2)}
        assert find_live(file, [b"a", b"b"]) == {b"b": KeyValue(b"b", 6, 6, 1, lease=7)}
        assert find_live(file, []) == {}


def test_bumps_are_no_keys(tmp_path):
    path = tmp_path / "s.db"
    path.write_bytes(snapshot([put(2, b"a"), bump(1000), put(1001, b"b")], compacted=1000))
    with Snapshot.open(path) as file:
        assert count_live(file, 1000) == 1
        assert count_live(file) == 2
        assert [one.key for one in sample_live(file)] == [b"a", b"b"]
        assert find_live(file, [b""]) == {}


def test_nothing_is_there(tmp_path):
    path = tmp_path / "s.db"
    for changes in ([], [put(2, b"a"), delete(3, b"a")]):
        path.write_bytes(snapshot(changes))
        with Snapshot.open(path) as file:
            assert count_live(file) == 0
            assert sample_live(file) == ()


def test_revisions_outside_of_the_window_are_refused(tmp_path):
    with Snapshot.open(fixtures.write("valid", tmp_path)) as file:
        for revision in (154, 316):
            for ask in (count_live, sample_live):
                with pytest.raises(UsageError, match=f"155 to 315, not {revision}"):
                    ask(file, revision)
            with pytest.raises(UsageError, match="155 to 315"):
                find_live(file, [b"k"], revision)


def mine(file: Snapshot, revision: int):
    return [
        (base64.b64encode(kv.key).decode(), kv.create_revision, kv.mod_revision, kv.version)
        for kv in sample_live(file, revision, 10_000)
    ]


def test_promise_8_any_revision_has_the_keys_that_the_server_has(tmp_path):
    with Etcd.start(tmp_path, tls=None) as etcd:
        gateway = Gateway(etcd)
        gateway.wander(Random(7), 150)
        for compacted in (None, gateway.head // 2):
            if compacted:
                gateway.compact(compacted)
            etcd.ctl("snapshot", "save", str(tmp_path / f"{compacted}.db"))
            with Snapshot.open(tmp_path / f"{compacted}.db") as file:
                for revision in range(compacted or 2, gateway.head + 1, 7):
                    theirs = gateway.live(revision)
                    assert mine(file, revision) == theirs
                    assert count_live(file, revision) == len(theirs)


def test_counts_while_a_compaction_is_half_done(tmp_path):
    with Etcd.start(tmp_path, tls=None) as etcd:
        gateway = Gateway(etcd)
        gateway.wander(Random(8), 80)
        first = gateway.head // 3
        gateway.compact(first)
        etcd.ctl("snapshot", "save", str(tmp_path / "before.db"))
        second = gateway.head - 10
        gateway.compact(second)
        etcd.ctl("snapshot", "save", str(tmp_path / "after.db"))
        with Snapshot.open(tmp_path / "before.db") as file:
            elements = list(file.bucket(b"key").items())
        with Snapshot.open(tmp_path / "after.db") as file:
            kept = dict(file.bucket(b"key").items())
        for share in (0, 0.5, 1):
            rest = [
                Change(*element)
                for place, element in enumerate(elements)
                if element[0] in kept or place >= len(elements) * share
            ]
            path = tmp_path / "half.db"
            path.write_bytes(snapshot(rest, compacted=first, scheduled=second))
            with Snapshot.open(path) as file:
                for revision in (second, second + 3, gateway.head):
                    theirs = gateway.live(revision)
                    assert count_live(file, revision) == len(theirs)
                    assert mine(file, revision) == theirs
