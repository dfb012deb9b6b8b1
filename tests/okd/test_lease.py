"""The Lease: one host at a time, whoever dies, whatever the clocks say."""

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.clock import SystemClock
from backstay.errors import KubeError, KubeForbiddenError, KubeNotFoundError
from backstay.kinds.okd.lease import ANNOTATION, NAME, NAMESPACE, Record, Turn, look, parse_record
from backstay.kubeapi.connect import connect
from backstay.kubeapi.resource import LEASES
from kit.kubeserver import HangUpError, KubeServer

#: Seconds: what a holder may be silent for, where it is to be found dead.
SHORT = 1
#: And where it is to be found alive: a busy machine may keep it from speaking for a while.
LONG = 4


class Ahead(SystemClock):
    """A host whose clock is wrong by years; durations are right all the same."""

    def now(self):
        return super().now() + timedelta(days=2000)


@pytest.fixture
def kube(tmp_path):
    with KubeServer.start(tmp_path / "kube") as running:
        running.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        yield running


@pytest.fixture
def host(kube):
    """Makes hosts, each with a client of its own."""
    opened = []

    def make(node, clock=None, duration=SHORT):
        api = connect(kube.kubeconfig, None)
        turn = Turn(api, node, clock=clock or SystemClock(), duration=duration)
        opened.extend((turn, api))
        return turn

    yield make
    for one in opened:
        one.close()


def lease(kube):
    return parse_record(kube.get(LEASES, NAME, NAMESPACE))


def dies(turn):
    """As by kill -9: nobody says anything any more, and nothing is given back."""
    turn._over.set()
    turn._renewing.join()
    turn._renewing, turn._record = None, None


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_first_turn_makes_the_lease_and_leaves_it_free(kube, host):
    with host("master-0") as turn:
        assert turn.take().mine
        record = lease(kube)
        assert (record.holder, record.node) == (turn.identity, "master-0")
        assert record.duration == SHORT
    record = lease(kube)
    assert (record.holder, record.finished_by) == ("", "")
    assert kube.get(LEASES, NAME, NAMESPACE) is not None


def test_turns_one_after_the_other(kube, host):
    for number, node in enumerate(("master-0", "master-1", "master-0")):
        with host(node) as turn:
            taken = turn.take()
            assert taken.mine
            assert lease(kube).transitions == number
            turn.finish()
    record = lease(kube)
    assert record.finished_by == "master-0"
    assert abs(record.finished_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_next_one_is_told_of_the_last_backup(host):
    with host("master-0") as turn:
        turn.take()
        turn.finish()
    with host("master-1") as turn:
        assert turn.take().record.finished_by == "master-0"
    # It backed nothing up, so the last is still that one.
    with host("master-2") as turn:
        assert turn.take().record.finished_by == "master-0"


@pytest.mark.parametrize("clock", [SystemClock(), Ahead()])
def test_a_holder_that_lives_keeps_it(kube, host, clock):
    """Both ways round: whoever's clock is ahead."""
    ahead = Ahead() if type(clock) is SystemClock else None
    with host("master-0", ahead, duration=LONG) as first:
        assert first.take().mine
        second = host("master-1", clock)
        taken = second.take()
        assert not taken.mine
        assert taken.record.node == "master-0"
        second.finish()
        second.close()
        assert lease(kube).holder == first.identity
    assert lease(kube).finished_by == ""


@pytest.mark.parametrize("clock", [SystemClock(), Ahead()])
def test_a_holder_that_died_is_taken_over(kube, host, clock):
    first = host("master-0")
    first.take()
    dies(first)
    began = time.monotonic()
    second = host("master-1", clock)
    taken = second.take()
    assert taken.mine
    assert taken.record.node == "master-0"
    assert time.monotonic() - began >= SHORT
    assert lease(kube).holder == second.identity


def test_two_runs_on_one_host_are_two_holders(host):
    with host("master-0", duration=LONG) as first:
        first.take()
        assert not host("master-0").take().mine


def test_given_back_while_another_watches(kube, host):
    first = host("master-0", duration=30)
    first.take()
    second = host("master-1")
    with ThreadPoolExecutor(1) as pool:
        seen = len(kube.requests)
        taking = pool.submit(second.take)
        wait_until(lambda: len(kube.requests) > seen + 1)
        first.close()
        assert taking.result(20).mine
    assert lease(kube).holder == second.identity


def test_a_race_for_a_new_one_has_one_winner(kube, host):
    """Both have seen that there is none before either makes it."""
    assert_one_winner(kube, host)


def test_a_race_for_a_free_one_has_one_winner(kube, host):
    with host("master-9") as turn:
        turn.take()
    assert_one_winner(kube, host)


def test_a_race_for_a_dead_holders_has_one_winner(kube, host):
    first = host("master-9")
    first.take()
    dies(first)
    assert_one_winner(kube, host)


def assert_one_winner(kube, host):
    hosts = [host(f"master-{number}", duration=LONG) for number in range(4)]
    # Nobody writes before all have looked.
    gate = threading.Barrier(len(hosts))

    def hold(number, seen):
        if seen.resource == "leases" and seen.verb in ("create", "patch") and not gate.broken:
            try:
                gate.wait(5)
            except threading.BrokenBarrierError:
                return
            gate.abort()

    kube.on_request = hold
    with ThreadPoolExecutor(len(hosts)) as pool:
        taken = list(pool.map(lambda it: it.take(), hosts))
    winners = [it for it, got in zip(hosts, taken, strict=True) if got.mine]
    assert len(winners) == 1
    assert lease(kube).holder == winners[0].identity
    losers = [got for got in taken if not got.mine]
    assert all(f"{got.record.holder}" == winners[0].identity for got in losers)


def test_who_was_taken_over_says_so_and_leaves_it_alone(kube, host):
    """A machine that slept for longer than it may."""
    first = host("master-0")
    first.take()
    kube.patch(LEASES, NAME, {"spec": {"holderIdentity": "master-1_x"}}, NAMESPACE)
    wait_until(lambda: first.lost)
    assert "master-1 took" in first.lost
    first.finish()
    first.close()
    record = lease(kube)
    assert (record.holder, record.finished_by) == ("master-1_x", "")


def test_an_api_that_is_away_for_a_moment_loses_nothing(kube, host):
    first = host("master-0", duration=LONG)
    first.take()
    kube.fail(503, times=1, resource=LEASES, verb="patch")
    before = lease(kube).renewed
    wait_until(lambda: lease(kube).renewed > before)
    assert not first.lost


def test_an_api_that_stays_away_is_told(kube, host):
    first = host("master-0")
    first.take()
    kube.fail(503, times=10_000, resource=LEASES)
    wait_until(lambda: first.lost)
    first.close()


def test_an_answer_that_is_lost_is_asked_for_again(kube, host):
    """The renewal was done, and nobody heard: the next one has an old version."""
    first = host("master-0", duration=LONG)
    first.take()
    lost = []

    def hang_up(number, seen):
        if seen.verb == "patch" and not lost:
            lost.append(number)
            raise HangUpError

    kube.after_request = hang_up
    wait_until(lambda: lost)
    before = lease(kube).renewed
    wait_until(lambda: lease(kube).renewed > before)
    assert not first.lost
    first.close()
    assert lease(kube).holder == ""


def test_what_others_write_on_it_stays_and_takes_it_from_nobody(kube, host):
    first = host("master-0")
    first.take()
    kube.patch(LEASES, NAME, {"metadata": {"labels": {"a": "b"}}}, NAMESPACE)
    before = lease(kube).renewed
    wait_until(lambda: lease(kube).renewed > before)
    first.finish()
    first.close()
    document = kube.get(LEASES, NAME, NAMESPACE)
    assert document["metadata"]["labels"] == {"a": "b"}
    assert document["spec"]["holderIdentity"] == ""
    assert lease(kube).finished_by == "master-0"


def test_a_label_is_no_sign_of_life(kube, host):
    first = host("master-0", duration=2)
    first.take()
    dies(first)
    second = host("master-1")
    with ThreadPoolExecutor(1) as pool:
        seen = len(kube.requests)
        taking = pool.submit(second.take)
        wait_until(lambda: len(kube.requests) > seen + 1)
        kube.patch(LEASES, NAME, {"metadata": {"labels": {"a": "b"}}}, NAMESPACE)
        assert taking.result(20).mine


def test_nothing_is_deleted_and_nothing_is_listed(kube, host):
    for node in ("master-0", "master-1"):
        with host(node) as turn:
            turn.take()
            turn.finish()
    assert {it.verb for it in kube.requests} <= {"get", "create", "patch"}


def test_promise_4_without_a_namespace_or_a_right_it_is_an_error(kube, host):
    turn = Turn(connect(kube.kubeconfig, None), "master-0", "elsewhere", clock=SystemClock())
    with pytest.raises(KubeNotFoundError, match="no namespace elsewhere") as caught:
        turn.take()
    assert "--lease-namespace" in str(caught.value)
    turn.close()
    turn._api.close()
    kube.deny("create", LEASES)
    with pytest.raises(KubeForbiddenError):
        host("master-0").take()
    kube.deny("get", LEASES)
    with pytest.raises(KubeError), connect(kube.kubeconfig, None) as api:
        look(api)


def test_a_look_leaves_it_as_it_is(kube, host):
    with connect(kube.kubeconfig, None) as api:
        assert look(api) == Record()
        with host("master-0") as turn:
            turn.take()
            assert look(api).holder == turn.identity
        before = kube.get(LEASES, NAME, NAMESPACE)
        assert look(api).holder == ""
        assert kube.get(LEASES, NAME, NAMESPACE) == before


def test_times_are_as_the_api_wants_them(kube, host):
    with host("master-0") as turn:
        turn.take()
        spec = kube.get(LEASES, NAME, NAMESPACE)["spec"]
    for name in ("acquireTime", "renewTime"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", spec[name])


# What others wrote


@pytest.mark.parametrize(
    ("duration", "expected"), [(5, 5), (0, 1), (-3, 1), (10**12, 120), ("x", 30), (None, 30)]
)
def test_no_holder_is_waited_for_for_ever(duration, expected):
    assert parse_record({"spec": {"leaseDurationSeconds": duration}}).duration == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
FIELDS = ("holderIdentity", "renewTime", "leaseDurationSeconds", "leaseTransitions")


@settings(max_examples=50)
@given(
    spec=st.dictionaries(st.sampled_from(FIELDS), JSON),
    note=JSON.map(json.dumps) | st.text(max_size=2000) | JSON,
    version=JSON,
)
def test_whatever_a_lease_holds_it_is_read(spec, note, version):
    document = {
        "spec": spec,
        "metadata": {"annotations": {ANNOTATION: note}, "resourceVersion": version},
    }
    record = parse_record(document)
    assert 1 <= record.duration <= 120
    assert 0 <= record.transitions < 1 << 31
    assert record.holder.isprintable()
    assert record.finished_at is None or record.finished_at.tzinfo is not None
    assert parse_record(note) == Record() or isinstance(note, dict)
