"""Which deltas stay: promise 7, held over random chains of backups and of what was recorded."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.flows.point import Base, Plan, plan
from backstay.mvcc.delta import Position
from backstay.repo.chain import Standing, judge, ranges
from backstay.repo.delta import StoredDelta
from backstay.repo.deltaname import DeltaName, deltas_of
from backstay.repo.leftovers import SAFE_AGE
from kit.deltas import LINEAGE

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def delta(begin, end, *, ago=DAY * 40, number=0):
    """A delta of revisions `begin` to before `end`, or of positions."""
    first, last = (Position(*at) if isinstance(at, tuple) else Position(at) for at in (begin, end))
    name = DeltaName(first, last, first.main, last.main, 100, f"{number:016x}")
    path = f"{deltas_of('prod', LINEAGE)}{name}.zst"
    return StoredDelta("prod", LINEAGE, name, path, 10, NOW - ago)


def standing(revision, *, verified=True, failed=False):
    return Standing(id=f"prod/r{revision}", revision=revision, verified=verified, failed=failed)


def chain_of(*ends, ago=DAY * 40, begin=11):
    """Deltas one after the other, one day younger each."""
    found = []
    for number, end in enumerate(ends):
        found.append(delta(begin, end, ago=ago - DAY * number, number=number))
        begin = end
    return found


def kept(deltas, bases, **more):
    return [one.delta for one in judge(deltas, bases, NOW, **more) if one.keep]


def reasons(deltas, bases, index, **more):
    return "; ".join(judge(deltas, bases, NOW, **more)[index].reasons)


# One after the other.


def test_all_stays_from_the_oldest_backup_on():
    deltas = chain_of(20, 30, 40, 50)
    assert kept(deltas, [standing(10), standing(35)]) == deltas
    assert kept(deltas, [standing(35)]) == deltas[2:]
    assert reasons(deltas, [standing(35)], 0) == "ends before prod/r35, the oldest of its lineage"
    assert reasons(deltas, [standing(35)], 2) == "goes on from prod/r35, the oldest of its lineage"


def test_one_that_ends_where_the_backup_does_stays_for_its_times():
    deltas = [delta(11, 20), delta(20, 30), delta(30, 30), delta(30, 40)]
    assert kept(deltas, [standing(29)]) == deltas[1:]


def test_half_a_transaction_counts_as_what_it_is():
    deltas = [delta(11, (29, 5)), delta((29, 5), 40)]
    assert kept(deltas, [standing(29)]) == deltas[1:]
    assert kept(deltas, [standing(28)]) == deltas


def test_where_no_backup_stays_all_goes_that_is_old():
    deltas = [*chain_of(20, 30), delta(30, 40, ago=HOUR)]
    assert kept(deltas, []) == deltas[2:]
    assert reasons(deltas, [], 0) == "no backup of its lineage stays"
    assert kept(deltas[:2], []) == []


def test_promise_7_the_last_of_a_lineage_stays():
    deltas = chain_of(20, 30)
    assert kept(deltas, [standing(90)]) == deltas[1:]
    assert "a recorder goes on from there" in reasons(deltas, [standing(90)], 1)


def test_promise_7_what_is_young_or_of_an_odd_clock_stays():
    deltas = [
        delta(11, 20, ago=HOUR * 23),
        delta(11, 20, ago=-DAY * 900, number=1),
        delta(11, 20, ago=HOUR * 25, number=2),
        delta(20, 30),
    ]
    assert kept(deltas, [standing(90)]) == [deltas[0], deltas[1], deltas[3]]
    assert reasons(deltas, [standing(90)], 0) == "younger than 24 h"
    assert reasons(deltas, [standing(90)], 1) == "its date lies ahead of the store's clock"


def test_promise_7_what_is_locked_or_cannot_be_judged_stays():
    deltas = chain_of(20, 30, 40)
    locked = {deltas[0].path: NOW + DAY}
    assert kept(deltas, [standing(90)], locked=locked) == [deltas[0], deltas[2]]
    assert kept(deltas, [standing(90)], unreadable="x.json makes no sense") == deltas
    assert kept(deltas, [], unreadable="x.json makes no sense") == deltas


def test_what_was_recorded_in_some_days_stays_and_what_leads_to_it():
    deltas = chain_of(20, 30, 40, 50, 60, 70, ago=DAY * 8)
    bases = [standing(10), standing(35), standing(45)]
    # Of the last four days: from revision 50 on; the backup before that is at 45.
    four = DAY * 4 + HOUR
    assert kept(deltas, bases, recorded=four) == deltas[3:]
    assert reasons(deltas, bases, 0, recorded=four) == "recorded more than 97 h ago"
    assert reasons(deltas, bases, 3, recorded=four) == (
        "prod/r45 and all after it make what was recorded in the last 97 h"
    )
    assert kept(deltas, bases[:2], recorded=four) == deltas[2:]
    assert kept(deltas, bases[:1], recorded=four) == deltas
    assert kept(deltas, [standing(65)], recorded=four) == deltas[5:]


def test_promise_7_one_that_is_not_verified_takes_no_place_of_one_that_is():
    deltas = chain_of(20, 30, 40, 50, 60, 70, ago=DAY * 8)
    bases = [standing(10), standing(35), standing(45, verified=False)]
    assert kept(deltas, bases, recorded=DAY * 4 + HOUR) == deltas[2:]
    bases = [standing(35, verified=False), standing(45, verified=False, failed=True)]
    assert kept(deltas, bases, recorded=DAY * 4 + HOUR) == deltas[2:]


def test_where_nothing_was_recorded_lately_the_last_stays():
    deltas = chain_of(20, 30, 40)
    assert kept(deltas, [standing(10)], recorded=DAY) == deltas[2:]


def test_ranges_sum_up_what_has_the_same_fate():
    deltas = chain_of(20, 30, 40, 50)
    first, second = ranges(judge(deltas, [standing(35)], NOW))[:2]
    assert (first.revisions, first.deltas, first.stored_size, first.keep) == (
        (11, 29),
        2,
        20,
        False,
    )
    assert (second.revisions, second.keep) == ((30, 39), True)
    assert (first.first, first.last) == (11, 30)
    [idle] = ranges(judge([delta(30, 30)], [], NOW))
    assert idle.revisions == (29, 29)
    assert ranges(()) == ()


# Any chain.

few = settings(max_examples=40)


@st.composite
def chains(draw):
    """Deltas of a lineage with holes and overlaps, and backups beside them."""
    deltas, at, ago = [], draw(st.integers(2, 6)), DAY * 60
    for number in range(draw(st.integers(1, 14))):
        begin = max(1, at + draw(st.sampled_from([0, 0, 0, 0, -2, 3])))
        length = draw(st.integers(0, 5))
        ago = max(ago - HOUR * draw(st.integers(0, 240)), timedelta())
        odd = draw(st.sampled_from([timedelta()] * 9 + [-DAY * 300, DAY * 300]))
        deltas.append(delta(begin, begin + length, ago=ago + odd, number=number))
        at = begin + length
    bases = [
        standing(
            revision,
            verified=(state := draw(st.sampled_from("vvuf"))) == "v",
            failed=state == "f",
        )
        for revision in draw(st.sets(st.integers(1, 60), max_size=5))
    ]
    return sorted(deltas, key=lambda one: one.name), bases


RECORDED = st.one_of(st.none(), st.integers(1, 24 * 70).map(lambda hours: HOUR * hours))


def restorable(deltas, bases):
    """Every revision that a plan is found for, from these backups."""
    points = [Base(one.id, one.revision, one.revision) for one in bases]
    return {n for n in range(1, 80) if points and isinstance(plan(n, points, deltas), Plan)}


def window(deltas, bases, recorded):
    """The revisions that were recorded in the time that is kept."""
    if recorded is None:
        return set(range(1, 80))
    oldest = min((one.after for one in bases), default=Position(0))
    inside = [one.begin for one in deltas if one.modified >= NOW - recorded and one.end >= oldest]
    return set(range(min(inside).main, 80)) if inside else set()


@few
@given(chains(), RECORDED)
def test_promise_7_whatever_could_be_restored_in_the_window_still_can(made, recorded):
    deltas, bases = made
    stays = kept(deltas, bases, recorded=recorded)
    wanted = window(deltas, bases, recorded)
    for some in (bases, [one for one in bases if one.verified]):
        assert restorable(deltas, some) & wanted <= restorable(stays, some)


@few
@given(chains(), RECORDED)
def test_promise_7_what_must_stay_stays(made, recorded):
    deltas, bases = made
    stays = kept(deltas, bases, recorded=recorded)
    for one in deltas:
        if NOW - one.modified < SAFE_AGE:
            assert one in stays
    if bases:
        assert max(deltas, key=lambda one: (one.end, one.name.last)) in stays
    for one in judge(deltas, bases, NOW, recorded=recorded):
        assert all(one.reasons)
        assert one.reasons


@few
@given(chains(), RECORDED, st.data())
def test_promise_7_half_a_prune_is_none_that_goes_too_far(made, recorded, data):
    """And to prune twice removes no more."""
    deltas, bases = made
    stays = kept(deltas, bases, recorded=recorded)
    going = [one for one in deltas if one not in stays]
    gone = data.draw(st.sets(st.sampled_from(going))) if going else set()
    assert kept([one for one in deltas if one not in gone], bases, recorded=recorded) == stays
    assert kept(stays, bases, recorded=recorded) == stays


@few
@given(chains(), st.integers(1, 1000), st.integers(1, 1000))
def test_promise_7_keeping_longer_never_removes_more(made, hours, more):
    deltas, bases = made
    some = kept(deltas, bases, recorded=HOUR * hours)
    longer = kept(deltas, bases, recorded=HOUR * (hours + more))
    assert set(some) <= set(longer) <= set(kept(deltas, bases))


@few
@given(chains(), RECORDED)
def test_ranges_leave_nothing_out(made, recorded):
    deltas, bases = made
    found = ranges(judge(deltas, bases, NOW, recorded=recorded))
    assert sum(one.deltas for one in found) == len(deltas)
    stays = kept(deltas, bases, recorded=recorded)
    assert sum(one.deltas for one in found if one.keep) == len(stays)


@pytest.mark.soak
@settings(max_examples=3_000)
@given(chains(), RECORDED)
def test_promise_7_over_many_more_chains(made, recorded):
    deltas, bases = made
    stays = kept(deltas, bases, recorded=recorded)
    wanted = window(deltas, bases, recorded)
    assert restorable(deltas, bases) & wanted <= restorable(stays, bases)
    assert kept(stays, bases, recorded=recorded) == stays
