"""Pausing with a dead-man switch: `spec.pausedUntil` a while ahead, renewed while we live.

HyperShift's operator goes on by itself when the time has come, so that whatever kills us, nothing
stays paused. The exception is a pause that the user had set before, for longer or for ever:
that is theirs, and is left as it is.

Sources: support/util/pausereconcile.go of openshift/hypershift (strconv.ParseBool, then RFC 3339;
what is neither does not pause, and is told by reason InvalidPausedUntilValue).
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum

from backstay.clock import Clock
from backstay.errors import (
    BackstayError,
    KubeConflictError,
    KubeError,
    KubeNotFoundError,
    QuiesceError,
    RefusedError,
)
from backstay.kinds.hosted.cluster import Hosted, at
from backstay.kinds.hosted.quiescing.record import (
    Record,
    paused_until,
    pausing,
    read_time,
    recorded,
    stamp,
)
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.resource import HOSTED_CLUSTERS, HOSTED_CONTROL_PLANES, NODE_POOLS, Resource

#: Go's strconv.ParseBool.
_FOR_EVER = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_ALWAYS = datetime.max.replace(tzinfo=UTC)
#: The operator writes the status of the objects that we patch: a conflict is nothing unusual.
_ATTEMPTS = 12


@dataclass(frozen=True, slots=True)
class Target:
    """An object that is paused or scaled."""

    resource: Resource
    name: str
    namespace: str

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"{self.resource.kind} {self.namespace}/{self.name}"

    def get(self, api: Api) -> Object:
        """Read it."""
        return api.get(self.resource, self.name, self.namespace)


class Hold(Enum):
    """Whether the operator holds still."""

    PAUSED = "paused"
    ACTIVE = "active"
    INVALID = "invalid"


def lasts(value: str | None) -> datetime | None:
    """Tell until when a value of spec.pausedUntil pauses; None where it does not at all."""
    if value is None:
        return None
    return _ALWAYS if value in _FOR_EVER else read_time(value)


def pauses(value: str | None, now: datetime) -> bool:
    """Whether a value of spec.pausedUntil pauses now."""
    until = lasts(value)
    return until is not None and now < until


def ahead(now: datetime, seconds: float) -> datetime:
    """The end of a pause that begins now, in whole seconds: later rather than sooner."""
    moment = now + timedelta(seconds=seconds)
    whole = moment.replace(microsecond=0)
    return whole if whole == moment else whole + timedelta(seconds=1)


def longer(own: str | None, until: datetime) -> str:
    """Choose the value to set: ours, or the user's own where that holds for longer."""
    mine = lasts(own)
    return own if own is not None and mine is not None and mine >= until else stamp(until)


def hold(document: Object) -> Hold:
    """Read from the conditions of an object whether its operator holds still.

    That a value is invalid is believed only where it is said of the spec as it stands now.
    """
    conditions: list[Object] = at(document, "status.conditions", [])
    for condition in conditions:
        if at(condition, "type", "") != "ReconciliationActive":
            continue
        reason, status = at(condition, "reason", ""), at(condition, "status", "")
        if status == "False" and reason == "ReconciliationPaused":
            return Hold.PAUSED
        generation = at(document, "metadata.generation", 0)
        if (
            reason == "InvalidPausedUntilValue"
            and at(condition, "observedGeneration", generation) >= generation
        ):
            return Hold.INVALID
    return Hold.ACTIVE


def change(
    api: Api,
    target: Target,
    decide: Callable[[Object], Object | None],
    clock: Clock,
    *,
    subresource: str = "",
) -> Object | None:
    """Read an object, decide on a patch, and apply it to that very version; else do it again.

    Args:
        api: where.
        target: what.
        decide: makes the patch; None leaves the object as it is. It is asked again after a
            conflict.
        clock: for short waits.
        subresource: that the patch is for, as `scale`; empty is the object itself.

    Returns:
        The object, or its subresource, as it is now; None where nothing had to be changed.

    Raises:
        KubeError: the API failed, or the object never stood still.
    """
    for attempt in range(_ATTEMPTS):
        patch = decide(target.get(api))
        if patch is None:
            return None
        try:
            return api.patch(
                target.resource, target.name, patch, target.namespace, subresource=subresource
            )
        except KubeConflictError:
            if attempt:
                clock.sleep(0.05 * attempt)
    raise KubeConflictError(
        f"{target.title} is changed by others all the time", "run it again when that is over"
    )


def paused_objects(hosted: Hosted) -> tuple[Target, ...]:
    """Name the objects that we pause: the HostedCluster first."""
    pools = (at(pool, "metadata.name", "") for pool in hosted.node_pools)
    return (
        Target(HOSTED_CLUSTERS, hosted.name, hosted.namespace),
        *(Target(NODE_POOLS, name, hosted.namespace) for name in pools if name),
    )


def await_paused(api: Api, hosted: Hosted, *, clock: Clock, deadline: float, poll: float) -> None:
    """Wait until the operators say that they hold still: a patch that was taken proves nothing.

    Args:
        api: where.
        hosted: the control plane.
        clock: for waiting.
        deadline: by the monotonic clock.
        poll: seconds between two looks.

    Raises:
        QuiesceError: they do not, in time; or HyperShift takes our value for invalid.
        KubeError: the API failed.
    """
    plane = Target(HOSTED_CONTROL_PLANES, hosted.name, hosted.control_plane_namespace)
    first, *pools = paused_objects(hosted)
    waiting = [first, plane, *pools]
    while waiting := list(_active(api, waiting)):
        if clock.monotonic() >= deadline:
            names = ", ".join(target.title for target in waiting[:3])
            raise QuiesceError(
                f"HyperShift does not say that it has paused {names}",
                "look whether its operators run, and whether this machine's clock is right",
            )
        clock.sleep(poll)


def _active(api: Api, targets: Iterable[Target]) -> Iterator[Target]:
    for target in targets:
        try:
            held = hold(target.get(api))
        except KubeNotFoundError:
            if target.resource is NODE_POOLS:
                continue  # deleted meanwhile: nobody reconciles it
            raise
        if held is Hold.INVALID:
            raise QuiesceError(f"HyperShift takes spec.pausedUntil of {target.title} for invalid")
        if held is Hold.ACTIVE:
            yield target


def renewing(document: Object, run: str, now: datetime, seconds: float) -> Object | None:
    """Make the patch that renews a pause of ours; None where it is no longer ours to renew."""
    record = recorded(document)
    if record is None or record.run != run:
        return None
    if paused_until(document) != longer(record.own, record.until):
        return None  # someone else has set it since: that is theirs to decide
    later = replace(record, until=ahead(now, seconds))
    return pausing(document, later, longer(record.own, later.until))


class Keeper:
    """Renews the pauses of one run, from a thread, until it is stopped.

    What has been paused stays so for `seconds` after the last renewal that went well.

    Args:
        api: where.
        targets: what is paused; the first is the HostedCluster, whose pause counts.
        run: id of our run: what another run has recorded is not renewed.
        until: when the pause that stands ends.
        seconds: how far ahead to pause; renewed at a third of it.
        clock: tells the time.
    """

    def __init__(
        self,
        api: Api,
        targets: tuple[Target, ...],
        *,
        run: str,
        until: datetime,
        seconds: float,
        clock: Clock,
    ) -> None:
        self._api, self._targets, self._run, self._clock = api, targets, run, clock
        self._seconds = seconds
        self._until = until
        self._lapsed = ""
        self._last_error = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="backstay-pause", daemon=True)
        self._thread.start()

    def stop(self) -> str:
        """End it; gives why the pause did not hold all the time, or nothing where it did.

        A renewal that still is on its way is not waited for. It takes on no other version than the
        one that it has read, so it can't undo what is put back after this.
        """
        self._look()
        self._stop.set()
        return self._lapsed

    def close(self) -> None:
        """Wait a moment for the thread to be gone."""
        self._stop.set()
        self._thread.join(timeout=1.0)

    def _keep(self) -> None:
        # After a failure it tries sooner: there are some tries before the pause is over.
        while not self._stop.wait(self._seconds / (30 if self._last_error else 3)):
            self._last_error = ""
            for number, target in enumerate(self._targets):
                try:
                    self._renew(target, counts=number == 0)
                except KubeNotFoundError:
                    continue  # a NodePool that was deleted; the HostedCluster's end shows elsewhere
                except BackstayError as error:
                    self._last_error = error.what

    def _renew(self, target: Target, *, counts: bool) -> None:
        until = ahead(self._clock.now(), self._seconds)
        made = change(
            self._api,
            target,
            lambda document: renewing(document, self._run, self._clock.now(), self._seconds),
            self._clock,
        )
        if not counts or self._stop.is_set():
            return
        if made is None:
            self._lapsed = self._lapsed or "someone else has changed or ended the pause"
            return
        self._look()
        self._until = until

    def _look(self) -> None:
        """Look whether the pause that stands has ended; a later renewal does not mend that."""
        if self._clock.now() >= self._until and not self._lapsed:
            why = f": {self._last_error}" if self._last_error else ""
            self._lapsed = f"the pause ended at {stamp(self._until)}, before it was renewed{why}"


def is_dead(record: Record, now: datetime, grace: float) -> bool:
    """Whether the run of a record is dead: it has not renewed its pause.

    Args:
        record: of another run.
        now: by our clock, which need not be that run's.
        grace: seconds that clocks may differ by.
    """
    return now > record.until + timedelta(seconds=grace)


def check_free(document: Object, now: datetime, grace: float) -> Record | None:
    """Look whether an object may be quiesced; gives the record of a dead run, where there is one.

    Raises:
        RefusedError: another run is at work.
        FormatError: there is a record that can't be read.
        KubeError: the object is being deleted.
    """
    record = recorded(document)
    if record is not None and not is_dead(record, now, grace):
        raise RefusedError(
            f"{at(document, 'metadata.name', '')} is being quiesced by {record.title}",
            "wait for its end; where it has died, `backstay resume hosted` puts things back",
        )
    if at(document, "metadata.deletionTimestamp", ""):
        raise KubeError(f"{at(document, 'metadata.name', '')} is being deleted")
    return record
