"""Waiting until a created control plane is restored and answers, with an eye on etcd-init.

The logs are read anew at each look, not held open: a stream through the API server can stall for
good, and the container that is followed can be replaced by another. Each look is a handful of
GETs of objects that are known by name.

A StatefulSet whose etcd-init makes clusters of one is told as soon as it is there, before any of
its pods has restored. It is only told: nothing is paused or deleted, since the new control plane
holds nothing that the backup has not, and what becomes of it is the reader's choice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from backstay.checks.question import Answer, passed, unknown
from backstay.clock import Clock
from backstay.errors import KubeError, KubeForbiddenError, KubeNotFoundError, UsageError
from backstay.kinds.hosted.cluster import MAIN, at, control_plane_namespace
from backstay.kinds.hosted.recovery.etcd_init import (
    CONTAINER,
    Outcome,
    Result,
    harmless,
    judge,
    read_log,
    read_pod,
)
from backstay.kinds.hosted.recovery.restoring import (
    RESTORED,
    PodState,
    Seen,
    judge_condition,
    judge_etcd_init,
    next_state,
)
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.resource import (
    HOSTED_CLUSTERS,
    HOSTED_CONTROL_PLANES,
    PODS,
    STATEFUL_SETS,
)
from backstay.report import Check, Report

#: What a HostedCluster says when its API is there.
_AVAILABLE = ("KubeAPIServerAvailable", "Available")
#: More than a control plane has; who says otherwise is not followed.
_MAX_MEMBERS = 9
#: Lines of a log that are read at each look.
_MAX_LINES = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Patience, in seconds.

    Attributes:
        interval: between two looks.
        appear: until the StatefulSet of etcd is there.
        restored: from then on, until all etcd-inits have ended and upstream has noticed.
        available: until the hosted cluster's API is available.
        attempts: how often an etcd-init may fail before it is given up.
    """

    interval: float = 2.0
    appear: float = 1200.0
    restored: float = 7200.0
    available: float = 3600.0
    attempts: int = 3

    def __post_init__(self) -> None:
        if not all(getattr(self, name) > 0 for name in self.__slots__):
            raise UsageError("a time or a number to wait for is not above zero")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """What the waiting for a restore came to.

    Attributes:
        outcomes: what each pod's etcd-init did, by the pod's name.
        replicas: how many members the StatefulSet has.
        checks: `etcd-init` and `snapshot-restored`.
    """

    outcomes: Mapping[str, Outcome]
    replicas: int
    checks: tuple[Check, ...]


def wait(
    api: Api,
    name: str,
    namespace: str,
    *,
    options: Options,
    clock: Clock,
    report: Report,
) -> Waited:
    """Wait until every etcd pod has restored the snapshot, or one never will.

    Comes back at once where the StatefulSet's etcd-init would make several clusters. Whoever
    wants to count keys asks the members next, before the control plane compacts.

    Args:
        api: of the management cluster.
        name: of the HostedCluster.
        namespace: of the HostedCluster.
        options: patience.
        clock: waits and measures.
        report: is told what each pod does, and each verdict.

    Raises:
        KubeNotFoundError: the HostedCluster is gone.
        KubeForbiddenError: we may not look.
    """
    follower = _Follower(api, name, namespace, clock, report)
    began = clock.monotonic()
    with report.task("waiting for etcd to be restored"):
        follower.follow(options)
    seconds = clock.monotonic() - began
    checks = (
        _check("etcd-init", judge_etcd_init(follower.seen), seconds),
        _check("snapshot-restored", judge_condition(follower.seen), seconds),
    )
    for check in checks:
        report.judge(check)
    seen = follower.seen
    return Waited(
        outcomes={pod: state.outcome for pod, state in seen.pods.items()},
        replicas=seen.replicas,
        checks=checks,
    )


def wait_available(
    api: Api,
    name: str,
    namespace: str,
    *,
    options: Options,
    clock: Clock,
    report: Report,
) -> Check:
    """Wait until the hosted cluster says that its API is available; gives check `available`.

    Raises:
        KubeNotFoundError: the HostedCluster is gone.
        KubeForbiddenError: we may not look.
    """

    def asked() -> Answer:
        missing = "it has not been looked at"
        deadline = clock.monotonic() + options.available
        while True:
            found = _patiently(lambda: api.get(HOSTED_CLUSTERS, name, namespace))
            if isinstance(found, str):
                missing = found
            else:
                missing = _unavailable(found)
                if not missing:
                    return passed("the HostedCluster and its API server are available")
            if clock.monotonic() >= deadline:
                return unknown(f"not within {options.available:g} s: {missing}")
            clock.sleep(options.interval)

    began = clock.monotonic()
    with report.task("waiting for the API of the hosted cluster"):
        # Not `ask`: a HostedCluster that is gone is no verdict, and ends the waiting.
        answer = asked()
    check = _check("available", answer, clock.monotonic() - began)
    report.judge(check)
    return check


def _check(name: str, answer: Answer, seconds: float) -> Check:
    return Check(name=name, verdict=answer.verdict, detail=answer.detail, seconds=seconds)


def _unavailable(hosted_cluster: Object | None) -> str:
    for kind in _AVAILABLE:
        condition = _condition(hosted_cluster, kind)
        if at(condition, "status", "") != "True":
            words = (
                at(condition, "message", "") or at(condition, "reason", "") or "no such condition"
            )
            return f"{kind}: {harmless(words)}"
    return ""


def _condition(document: Object | None, kind: str) -> Object | None:
    nothing: list[Any] = []
    found = at(document, "status.conditions", nothing)
    return next((one for one in found if at(one, "type", "") == kind), None)


def _patiently(question: Callable[[], Object | None]) -> Object | str | None:
    """Ask; the reason where the API fails, which it may while it is busy or restarting.

    Raises:
        KubeNotFoundError, KubeForbiddenError: that won't pass.
    """
    try:
        return question()
    except (KubeNotFoundError, KubeForbiddenError):
        raise
    except KubeError as error:
        return str(error)


class _Follower:
    """Looks until it is over."""

    def __init__(self, api: Api, name: str, namespace: str, clock: Clock, report: Report) -> None:
        self.seen = Seen(pods={})
        self._api = api
        self._name, self._namespace = name, namespace
        self._space = control_plane_namespace(namespace, name)
        self._clock = clock
        self._report = report

    def follow(self, options: Options) -> None:
        """Look again and again."""
        deadline = self._clock.monotonic() + options.appear
        there = False
        while True:
            self._look(options)
            if self.seen.is_over:
                return
            if self.seen.replicas and not there:
                there = True
                deadline = self._clock.monotonic() + options.restored
            if self._clock.monotonic() >= deadline:
                self._late(options, there=there)
                return
            self._clock.sleep(options.interval)

    def _late(self, options: Options, *, there: bool) -> None:
        what = (
            f"it did not end within {options.restored:g} s"
            if there
            else f"StatefulSet {self._space}/{MAIN} was not there within {options.appear:g} s"
        )
        self.seen = replace(self.seen, late=what)

    def _look(self, options: Options) -> None:
        # Whoever deletes the HostedCluster meanwhile does not want to wait for it.
        _patiently(lambda: self._api.get(HOSTED_CLUSTERS, self._name, self._namespace))
        found = _patiently(lambda: self._api.find(STATEFUL_SETS, MAIN, self._space))
        if found is None or isinstance(found, str):
            self.seen = replace(self.seen, trouble=found or "")
            return
        replicas = min(max(at(found, "spec.replicas", 1), 1), _MAX_MEMBERS)
        if not self.seen.replicas:
            self._report.say(f"StatefulSet {self._space}/{MAIN} is there, with {replicas} members")
        self.seen = replace(
            self.seen, replicas=replicas, refusal=judge(found, replicas), trouble=""
        )
        if self.seen.refusal is not None:
            return
        pods = {f"{MAIN}-{number}": PodState() for number in range(replicas)}
        self.seen = replace(
            self.seen,
            pods={name: self._pod(name, options) for name in pods},
            condition=self._condition(),
        )

    def _condition(self) -> str:
        found = _patiently(lambda: self._api.find(HOSTED_CONTROL_PLANES, self._name, self._space))
        if isinstance(found, str):
            return self.seen.condition
        return at(_condition(found, RESTORED), "status", "")

    def _pod(self, name: str, options: Options) -> PodState:
        before = self.seen.pods.get(name, PodState())
        if before.final:
            return before
        found = _patiently(lambda: self._api.find(PODS, name, self._space))
        if found is None or isinstance(found, str):
            return before
        state = next_state(before, read_pod(found), lambda: self._log(name), options.attempts)
        if state.outcome != before.outcome:
            self._tell(name, state)
        return state

    def _tell(self, name: str, state: PodState) -> None:
        words = f"{name}: etcd-init {state.outcome.result}"
        if state.outcome.result is Result.FAILED:
            self._report.warn(f"{words}: {state.outcome.line}")
        elif state.outcome.result is Result.SKIPPED:
            self._report.warn(words)
        else:
            self._report.say(words)

    def _log(self, pod: str) -> Outcome | None:
        try:
            with self._api.log(pod, self._space, CONTAINER) as lines:
                return read_log(line for line, _ in zip(lines, range(_MAX_LINES), strict=False))
        except KubeForbiddenError:
            raise
        except KubeError:
            # Not there yet, or not any more.
            return None
