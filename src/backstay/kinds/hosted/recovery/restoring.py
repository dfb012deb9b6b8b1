"""How far the restore of a control plane has come, and what is to be said of it.

Decisions alone, from what pods, logs and conditions say; `waiting` asks for these.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from backstay.checks.question import Answer, failed, passed, unknown
from backstay.kinds.hosted.recovery.etcd_init import Outcome, Refusal, Result, Run

#: Upstream's condition of a HostedControlPlane. Once False it stays so.
RESTORED = "EtcdSnapshotRestored"
SILENT = Outcome(Result.SILENT)
#: How often the log of an etcd-init that has ended is asked for.
_UNREAD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    """What is known of one pod.

    Attributes:
        outcome: of its etcd-init.
        attempts: how often it was started.
        unread: how often its log could not be read after it had ended.
        final: whether nothing more is to come.
    """

    outcome: Outcome = SILENT
    attempts: int = 0
    unread: int = 0
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that the looks have come to.

    Attributes:
        replicas: that the StatefulSet has; 0 while it is not there.
        refusal: why it must not go on.
        pods: by name.
        condition: the status of EtcdSnapshotRestored; empty while there is none.
        late: what the time ran out on.
        trouble: why the last look failed.
    """

    replicas: int = 0
    refusal: Refusal | None = None
    pods: Mapping[str, PodState]
    condition: str = ""
    late: str = ""
    trouble: str = ""

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to wait for."""
        if self.refusal is not None or any(_is_bad(pod) for pod in self.pods.values()):
            return True
        done = 0 < self.replicas <= sum(pod.final for pod in self.pods.values())
        return done and self.condition in {"True", "False"}


def _is_bad(pod: PodState) -> bool:
    return pod.final and pod.outcome.result in {Result.FAILED, Result.SKIPPED}


def next_state(
    before: PodState, run: Run | None, log: Callable[[], Outcome | None], attempts: int
) -> PodState:
    """Put together what a pod and its log say.

    Args:
        before: what was known.
        run: what the pod says; None where it has no etcd-init any more.
        log: reads the log; None where it can't be read, now or ever.
        attempts: after how many failures it is given up.
    """
    if run is None:
        # Upstream has taken it out: whatever it did, it is over.
        return replace(before, final=True)
    if not run.has_log:
        return before
    told = log()
    if told is None and run.ended and before.unread + 1 < _UNREAD:
        return replace(before, attempts=run.attempts, unread=before.unread + 1)
    told = told or SILENT
    if run.ended:
        # Exit code 0 says that the last command went well; the words must say which it was.
        known = told.result in {Result.RESTORED, Result.SKIPPED}
        return PodState(outcome=told if known else SILENT, attempts=run.attempts, final=True)
    if run.running:
        outcome = before.outcome if told.result is Result.SILENT else told
        return PodState(outcome=outcome, attempts=run.attempts)
    line = told.line or before.outcome.line or f"exit code {run.exit_code}"
    outcome = Outcome(Result.FAILED, line)
    return PodState(outcome=outcome, attempts=run.attempts, final=run.attempts >= attempts)


def judge_etcd_init(seen: Seen) -> Answer:
    """Judge what the etcd-inits did."""
    if seen.refusal is not None:
        return failed(f"{seen.refusal.what}: {seen.refusal.do}")
    for result in (Result.FAILED, Result.SKIPPED):
        bad = {pod: state for pod, state in seen.pods.items() if _is_bad(state)}
        named = [pod for pod, state in bad.items() if state.outcome.result is result]
        if named:
            return failed(_why(result, named, bad[named[0]]))
    restored = [p for p, s in seen.pods.items() if s.final and s.outcome.result is Result.RESTORED]
    if 0 < seen.replicas == len(restored):
        return passed(f"{', '.join(restored)} restored the snapshot")
    if seen.late:
        states = ", ".join(f"{pod} {state.outcome.result}" for pod, state in seen.pods.items())
        return unknown("; ".join(filter(None, (seen.late, states, seen.trouble))))
    silent = ", ".join(pod for pod in seen.pods if pod not in restored)
    return unknown(f"etcd-init of {silent} has ended, and its log does not tell what it did")


def _why(result: Result, pods: list[str], state: PodState) -> str:
    named = ", ".join(pods)
    if result is Result.SKIPPED:
        return (
            f"{named} found data in its volume and did not restore, which upstream takes for"
            " success: delete the HostedCluster and the volume claims data-etcd-*, then restore"
            " again"
        )
    return (
        f"{named} could not restore in {state.attempts} attempts: {state.outcome.line}: delete the"
        " HostedCluster and restore again, with a new URL"
    )


def judge_condition(seen: Seen) -> Answer:
    """Judge upstream's own condition, which is needed and proves nothing by itself."""
    if seen.condition == "True":
        return passed(f"{RESTORED} is True")
    if seen.condition == "False":
        return failed(
            f"{RESTORED} is False, and stays so: an etcd-init has failed once. It stays in the"
            " StatefulSet, so that a pod with a new volume downloads the snapshot again: keep the"
            " restore object, or delete the HostedCluster and restore again"
        )
    return unknown(f"{RESTORED} is not told yet")
