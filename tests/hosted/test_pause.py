"""What pauses, for how long, and which value is set beside the user's own."""

import datetime as dt
from dataclasses import replace

import pytest

from backstay.errors import KubeError, RefusedError
from backstay.kinds.hosted.quiescing.pause import (
    Hold,
    ahead,
    check_free,
    hold,
    lasts,
    longer,
    pauses,
    renewing,
)
from backstay.kinds.hosted.quiescing.record import ANNOTATION, Record, decode, encode, stamp
from kit.crd import refusals
from kit.hosted import hosted_objects, one
from kit.hypershift_operator import paused

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
HALF = dt.timedelta(minutes=30)
RECORD = Record(run="mine", by="me", since=NOON, until=NOON + HALF)


@pytest.mark.parametrize(
    "value",
    [
        *("true", "True", "TRUE", "t", "T", "1", "tRue", "yes", "on", "", "null"),
        *("false", "False", "f", "0", None),
        *("2099-01-01T00:00:00Z", "2099-01-01T00:00:00+02:00", "2099-01-01T00:00:00.5Z"),
        *("2020-01-01T00:00:00Z", "2099-01-01T00:00:00", "2099-01-01", "2099-01-01t00:00:00z"),
    ],
)
def test_we_and_the_operator_agree_on_what_pauses(value):
    assert pauses(value, dt.datetime.now(dt.UTC)) == paused(value)[0]


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        (None, False),
        ("false", False),
        ("true", True),
        ("2026-11-21T12:29:59Z", False),
        ("2026-11-21T12:30:00Z", True),
        ("2026-11-21T14:00:00+01:00", True),
        ("2026-11-21T13:00:00+01:00", False),
        ("2099-01-01T00:00:00", False),
    ],
)
def test_the_users_own_pause_is_never_shortened(own, kept):
    value = longer(own, NOON + HALF)
    assert value == (own if kept else "2026-11-21T12:30:00Z")
    assert lasts(value) >= NOON + HALF


def test_what_we_set_is_what_hypershift_takes():
    moment = ahead(NOON + dt.timedelta(microseconds=1), 1800)
    assert stamp(moment) == "2026-11-21T12:30:01Z"
    hosted = one(hosted_objects(), "HostedCluster")
    hosted["spec"]["pausedUntil"] = stamp(moment)
    assert list(refusals(hosted, None)) == []
    hosted["spec"]["pausedUntil"] = "t"
    assert list(refusals(hosted, None)) != []


def standing(record, **spec):
    annotations = {ANNOTATION: encode(record)} if record else {}
    metadata = {"name": "blue", "resourceVersion": "7", "annotations": annotations}
    return {"kind": "HostedCluster", "metadata": metadata, "spec": spec}


def test_a_renewal_moves_the_pause_and_the_record_together():
    patch = renewing(
        standing(RECORD, pausedUntil=stamp(RECORD.until)), "mine", NOON + HALF / 3, 1800
    )
    later = NOON + HALF / 3 + HALF
    assert patch["spec"]["pausedUntil"] == stamp(later)
    assert decode(patch["metadata"]["annotations"][ANNOTATION]) == replace(RECORD, until=later)


def test_a_renewal_keeps_a_longer_pause_of_the_users_own_and_extends_one_that_ends():
    own = replace(RECORD, own="true")
    patch = renewing(standing(own, pausedUntil="true"), "mine", NOON + HALF / 3, 1800)
    assert patch["spec"]["pausedUntil"] == "true"
    soon = replace(RECORD, own="2026-11-21T12:35:00Z")
    patch = renewing(standing(soon, pausedUntil=soon.own), "mine", NOON + HALF / 3, 1800)
    assert patch["spec"]["pausedUntil"] == "2026-11-21T12:40:00Z"


def test_what_is_not_ours_is_not_renewed():
    ours = {"pausedUntil": stamp(RECORD.until)}
    assert renewing(standing(None, **ours), "mine", NOON, 1800) is None
    assert renewing(standing(RECORD, **ours), "another", NOON, 1800) is None
    # Someone has ended the pause, or set one of their own.
    assert renewing(standing(RECORD), "mine", NOON, 1800) is None
    assert renewing(standing(RECORD, pausedUntil="true"), "mine", NOON, 1800) is None


def condition(status, reason, generation=3, **more):
    told = {"type": "ReconciliationActive", "status": status, "reason": reason, **more}
    return {"metadata": {"generation": generation}, "status": {"conditions": [told]}}


@pytest.mark.parametrize(
    ("document", "held"),
    [
        (condition("False", "ReconciliationPaused"), Hold.PAUSED),
        (condition("True", "AsExpected"), Hold.ACTIVE),
        (condition("False", "SomethingElse"), Hold.ACTIVE),
        (condition("True", "ReconciliationPaused"), Hold.ACTIVE),
        (condition("True", "InvalidPausedUntilValue"), Hold.INVALID),
        (condition("True", "InvalidPausedUntilValue", observedGeneration=3), Hold.INVALID),
        # Of the value that stood there before ours.
        (condition("True", "InvalidPausedUntilValue", observedGeneration=2), Hold.ACTIVE),
        ({}, Hold.ACTIVE),
        ({"status": {"conditions": [7, None, {"type": []}]}}, Hold.ACTIVE),
        ({"status": {"conditions": "ReconciliationActive"}}, Hold.ACTIVE),
    ],
)
def test_only_hypershifts_own_word_is_a_pause(document, held):
    assert hold(document) is held


def test_a_living_run_is_refused_and_a_dead_one_told():
    there = standing(RECORD, pausedUntil=stamp(RECORD.until))
    with pytest.raises(RefusedError, match="run mine on me"):
        check_free(there, NOON, 60)
    with pytest.raises(RefusedError):
        check_free(there, RECORD.until + dt.timedelta(seconds=60), 60)
    assert check_free(there, RECORD.until + dt.timedelta(seconds=61), 60) == RECORD
    assert check_free(standing(None), NOON, 60) is None
    going = standing(None)
    going["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:00Z"
    with pytest.raises(KubeError, match="being deleted"):
        check_free(going, NOON, 60)
