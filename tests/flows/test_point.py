"""Which backup and deltas make a point, and what a time means: pure decisions."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.flows.point import Base, Gap, Moment, Plan, around, chain, moment, moment_of, plan
from backstay.mvcc.delta import Mark, Position
from backstay.repo.delta import StoredDelta
from backstay.repo.deltaname import DeltaName

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
SECOND = int(NOW.timestamp())


def delta(begin, end, first=0, last=0, digest="0" * 16):
    begin = begin if isinstance(begin, tuple) else (begin, 0)
    end = end if isinstance(end, tuple) else (end, 0)
    name = DeltaName(Position(*begin), Position(*end), first, last, 100, digest)
    return StoredDelta("prod", "a" * 16, name, f"deltas/prod/{name}", 50, NOW)


def spans(deltas):
    return [(one.begin.main, one.end.main) for one in deltas]


BASES = [Base("one", 100, 40), Base("two", 300, 250), Base("three", 500, -1)]


@pytest.mark.parametrize(
    ("revision", "base"),
    [
        (40, "one"),
        (100, "one"),
        (1, "three"),
        (39, "three"),
        (101, "three"),
        (250, "two"),
        (300, "two"),
    ],
)
def test_a_snapshot_is_rewound_where_it_can_be(revision, base):
    found = plan(revision, BASES, [delta(1, 600)])
    assert isinstance(found, Plan)
    assert (found.base.name, found.deltas) == (base, ())
    assert found.reason


def test_recorded_changes_are_added_to_the_last_backup_before():
    bases = [Base("one", 100, 40), Base("two", 300, 290), Base("late", 500, 450)]
    deltas = [delta(50, 150), delta(150, 301), delta(301, 350), delta(350, 420), delta(420, 600)]
    found = plan(400, bases, deltas)
    assert (found.base.name, spans(found.deltas)) == ("two", [(301, 350), (350, 420)])
    found = plan(200, bases, deltas)
    assert (found.base.name, spans(found.deltas)) == ("one", [(50, 150), (150, 301)])
    found = plan(700, bases, deltas)
    assert isinstance(found, Gap)
    assert found.reason.startswith("revisions 600 to 700 are missing: recorded up to revision 599")
    assert "no later backup covers that" in found.reason


def test_a_gap_says_what_is_missing_and_what_is_there():
    bases = [Base("one", 1000, 40), Base("two", 1500, 1400)]
    found = plan(1390, bases, [delta(1001, 1201), delta(1378, 1500)])
    assert found.reason == (
        "revisions 1201 to 1377 are missing: recorded up to revision 1200 after one; the next"
        " backup, two, covers from 1400"
    )
    assert found.do == "ask for revision 1200 or before, or for 1400 or after"
    found = plan(1001, bases, [])
    assert found.reason == (
        "revision 1001 is missing: the last backup before that, one, is at revision 1000; the next"
        " backup, two, covers from 1400"
    )
    found = plan(39, bases, [])
    assert found.reason == "revision 39 is missing: what there is begins with one, at revision 40"


def test_a_transaction_that_ends_in_another_delta_is_not_there_before():
    bases = [Base("one", 10, 5)]
    first, second = delta(11, (15, 7)), delta((15, 7), 20)
    assert isinstance(plan(14, bases, [first]), Plan)
    assert isinstance(plan(15, bases, [first]), Gap)
    assert plan(15, bases, [first, second]).deltas == (first, second)
    assert isinstance(plan(15, bases, [first, delta(15, 20)]), Plan)
    assert isinstance(plan(15, bases, [first, delta(16, 20)]), Gap)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), max_size=12),
    st.integers(1, 40),
    st.integers(1, 45),
)
def test_a_chain_has_no_hole_and_is_found_where_there_is_one(pairs, begin, wanted):
    deltas = sorted((delta(a, a + n) for a, n in pairs), key=lambda one: (one.begin, one.end))
    chosen, reached = chain(Position(begin), Position(wanted), deltas)
    at = Position(begin)
    for one in chosen:
        assert one.begin <= at < one.end
        at = one.end
    assert at == reached
    # Each revision that some delta has is reached, if all before it are.
    there = {main for a, n in pairs for main in range(a, a + n)}
    upto = begin
    while upto in there:
        upto += 1
    assert min(reached.main, wanted) == max(min(upto, wanted), min(begin, wanted))


def mark(revision, seconds):
    return Mark(revision, int((SECOND + seconds) * 1000))


def at(seconds):
    return NOW + timedelta(seconds=seconds)


MARKS = [mark(10, 0), mark(12, 10), mark(12, 60), mark(13, 61.5)]


@pytest.mark.parametrize(
    ("seconds", "revision", "before", "after", "following"),
    [
        (0, 10, 0, 10, 12),
        (9.999, 10, 0, 10, 12),
        (10, 12, 10, 60, 12),
        (59, 12, 10, 60, 12),
        (60, 12, 60, 61.5, 13),
        (61, 12, 60, 61.5, 13),
    ],
)
def test_a_time_means_what_had_come_by_then(seconds, revision, before, after, following):
    found = moment(at(seconds), MARKS)
    assert found == Moment(at(seconds), revision, at(before), at(after), following)


def test_what_a_time_means_is_said():
    assert str(moment(at(61), MARKS)) == (
        "2026-11-20T23:11:01Z is revision 12, recorded 1.000 s before; revision 13 was there"
        " 0.500 s after"
    )
    assert "nothing changed until after that time" in str(moment(at(30), MARKS))


@pytest.mark.parametrize(
    ("seconds", "what"),
    [
        (-1, r"before the first .* \(revision 10\)"),
        (61.5, "after the last"),
        (99, "after the last"),
    ],
)
def test_a_time_that_nobody_recorded_is_refused(seconds, what):
    found = moment(at(seconds), MARKS)
    assert isinstance(found, Gap)
    assert re.search(what, found.reason)
    assert isinstance(moment(at(0), []), Gap)


def test_a_clock_that_went_back_is_told():
    marks = [mark(1, 0), mark(2, 1800), mark(3, 3600), mark(4, 300), mark(5, 2100), mark(6, 9000)]
    found = moment(at(2000), marks)
    assert (found.revision, found.astray) == (4, True)
    assert not moment(at(8000), marks).astray


def test_only_deltas_around_a_time_are_read():
    deltas = [delta(n, n + 1, SECOND + 10 * n, SECOND + 10 * n + 9) for n in range(1, 50)]
    assert spans(around(at(204), deltas)) == [(19, 20), (20, 21), (21, 22)]
    assert spans(around(at(-5), deltas)) == [(1, 2)]
    assert spans(around(at(9000), deltas)) == [(49, 50)]
    assert around(at(0), []) == ()


def test_times_of_no_calendar_are_none_of_ours():
    assert moment_of((1 << 63) - 1).year == 9999
