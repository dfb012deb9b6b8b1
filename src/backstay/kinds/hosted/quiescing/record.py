"""What a control plane was like before it was quiesced, kept in an annotation of its own objects.

The annotation is written in the same patch that pauses, and removed in the same patch that puts
the pause back, so that an object is never paused by us without telling how to undo it. Whoever
finds it can put everything back, from any machine, without a file of ours.

Nothing here asks the API: this reads and writes the annotation, and decides which patch is next.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from backstay.errors import FormatError, KubeError
from backstay.kinds.hosted.cluster import at
from backstay.kubeapi.api import Object

ANNOTATION = "backstay.dev/quiesced"
#: The subresource by which replicas are set: the right to it is no right to run other images.
SCALE = "scale"
FORMAT = 1
#: Characters; ours has about 300. The API allows 256 KiB for all annotations of an object.
MAX_SIZE = 4096
#: Of spec.pausedUntil: HyperShift's schema allows 35, and 255 on a HostedControlPlane.
MAX_PAUSE = 255
_MAX_WORDS = 128
_MAX_WRITERS = 16
#: No Deployment of a control plane has more than three; what is far beyond that is no record.
_MAX_REPLICAS = 1000
#: time.RFC3339 of Go, as HyperShift reads it. Its own schema lets more pass.
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})", re.ASCII)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one object was like, and who is at work on it.

    Attributes:
        run: id of the run that quiesces.
        by: on which machine it runs.
        since: when it began.
        until: spec.pausedUntil as we set it last, in whole seconds; what is later than this is a
            dead run. It is kept up to date even where the user's own pause is longer and stays.
        own: spec.pausedUntil as the user had it; None where there was none.
        writers: Deployments that existed, and their replicas; only on a HostedCluster.
        available: whether a HostedCluster's condition Available was True.
    """

    run: str
    by: str
    since: datetime
    until: datetime
    own: str | None = None
    writers: tuple[tuple[str, int], ...] = ()
    available: bool = False

    @property
    def title(self) -> str:
        """How messages call the run."""
        return f"run {self.run} on {self.by}, begun {stamp(self.since)}"


def stamp(moment: datetime) -> str:
    """Write a moment as RFC 3339, in UTC and whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(text: str) -> datetime | None:
    """Read RFC 3339 as Go's time.RFC3339 does; None where it is something else."""
    if not _TIME.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def encode(record: Record) -> str:
    """Write the annotation."""
    document: Object = {
        "format": FORMAT,
        "run": record.run,
        "by": record.by,
        "since": stamp(record.since),
        "until": stamp(record.until),
        "pausedUntil": record.own,
    }
    if record.writers:
        document["replicas"] = dict(record.writers)
        document["available"] = record.available
    return json.dumps(document)


def decode(text: str) -> Record:
    """Read the annotation.

    Raises:
        FormatError: it is damaged, or of a newer Backstay.
    """
    if len(text) > MAX_SIZE:
        raise FormatError(f"annotation {ANNOTATION} has {len(text)} characters")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"annotation {ANNOTATION} is no JSON") from error
    number = document.get("format") if isinstance(document, dict) else None
    if number != FORMAT or isinstance(number, bool):
        raise FormatError(
            f"annotation {ANNOTATION} is of format {str(number)[:20]}, and this Backstay knows"
            f" {FORMAT}"
        )
    since, until = _moment(document, "since"), _moment(document, "until")
    return Record(
        run=_text(document, "run"),
        by=_text(document, "by"),
        since=since,
        until=until,
        own=_own(document),
        writers=_writers(document),
        available=at(document, "available", False),
    )


def recorded(document: Object) -> Record | None:
    """Read the record of an object; None where it has none.

    Raises:
        FormatError: the annotation is damaged, or of a newer Backstay.
    """
    text = annotation(document)
    return None if text is None else decode(text)


def annotation(document: Object) -> str | None:
    """The annotation of an object as it stands; None where there is none."""
    annotations: dict[str, object] = at(document, "metadata.annotations", {})
    value = annotations.get(ANNOTATION)
    return None if value is None else value if isinstance(value, str) else str(value)


def paused_until(document: Object) -> str | None:
    """spec.pausedUntil of an object; None where it has none.

    Raises:
        KubeError: it is no text, or no schema would allow its length.
    """
    spec: dict[str, object] = at(document, "spec", {})
    value = spec.get("pausedUntil")
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_PAUSE:
        raise KubeError(f"spec.pausedUntil of {title(document)} is no text of HyperShift's")
    return value


def ours(document: Object, record: Record) -> bool:
    """Whether spec.pausedUntil is what we set last: if not, someone else has set it since."""
    return paused_until(document) == stamp(record.until)


def pausing(document: Object, record: Record, value: str) -> Object:
    """Make the patch that records and pauses, in one.

    Args:
        document: the object as it was read; the patch only takes on that version.
        record: what it was like.
        value: for spec.pausedUntil.
    """
    return {
        "metadata": {**_version(document), "annotations": {ANNOTATION: encode(record)}},
        "spec": {"pausedUntil": value},
    }


def restoring(document: Object, record: Record, *, keep_record: bool = False) -> Object:
    """Make the patch that puts the pause back, and removes the record, in one.

    A pause that someone else has set meanwhile stays.

    Args:
        document: the object as it was read; the patch only takes on that version.
        record: what it was like.
        keep_record: leave the annotation, since other things could not be put back yet.
    """
    patch: Object = {"metadata": _version(document)}
    if ours(document, record):
        patch["spec"] = {"pausedUntil": record.own}
    if not keep_record:
        patch["metadata"]["annotations"] = {ANNOTATION: None}
    return patch


def scaling(document: Object, replicas: int) -> Object:
    """Make the patch of a Deployment's `scale` that sets its replicas.

    A Scale has its Deployment's resourceVersion (Kubernetes: pkg/registry/apps/deployment/storage,
    ScaleREST), so the patch only takes on the Deployment as it was read.
    """
    return {"metadata": _version(document), "spec": {"replicas": replicas}}


def replicas_of(deployment: Object) -> int:
    """How many pods a Deployment should have; one where it does not say, as Kubernetes has it."""
    return max(0, at(deployment, "spec.replicas", 1))


def title(document: Object) -> str:
    """How messages call an object."""
    kind = at(document, "kind", "")[:64] or "object"
    namespace, name = at(document, "metadata.namespace", ""), at(document, "metadata.name", "")
    return f"{kind} {namespace[:64]}/{name[:253]}"


def _version(document: Object) -> Object:
    version = at(document, "metadata.resourceVersion", "")
    if not version:
        # Without it a patch would take on whatever is there by now.
        raise KubeError(f"the API server tells no resourceVersion of {title(document)}")
    return {"resourceVersion": version}


def _text(document: Object, name: str) -> str:
    value = at(document, name, "")
    if not 0 < len(value) <= _MAX_WORDS or not value.isprintable():
        raise FormatError(f"annotation {ANNOTATION} lacks its {name!r}")
    return value


def _moment(document: Object, name: str) -> datetime:
    moment = read_time(_text(document, name))
    if moment is None:
        raise FormatError(f"{name!r} of annotation {ANNOTATION} is no time")
    return moment


def _own(document: Object) -> str | None:
    # Absent is not the same as "was not set": a record that lost a field must not unpause.
    value = document.get("pausedUntil", 0)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_PAUSE or not value.isprintable():
        raise FormatError(f"'pausedUntil' of annotation {ANNOTATION} is damaged")
    return value


def _writers(document: Object) -> tuple[tuple[str, int], ...]:
    told = document.get("replicas", {})
    if not isinstance(told, dict) or len(told) > _MAX_WRITERS:
        raise FormatError(f"'replicas' of annotation {ANNOTATION} is damaged")
    for name, number in told.items():
        good = isinstance(number, int) and not isinstance(number, bool)
        if not good or not 0 <= number <= _MAX_REPLICAS or not _NAME.fullmatch(name):
            raise FormatError(f"'replicas' of annotation {ANNOTATION} is damaged")
    return tuple(told.items())
