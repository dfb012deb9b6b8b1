"""A Lease, so that two hosts never back up one cluster at once, or soon after each other.

Whether a holder lives is told as client-go tells it: by watching, with our own clock, whether the
record changes. What its clock said is never compared with ours: a holder whose record stays the
same for as long as it may is dead, and its Lease is taken over, on just that version of it. A
finished backup is noted on the Lease with the time by its host's clock; that is compared, for lack
of another, and the repository's own clock says the same where there is a repository.

A Lease is made, and changed, never deleted: one that is released stays, with nobody's name on it.

Source: k8s.io/client-go, tools/leaderelection; the API is coordination.k8s.io/v1.
"""

import json
import secrets
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backstay.client.text import one_line
from backstay.clock import Clock
from backstay.closing import Closing
from backstay.errors import BackstayError, KubeConflictError, KubeError, KubeNotFoundError
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.field import at, time_at
from backstay.kubeapi.resource import LEASES

#: One for each cluster: it lies in the cluster's own API.
NAME = "backstay-okd"
NAMESPACE = "backstay-okd"
ANNOTATION = "backstay.dev/last-backup"
#: Seconds without a change after which a holder is dead.
DURATION = 30
#: No holder is waited for longer, whatever its record says.
_MAX_DURATION = 120
#: So often others may be quicker before that is told.
_TRIES = 5
_WORD = 253
_NOTE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a Lease says.

    Attributes:
        holder: who has it; empty where nobody does.
        renewed: when its holder last said so, as it stands there: to be compared, not to be read.
        duration: seconds that a holder may stay silent.
        transitions: how often it went from one holder to another.
        version: of the object.
        finished_by: the host that made the last backup; empty where there was none.
        finished_at: when that was complete, by that host's clock.
    """

    holder: str = ""
    renewed: str = ""
    duration: int = DURATION
    transitions: int = 0
    version: str = ""
    finished_by: str = ""
    finished_at: datetime | None = None

    @property
    def node(self) -> str:
        """The host that has it."""
        return self.holder.partition("_")[0]


def parse_record(document: object) -> Record:
    """Read a Lease; whatever it holds, this raises nothing."""
    duration = at(document, "spec.leaseDurationSeconds", DURATION)
    notes: dict[str, Any] = at(document, "metadata.annotations", {})
    note = _note(notes.get(ANNOTATION))
    return Record(
        holder=one_line(at(document, "spec.holderIdentity", ""))[:_WORD],
        renewed=at(document, "spec.renewTime", ""),
        duration=min(max(duration, 1), _MAX_DURATION),
        transitions=min(max(at(document, "spec.leaseTransitions", 0), 0), (1 << 31) - 2),
        version=at(document, "metadata.resourceVersion", ""),
        finished_by=one_line(at(note, "node", ""))[:_WORD],
        finished_at=time_at(note, "at"),
    )


def _note(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) and len(text) <= _NOTE else None
    except (ValueError, RecursionError):
        return None


def look(api: Api, namespace: str = NAMESPACE) -> Record:
    """Read the Lease and leave it as it is; an empty record where there is none.

    Raises:
        KubeError: it can't be read.
    """
    found = api.find(LEASES, NAME, namespace)
    return Record() if found is None else parse_record(found)


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of asking for the Lease.

    Attributes:
        mine: whether it is ours now.
        record: as it was before; of the other holder where it is not ours.
    """

    mine: bool
    record: Record


class Turn(Closing):
    """One host's turn at backing up a cluster; given back when this is closed.

    Args:
        api: of the cluster.
        node: this host.
        namespace: where the Lease lies.
        clock: the machine's.
        duration: seconds for which we may stay silent; we speak three times as often.
    """

    def __init__(
        self,
        api: Api,
        node: str,
        namespace: str = NAMESPACE,
        *,
        clock: Clock,
        duration: int = DURATION,
    ) -> None:
        self._api = api
        self._node = node
        self._namespace = namespace
        self._clock = clock
        self._duration = duration
        #: Two runs on one host are two holders.
        self.identity = f"{node[: _WORD - 9]}_{secrets.token_hex(4)}"
        self._record: Record | None = None
        self._finished: datetime | None = None
        self._renewing: threading.Thread | None = None
        self._over = threading.Event()
        #: Why the Lease is not ours any more; empty while it is.
        self.lost = ""

    @property
    def title(self) -> str:
        """What messages call the Lease."""
        return f"Lease {self._namespace}/{NAME}"

    def take(self) -> Taken:
        """Ask for the Lease, and keep it until this is closed.

        Where another holder seems to have it, that one is watched for as long as it may be silent.

        Raises:
            KubeError: the Lease can't be had, for another reason than a holder that lives.
        """
        for _ in range(_TRIES):
            found = self._api.find(LEASES, NAME, self._namespace)
            record = Record() if found is None else parse_record(found)
            if record.holder:
                seen = self._watched(record)
                if seen.holder and not _same(seen, record):
                    return Taken(mine=False, record=seen)
                if not seen.holder:
                    continue  # given back meanwhile
                record = seen
            if self._write(record, new=found is None):
                self._keep()
                return Taken(mine=True, record=record)
            # Somebody was quicker: who, is seen by another look.
        raise KubeError(f"{self.title} changes hands all the time", "run it again")

    def finish(self) -> None:
        """Note that a backup is complete; it is written when this is closed."""
        self._finished = self._clock.now()

    def close(self) -> None:
        """Give the Lease back, where it is ours."""
        self._over.set()
        if self._renewing is not None:
            self._renewing.join()
            self._renewing = None
        record, self._record = self._record, None
        if record is None or self.lost:
            return
        try:
            self._release(record)
        except BackstayError as error:
            # It ends by itself, as that of a holder that died.
            self.lost = one_line(str(error))

    def _now(self) -> Record:
        found = self._api.find(LEASES, NAME, self._namespace)
        return Record() if found is None else parse_record(found)

    def _watched(self, record: Record) -> Record:
        """Watch a holder by our own clock, until it says something or was silent for too long."""
        end = self._clock.monotonic() + record.duration
        now = record
        while _same(now, record) and self._clock.monotonic() < end:
            self._clock.sleep(min(1.0, record.duration / 10))
            now = self._now()
        return now

    def _write(self, record: Record, *, new: bool) -> bool:
        """Put our name on it, if it still is what was seen."""
        now = _time(self._clock.now())
        spec: Object = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._duration,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": record.transitions + (not new),
        }
        try:
            made = self._create(spec) if new else self._patch(record.version, {"spec": spec})
        except KubeConflictError:
            return False
        self._record = parse_record(made)
        return True

    def _create(self, spec: Object) -> Object:
        head = {"apiVersion": LEASES.api_version, "kind": LEASES.kind}
        body = {**head, "metadata": {"name": NAME}, "spec": spec}
        try:
            return self._api.create(LEASES, body, self._namespace)
        except KubeNotFoundError as error:
            raise KubeNotFoundError(
                f"there is no namespace {self._namespace} for the Lease",
                "make it, or name another with --lease-namespace",
            ) from error

    def _patch(self, version: str, changes: Object) -> Object:
        metadata = {**changes.get("metadata", {}), "resourceVersion": version}
        body = {**changes, "metadata": metadata}
        return self._api.patch(LEASES, NAME, body, self._namespace)

    def _keep(self) -> None:
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewing.start()

    def _renew(self) -> None:
        last = self._clock.monotonic()
        while not self._over.wait(self._duration / 3):
            try:
                self._say()
                last = self._clock.monotonic()
            except BackstayError as error:
                if self.lost:
                    return
                if self._clock.monotonic() - last > self._duration:
                    self.lost = one_line(str(error))
                    return

    def _say(self) -> None:
        """Say that we live."""
        assert self._record is not None
        changes: Object = {"spec": {"renewTime": _time(self._clock.now())}}
        try:
            self._record = parse_record(self._patch(self._record.version, changes))
        except (KubeConflictError, KubeNotFoundError):
            now = self._now()
            if now.holder != self.identity:
                self.lost = f"{now.node or 'somebody'} took {self.title} over meanwhile"
                raise
            self._record = now

    def _release(self, record: Record) -> None:
        changes: Object = {"spec": {"holderIdentity": "", "renewTime": _time(self._clock.now())}}
        if self._finished is not None:
            note = json.dumps({"node": self._node, "at": self._finished.isoformat()})
            changes["metadata"] = {"annotations": {ANNOTATION: note}}
        try:
            self._patch(record.version, changes)
        except KubeConflictError:
            # Somebody wrote a word on it, or has it by now.
            now = self._now()
            if now.holder == self.identity:
                self._patch(now.version, changes)


def _same(one: Record, other: Record) -> bool:
    """Whether the holder has said nothing between two looks; what others write does not count."""
    return (one.holder, one.renewed) == (other.holder, other.renewed)


def _time(moment: datetime) -> str:
    """Write a MicroTime, as the API wants it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
