"""Putting a control plane back after a crash, and proving that it is as it was.

"As it was" is what the record tells: replicas, and ready ones; the user's own pause, or none, and
HyperShift saying so; Available, where it was that. What can't be seen in time is told as such.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from backstay.clock import Clock
from backstay.errors import KubeError, UsageError
from backstay.kinds.hosted.cluster import at, control_plane_namespace
from backstay.kinds.hosted.quiescing.pause import lasts
from backstay.kinds.hosted.quiescing.putback import PutBack, put_back
from backstay.kinds.hosted.quiescing.record import Record, paused_until, replicas_of
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.resource import DEPLOYMENTS, HOSTED_CLUSTERS
from backstay.report import Report

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a control plane is as it was.

    Attributes:
        back: whether everything was seen to be.
        detail: what was seen, or what was not.
        ready_at: when the writers' replicas were seen ready, by the monotonic clock.
    """

    back: bool
    detail: str
    ready_at: float | None = None


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a control plane needed to go on.

    Attributes:
        put_back: what was put back; nothing where it was not quiesced.
        proof: whether all is as it was; None where nothing was to be done, or nobody looked.
    """

    put_back: PutBack
    proof: Proof | None = None


def resume(
    api: Api,
    name: str,
    namespace: str,
    *,
    clock: Clock,
    report: Report,
    dry_run: bool = False,
    patience: float = 600.0,
    poll: float = 1.0,
) -> Resumed:
    """Put a control plane back, and prove it; where nothing is to be done, that is well.

    Args:
        api: of the management cluster.
        name: of the HostedCluster.
        namespace: of the HostedCluster.
        clock: tells the time.
        report: is told what is done, and what is left.
        dry_run: change nothing, and tell what would be changed.
        patience: seconds to wait for the control plane to be as it was; 0 does not look.
        poll: seconds between two looks.

    Raises:
        UsageError: these are no names.
        KubeNotFoundError: there is no such HostedCluster.
        KubeError: the HostedCluster can't be read.
        QuiesceError: something could not be put back; the message says what to do by hand.
    """
    for word, text in (("name", name), ("namespace", namespace)):
        if not _NAME.fullmatch(text):
            raise UsageError(f"{text[:100]!r} is no {word} of a HostedCluster")
    done = put_back(api, name, namespace, clock=clock, dry_run=dry_run)
    for text in done.left:
        report.warn(f"{text}: left as it is")
    if dry_run or not patience or done.record is None or done.expected is None:
        return Resumed(done)
    report.say(f"put back what {done.record.title} had left; waiting for the control plane")
    proof = prove(api, name, namespace, done.expected, clock=clock, patience=patience, poll=poll)
    if not proof.back:
        report.warn(proof.detail)
    return Resumed(done, proof)


def prove(
    api: Api,
    name: str,
    namespace: str,
    record: Record,
    *,
    clock: Clock,
    patience: float,
    poll: float,
) -> Proof:
    """Wait until a control plane is as it was; looks at least once.

    Args:
        api: of the management cluster.
        name: of the HostedCluster.
        namespace: of the HostedCluster.
        record: what it was like.
        clock: tells the time.
        patience: seconds.
        poll: seconds between two looks.
    """
    deadline = clock.monotonic() + patience
    ready_at: float | None = None
    inside = control_plane_namespace(namespace, name)
    while True:
        try:
            missing = [
                words
                for writer, replicas in record.writers
                if (words := lacking(api.find(DEPLOYMENTS, writer, inside), writer, replicas))
            ]
            if not missing and ready_at is None:
                ready_at = clock.monotonic()
            hosted_cluster = api.get(HOSTED_CLUSTERS, name, namespace)
            missing += unlike(hosted_cluster, record, clock.now())
        except KubeError as error:
            missing = [error.what]
        if not missing:
            words = ", ".join(f"{writer} {replicas}" for writer, replicas in record.writers)
            return Proof(back=True, detail=f"replicas as before: {words}", ready_at=ready_at)
        if clock.monotonic() >= deadline:
            return Proof(
                back=False,
                detail=f"could not verify that all is as it was: {'; '.join(missing)}",
                ready_at=ready_at,
            )
        clock.sleep(poll)


def lacking(deployment: Object | None, name: str, replicas: int) -> str:
    """Say what a writer lacks to be as it was; empty where it lacks nothing.

    Args:
        deployment: as it is now; None where there is none.
        name: of the Deployment.
        replicas: that it had.
    """
    if deployment is None:
        return f"Deployment {name} is gone"
    wanted = replicas_of(deployment)
    ready = at(deployment, "status.readyReplicas", 0)
    if wanted != replicas:
        return f"Deployment {name} has {wanted} replicas, not {replicas}"
    if ready < replicas:
        return f"Deployment {name} has {ready} of {replicas} replicas ready"
    return ""


def unlike(hosted_cluster: Object, record: Record, now: datetime) -> list[str]:
    """Say in what a HostedCluster is not as it was."""
    conditions: list[Object] = at(hosted_cluster, "status.conditions", [])
    told = {at(c, "type", ""): at(c, "status", "") for c in conditions}
    own = lasts(record.own)
    still_paused = own is not None and now < own
    found = []
    if paused_until(hosted_cluster) != record.own:
        found.append("spec.pausedUntil is not what it was")
    elif told.get("ReconciliationActive") != ("False" if still_paused else "True"):
        state = "paused again" if still_paused else "active"
        found.append(f"HyperShift does not say that it is {state}")
    if record.available and told.get("Available") != "True":
        found.append("the HostedCluster is not Available")
    return found
