"""Exports: what comes out byte for byte, what edits change, and what real etcds make of it."""

import contextlib
import hashlib
import json
import subprocess
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.bolt.check import Structure, check, walk
from backstay.bolt.visited import Visited
from backstay.bolt.write import NewBucket, write_file
from backstay.errors import DamagedError, SpaceError, UsageError
from backstay.files import explained, new_file
from backstay.mvcc.content import Content
from backstay.mvcc.examination import examine
from backstay.mvcc.export import Edits, export
from backstay.mvcc.hashkv import compute_hashkv
from backstay.mvcc.revision import element_key
from backstay.mvcc.snapshot import Snapshot, Trailer
from kit import fixtures, needs
from kit.etcd import Etcd

BUMP = 1_000_000_000
BUMPED = Edits(bump=BUMP, mark_compacted=True)
EVERYTHING = Edits(bump=BUMP, mark_compacted=True, drop_alarms=True, disable_auth=True)
SECRET = "the-password-that-was-deleted-" * 40


def exported(source, target, edits=None, progress=lambda _: None):
    with Snapshot.open(source) as snapshot, new_file(target) as out:
        return export(snapshot, out, edits, progress)


def contents(path):
    with Snapshot.open(path) as snapshot:
        return {name: dict(bucket.items()) for name, bucket in snapshot.bolt.buckets()}


def restore(snapshot, folder):
    """What a newcomer does with a snapshot: etcd's own tool, no flags that change it."""
    subprocess.run(
        [
            *(needs.binary("etcdutl"), "snapshot", "restore", snapshot),
            *("--data-dir", folder / "default.etcd", "--name", "default"),
            *("--initial-cluster", "default=unix://default:0"),
            *("--initial-advertise-peer-urls", "unix://default:0"),
        ],
        check=True,
        capture_output=True,
    )
    return folder


@contextlib.contextmanager
def restored(snapshot, folder, binary=None):
    folder.mkdir()
    with Etcd.start(restore(snapshot, folder), tls=None, binary=binary) as etcd:
        yield etcd


def etcdutl_status(path):
    """What etcd's own tool says of a file, after bbolt's own check of it."""
    command = [needs.binary("etcdutl"), "snapshot", "status", path, "-w", "json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def everything(etcd):
    """All live keys with their revisions, versions, leases and values."""
    return etcd.ctl_json("get", "", "--prefix").get("kvs", [])


def put(etcd, key, value):
    """Put, and give the revision at which that was done."""
    return etcd.ctl_json("put", key, value)["header"]["revision"]


@dataclass(frozen=True)
class Used:
    """A snapshot of an etcd with a history, a compaction and deleted secrets.

    Attributes:
        path: the snapshot.
        head: its revision.
        compacted: its compact revision.
        live: what all live keys were.
    """

    path: Path
    head: int
    compacted: int
    live: list[dict]


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    folder = tmp_path_factory.mktemp("used")
    with Etcd.start(folder, tls=None) as etcd:
        for number in range(8):
            etcd.ctl("put", f"/secrets/{number}", f"{SECRET}{number}")
        for number in range(20):
            etcd.ctl("put", f"/kept/{number % 12}", f"value {number}" * 100)
        lease = etcd.ctl("lease", "grant", "36000").split()[1]
        etcd.ctl("put", "/leased", "value", "--lease", lease)
        etcd.ctl("put", "/big", "big" * 5000)
        etcd.ctl("del", "/secrets/", "--prefix")
        compacted = put(etcd, "/middle", "1")
        etcd.ctl("compact", "--physical", str(compacted))
        put(etcd, "/middle", "2")
        head = put(etcd, "/middle", "3")
        etcd.ctl("snapshot", "save", str(folder / "snapshot.db"))
        return Used(folder / "snapshot.db", head, compacted, everything(etcd))


@pytest.fixture(params=["3.5", "3.4"])
def server(request):
    """An etcd to restore into. etcdutl 3.5 makes the data directories of both."""
    return needs.binary("etcd") if request.param == "3.5" else needs.debian("etcd")


def test_promise_2_an_export_is_restored_by_etcds_own_tools(tmp_path, used, server):
    done = exported(used.path, tmp_path / "bumped.db", EVERYTHING)
    assert done.revision == done.compact_revision == used.head + BUMP
    with restored(tmp_path / "bumped.db", tmp_path / "etcd", server) as etcd:
        assert everything(etcd) == used.live
        # Revisions go on above all that a client can have seen.
        assert put(etcd, "/new", "1") == used.head + BUMP + 1
        etcd.ctl("del", "/new")
        assert everything(etcd) == used.live
        # And the empty element survives what etcd does with a file later.
        etcd.ctl("compact", "--physical", str(used.head + BUMP + 2))
        etcd.ctl("defrag")
        etcd.restart()
        assert everything(etcd) == used.live
        assert put(etcd, "/new", "2") == used.head + BUMP + 3


def test_whoever_knows_old_revisions_is_told_that_they_are_compacted(tmp_path, used, server):
    exported(used.path, tmp_path / "bumped.db", BUMPED)
    with restored(tmp_path / "bumped.db", tmp_path / "etcd", server) as etcd:
        for known in (used.compacted + 1, used.head, used.head + 1, used.head + BUMP - 1):
            for ask in ("watch", "get"):
                with pytest.raises(AssertionError, match="has been compacted"):
                    etcd.ctl(ask, "/middle", "--rev", str(known))


def test_without_a_bump_old_revisions_answer(tmp_path, used):
    # What the test above tells from: a restore as it was before there were bumps.
    exported(used.path, tmp_path / "same.db")
    with restored(tmp_path / "same.db", tmp_path / "etcd") as etcd:
        assert everything(etcd) == used.live
        old = etcd.ctl_json("get", "/middle", "--rev", str(used.head - 1))["kvs"][0]
        assert old["mod_revision"] == used.head - 1
        assert put(etcd, "/new", "1") == used.head + 1


def test_a_restored_cluster_is_backed_up_and_restored_again(tmp_path, used):
    exported(used.path, tmp_path / "first.db", BUMPED)
    with restored(tmp_path / "first.db", tmp_path / "one") as etcd:
        put(etcd, "/after", "1")
        live = everything(etcd)
        etcd.ctl("snapshot", "save", str(tmp_path / "second.db"))
    head = used.head + BUMP + 1
    done = exported(tmp_path / "second.db", tmp_path / "third.db", BUMPED)
    assert done.revision == head + BUMP
    with restored(tmp_path / "third.db", tmp_path / "two") as etcd:
        assert everything(etcd) == live
        assert put(etcd, "/after", "2") == head + BUMP + 1


def with_free_page(path, secret):
    """A snapshot's bytes, with a secret in a page that nothing reaches, and a trailer that fits."""
    with Snapshot.open(path) as snapshot:
        visited = Visited(snapshot.bolt.image)
        assert all(walk(snapshot.bolt, visited))
        free = visited.seen.index(0, 2)
        place = free * snapshot.bolt.page_size + 100
        data = bytearray(path.read_bytes()[: snapshot.size])
    data[place : place + len(secret)] = secret
    return bytes(data) + hashlib.sha256(data).digest()


def test_deleted_secrets_are_gone_from_an_edited_export(tmp_path, used):
    source = tmp_path / "source.db"
    # Where etcd leaves what was deleted is a matter of its timing: here it is in a free page.
    source.write_bytes(with_free_page(used.path, SECRET.encode()[:1000]))
    assert SECRET[:40].encode() in source.read_bytes()
    exported(source, tmp_path / "bumped.db", BUMPED)
    data = (tmp_path / "bumped.db").read_bytes()
    assert SECRET[:40].encode() not in data
    assert b"value 19" in data


def test_a_fresh_etcd_without_any_key(tmp_path, server):
    with Etcd.start(tmp_path / "fresh", tls=None) as etcd:
        etcd.ctl("snapshot", "save", str(tmp_path / "fresh.db"))
    with Snapshot.open(tmp_path / "fresh.db") as snapshot:
        assert snapshot.last_element_revision == 0
        assert snapshot.bucket(b"key").inline
    done = exported(tmp_path / "fresh.db", tmp_path / "bumped.db", BUMPED)
    assert done.revision == 1 + BUMP
    with restored(tmp_path / "bumped.db", tmp_path / "etcd", server) as etcd:
        assert everything(etcd) == []
        assert put(etcd, "/a", "1") == BUMP + 2


def test_the_true_revision_counts_where_a_compaction_removed_the_last_element(tmp_path):
    with Etcd.start(tmp_path / "source", tls=None) as etcd:
        put(etcd, "a", "1")
        put(etcd, "b", "1")
        etcd.ctl("del", "b")
        etcd.ctl("compact", "--physical", "4")
        etcd.ctl("snapshot", "save", str(tmp_path / "source.db"))
    with Snapshot.open(tmp_path / "source.db") as snapshot:
        assert (snapshot.last_element_revision, snapshot.revision) == (2, 4)
    done = exported(tmp_path / "source.db", tmp_path / "bumped.db", BUMPED)
    assert done.revision == 4 + BUMP
    with restored(tmp_path / "bumped.db", tmp_path / "etcd") as etcd:
        assert put(etcd, "c", "1") == 4 + BUMP + 1


@pytest.mark.parametrize("name", fixtures.NAMES)
def test_without_edits_every_byte_comes_out(tmp_path, name):
    source = fixtures.write(name, tmp_path)
    done = exported(source, tmp_path / "same.db")
    assert (tmp_path / "same.db").read_bytes() == source.read_bytes()
    facts = fixtures.facts(name)
    assert (done.revision, done.compact_revision) == (facts["revision"], facts["compact_revision"])
    assert done.size == facts["db_size"]
    assert done.sha256 == source.read_bytes()[-32:].hex()
    assert done.source_trailer is Trailer.MATCHES


@pytest.mark.parametrize("name", fixtures.NAMES)
def test_all_versions_of_etcd_are_bumped(tmp_path, name):
    source = fixtures.write(name, tmp_path)
    done = exported(source, tmp_path / "bumped.db", EVERYTHING)
    revision = fixtures.facts(name)["revision"] + BUMP
    assert done.revision == done.compact_revision == revision
    before, after = contents(source), contents(tmp_path / "bumped.db")
    before[b"key"][element_key(revision, 0)] = b""
    before[b"meta"][b"scheduledCompactRev"] = element_key(revision, 0)
    before[b"alarm"] = {}
    before[b"auth"][b"authEnabled"] = b"\0"
    assert after == before
    with Snapshot.open(tmp_path / "bumped.db") as snapshot:
        assert (snapshot.revision, snapshot.compact_revision) == (revision, revision)
        found = examine(snapshot)
    assert found.trailer is Trailer.MATCHES
    assert found.sha256.hex() == done.sha256
    assert isinstance(found.structure, Structure)
    assert isinstance(found.content, Content)
    assert (found.content.bumps, found.content.elements) == (1, len(after[b"key"]))
    assert etcdutl_status(tmp_path / "bumped.db") == {
        "hash": found.status.hash,
        "revision": revision,
        "totalKey": sum(map(len, after.values())),
        "totalSize": done.size - 32,
    }


@pytest.mark.parametrize("name", ["etcd3516-alarm", "etcd3530-auth"])
def test_edits_without_a_bump_leave_the_history_as_it_was(tmp_path, name):
    source = fixtures.write(name, tmp_path)
    exported(source, tmp_path / "exact.db", Edits(drop_alarms=True, disable_auth=True))
    with Snapshot.open(tmp_path / "exact.db") as snapshot:
        for said in fixtures.facts(name)["hashkv"]:
            found = compute_hashkv(
                snapshot, revision=said["revision"], compact_revision=said["compact_revision"]
            )
            assert found.hash == said["hash"]
        assert list(snapshot.alarms()) == []
        assert not snapshot.auth_enabled


def test_a_restored_cluster_with_a_dropped_alarm_takes_writes(tmp_path):
    source = fixtures.write("etcd3516-alarm", tmp_path)
    with restored(source, tmp_path / "plain") as etcd:
        with pytest.raises(AssertionError, match="space exceeded"):
            put(etcd, "/new", "1")
        live = everything(etcd)
    exported(source, tmp_path / "open.db", Edits(drop_alarms=True))
    with restored(tmp_path / "open.db", tmp_path / "edited") as etcd:
        assert everything(etcd) == live
        assert put(etcd, "/new", "1") == fixtures.facts("etcd3516-alarm")["revision"] + 1
        assert etcd.ctl("alarm", "list") == ""


def test_a_restored_cluster_with_auth_disabled_asks_for_no_password(tmp_path, server):
    source = fixtures.write("etcd3530-auth", tmp_path)
    facts = fixtures.facts("etcd3530-auth")
    with (
        restored(source, tmp_path / "plain", server) as etcd,
        pytest.raises(AssertionError, match="user name is empty"),
    ):
        everything(etcd)
    exported(source, tmp_path / "open.db", Edits(disable_auth=True))
    with restored(tmp_path / "open.db", tmp_path / "edited", server) as etcd:
        assert len(everything(etcd)) == facts["dumps"][-1]["keys"]
        put(etcd, "/new", "1")
        assert etcd.ctl("user", "list").split() == sorted(facts["auth"]["users"])
        etcd.ctl("auth", "enable")
        etcd.user = ("root", facts["auth"]["test_passwords"]["root"])
        assert len(everything(etcd)) == facts["dumps"][-1]["keys"] + 1


REFUSED = [name for name in fixtures.DAMAGED if fixtures.facts(name).get("verdict") == "refuse"]


@pytest.mark.parametrize("edits", [None, EVERYTHING], ids=["same", "edited"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_damaged_source_gives_no_file(tmp_path, name, edits):
    source = fixtures.write(name, tmp_path)
    with pytest.raises(DamagedError) as caught:
        exported(source, tmp_path / "target.db", edits)
    assert str(source) in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]


def test_a_source_with_one_broken_meta_comes_out_whole(tmp_path):
    source = fixtures.write("bad-meta0", tmp_path)
    exported(source, tmp_path / "whole.db", Edits(drop_alarms=True))
    with Snapshot.open(tmp_path / "whole.db") as snapshot:
        assert snapshot.bolt.warnings == ()
    assert contents(tmp_path / "whole.db") == contents(fixtures.write("valid", tmp_path))


def test_a_source_without_a_sum_gets_one_and_that_is_said(tmp_path):
    source = fixtures.write("no-trailer", tmp_path)
    done = exported(source, tmp_path / "same.db")
    assert done.source_trailer is Trailer.ABSENT
    data = source.read_bytes()
    assert (tmp_path / "same.db").read_bytes() == data + hashlib.sha256(data).digest()
    done = exported(source, tmp_path / "bumped.db", BUMPED)
    assert done.source_trailer is Trailer.ABSENT
    with Snapshot.open(tmp_path / "bumped.db") as snapshot:
        assert snapshot.check_trailer() is Trailer.MATCHES
        # etcd allocates ahead; of that nothing is kept.
        assert snapshot.size < len(data)


@given(at=st.integers(0, len(fixtures.data("valid")) - 1), bit=st.integers(0, 7))
@pytest.mark.parametrize("edits", [None, EVERYTHING], ids=["same", "edited"])
def test_any_flipped_bit_is_refused(tmp_path, edits, at, bit):
    data = bytearray(fixtures.data("valid"))
    data[at] ^= 1 << bit
    (tmp_path / "flipped.db").write_bytes(data)
    with pytest.raises(DamagedError):
        exported(tmp_path / "flipped.db", tmp_path / "target.db", edits)
    assert not (tmp_path / "target.db").exists()


@given(flips=st.lists(st.tuples(st.integers(0), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits_that_no_sum_shows_never_break_the_structure(tmp_path, flips):
    data = bytearray(fixtures.data("valid")[:-32])
    for at, bit in flips:
        data[at % len(data)] ^= 1 << bit
    source, target = tmp_path / "flipped.db", tmp_path / "target.db"
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    with contextlib.suppress(DamagedError):
        exported(source, target, EVERYTHING)
        with Snapshot.open(target) as snapshot:
            check(snapshot.bolt)
            assert snapshot.bolt.warnings == ()
        return
    assert not target.exists()


def synthetic(path, elements, page_size=4096, auth=()):
    """A snapshot made by our own writer; page sizes that no etcd here has."""
    buckets = {b"alarm": [], b"auth": auth, b"key": elements, b"meta": []}
    with path.open("w+b") as out:
        write_file(
            out,
            [NewBucket(name, each) for name, each in sorted(buckets.items())],
            page_size=page_size,
        )
        out.seek(0)
        digest = hashlib.file_digest(out, "sha256").digest()
        out.seek(0, 2)
        out.write(digest)
    return path


def history(count, size=100):
    return [(element_key(number, 0), bytes([number % 251]) * size) for number in range(2, count)]


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 16384, 65536])
@pytest.mark.parametrize(
    "elements",
    [
        [],
        history(3),
        history(20),
        history(5000),
        history(6, 500_000),
        [*history(5000), (element_key(5000, 0), b"v" * 70_000)],
        [*history(5000), (element_key(5000, 0, tombstone=True), b"v")],
    ],
    ids=["empty", "one", "leaf", "tree", "large", "large-edge", "tombstone-edge"],
)
def test_the_bump_element_comes_last_whatever_the_tree(tmp_path, elements, page_size):
    source = synthetic(tmp_path / "source.db", elements, page_size)
    done = exported(source, tmp_path / "bumped.db", Edits(bump=7, mark_compacted=True))
    old = max(1, *(int.from_bytes(key[:8], "big") for key, _ in elements), 1)
    new = element_key(old + 7, 0)
    assert done.revision == old + 7
    expected = {**dict(elements), new: b""}
    after = contents(tmp_path / "bumped.db")
    assert after[b"key"] == expected
    assert after[b"meta"] == {b"scheduledCompactRev": new}
    with Snapshot.open(tmp_path / "bumped.db") as snapshot:
        assert snapshot.check_trailer() is Trailer.MATCHES
        assert snapshot.sha256().hex() == done.sha256
        assert snapshot.bolt.bucket(b"key").last() == (new, b"")
    said = etcdutl_status(tmp_path / "bumped.db")
    assert (said["revision"], said["totalKey"]) == (old + 7, len(expected) + 1)
    assert said["totalSize"] == done.size - 32


@pytest.mark.parametrize("edits", [None, EVERYTHING], ids=["same", "edited"])
def test_the_sum_of_the_source_covers_what_lies_behind_its_pages(tmp_path, edits):
    database = synthetic(tmp_path / "source.db", history(50)).read_bytes()[:-32]
    database += bytes(4 << 20)
    whole = database + hashlib.sha256(database).digest()
    (tmp_path / "ahead.db").write_bytes(whole)
    done = exported(tmp_path / "ahead.db", tmp_path / "target.db", edits)
    assert done.source_trailer is Trailer.MATCHES
    assert (done.size == len(whole)) is (edits is None)
    (tmp_path / "ahead.db").write_bytes(whole[:-40] + b"1" + whole[-39:])
    with pytest.raises(DamagedError, match="SHA-256"):
        exported(tmp_path / "ahead.db", tmp_path / "other.db", edits)


@pytest.mark.parametrize("value", [None, 0, 1])
def test_auth_comes_out_disabled_and_nothing_else_of_it_changes(tmp_path, value):
    before = {b"aaa": b"1", b"authRevision": b"12345678", b"zzz": b"2"}
    if value is not None:
        before[b"authEnabled"] = bytes([value])
    source = synthetic(tmp_path / "source.db", history(9), auth=sorted(before.items()))
    exported(source, tmp_path / "open.db", Edits(disable_auth=True))
    after = contents(tmp_path / "open.db")
    assert after[b"auth"] == {**before, b"authEnabled": b"\0"}
    assert after[b"key"] == dict(history(9))


@pytest.mark.parametrize(
    "edits",
    [
        Edits(bump=-1, mark_compacted=True),
        Edits(bump=5),
        Edits(mark_compacted=True),
        Edits(bump=1 << 63, mark_compacted=True),
        Edits(bump=(1 << 63) - 1 - 7, mark_compacted=True),
    ],
)
def test_bumps_that_make_no_sense_are_refused(tmp_path, edits):
    source = synthetic(tmp_path / "source.db", history(9))
    with pytest.raises(UsageError):
        exported(source, tmp_path / "target.db", edits)
    assert not (tmp_path / "target.db").exists()


def test_the_largest_revision_is_still_written(tmp_path):
    source = synthetic(tmp_path / "source.db", history(9))
    edits = Edits(bump=(1 << 63) - 1 - 8, mark_compacted=True)
    assert exported(source, tmp_path / "target.db", edits).revision == (1 << 63) - 1
    with Snapshot.open(tmp_path / "target.db") as snapshot:
        assert snapshot.revision == (1 << 63) - 1


@pytest.mark.parametrize("edits", [None, EVERYTHING])
def test_progress_counts_what_is_written(tmp_path, used, edits):
    steps = []
    done = exported(used.path, tmp_path / "target.db", edits, steps.append)
    assert sum(steps) == done.size - 32 == (tmp_path / "target.db").stat().st_size - 32


@pytest.mark.parametrize("edits", [None, EVERYTHING])
def test_a_full_disk_is_said(edits, used):
    with Snapshot.open(used.path) as snapshot, Path("/dev/full").open("wb", buffering=0) as full:
        with pytest.raises(OSError, match="No space left"):
            export(snapshot, full, edits)
        with pytest.raises(SpaceError), explained(Path("target.db")):
            export(snapshot, full, edits)


@pytest.mark.parametrize("edits", [None, EVERYTHING])
def test_memory_does_not_grow_with_the_file(tmp_path, edits):
    peaks = []
    for count in (200, 800):
        source = synthetic(tmp_path / f"{count}.db", history(count, 100_000))
        with Snapshot.open(source) as snapshot, Path("/dev/null").open("wb") as out:
            tracemalloc.start()
            export(snapshot, out, edits)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert max(peaks) < 16 << 20
    assert peaks[1] - peaks[0] < 1 << 20
