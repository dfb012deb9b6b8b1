"""Backups of real etcds while the network, or the store, does what it should not."""

import os
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from backstay.client.endpoint import parse_endpoints
from backstay.errors import EtcdError, NotFoundError, StoreError
from backstay.report import Said, Verdict
from kit import faulty as faults
from kit.faulty import faulty
from kit.faulty_store import TOLD, Fault, FaultyStore

STREAM_FAULTS = {
    "cut at once": faults.cut(0),
    "cut": faults.cut(100_000),
    "ended early": faults.end(100_000),
    "stalled": faults.stall(100_000),
    "a bit flipped": faults.flip(100_000),
    "a bit of the digest flipped": faults.flip_trailer,
    "over-filled": faults.overfill,
    "lying": faults.lie(1),
    "promising a lot": faults.promise(1 << 50),
    "without a digest": faults.no_trailer,
    "empty": faults.empty,
}


@pytest.fixture(params=STREAM_FAULTS)
def fault(request):
    return STREAM_FAULTS[request.param]


def test_what_one_member_damages_is_taken_whole_from_another(bench, cluster, fault):
    follower, leader = cluster.followers()[0], cluster.leader()
    # A follower is asked first; the leader is the only other one that is known.
    endpoints = parse_endpoints(f"{follower.endpoint},{leader.endpoint}")
    with faulty(follower, fault) as dialer:
        made = bench.back_up(replace(cluster.access, endpoints=endpoints), dialer=dialer)
    assert {c.verdict for c in made.checks} == {Verdict.PASS}
    assert any("taken again" in event.text for event in bench.said if isinstance(event, Said))
    assert [entry.manifest for entry in bench.listed] == [made]
    assert bench.objects == [made.objects[0].path]
    assert set(bench.prove(bench.listed[0]).values()) == {Verdict.PASS}
    bench.assert_no_spool()


def test_promise_1_what_all_members_damage_is_no_backup(bench, etcd, fault):
    with faulty(etcd, fault) as dialer, pytest.raises(EtcdError) as caught:
        bench.back_up(etcd.access, dialer=dialer)
    assert caught.value.exit_code == 1
    assert "after 2 tries" in str(caught.value)
    assert bench.listed == []
    assert bench.objects == []
    bench.assert_no_spool()
    made = bench.back_up(etcd.access)
    assert bench.listed[0].manifest == made


def steps(bench, client):
    """What a backup asks of a store, in order, once it knows what it comes after."""
    store = FaultyStore(bench.store)
    bench.back_up_by(client, store)
    names = [step.name for step in store.operations]
    return store.operations[names.index("writer") :]


class FromWriterOn:
    """A plan that counts from the first `writer` on: what comes before depends on what is there."""

    def __init__(self, plan):
        self._plan = plan
        self._before = None

    def __call__(self, operation):
        if self._before is None and operation.name == "writer":
            self._before = operation.number - 1
        return None if self._before is None else self._plan.get(operation.number - self._before)


#: The others are tried by `make soak`, and on some operations in tests/faults.
QUICK = {Fault.ERROR, Fault.SHORT}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(one, id=one.name, marks=() if one in QUICK else pytest.mark.soak)
        for one in (*TOLD, Fault.SHORT)
    ],
)
def test_promise_1_whatever_the_store_does_at_any_step_what_is_listed_is_whole(
    bench, client, fault
):
    names = [step.name for step in steps(bench, client)]
    assert {"writer", "write", "publish", "stat", "piece", "put_new", "read", "now"} <= set(names)
    known = {entry.manifest.id for entry in bench.listed}
    for number, name in enumerate(names, start=1):
        outcome = run_with(bench, client, {number: fault})
        new = [entry for entry in bench.listed if entry.manifest.id not in known]
        known |= {entry.manifest.id for entry in new}
        assert_outcome(bench, name, fault, outcome, new)
        bench.assert_no_spool()
    grow_old(bench)
    made = bench.back_up_by(client)
    assert bench.repository.find("prod/latest").manifest == made
    assert set(bench.objects) == {e.manifest.objects[0].path for e in bench.listed}


def run_with(bench, client, plan):
    try:
        return bench.back_up_by(client, FaultyStore(bench.store, FromWriterOn(plan)))
    except StoreError as error:
        return error


def assert_outcome(bench, name, fault, outcome, new):
    """Each step has its own end: no backup, one that is not proven, a failed one, a good one."""
    if isinstance(outcome, StoreError):
        assert outcome.exit_code == 1
        # The manifest may be there all the same, where an answer was lost after it was written.
        lost = (name, fault) == ("put_new", Fault.ERROR) or (name == "read" and fault in TOLD)
        assert len(new) == lost
    else:
        assert [entry.manifest for entry in new] == [outcome]
    verdict = "PASS"
    if fault in TOLD:
        assert isinstance(outcome, StoreError) == (
            name in {"writer", "write", "publish", "put_new", "read"}
        )
        if name in {"stat", "stream", "piece"}:
            verdict = "COULD NOT VERIFY"
    else:
        assert isinstance(outcome, StoreError) == (name in {"put_new", "read"})
        if name in {"write", "piece"}:
            verdict = "FAIL"
    for entry in new:
        stored = {check.name: check.verdict for check in entry.manifest.checks}["stored"]
        assert stored == verdict
        assert entry.failed == (verdict == "FAIL")
        if name != "write":
            assert set(bench.prove(entry).values()) == {Verdict.PASS}


def grow_old(bench, age=timedelta(hours=25)):
    when = time.time() - age.total_seconds()
    for path in bench.files:
        os.utime(path, (when, when))


def test_what_a_dead_run_left_is_swept_when_it_is_old_and_no_sooner(bench, client):
    names = [step.name for step in steps(bench, client)]
    run_with(bench, client, {names.index("put_new") + 1: Fault.REFUSE})
    [named] = [entry.manifest.objects[0].path for entry in bench.listed]
    [left] = set(bench.objects) - {named}
    bench.back_up_by(client)
    assert left in bench.objects
    grow_old(bench)
    bench.back_up_by(client)
    assert left not in bench.objects
    assert named in bench.objects
    assert any("swept 1 " in e.text for e in bench.said if isinstance(e, Said))


def test_promise_1_a_store_that_changes_bytes_gives_a_failed_backup(bench, client):
    good = bench.back_up_by(client)
    bad = bench.back_up_by(client, Changing(bench.store))
    verdicts = {check.name: check.verdict for check in bad.checks}
    assert verdicts["stored"] is Verdict.FAIL
    assert verdicts["transfer"] is Verdict.PASS
    assert [entry.failed for entry in bench.listed] == [False, True]
    assert bench.repository.find("prod/latest").manifest == good
    assert bench.repository.find("prod/latest-verified").manifest == good


def test_promise_1_nothing_is_chosen_where_all_have_failed(bench, client):
    bench.back_up_by(client, Changing(bench.store))
    with pytest.raises(NotFoundError, match="1 of other kinds"):
        bench.repository.find("prod/latest")


class Changing(FaultyStore):
    """A store that gives back other bytes than it was given, of the right number."""

    def stream(self, path, *, offset=0):
        for number, piece in enumerate(super().stream(path, offset=offset)):
            yield bytes([piece[0] ^ 1]) + piece[1:] if number == 0 else piece


def test_a_store_that_is_slow_to_fail_holds_up_the_end_no_longer_than_it_may(
    bench, etcd, monkeypatch
):
    monkeypatch.setattr("backstay.flows.beside.STOP_SECONDS", 0.5)
    hanging = threading.Event()
    plan = FromWriterOn({3: Fault.STALL})
    store = FaultyStore(bench.store, plan, stall=lambda: hanging.wait(30))
    with faulty(etcd, faults.end(100_000)) as dialer, pytest.raises(EtcdError):
        began = time.monotonic()
        bench.back_up(etcd.access, store, dialer)
    took = time.monotonic() - began
    hanging.set()
    assert took < 10
    assert bench.listed == []


def test_an_object_that_is_dropped_has_another_name_than_the_next(bench, etcd):
    """A store that completes what was given up must not hide what comes after."""
    store = FaultyStore(bench.store)
    with faulty(etcd, once(faults.end(100_000))) as dialer:
        made = bench.back_up(etcd.access, store, dialer)
    paths = [step.path for step in store.operations if step.name == "writer"]
    # On a busy machine the first stream may end before anything of it is on its way.
    assert len(set(paths)) == len(paths) <= 2
    assert paths[-1].endswith("/snapshot1.zst.age")
    assert bench.objects == [made.objects[0].path] == [paths[-1]]


def once(fault):
    """A fault of the first stream alone."""
    streams = iter((fault,))

    def fault_of_this_stream(messages, ended):
        return next(streams, faults.none)(messages, ended)

    return fault_of_this_stream
