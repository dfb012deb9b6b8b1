"""What is left when the program is killed, at any call; and putting that back from any machine."""

import json
import multiprocessing
import os
import signal

import pytest

from backstay.errors import KubeForbiddenError, KubeNotFoundError, QuiesceError, UsageError
from backstay.kinds.hosted.quiescing.record import ANNOTATION, recorded
from backstay.kinds.hosted.quiescing.resume import resume
from backstay.kinds.hosted.rights import needed
from backstay.kubeapi.resource import DEPLOYMENTS, HOSTED_CLUSTERS, NODE_POOLS
from kit import process
from kit.cli import Cli
from kit.etcd import Etcd
from kit.quiescing import CLOCK, Bench, run_child

#: A process that has everything imported, and gives birth to those that are killed.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["kit.quiescing"])


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with Etcd.start(tmp_path_factory.mktemp("etcd"), tls=None) as etcd:
        yield etcd


@pytest.fixture
def bench(tmp_path, etcd):
    with Bench.start(tmp_path, etcd) as bench:
        yield bench


def put_back(bench, **more):
    return resume(
        bench.api,
        "blue",
        "clusters",
        clock=CLOCK,
        report=bench.report,
        poll=0.02,
        **{"patience": 60, **more},
    )


def quiesced_and_killed(bench, etcd, at, **options):
    """Run it in a process that is killed before a request is served; whether it was."""
    options = {"poll": 0.05, "quiet": 0.0, "run": f"killed-{id(at)}"} | options
    arguments = (str(bench.kube.kubeconfig), etcd.endpoint, options, 0.0)
    child = FORKS.Process(target=run_child, args=arguments)
    began = len(bench.kube.requests)

    def kill(number, seen):
        if at(number - began, seen):
            os.kill(child.pid, signal.SIGKILL)

    bench.kube.on_request = kill
    child.start()
    child.join(60)
    bench.kube.on_request = None
    bench.kube.settle()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def kill_and_resume(bench, etcd, moments):
    """Kill it at one moment after the other until it lives through one; gives how many it took."""
    before, dirty = bench.state(), 0
    for killed, moment in enumerate(moments):
        if not quiesced_and_killed(bench, etcd, moment):
            assert bench.state() == before
            return killed, dirty
        dirty += bench.state() != before
        put_back(bench)
        assert bench.state() == before
        assert put_back(bench).put_back.changes == ()
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("part", range(2))
def test_promise_3_killed_at_every_change_resume_leaves_it_as_it_was(tmp_path, etcd, part):
    """Between two changes the cluster stands still, whatever is read there."""
    with Bench.start(tmp_path, etcd, members=1) as bench:
        moments = (nth(count) for count in range(1 + part, 99, 2))
        killed, dirty = kill_and_resume(bench, etcd, moments)
        # A record and a pause for three objects, three Deployments down; and all of it back.
        assert killed == 6
        assert dirty >= 5


@pytest.mark.soak
def test_promise_3_killed_at_every_call_resume_leaves_it_as_it_was(tmp_path, etcd):
    with Bench.start(tmp_path, etcd, members=1) as bench:
        moments = (lambda number, _, at=at: number == at for at in range(1, 999))
        killed, dirty = kill_and_resume(bench, etcd, moments)
        assert killed > 40
        assert dirty > 20


def nth(count, resource=""):
    """At the n-th patch, of a resource or of any."""
    seen_so_far = []

    def at(_, seen):
        if seen.verb == "patch" and resource in ("", seen.resource):
            seen_so_far.append(seen)
            return len(seen_so_far) == count
        return False

    return at


@pytest.mark.parametrize(
    ("count", "resource"),
    [(1, "hostedclusters"), (2, "nodepools"), (3, "deployments")],
)
def test_promise_3_killed_and_left_alone_it_goes_on_by_itself(bench, etcd, count, resource):
    before, replicas = bench.state(), bench.replicas()
    assert quiesced_and_killed(bench, etcd, nth(count, resource), pause=2)
    assert bench.state() != before
    assert set(bench.paused()) != {None}
    process.wait_until(lambda: bench.replicas() == replicas and active(bench), 30)
    bench.settle()
    assert len(bench.pods()) == 9
    # What is left is the record, and a pause that is over; they are gone with the next one.
    put_back(bench)
    assert bench.state() == before


@pytest.mark.parametrize(
    ("count", "resource"), [(1, "hostedclusters"), (2, "deployments"), (3, "deployments")]
)
def test_promise_3_interrupted_it_puts_back_itself(bench, etcd, count, resource, capfd):
    before = bench.state()
    moment = nth(count, resource)
    options = {"run": "interrupted"}
    arguments = (str(bench.kube.kubeconfig), etcd.endpoint, options, 30.0)
    child = FORKS.Process(target=run_child, args=arguments)

    def interrupt(number, seen):
        if moment(number, seen):
            os.kill(child.pid, signal.SIGINT)

    bench.kube.on_request = interrupt
    child.start()
    child.join(25)
    assert child.exitcode == 1
    bench.kube.on_request = None
    assert bench.state() == before


def active(bench):
    conditions = bench.hosted_cluster()["status"]["conditions"]
    return ("ReconciliationActive", "True") in {(c["type"], c["status"]) for c in conditions}


def die(bench, **options):
    """Leave everything as a kill would, once all is stopped."""
    quiesce = bench.quiesce(**options)
    quiesce.__enter__()
    quiesce._keeper.close()
    quiesce._open.close()


def test_it_asks_for_no_more_than_its_rights(bench):
    """The roles that are shipped are made from these."""
    began = len(bench.kube.requests)
    die(bench)
    assert not asked(bench, began) - rights("quiesce")
    # What is deployed for it is used: no right is there for nothing.
    assert not {right for right in rights("quiesce") if right[0] == "patch"} - asked(bench, began)
    began = len(bench.kube.requests)
    put_back(bench)
    assert not asked(bench, began) - rights("resume")


def asked(bench, began):
    return {(seen.verb, seen.resource) for seen in bench.kube.requests[began:]}


def rights(command):
    return {(right.verb, right.resource.plural) for right in needed(command)}


def test_it_tells_what_it_did_and_again_is_nothing(bench):
    before = bench.state()
    die(bench, run="dead")
    resumed = put_back(bench)
    assert bench.state() == before
    assert resumed.proof.back
    assert resumed.put_back.record.run == "dead"
    subjects = [change.subject for change in resumed.put_back.changes]
    assert len(subjects) == 6
    assert subjects[-1] == "HostedCluster clusters/blue"
    again = put_back(bench)
    assert again.put_back.changes == ()
    assert again.proof is None


def test_promise_3_a_pause_of_the_users_own_is_put_back(bench):
    bench.kube.patch(HOSTED_CLUSTERS, "blue", {"spec": {"pausedUntil": "true"}}, "clusters")
    bench.settle()
    before = bench.state()
    die(bench)
    # Nothing lapses here: the operator was paused before us, and still is.
    assert set(bench.replicas().values()) == {0}
    assert put_back(bench).proof.back
    assert bench.state() == before


def test_what_someone_else_has_set_stays_and_is_told(bench):
    die(bench)
    bench.kube.patch(HOSTED_CLUSTERS, "blue", {"spec": {"pausedUntil": "true"}}, "clusters")
    bench.kube.patch(DEPLOYMENTS, "kube-apiserver", {"spec": {"replicas": 2}}, bench.inside)
    bench.settle()
    resumed = put_back(bench)
    assert bench.hosted_cluster()["spec"]["pausedUntil"] == "true"
    assert ANNOTATION not in bench.hosted_cluster()["metadata"]["annotations"]
    assert bench.replicas() == {**dict.fromkeys(bench.replicas(), 3), "kube-apiserver": 2}
    assert len(resumed.put_back.left) == 2
    assert resumed.proof.back
    assert len(bench.warnings) == 2


def test_a_dry_run_changes_nothing_and_shows_the_commands(bench):
    die(bench)
    inside = bench.state()
    resumed = put_back(bench, dry_run=True)
    assert bench.state() == inside
    commands = [change.command for change in resumed.put_back.changes]
    assert commands[0] == ("oc scale deployment -n clusters-blue kube-apiserver --replicas=3")
    start = "oc patch hostedcluster -n clusters blue --type=merge -p '"
    assert commands[-1].startswith(start)
    patch = json.loads(commands[-1].removeprefix(start).removesuffix("'"))
    assert patch == {
        "metadata": {"annotations": {ANNOTATION: None}},
        "spec": {"pausedUntil": None},
    }
    put_back(bench)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "run": 7}'])
def test_a_damaged_record_is_shown_with_what_to_do_and_the_rest_is_put_back(bench, text):
    die(bench)
    note = {"metadata": {"annotations": {ANNOTATION: text}}}
    bench.kube.patch(HOSTED_CLUSTERS, "blue", note, "clusters")
    with pytest.raises(QuiesceError) as caught:
        put_back(bench)
    told = str(caught.value)
    assert repr(text) in told
    assert "oc scale deployment -n clusters-blue --replicas=N kube-apiserver" in told
    assert "oc patch hostedcluster -n clusters blue --type=merge" in told
    assert {pool["spec"].get("pausedUntil") for pool in bench.pools()} == {None}
    assert bench.hosted_cluster()["metadata"]["annotations"][ANNOTATION] == text


def test_one_that_fails_holds_nothing_else_up_and_keeps_the_record(bench):
    before = bench.state()
    die(bench)
    bench.kube.deny("patch", NODE_POOLS)
    with pytest.raises(QuiesceError, match="run `backstay resume hosted blue -n clusters`"):
        put_back(bench)
    assert set(bench.replicas().values()) == {3}
    assert "pausedUntil" not in bench.hosted_cluster()["spec"]
    assert recorded(bench.hosted_cluster()) is not None
    bench.kube.allow()
    put_back(bench)
    assert bench.state() == before


def test_a_cluster_that_does_not_come_back_is_not_called_back(bench):
    die(bench)
    bench.operator.never_available = True
    bench.settle()
    resumed = put_back(bench, patience=0.5)
    assert not resumed.proof.back
    assert "not Available" in bench.warnings[-1]


def test_what_is_not_there_is_said(bench):
    with pytest.raises(KubeNotFoundError):
        resume(bench.api, "green", "clusters", clock=CLOCK, report=bench.report)
    for name in ("", "..", "a/b", "A"):
        with pytest.raises(UsageError):
            resume(bench.api, name, "clusters", clock=CLOCK, report=bench.report)
    bench.kube.deny("get", HOSTED_CLUSTERS)
    with pytest.raises(KubeForbiddenError):
        put_back(bench)


@pytest.fixture
def cli(bench, tmp_path):
    return Cli(tmp_path, {"KUBECONFIG": str(bench.kube.kubeconfig)})


WORDS = ("resume", "hosted", "blue", "-n", "clusters")


def test_the_command_puts_back_and_says_so(bench, cli):
    before = bench.state()
    die(bench, run="dead", by="a-machine")
    dry = cli(*WORDS, "--dry-run")
    assert "oc scale deployment -n clusters-blue kube-apiserver --replicas=3" in dry.out
    assert bench.state() != before
    done = cli(*WORDS, "--json")
    assert bench.state() == before
    assert done.json["cluster"] == "clusters.blue"
    assert done.json["as_it_was"] is True
    assert done.json["quiesced_by"]["run"] == "dead"
    assert len(done.json["changes"]) == 6
    again = cli(*WORDS)
    assert "nothing to put back" in again.err
    assert cli(*WORDS, "--json").json["as_it_was"] is None


def test_the_command_that_can_not_see_it_back_exits_with_4(bench, cli):
    die(bench)
    bench.operator.never_available = True
    bench.settle()
    done = cli(*WORDS, "--timeout", "500ms", expect=4)
    assert "could not verify" in done.err
