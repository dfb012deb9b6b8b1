"""Which backups stay: promise 7, held over random sets of backups, clocks, pins and policies."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.repo.leftovers import SAFE_AGE
from backstay.repo.retention import RULES, Fact, Policy, decide

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
#: Dates that no clock should have, and that some have had.
ODD = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC))


def fact(number, *, revision=None, ago=None, **more):
    """A verified backup of a day each, of one lineage."""
    return Fact(
        **{
            "id": f"prod/{number:03}",
            "cluster": "prod",
            "lineage": "aaaa",
            "root": more.get("lineage", "aaaa"),
            "revision": number if revision is None else revision,
            "written": NOW - (DAY * (100 - number) if ago is None else ago),
            "verified": not more.get("failed", False),
            "failed": False,
            **more,
        }
    )


def ids(facts):
    return {one.id for one in facts}


def kept(facts, policy, now=NOW, **more):
    return {one.fact.id for one in decide(facts, policy, now, **more) if one.keep}


def reasons(facts, policy, number, **more):
    [one] = [
        one for one in decide(facts, policy, NOW, **more) if one.fact.id == f"prod/{number:03}"
    ]
    return "; ".join(one.reasons)


# One after the other.


def test_last_keeps_the_newest():
    facts = [fact(n) for n in range(1, 10)]
    assert kept(facts, Policy(last=3)) == {"prod/007", "prod/008", "prod/009"}
    assert reasons(facts, Policy(last=3), 8) == "last 2 of 3: among the newest"
    assert reasons(facts, Policy(last=3), 1) == "last: 3 newer are kept"


def test_daily_keeps_the_newest_of_each_day():
    facts = [fact(n, ago=DAY * 3 + HOUR * (30 - n)) for n in range(30)]
    policy = Policy(daily=2)
    assert kept(facts, policy) == {"prod/029", "prod/017"}
    assert "daily 1 of 2: the newest of 2026-11-17" in reasons(facts, policy, 29)
    assert reasons(facts, policy, 28) == "daily: another of 2026-11-17 is kept"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("hourly", ["2026-11-17 06h", "2026-11-17 01h"]),
        ("daily", ["2026-11-17", "2026-11-16"]),
        ("weekly", ["2026-W47", "2026-W46"]),
        ("monthly", ["2026-11", "2026-10"]),
        ("yearly", ["2026", "2025"]),
    ],
)
def test_each_rule_has_its_stretch_of_time(rule, expected):
    facts = [fact(n, ago=DAY * 3 + HOUR * (1 + 5 * (400 - n))) for n in range(400)]
    facts += [fact(400 + n, ago=DAY * (380 - n), revision=n - 100) for n in range(60)]
    words = " ".join(
        reason for one in decide(facts, Policy(**{rule: 2}), NOW) for reason in one.reasons
    )
    for place, stretch in enumerate(expected, start=1):
        assert f"{rule} {place} of 2: the newest of {stretch}" in words


def test_several_rules_give_several_reasons():
    facts = [fact(n) for n in range(1, 10)]
    words = reasons(facts, Policy(last=1, daily=2), 9)
    for part in ("newest verified of lineage aaaa", "last 1 of 1", "daily 1 of 2"):
        assert part in words


def test_promise_7_failed_and_unverified_ones_take_no_place_of_a_good_one():
    facts = [fact(n, failed=n > 4) for n in range(1, 8)]
    assert kept(facts, Policy(last=2)) == {"prod/003", "prod/004"}
    facts = [fact(n, verified=n <= 4) for n in range(1, 8)]
    assert kept(facts, Policy(last=2)) == {"prod/003", "prod/004", "prod/006", "prod/007"}
    assert "beside those: among the newest, not verified" in reasons(facts, Policy(last=2), 7)
    assert reasons(facts, Policy(last=2), 5) == "last: not verified, and others are kept"


def test_promise_7_a_day_prefers_its_verified_one():
    good, bad = fact(1, ago=DAY * 3), fact(2, ago=DAY * 3 + HOUR, verified=False)
    # It is the newer one, whatever its date is: a later verify may find it good.
    assert kept([good, bad], Policy(daily=1)) == {"prod/001", "prod/002"}
    older = replace(bad, revision=0)
    assert kept([good, older], Policy(daily=1)) == {"prod/001"}
    assert reasons([good, older], Policy(daily=1), 2) == "daily: another of 2026-11-17 is kept"


def test_promise_7_lineages_and_clusters_are_counted_apart():
    facts = [fact(n) for n in range(1, 6)]
    facts += [fact(n, lineage="bbbb") for n in range(6, 11)]
    facts += [fact(n, cluster="other", id=f"other/{n}") for n in range(11, 16)]
    assert kept(facts, Policy(last=2)) == {
        *("prod/004", "prod/005", "prod/009", "prod/010", "other/14", "other/15")
    }
    across = Policy(last=2, across_lineages=True)
    assert kept(facts, across) == {"prod/009", "prod/010", "other/14", "other/15"}
    assert "newest verified of cluster prod" in reasons(facts, across, 10)


def test_promise_7_lineages_that_may_be_one_life_are_counted_together_where_that_is_asked_for():
    """As where API servers compact: each backup begins one. Then another life begins."""
    old = [fact(n, lineage=f"{n:04}", root="0001") for n in range(1, 6)]
    new = [fact(n, lineage=f"{n:04}", root="0006", revision=n - 5) for n in range(6, 9)]
    policy = Policy(last=2)
    assert kept(old + new, policy) == ids(old + new)
    together = replace(policy, across_unproven=True)
    assert kept(old + new, together) == {"prod/004", "prod/005", "prod/007", "prod/008"}
    words = reasons(old + new, together, 8)
    assert "the newest verified of lineage 0006 and those that may be its life" in words
    assert kept(old + new, replace(policy, across_lineages=True)) == {"prod/007", "prod/008"}


def test_promise_7_rows_of_lineages_go_by_revision_and_by_no_clock():
    facts = [fact(n, lineage=f"{n:04}", root="0001", ago=DAY * (10 + n)) for n in range(1, 6)]
    assert kept(facts, Policy(last=2, across_unproven=True)) == {"prod/004", "prod/005"}


def test_promise_7_a_row_of_which_the_middle_has_gone_is_still_one():
    facts = [fact(n, lineage=f"{n:04}", root="0001") for n in (1, 4, 9)]
    assert kept(facts, Policy(last=1, across_unproven=True)) == {"prod/009"}


def test_promise_7_a_cluster_that_was_emptied_does_not_push_out_the_old_life():
    old = [fact(n) for n in range(1, 4)]
    new = [fact(n, lineage="bbbb", revision=n - 50) for n in range(51, 90)]
    assert "prod/003" in kept(old + new, Policy(last=3))


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_promise_7_a_date_of_an_odd_clock_changes_nothing_for_the_others(odd):
    facts = [fact(n) for n in range(1, 20)]
    among = [replace(one, written=odd) if one.revision == 10 else one for one in facts]
    policy = Policy(daily=5)
    assert kept(facts, policy) <= kept(among, policy)
    assert kept(among, policy) - kept(facts, policy) <= {"prod/010"}


def test_promise_7_what_lies_ahead_of_the_clock_stays_and_takes_no_place():
    facts = [fact(n) for n in range(1, 10)]
    facts.append(fact(10, ago=-DAY * 400))
    assert kept(facts, Policy(daily=2)) == {"prod/008", "prod/009", "prod/010"}
    assert "lies ahead of the store's clock" in reasons(facts, Policy(daily=2), 10)


@pytest.mark.parametrize("policy", [Policy(), Policy(across_lineages=True)])
def test_promise_7_a_store_whose_clock_went_back_removes_nothing(policy):
    facts = [fact(n) for n in range(1, 10)]
    assert kept(facts, policy, now=ODD[0]) == ids(facts)


def test_promise_7_what_is_younger_than_the_safe_age_stays():
    facts = [fact(n, ago=HOUR * (50 - n)) for n in range(20, 50)]
    assert kept(facts, Policy(), age=DAY) == {f"prod/{n:03}" for n in range(27, 50)}
    assert "younger than 24 h" in reasons(facts, Policy(), 30)


def test_promise_7_pins_locks_and_needs():
    facts = [
        fact(1, needs=("prod/000",)),
        fact(2, needs=("prod/001", "prod/gone")),
        fact(3),
        fact(4, pins=("pinned by me",)),
        fact(5, locked_until=NOW + DAY),
        fact(9, needs=("prod/002",)),
    ]
    assert kept(facts, Policy()) == ids(facts) - {"prod/003"}
    assert reasons(facts, Policy(), 1) == "needed by prod/002"
    assert reasons(facts, Policy(), 4) == "pinned by me"
    assert reasons(facts, Policy(), 5) == "locked until 2026-11-21 12:00:00Z"


def test_promise_7_what_needs_each_other_in_a_ring_ends():
    facts = [
        fact(1, needs=("prod/002",)),
        fact(2, needs=("prod/001",), pins=("pinned",)),
        fact(3, needs=("prod/003",)),
        fact(9),
    ]
    assert kept(facts, Policy()) == {"prod/001", "prod/002", "prod/009"}


def test_promise_7_where_something_cannot_be_read_nothing_of_its_cluster_goes():
    facts = [fact(n) for n in range(1, 10)]
    other = [replace(one, id=f"b/{one.revision}", cluster="b") for one in facts]
    found = kept(facts + other, Policy(last=1), unreadable={"prod": "x.json makes no sense"})
    assert found == ids(facts) | {"b/9"}
    said = reasons(facts, Policy(), 1, unreadable={"prod": "x.json makes no sense"})
    assert said == "nothing of prod is removed: x.json makes no sense"


def test_a_policy_that_keeps_nothing_is_known():
    assert Policy().empty
    assert Policy(across_lineages=True).empty
    assert not any(Policy(**{rule: 1}).empty for rule in RULES)


# Any set of backups.

HOURS = st.integers(-30, 24 * 400)
WRITTEN = st.one_of(HOURS.map(lambda hours: NOW - HOUR * hours), st.sampled_from(ODD))
POLICIES = st.builds(
    Policy,
    **{rule: st.integers(0, 4) for rule in RULES},
    across_unproven=st.booleans(),
    across_lineages=st.booleans(),
)

few = settings(max_examples=60)


@st.composite
def backups(draw, *, tidy=False):
    """Some backups of two clusters; tidy ones come in the order of their revisions."""
    number = draw(st.integers(0, 14))
    times = [draw(HOURS) for _ in range(number)] if tidy else []
    made = []
    for n, ago in enumerate(sorted(times, reverse=True) if tidy else [None] * number):
        cluster = draw(st.sampled_from(["a", "b"]))
        state = draw(st.sampled_from(["verified", "verified", "failed", "unknown"]))
        others = [one.id for one in made if one.cluster == cluster]
        lineage = draw(st.sampled_from(["x", "y", "z"]))
        made.append(
            Fact(
                id=f"{cluster}/{n}",
                cluster=cluster,
                lineage=lineage,
                root="x" if lineage == "z" else lineage,
                revision=n if tidy else draw(st.integers(0, 30)),
                written=draw(WRITTEN) if ago is None else NOW - HOUR * ago,
                verified=state == "verified",
                failed=state == "failed",
                pins=draw(st.sampled_from([(), (), (), ("pinned",)])),
                needs=tuple(draw(st.lists(st.sampled_from(others), max_size=2))) if others else (),
                locked_until=draw(st.sampled_from([None, None, None, NOW + DAY])),
            )
        )
    return draw(st.permutations(made))


@few
@given(backups(), POLICIES)
def test_promise_7_what_must_stay_stays_whatever_the_policy(facts, policy):
    stays = kept(facts, policy)
    by_id = {one.id: one for one in facts}
    for one in facts:
        if one.pins or one.locked_until or NOW - one.written < SAFE_AGE:
            assert one.id in stays
        if one.id in stays:
            assert set(one.needs) & set(by_id) <= stays
    counted = "root" if policy.across_unproven else "lineage"
    for cluster, lineage in {(one.cluster, getattr(one, counted)) for one in facts}:
        of_it = [one for one in facts if (one.cluster, getattr(one, counted)) == (cluster, lineage)]
        verified = [one for one in of_it if one.verified]
        if not policy.across_lineages:
            best = max(verified or of_it, key=lambda one: (bool(verified), one.revision))
            top = [one for one in verified or of_it if one.revision == best.revision]
            whole = [one for one in of_it if not one.failed]
            if verified or not whole:
                assert ids(top) & stays
            else:
                assert ids(whole) & stays
        assert not [one for one in facts if one.cluster == cluster] or any(
            name.startswith(f"{cluster}/") for name in stays
        )
    for cluster in {one.cluster for one in facts if one.verified}:
        assert any(one.id in stays for one in facts if one.cluster == cluster and one.verified)


@few
@given(backups(), POLICIES)
def test_promise_7_each_decision_has_its_reasons(facts, policy):
    found = decide(facts, policy, NOW)
    assert [one.fact for one in found] == facts
    for one in found:
        assert one.reasons
        assert all(reason == reason.strip() and reason for reason in one.reasons)


@few
@given(backups(), POLICIES)
def test_promise_7_pruning_twice_removes_no_more(facts, policy):
    stays = kept(facts, policy)
    assert kept([one for one in facts if one.id in stays], policy) == stays


@few
@given(backups(), POLICIES, st.data())
def test_promise_7_half_a_prune_is_none_that_goes_too_far(facts, policy, data):
    """What a killed run has left to do is what the next one does: no more."""
    stays = kept(facts, policy)
    going = sorted(ids(facts) - stays)
    gone = data.draw(st.sets(st.sampled_from(going))) if going else set()
    assert kept([one for one in facts if one.id not in gone], policy) == stays


@few
@given(backups(), POLICIES, st.sampled_from(sorted(RULES)), st.integers(1, 3))
def test_promise_7_keeping_more_never_removes_more(facts, policy, rule, more):
    larger = replace(policy, **{rule: getattr(policy, rule) + more})
    assert kept(facts, policy) <= kept(facts, larger)


@few
@given(backups(), POLICIES)
def test_promise_7_the_order_in_which_backups_are_given_does_not_matter(facts, policy):
    assert kept(facts, policy) == kept(sorted(facts, key=lambda one: one.id), policy)


@few
@given(backups(tidy=True), st.sampled_from(sorted(RULES)), st.integers(1, 4))
def test_promise_7_a_rule_keeps_as_many_as_it_says_where_there_are_so_many(facts, rule, number):
    plain = [replace(one, pins=(), needs=(), locked_until=None) for one in facts]
    old = [one for one in plain if NOW - one.written >= SAFE_AGE]
    stays = kept(old, Policy(**{rule: number}))
    for key in {(one.cluster, one.lineage) for one in old}:
        good = [one for one in old if (one.cluster, one.lineage) == key and one.verified]
        stretches = {RULES[rule](one) for one in good}
        assert len(ids(good) & stays) == min(number, len(stretches))
        for one in good:
            if one.id in stays:
                same = [other for other in good if RULES[rule](other) == RULES[rule](one)]
                assert max(same, key=lambda other: other.revision).id == one.id
        others = [one for one in old if (one.cluster, one.lineage) == key and not one.verified]
        assert len(ids(others) & stays) <= max(number, 1)


@few
@given(backups(), POLICIES)
def test_promise_7_a_writers_revision_far_ahead_pushes_out_no_other_lineage(facts, policy):
    if policy.across_lineages:
        policy = replace(policy, across_lineages=False)
    stays = kept(facts, policy)
    mad = [
        Fact(
            id=f"a/mad{n}",
            cluster="a",
            lineage="mad",
            root="mad",
            revision=(1 << 62) + n,
            written=NOW - DAY * 2,
            verified=True,
            failed=False,
        )
        for n in range(5)
    ]
    assert stays <= kept([*facts, *mad], policy)


@pytest.mark.soak
@settings(max_examples=5_000)
@given(backups(), POLICIES, st.sampled_from(sorted(RULES)), st.data())
def test_promise_7_over_many_more_sets(facts, policy, rule, data):
    larger = replace(policy, **{rule: getattr(policy, rule) + 1})
    stays = kept(facts, policy)
    assert stays <= kept(facts, larger)
    going = sorted(ids(facts) - stays)
    gone = data.draw(st.sets(st.sampled_from(going))) if going else set()
    assert kept([one for one in facts if one.id not in gone], policy) == stays
