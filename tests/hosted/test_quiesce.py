"""Quiescing with a real etcd and an operator that plays along, or does not."""

import json
import os
import signal
import threading
import time

import pytest

from backstay.errors import (
    EtcdError,
    FormatError,
    KubeForbiddenError,
    KubeNotFoundError,
    QuiesceError,
    RefusedError,
)
from backstay.kinds.hosted.quiescing.record import ANNOTATION, recorded
from backstay.kinds.hosted.quiescing.shield import shielded
from backstay.kubeapi.resource import DEPLOYMENTS, HOSTED_CLUSTERS, NODE_POOLS
from backstay.report import Report
from kit import process
from kit.etcd import Etcd
from kit.quiescing import Bench


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with Etcd.start(tmp_path_factory.mktemp("etcd"), tls=None) as etcd:
        yield etcd


@pytest.fixture
def bench(tmp_path, etcd):
    with Bench.start(tmp_path, etcd) as bench:
        yield bench


def test_promise_3_all_is_stopped_in_the_block_and_as_it_was_behind_it(bench):
    before = bench.state()
    with bench.quiesce() as quiesce:
        assert set(bench.replicas().values()) == {0}
        assert bench.pods() == []
        records = [recorded(it) for it in (bench.hosted_cluster(), *bench.pools())]
        assert len({record.run for record in records}) == 1
        assert dict(records[0].writers) == dict.fromkeys(bench.replicas(), 3)
        assert None not in bench.paused()
    assert bench.state() == before
    outcome = quiesce.outcome
    assert (outcome.quiet, outcome.lapsed, outcome.back, outcome.holds) == (True, False, True, True)
    assert dict(outcome.stopped) == dict.fromkeys(bench.replicas(), 3)
    assert 0.2 <= outcome.downtime_seconds < 60
    assert bench.warnings == []
    assert len(bench.pods()) == 9


@pytest.mark.parametrize(
    "error", [ValueError, KeyboardInterrupt, SystemExit, lambda: EtcdError("the stream was cut")]
)
def test_promise_3_whatever_ends_the_block_it_is_put_back(bench, error):
    before = bench.state()
    raised = error()
    with pytest.raises(type(raised)) as caught, bench.quiesce() as quiesce:
        raise raised
    assert caught.value is raised
    assert bench.state() == before
    assert not quiesce.outcome.quiet


@pytest.mark.parametrize(
    "own", ["true", "True", "2099-01-01T00:00:00Z", "2099-01-01T00:00:00+02:00"]
)
def test_promise_3_a_pause_of_the_users_own_stays(bench, own):
    bench.kube.patch(HOSTED_CLUSTERS, "blue", {"spec": {"pausedUntil": own}}, "clusters")
    bench.kube.patch(NODE_POOLS, "blue-infra", {"spec": {"pausedUntil": own}}, "clusters")
    bench.settle()
    before = bench.state()
    with bench.quiesce() as quiesce:
        assert bench.hosted_cluster()["spec"]["pausedUntil"] == own
        assert bench.pods() == []
    assert bench.state() == before
    assert quiesce.outcome.holds
    assert quiesce.outcome.back
    assert any("paused by its owner" in text for text in bench.warnings)


@pytest.mark.parametrize("own", ["false", "2020-01-01T00:00:00Z", "2099-01-01T00:00:00"])
def test_promise_3_a_value_that_does_not_pause_comes_back_too(bench, own):
    """The last is no RFC 3339, passes HyperShift's schema all the same, and pauses nothing."""
    bench.kube.patch(HOSTED_CLUSTERS, "blue", {"spec": {"pausedUntil": own}}, "clusters")
    bench.settle()
    before = bench.state()
    with bench.quiesce() as quiesce:
        assert bench.hosted_cluster()["spec"]["pausedUntil"] != own
        assert bench.pods() == []
    assert bench.state() == before
    assert quiesce.outcome.holds
    assert quiesce.outcome.back


def test_a_writer_that_does_not_exist_or_has_no_replicas_is_nothing_wrong(tmp_path, etcd):
    with Bench.start(tmp_path, etcd, oauth=False) as bench:
        # Else its operator would put the replicas back.
        bench.kube.patch(HOSTED_CLUSTERS, "blue", {"spec": {"pausedUntil": "true"}}, "clusters")
        bench.settle()
        none = {"spec": {"replicas": 0}}
        bench.kube.patch(DEPLOYMENTS, "openshift-apiserver", none, bench.inside)
        bench.settle()
        before = bench.state()
        with bench.quiesce() as quiesce:
            assert set(bench.replicas()) == {"kube-apiserver", "openshift-apiserver"}
        assert bench.state() == before
        assert dict(quiesce.outcome.stopped) == {"kube-apiserver": 3, "openshift-apiserver": 0}
        assert quiesce.outcome.back


def test_it_waits_for_pods_that_leave_slowly(bench):
    bench.operator.leaves = 0.8
    began = time.monotonic()
    with bench.quiesce():
        assert time.monotonic() - began >= 0.8
        assert bench.pods() == []


def test_promise_3_pods_that_never_leave_put_it_back(bench):
    bench.operator.keeps_pods = True
    before = bench.state()
    with pytest.raises(QuiesceError, match=r"did not leave in 3 s: .*apiserver"):
        bench.quiesce(timeout=3).__enter__()
    assert bench.state() == before


def test_promise_3_a_pause_that_does_not_take_puts_it_back(bench):
    bench.operator.deaf = True
    before = bench.state()
    with pytest.raises(QuiesceError, match="does not say that it has paused HostedCluster"):
        bench.quiesce(timeout=0.5).__enter__()
    assert bench.state() == before
    assert not any(r.verb == "patch" and r.resource == "deployments" for r in bench.kube.requests)


def test_promise_3_an_operator_that_ignores_the_pause_is_found(bench):
    before = bench.state()
    bench.operator.ignores_pause = True
    with pytest.raises(QuiesceError, match=r"scales Deployment .* up again and again"):
        bench.quiesce(timeout=30).__enter__()
    assert bench.state() == before


def test_promise_3_a_writer_that_goes_on_is_named_by_its_place_alone(bench):
    stop = threading.Event()

    def write():
        while not stop.wait(0.05):
            bench.etcd.put(b"/kubernetes.io/leases/kube-system/a-secret-name", b"x")

    thread = threading.Thread(target=write)
    thread.start()
    before = bench.state()
    try:
        with pytest.raises(QuiesceError) as caught:
            bench.quiesce(timeout=3).__enter__()
    finally:
        stop.set()
        thread.join()
    assert "/kubernetes.io/leases/..." in str(caught.value)
    assert "a-secret-name" not in str(caught.value)
    assert bench.state() == before


def test_a_write_during_the_snapshot_is_told(bench):
    with bench.quiesce() as quiesce:
        bench.etcd.put(b"/kubernetes.io/pods/x/y", b"late")
    assert not quiesce.outcome.quiet
    assert not quiesce.outcome.holds
    assert quiesce.outcome.back
    assert "/kubernetes.io/pods/..." in quiesce.outcome.detail


def test_two_at_once_the_second_is_refused_and_changes_nothing(bench):
    with bench.quiesce(run="first") as quiesce:
        inside = bench.state()
        with pytest.raises(RefusedError, match=r"run first on me.*backstay resume hosted"):
            bench.quiesce(run="second").__enter__()
        assert bench.state() == inside
    assert quiesce.outcome.holds


def test_a_run_that_died_is_put_back_by_the_next_one(bench):
    before = bench.state()
    dead = bench.quiesce(run="dead", pause=2)
    dead.__enter__()
    dead._keeper._stop.set()  # as a kill would
    process.wait_until(lambda: set(bench.replicas().values()) == {3})
    with bench.quiesce(run="next", grace=0) as quiesce:
        assert recorded(bench.hosted_cluster()).run == "next"
        assert bench.pods() == []
    assert bench.state() == before
    assert quiesce.outcome.holds
    assert any("run dead on me" in text for text in bench.warnings)
    dead._open.close()


def test_the_pause_is_renewed_while_we_live(bench):
    with bench.quiesce(pause=2) as quiesce:
        first = bench.paused()
        process.wait_until(lambda: all(a != b for a, b in zip(first, bench.paused(), strict=True)))
        time.sleep(2.5)
        assert bench.pods() == []
    assert quiesce.outcome.holds


def test_a_lapse_during_the_snapshot_is_told(bench):
    before = bench.state()
    with bench.quiesce(pause=2) as quiesce:
        bench.kube.deny("patch", HOSTED_CLUSTERS)
        process.wait_until(lambda: set(bench.replicas().values()) == {3})
        bench.kube.allow()
    assert quiesce.outcome.lapsed
    assert not quiesce.outcome.holds
    assert quiesce.outcome.back
    assert "the pause ended at" in quiesce.outcome.detail
    assert bench.state() == before


def test_someone_who_unpauses_has_the_last_word(bench):
    with bench.quiesce(pause=3) as quiesce:
        bench.kube.patch(HOSTED_CLUSTERS, "blue", {"spec": {"pausedUntil": None}}, "clusters")
        process.wait_until(lambda: quiesce._keeper._lapsed)
        assert "pausedUntil" not in bench.hosted_cluster()["spec"]
    assert quiesce.outcome.lapsed
    assert ANNOTATION not in bench.hosted_cluster()["metadata"]["annotations"]


def test_promise_3_a_damaged_record_is_refused_and_left(bench):
    note = {"metadata": {"annotations": {ANNOTATION: '{"format": 1}'}}}
    bench.kube.patch(HOSTED_CLUSTERS, "blue", note, "clusters")
    before = bench.state()
    with pytest.raises(FormatError):
        bench.quiesce().__enter__()
    assert bench.state() == before


@pytest.mark.parametrize(
    "resource", [(DEPLOYMENTS, "scale"), (NODE_POOLS,), (HOSTED_CLUSTERS,)], ids=str
)
def test_promise_3_a_right_that_is_missing_puts_it_back(bench, resource):
    before = bench.state()
    bench.kube.deny("patch", *resource)
    with pytest.raises(KubeForbiddenError):
        bench.quiesce().__enter__()
    assert bench.state() == before


def test_what_can_not_be_put_back_is_told_and_kept(bench):
    with pytest.raises(QuiesceError, match="backstay resume hosted blue -n clusters"):  # noqa: SIM117
        with bench.quiesce():
            bench.kube.deny("patch", DEPLOYMENTS, "scale")
    bench.kube.allow()
    assert recorded(bench.hosted_cluster()).writers
    # The pause itself is over: the operator heals what we could not.
    assert set(bench.paused()) == {None}


def test_the_control_plane_that_does_not_come_back_is_a_warning(bench):
    with bench.quiesce(back=0.5) as quiesce:
        bench.operator.never_available = True
        bench.settle()
    assert not quiesce.outcome.back
    assert any("not Available" in text for text in bench.warnings)


def test_a_conflict_is_tried_again(bench):
    """The operator writes the status between our read and our patch, each time at first."""
    left = [3]

    def disturb(number, seen):
        if seen.verb == "patch" and seen.resource == "hostedclusters" and left[0]:
            left[0] -= 1
            note = {"metadata": {"labels": {"touched": str(number)}}}
            bench.kube.patch(HOSTED_CLUSTERS, "blue", note, "clusters")

    bench.kube.on_request = disturb
    with bench.quiesce() as quiesce:
        assert left == [0]
    assert quiesce.outcome.holds
    assert json.loads(bench.state())[0]["labels"]["touched"]


def test_a_node_pool_that_goes_meanwhile_is_not_missed(bench):
    with bench.quiesce() as quiesce:
        bench.kube.remove(NODE_POOLS, "blue-infra", "clusters")
    assert quiesce.outcome.back


def test_promise_3_a_signal_does_not_cut_what_is_put_back():
    done = []

    class StoppedError(BaseException):
        pass

    def stop(number, frame):
        raise StoppedError

    def work():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.2)
        done.append("all")
        raise KubeNotFoundError("gone")

    told = []
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(StoppedError):
            shielded(work, Report(told.append))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert done == ["all"]
    assert [said.text for said in told] == ["gone"]


def test_a_cluster_that_is_not_there(bench):
    hosted = bench.quiesce()
    bench.kube.remove(HOSTED_CLUSTERS, "blue", "clusters")
    with pytest.raises(KubeNotFoundError):
        hosted.__enter__()
