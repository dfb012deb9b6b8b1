"""Snapshots at other revisions: against what real etcds said of them then."""

import base64
import hashlib
import random
from contextlib import contextmanager

import pytest

from backstay.bolt import patch as patch_module
from backstay.bolt import sweep
from backstay.bolt.check import check
from backstay.errors import DamagedError, GapError, UsageError
from backstay.files import new_file
from backstay.mvcc.delta import Position
from backstay.mvcc.deltawriter import DeltaWriter, Origin
from backstay.mvcc.examination import examine
from backstay.mvcc.export import Edits, export
from backstay.mvcc.hashkv import compute_hashkv
from backstay.mvcc.history import look_back
from backstay.mvcc.keyvalue import parse_keyvalue
from backstay.mvcc.recorded import Recorded
from backstay.mvcc.revision import element_key, parse_revision
from backstay.mvcc.snapshot import Snapshot, Trailer
from kit import deltas, fixtures
from kit.deltas import ORIGIN
from kit.snapfile import delete, keyvalue, put, snapshot

BUMPED = Edits(bump=1_000_000_000, mark_compacted=True, drop_alarms=True)
REAL = ["etcd34-plain", "etcd3516-plain", "etcd3530-plain", "kube-aescbc"]


@pytest.fixture(autouse=True, params=["page by page", "many pages at a time"])
def way(request, monkeypatch):
    """Small files go both ways."""
    monkeypatch.setattr(patch_module, "BLOCK_SIZE", 1 << 17)
    if request.param != "page by page":
        monkeypatch.setattr(sweep, "_BULK_BYTES", 0)


@contextmanager
def recorded(base, written, revision):
    """Deltas after a snapshot, one after the other in a mapped file."""
    data = b"".join(part for one in written for part in one.parts)
    view = deltas.mapped(data)
    found, at = [], 0
    for number, one in enumerate(written):
        found.append(deltas.read_delta(view, at, one.size, f"delta {number}"))
        at += one.size
    yield Recorded(base, view, found, revision)


def at_revision(source, target, revision, written=(), edits=None, **options):
    """Write a snapshot at another revision."""
    target.unlink(missing_ok=True)
    with Snapshot.open(source) as base, new_file(target) as out:
        if not written:
            return export(base, out, edits, past=look_back(base, revision, **options))
        with recorded(base, written, revision) as changes:
            past = look_back(base, revision, changes, **options)
            return export(base, out, edits, past=past)


def buckets(path):
    with Snapshot.open(path) as opened:
        return {name: list(bucket.items()) for name, bucket in opened.bolt.buckets()}


def whole(path):
    """Look at all of a file that was written: all must be as if etcd had written it."""
    with Snapshot.open(path) as opened:
        found = examine(opened)
        check(opened.bolt)
    assert found.trailer is Trailer.MATCHES
    assert not isinstance(found.structure, DamagedError)
    assert not isinstance(found.content, DamagedError)
    return found


def dump(path):
    """The keys that are there, in the form of the fixtures."""
    there = {}
    for key, value in deltas.elements_of(path):
        pair = parse_keyvalue(value)
        there.pop(pair.key, None)
        if not parse_revision(key).tombstone:
            there[pair.key] = pair
    return [
        b"%s %d %d %d %d %s"
        % (
            base64.b64encode(pair.key),
            pair.create_revision,
            pair.mod_revision,
            pair.version,
            pair.lease,
            hashlib.sha256(pair.value).hexdigest().encode(),
        )
        for _, pair in sorted(there.items())
    ]


def events(path, after):
    """The changes after a revision, in the form of the fixtures."""
    found = []
    later = [pair for pair in deltas.elements_of(path) if pair[0] >= element_key(after + 1, 0)]
    for key, value in later:
        revision, pair = parse_revision(key), parse_keyvalue(value)
        name = base64.b64encode(pair.key)
        if revision.tombstone:
            found.append(b"%d DELETE %s" % (revision.main, name))
            continue
        digest = hashlib.sha256(pair.value).hexdigest().encode()
        numbers = (pair.create_revision, pair.version, pair.lease)
        found.append(b"%d PUT %s %d %d %d %s" % (revision.main, name, *numbers, digest))
    return found


@pytest.mark.parametrize("name", REAL)
def test_promise_8_what_a_real_etcd_had_at_an_older_revision_comes_out(tmp_path, name):
    source, facts = fixtures.write(name, tmp_path), fixtures.facts(name)
    dumps, said = fixtures.dumps(name), fixtures.events(name)
    assert dumps
    compacted = facts["compact_revision"]
    for revision in sorted({*dumps, *(fact["revision"] for fact in facts["hashkv"])}):
        if revision < compacted:
            continue
        target = tmp_path / f"at-{revision}"
        exported = at_revision(source, target, revision)
        assert exported.revision == revision
        assert exported.compact_revision == compacted
        whole(target)
        if revision in dumps:
            assert dump(target) == dumps[revision]
        assert events(target, compacted) == [
            line for line in said if int(line.split()[0]) <= revision
        ]
        for fact in facts["hashkv"]:
            if fact["revision"] == revision:
                with Snapshot.open(target) as opened:
                    assert compute_hashkv(opened).hash == fact["hash"]


@pytest.mark.parametrize("name", REAL)
def test_promise_8_recorded_changes_give_the_very_bytes_that_etcd_stored(tmp_path, name):
    source, facts = fixtures.write(name, tmp_path), fixtures.facts(name)
    choose = random.Random(name)
    elements = deltas.elements_of(source)
    compacted, head = facts["compact_revision"], facts["revision"]
    for _ in range(2):
        start = choose.randint(compacted, head - 1)
        after = element_key(start + 1, 0)
        at_revision(source, base := tmp_path / "base", start)
        written = deltas.chain(elements, start + 1, choose.randint(1, 200))
        for revision in {head, choose.randint(start + 1, head)}:
            exported = at_revision(base, target := tmp_path / "target", revision, written)
            assert exported.revision == revision
            upto = [pair for pair in elements if pair[0] < element_key(revision + 1, 0)]
            assert exported.changes_applied == sum(key >= after for key, _ in upto)
            assert deltas.elements_of(target) == upto
            whole(target)
        others = {name: items for name, items in buckets(source).items() if name != b"key"}
        assert {name: items for name, items in buckets(target).items() if name != b"key"} == others


def test_promise_8_what_was_rewound_is_gone(tmp_path):
    source = tmp_path / "source"
    secret = b"a secret that came too late "
    source.write_bytes(
        snapshot(
            [put(n, b"k%d" % n, value=secret * 50 if n > 50 else b"early") for n in range(2, 99)]
        )
    )
    at_revision(source, target := tmp_path / "target", 50)
    assert secret not in target.read_bytes()
    assert len(deltas.elements_of(target)) == 49


def test_a_rewound_snapshot_can_be_bumped_in_the_same_pass(tmp_path):
    name = "etcd3516-plain"
    source = fixtures.write(name, tmp_path)
    elements = deltas.elements_of(source)
    exported = at_revision(source, target := tmp_path / "target", 2600, edits=BUMPED)
    assert exported.revision == exported.compact_revision == 1_000_002_600
    kept = [pair for pair in elements if parse_revision(pair[0]).main <= 2600]
    assert deltas.elements_of(target) == [*kept, (element_key(1_000_002_600, 0), b"")]
    at_revision(source, base := tmp_path / "base", 2700)
    written = deltas.chain(elements, 2701, 40)
    exported = at_revision(base, again := tmp_path / "again", 2800, written, BUMPED)
    kept = [pair for pair in elements if parse_revision(pair[0]).main <= 2800]
    assert deltas.elements_of(again) == [*kept, (element_key(1_000_002_800, 0), b"")]
    with Snapshot.open(again) as opened:
        assert opened.scheduled_compaction == 1_000_002_800


@pytest.mark.parametrize("revision", [-1, 0, 1, 19, 41, 1 << 62])
def test_a_revision_outside_of_the_window_is_refused(tmp_path, revision):
    source = tmp_path / "source"
    source.write_bytes(snapshot([put(n, b"k") for n in range(20, 41)], compacted=20))
    with pytest.raises(UsageError, match="has revisions 20 to 40"):
        at_revision(source, tmp_path / "target", revision)
    assert not (tmp_path / "target").exists()


def test_an_unfinished_compaction_bounds_the_window(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(snapshot([put(n, b"k") for n in range(2, 41)], compacted=5, scheduled=30))
    with pytest.raises(UsageError, match="has revisions 30 to 40"):
        at_revision(source, tmp_path / "target", 29)
    at_revision(source, tmp_path / "target", 30)
    assert len(deltas.elements_of(tmp_path / "target")) == 29


def test_changes_go_on_where_compaction_has_removed_the_last_element(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(snapshot([put(2, b"a")], compacted=4))
    later = [(put(n, b"b").key, put(n, b"b").value) for n in (5, 6)]
    at_revision(source, target := tmp_path / "target", 6, [deltas.written(later, (5,))])
    assert [parse_revision(key).main for key, _ in deltas.elements_of(target)] == [2, 5, 6]


def base_and_log(tmp_path, head=10, last=40):
    """A snapshot at revision 10, and all that came until 40: two changes in each revision."""
    changes = []
    for main in range(2, last + 1):
        changes += put(main, b"a%d" % (main % 7)), put(main, b"b%d" % main, sub=1)
    source = tmp_path / "base"
    source.write_bytes(snapshot([c for c in changes if parse_revision(c.key).main <= head]))
    return source, [(change.key, change.value) for change in changes]


def some(log, begin, end):
    """The changes between two positions."""
    return [(k, v) for k, v in log if tuple(begin) <= parse_revision(k)[:2] < tuple(end)]


def part(log, begin, end, **more):
    begin = (*begin, 0)[:2]
    end = (*end, 0)[:2]
    return deltas.written(some(log, begin, end), begin, whole=end[1] == 0, **more)


OTHER = Origin("prod", deltas.LINEAGE, "w2")


@pytest.mark.parametrize(
    "spans",
    [
        [((11,), (41,))],
        [((2,), (20,)), ((20,), (41,))],
        [((5,), (15,)), ((9,), (25,)), ((12,), (13,)), ((24,), (41,))],
        [((11,), (20, 1)), ((20, 1), (41,))],
        [((11,), (20, 1)), ((20,), (30, 1)), ((25,), (35,)), ((30, 1), (41,))],
        [((11,), (41,)), ((11,), (41,)), ((41,), (41,))],
        [((3,), (4,)), ((11,), (11,)), ((11,), (25,)), ((25,), (41,))],
    ],
)
@pytest.mark.parametrize("block", [1, 200, 1 << 20])
def test_overlapping_deltas_do_no_harm(tmp_path, monkeypatch, spans, block):
    monkeypatch.setattr("backstay.mvcc.deltawriter._BLOCK", block)
    base, log = base_and_log(tmp_path)
    written = [part(log, *span, origin=OTHER if n % 2 else ORIGIN) for n, span in enumerate(spans)]
    for revision in (11, 20, 30, 40):
        at_revision(base, target := tmp_path / "target", revision, written)
        assert deltas.elements_of(target) == some(log, (2, 0), (revision + 1, 0))


@pytest.mark.parametrize(
    ("spans", "missing"),
    [
        ([((12,), (41,))], "11 to 11"),
        ([((11,), (20,)), ((25,), (41,))], "20 to 24"),
        ([((11,), (20, 1)), ((21,), (41,))], "20 to 20"),
        ([((11,), (30,))], "30 to 40"),
        ([((11,), (40, 1))], "40 to 40"),
        ([((3,), (5,))], "11 to 40"),
    ],
)
def test_a_gap_is_named_before_a_byte_is_written(tmp_path, spans, missing):
    base, log = base_and_log(tmp_path)
    written = [part(log, *span) for span in spans]
    with pytest.raises(GapError, match=f"revisions {missing} are missing"):
        at_revision(base, tmp_path / "target", 40, written)
    assert not (tmp_path / "target").exists()


def changed(log, main, sub=0):
    """The log with one value changed."""
    key = element_key(main, sub)
    return [(k, keyvalue(b"other", main, main, 1) if k == key else v) for k, v in log]


@pytest.mark.parametrize("block", [1, 200, 1 << 20])
def test_deltas_that_differ_are_told_by_name(tmp_path, monkeypatch, block):
    monkeypatch.setattr("backstay.mvcc.deltawriter._BLOCK", block)
    base, log = base_and_log(tmp_path)
    for place in ((17, 0), (17, 1), (15, 0), (19, 1)):
        written = [
            part(log, (11,), (20,)),
            part(changed(log, *place), (15,), (41,), origin=OTHER),
        ]
        with pytest.raises(
            DamagedError, match=f"delta 1 and delta 0 differ at revision {place[0]}"
        ):
            at_revision(base, tmp_path / "target", 40, written)


def test_a_delta_of_another_life_is_told_by_the_last_revision_of_the_snapshot(tmp_path):
    base, log = base_and_log(tmp_path)
    for sub in (0, 1):
        with pytest.raises(DamagedError, match=r"delta 0 and .*base differ at revision 10"):
            at_revision(base, tmp_path / "target", 40, [part(changed(log, 10, sub), (9,), (41,))])


def test_a_delta_that_was_replaced_is_told(tmp_path):
    base, log = base_and_log(tmp_path)
    first, second, third = deltas.chain(log, 11, 10)
    assert first.header.number == 0
    at_revision(base, tmp_path / "target", 40, [first, second, third])
    other = part(log, (21,), (31,), number=1, previous="f" * 64)
    with pytest.raises(DamagedError, match="delta 1 was not written after delta 0"):
        at_revision(base, tmp_path / "target", 40, [first, other, third])


class _Loose(DeltaWriter):
    """Writes what no recorder would."""

    def raw(self, key, value, end):
        self._open += (key, value)
        self._sizes.append(len(value) | (len(key) == 18) << 31)
        self.changes += 1
        self.end = Position(*end)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        (element_key(11, 1), keyvalue(b"k", 11, 11, 1), "missing before it"),
        (element_key(12, 0), keyvalue(b"k", 12, 12, 1), "missing before it"),
        (element_key(11, 0), keyvalue(b"k", 10, 10, 1), "of another"),
        (element_key(11, 0), keyvalue(b"k", 12, 11, 1), "can't be"),
        (element_key(11, 0), keyvalue(b"", 11, 11, 1), "no key"),
        (element_key(11, 0), b"", "no value"),
        (element_key(11, 0), b"\x0a\xff", "no KeyValue"),
        (element_key(11, 0, tombstone=True), keyvalue(b"k", 11, 11, 1), "more than a key"),
        (b"x" * 17, keyvalue(b"k", 11, 11, 1), "of no revision"),
        (b"\xff" * 17, keyvalue(b"k", 11, 11, 1), "of no revision"),
    ],
)
def test_what_etcd_can_not_have_written_is_refused(tmp_path, key, value, what):
    base, _ = base_and_log(tmp_path)
    writer = _Loose(ORIGIN, Position(11))
    writer.raw(key, value, (12, 0))
    writer._times.append(deltas.read_mark(11))
    with pytest.raises(DamagedError, match=what):
        at_revision(base, tmp_path / "target", 11, [writer.finish()])


def test_a_delta_that_claims_more_than_it_has_is_refused(tmp_path):
    base, log = base_and_log(tmp_path)
    writer = _Loose(ORIGIN, Position(11))
    for key, value in some(log, (11, 0), (12, 0)):
        writer.raw(key, value, (20, 0))
    writer._times.append(deltas.read_mark(11))
    with pytest.raises(DamagedError, match=r"its changes end before revision 11, change 2"):
        at_revision(base, tmp_path / "target", 11, [writer.finish()])


def lease_entry(number, ttl):
    value = b"\x08" + deltas.varint(number) + b"\x10" + deltas.varint(ttl)
    return {number.to_bytes(8, "big", signed=True): value}


def leases(path):
    with Snapshot.open(path) as opened:
        return {lease.id: lease.ttl for lease in opened.leases()}


def test_leases_of_keys_that_are_there_and_only_these_get_entries(tmp_path):
    source = tmp_path / "source"
    changes = [
        put(2, b"has an entry", lease=1),
        put(3, b"has none", lease=2),
        put(4, b"is deleted", lease=3),
        put(5, b"changes its lease", lease=4),
        put(6, b"loses its lease", lease=5),
        delete(7, b"is deleted"),
        put(8, b"changes its lease", lease=6),
        put(9, b"loses its lease"),
        put(10, b"comes later", lease=7),
        put(11, b"has an odd id", lease=-8),
    ]
    source.write_bytes(snapshot(changes, lease=lease_entry(1, 60)))
    for revision, expected in {
        2: set(),
        3: {2},
        4: {2, 3},
        6: {2, 3, 4, 5},
        7: {2, 4, 5},
        8: {2, 5, 6},
        9: {2, 6},
        11: {2, 6, 7, -8},
    }.items():
        exported = at_revision(source, tmp_path / "target", revision, lost_lease_ttl=77)
        assert exported.leases_added == len(expected)
        assert leases(tmp_path / "target") == {1: 60} | dict.fromkeys(expected, 77)
        whole(tmp_path / "target")


def test_leases_get_the_time_that_was_recorded(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(snapshot([put(2, b"a", lease=9)], lease=lease_entry(9, 60)))
    writer = DeltaWriter(ORIGIN, Position(3))
    for main, lease in ((3, 5), (4, 6), (5, 9)):
        writer.put(main, 0, keyvalue(b"k%d" % main, main, main, 1, lease=lease))
    writer.lease(5, 120)
    writer.mark(5, 1)
    exported = at_revision(source, tmp_path / "target", 5, [writer.finish()])
    assert exported.leases_added == 2
    assert leases(tmp_path / "target") == {5: 120, 6: 3600, 9: 60}


def test_a_snapshot_without_a_lease_bucket_gets_one(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(snapshot([put(2, b"a", lease=9)], lease=None))
    at_revision(source, tmp_path / "target", 2)
    assert leases(tmp_path / "target") == {9: 3600}
