"""Waiting for a restore: with etcd-init's own script at work, and on states that pods can be in."""

import random
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.clock import SystemClock
from backstay.errors import KubeError, KubeForbiddenError, KubeNotFoundError, UsageError
from backstay.kinds.hosted.recovery.apply import apply
from backstay.kinds.hosted.recovery.creation import plan
from backstay.kinds.hosted.recovery.etcd_init import Result, etcd_init_gone
from backstay.kinds.hosted.recovery.restored import expect, prove
from backstay.kinds.hosted.recovery.waiting import Options, wait, wait_available
from backstay.kubeapi.api import Api
from backstay.kubeapi.resource import (
    HOSTED_CLUSTERS,
    HOSTED_CONTROL_PLANES,
    PODS,
    STATEFUL_SETS,
)
from backstay.mvcc.export import Edits, export
from backstay.report import Report, Said, Verdict
from kit import kube as fixtures
from kit.etcd_init import EtcdInit, Fleet, https_files, init_container
from kit.restore_documents import documents, one

CLOCK = SystemClock()
#: Patience that no loaded machine uses up; looks that come often.
PATIENT = Options(interval=0.05, appear=60, restored=120, available=60)
SPACE = "clusters-blue"
PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.COULD_NOT_VERIFY


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A bumped snapshot behind https, and what is to come of it."""
    folder = tmp_path_factory.mktemp("bucket")
    edits = Edits(bump=1_000_000_000, mark_compacted=True)
    target = (folder / "snapshot.db").open("wb")
    with fixtures.real_snapshot("kube-plain") as snapshot, target as file:
        expected = expect(snapshot, export(snapshot, file, edits).revision, None)
    with https_files(folder) as (url, ca):
        yield url, ca, expected


class Told:
    """What was waited for, and what was said meanwhile."""

    def __init__(self, api, options=PATIENT):
        self.events = []
        self.waited = wait(
            api,
            "blue",
            "clusters",
            options=options,
            clock=CLOCK,
            report=Report(self.events.append),
        )
        self.checks = {check.name: check for check in self.waited.checks}

    @property
    def verdicts(self):
        return self.checks["etcd-init"].verdict, self.checks["snapshot-restored"].verdict

    @property
    def detail(self):
        return self.checks["etcd-init"].detail

    @property
    def said(self):
        return [event.text for event in self.events if isinstance(event, Said)]


# With the real script.


@contextmanager
def restoring(kube, api, bucket, folder, *, members=1, name="snapshot.db", **options):
    """A restore that has been applied, and what comes of it."""
    url, ca, _ = bucket
    parts = {key: options.pop(key) for key in ("fixed",) if key in options}
    fleet = Fleet(folder / "fleet", members=members, ca=ca, **parts)
    with EtcdInit(fleet, **options).playing(kube) as actor:
        signed = f"{url}/{name}?X-Amz-Signature=not-to-be-seen"
        apply(api, plan(documents(signed, members=members), "r1"), report=Report())
        yield actor


def until_started(actor, members):
    for _ in range(2000):
        if len(actor.etcds) == members:
            return
        CLOCK.sleep(0.02)
    raise AssertionError(actor.failure)


@pytest.mark.parametrize("members", [1, 3])
def test_a_restore_is_followed_to_its_end_and_proven(kube, api, bucket, tmp_path, members):
    with restoring(kube, api, bucket, tmp_path, members=members) as actor:
        told = Told(api)
        assert told.verdicts == (PASS, PASS)
        assert told.waited.replicas == members
        names = [f"etcd-{number}" for number in range(members)]
        assert list(told.waited.outcomes) == names
        for name in names:
            assert f"{name}: etcd-init restored the snapshot" in told.said
        available = wait_available(
            api, "blue", "clusters", options=PATIENT, clock=CLOCK, report=Report()
        )
        assert available.verdict is PASS
        assert etcd_init_gone(kube.get(STATEFUL_SETS, "etcd", SPACE))
        with ExitStack() as stack:
            clients = {
                name: stack.enter_context(Client(etcd.access)) for name, etcd in actor.etcds.items()
            }
            found = prove(clients, bucket[2], members, clock=CLOCK, report=Report())
            assert {check.verdict for check in found} == {PASS}


def test_an_etcd_init_that_splits_members_is_told_before_any_has_restored(
    kube, api, bucket, tmp_path
):
    told = threading.Event()
    begun = []

    def held(name):
        assert told.wait(60)
        begun.append(name)

    with restoring(kube, api, bucket, tmp_path, members=3, fixed=False, held=held, ready=False):
        found = Told(api)
        assert begun == []
        told.set()
    assert found.verdicts == (FAIL, UNKNOWN)
    assert "3 clusters of one" in found.detail
    assert "controllerAvailabilityPolicy SingleReplica" in found.detail
    # Nothing is changed by it: what to do is the reader's choice.
    assert {seen.verb for seen in kube.requests} == {"get", "list", "create"}
    assert kube.get(HOSTED_CLUSTERS, "blue", "clusters")


def test_the_same_etcd_init_may_restore_one_member(kube, api, bucket, tmp_path):
    with restoring(kube, api, bucket, tmp_path, fixed=False):
        assert Told(api).verdicts == (PASS, PASS)


def test_a_skip_is_told_though_upstream_takes_it_for_success(kube, api, bucket, tmp_path):
    Fleet(tmp_path / "fleet").occupy("etcd-0")
    with restoring(kube, api, bucket, tmp_path) as actor:
        told = Told(api)
        until_started(actor, 1)
    assert told.verdicts[0] is FAIL
    assert told.waited.outcomes["etcd-0"].result is Result.SKIPPED
    assert "found data in its volume and did not restore" in told.detail
    conditions = kube.get(HOSTED_CONTROL_PLANES, "blue", SPACE)["status"]["conditions"]
    assert conditions[0]["status"] == "True"


def test_promise_5_a_url_that_gives_an_error_page_is_given_up(kube, api, bucket, tmp_path):
    with restoring(kube, api, bucket, tmp_path, name="expired.db"):
        told = Told(api)
    assert told.verdicts[0] is FAIL
    assert "in 3 attempts: the URL gave an error page (AccessDenied: Request has" in told.detail
    assert not any("not-to-be-seen" in text for text in [told.detail, *told.said])


def test_a_failure_that_passes_leaves_upstreams_condition_false(kube, api, bucket, tmp_path):
    def held(_):
        # The URL's object comes late: once there has been a first attempt.
        fleet.ca = None

    url, ca, _ = bucket
    fleet = Fleet(tmp_path / "fleet", members=1)
    run = fleet.run

    def second_time_trusted(name, url):
        ran = run(name, url)
        fleet.ca = ca
        return ran

    fleet.run = second_time_trusted
    with EtcdInit(fleet, held=held).playing(kube):
        apply(api, plan(documents(f"{url}/snapshot.db"), "r1"), report=Report())
        told = Told(api)
    assert told.verdicts == (PASS, FAIL)
    assert "stays so" in told.checks["snapshot-restored"].detail


# On what pods can say.


def place(kube, init=None, *, replicas=1, condition=None, fixed=True):
    """A control plane whose pods have this said of their etcd-init."""
    kube.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "clusters"}})
    kube.put(one(documents(), "HostedCluster"))
    where = {"namespace": SPACE}
    conditions = [{"type": "EtcdSnapshotRestored", "status": condition}] if condition else []
    kube.put(
        {
            "apiVersion": "hypershift.openshift.io/v1beta1",
            "kind": "HostedControlPlane",
            "metadata": {"name": "blue", **where},
            "status": {"conditions": conditions},
        }
    )
    container = init_container(fixed=fixed, url="https://x/y", namespace=SPACE, members=replicas)
    pod = {"spec": {"initContainers": [container], "containers": [{"name": "etcd"}]}}
    kube.put(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "etcd", **where},
            "spec": {"replicas": replicas, "template": pod},
        }
    )
    for number in range(replicas):
        status = {"initContainerStatuses": [{"name": "etcd-init", **(init or {})}]}
        kube.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"etcd-{number}", **where},
                "status": status,
                **pod,
            }
        )


SOON = replace(PATIENT, appear=0.3, restored=0.3, available=0.3)
DONE = {"state": {"terminated": {"exitCode": 0}}}


def test_nothing_that_appears_is_waited_for_in_vain(kube, api):
    kube.put(one(documents(), "Namespace"))
    kube.put(one(documents(), "HostedCluster"))
    told = Told(api, SOON)
    assert told.verdicts == (UNKNOWN, UNKNOWN)
    assert "StatefulSet clusters-blue/etcd was not there within 0.3 s" in told.detail


def test_what_does_not_end_is_could_not_verify(kube, api):
    place(kube, {"state": {"running": {}}}, replicas=3)
    kube.logs[(SPACE, "etcd-1", "etcd-init")] = "x\tinfo\trestoring snapshot\t{}\n"
    told = Told(api, SOON)
    assert told.verdicts == (UNKNOWN, UNKNOWN)
    assert "etcd-1 is restoring" in told.detail
    assert "etcd-0 has said nothing yet" in told.detail


def test_promise_4_an_exit_code_without_words_proves_nothing(kube, api):
    place(kube, DONE, condition="True")
    told = Told(api)
    assert told.verdicts == (UNKNOWN, PASS)
    assert "its log does not tell" in told.detail
    kube.logs[(SPACE, "etcd-0", "etcd-init")] = "restored snapshot\n"
    assert Told(api).verdicts == (PASS, PASS)


def test_a_pod_whose_etcd_init_has_gone_already_proves_nothing(kube, api):
    place(kube, DONE, condition="True")
    pod = kube.get(PODS, "etcd-0", SPACE)
    pod["spec"]["initContainers"] = [{"name": "reset-member"}]
    kube.put(pod)
    assert Told(api).verdicts == (UNKNOWN, PASS)


def test_one_of_three_that_skipped_is_named(kube, api):
    place(kube, DONE, replicas=3, condition="True")
    for number in range(3):
        kube.logs[(SPACE, f"etcd-{number}", "etcd-init")] = "restored snapshot\n"
    kube.logs[(SPACE, "etcd-1", "etcd-init")] = "/var/lib/data not empty, not restoring snapshot\n"
    told = Told(api)
    assert told.verdicts[0] is FAIL
    assert told.detail.startswith("etcd-1 found data")


def test_upstreams_condition_is_waited_for(kube, api):
    place(kube, DONE)
    kube.logs[(SPACE, "etcd-0", "etcd-init")] = "restored snapshot\n"
    told = Told(api, SOON)
    assert told.verdicts == (PASS, UNKNOWN)


def test_an_api_that_fails_now_and_then_is_asked_again(kube, api):
    place(kube, DONE, condition="True")
    kube.logs[(SPACE, "etcd-0", "etcd-init")] = "restored snapshot\n"
    with Api(Flaky(api.transport)) as flaky:
        assert Told(flaky).verdicts == (PASS, PASS)


class Flaky:
    """A transport of which a third of the calls fail, as while a server is restarted."""

    def __init__(self, inner):
        self._inner, self._dice = inner, random.Random(7)
        self.server = inner.server

    def call(self, request):
        self._fail()
        return self._inner.call(request)

    def lines(self, request):
        self._fail()
        return self._inner.lines(request)

    def _fail(self):
        if self._dice.random() < 1 / 3:
            raise KubeError("connection refused")

    def close(self):
        """The inner one is its owner's."""


def test_a_hosted_cluster_that_is_gone_ends_the_waiting(kube, api):
    place(kube, {"state": {"running": {}}})
    kube.remove(HOSTED_CLUSTERS, "blue", "clusters")
    with pytest.raises(KubeNotFoundError):
        Told(api)
    with pytest.raises(KubeNotFoundError):
        wait_available(api, "blue", "clusters", options=PATIENT, clock=CLOCK, report=Report())


def test_who_may_not_look_is_told_at_once(kube, api):
    place(kube, {"state": {"running": {}}})
    kube.deny("get", STATEFUL_SETS)
    with pytest.raises(KubeForbiddenError):
        Told(api)


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([], "KubeAPIServerAvailable: no such condition"),
        (
            [{"type": "KubeAPIServerAvailable", "status": "False", "message": "waiting\nfor etcd"}],
            "KubeAPIServerAvailable: waiting for etcd",
        ),
        (
            [
                {"type": "KubeAPIServerAvailable", "status": "True"},
                {"type": "Available", "status": "False", "reason": "Soon"},
            ],
            "Available: Soon",
        ),
    ],
)
def test_an_api_that_does_not_come_is_could_not_verify(kube, api, conditions, words):
    place(kube)
    hosted = kube.get(HOSTED_CLUSTERS, "blue", "clusters")
    kube.put(hosted | {"status": {"conditions": conditions}})
    found = wait_available(api, "blue", "clusters", options=SOON, clock=CLOCK, report=Report())
    assert found.verdict is UNKNOWN
    assert words in found.detail


def test_patience_is_above_zero():
    with pytest.raises(UsageError):
        Options(interval=0)
