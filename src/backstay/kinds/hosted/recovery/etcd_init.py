"""What the init container `etcd-init` says and is: the one part of a restore that is not ours.

It downloads the snapshot and restores it, in each etcd pod. Upstream takes its exit code for
success, and that says too little: it exits with 0 as well where it found data and left the
snapshot alone, and the older form makes of several members as many clusters of one. Here both
are told, from the container's log and from the StatefulSet. Pure: nothing here asks the API.

Source: hypershift, control-plane-operator/controllers/hostedcontrolplane/v2/etcd (statefulset.go
and etcd-init.sh; the fixed form is that of pull request 9048, OCPBUGS-99534). The words
"restoring snapshot" and "restored snapshot" are etcdutl's own.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backstay.kinds.hosted.cluster import at
from backstay.kubeapi.api import Object

CONTAINER = "etcd-init"
#: What the fixed form is given, so that each member knows who it is and who the others are.
_GIVEN = frozenset({"HOSTNAME", "HCP_NAMESPACE", "ETCD_INITIAL_CLUSTER", "ETCD_DISCOVERY_SERVICE"})
#: The kubelet sets it in every container.
_ALWAYS_SET = frozenset({"HOSTNAME"})
_VARIABLE = re.compile(r"\$\{?([A-Z][A-Z0-9_]*)")
#: The options without which each member is a cluster of its own.
_OPTIONS = ("--name", "--initial-cluster")

_SKIPPED = "not empty, not restoring snapshot"
_RESTORING = "restoring snapshot"
_RESTORED = "restored snapshot"
_PAGE = "<?xml"
#: How the lines begin that curl, etcd's tools and the shell end with.
_GRAVE = re.compile(
    r"curl: \(\d+\)|Error: |panic: |fatal error: |(?:/bin/)?sh: |(?:mv|rm|mkdir|cat|ls): ",
)
_FULL = "no space left on device"

#: A line of a log is read so far, and shown so far.
MAX_LINE = 4096
SHOWN = 300
#: Lines of an error page that are read on after its first.
_PAGE_LINES = 40
_PAGE_PARTS = re.compile(r"<(Code|Message)>([^<]{1,300})")
_URL = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/@\"'<>]*@)?([^\s?#\"'<>]*)([?#][^\s\"'<>]*)?"
)
#: Parameters that sign a URL, wherever they stand: S3's two forms, Google's, Azure's.
_SIGNED = re.compile(
    r"(?i)\b(x-(?:amz|goog)-[a-z-]+|(?:aws|google)?accesskeyid|signature|sig|token)"
    r"(=|%3d)[^\s&\"'<>]+"
)


class Result(StrEnum):
    """How far an etcd-init came, by its own words."""

    SILENT = "has said nothing yet"
    RESTORING = "is restoring"
    RESTORED = "restored the snapshot"
    SKIPPED = "found data and did not restore"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the log of one etcd-init comes to.

    Attributes:
        result: how far it came; the last of its words counts.
        line: where it failed: why, in one short line, without what signs a URL.
    """

    result: Result
    line: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something is not done.

    Attributes:
        what: the reason.
        do: what to do about it.
    """

    what: str
    do: str = ""


def read_log(lines: Iterable[str | bytes]) -> Outcome:
    """Read the log of an etcd-init, from its first line on.

    Says what the log says, and no more: whether the container ended well, its exit code tells.
    """
    found = Outcome(Result.SILENT)
    page: list[str] = []
    for raw in lines:
        text = _text(raw)
        if page:
            page.append(text)
            if len(page) <= _PAGE_LINES and "</Error>" not in text:
                continue
            found, page = _told(page), []
            continue
        if text.lstrip().startswith(_PAGE):
            page = [text]
            found = _told(page)
            if "</Error>" in text:
                page = []
            continue
        found = _after(found, text)
    return _told(page) if page else found


def _text(raw: str | bytes) -> str:
    text = raw[:MAX_LINE].decode(errors="replace") if isinstance(raw, bytes) else raw[:MAX_LINE]
    # curl draws its progress over itself, and its last words follow on the same line.
    return text.rstrip("\r\n").rpartition("\r")[2]


def _after(found: Outcome, text: str) -> Outcome:
    # In this order: the words of a skip have those of a restore in them.
    if _SKIPPED in text:
        return Outcome(Result.SKIPPED)
    if _RESTORED in text:
        return Outcome(Result.RESTORED)
    if _RESTORING in text:
        return Outcome(Result.RESTORING)
    grave = _GRAVE.match(text) or _FULL in text.lower()
    return Outcome(Result.FAILED, harmless(text)) if grave else found


def _told(page: list[str]) -> Outcome:
    """What an error page says, of what it has just code and message: the rest quotes the URL."""
    parts = [harmless(match[2]) for match in _PAGE_PARTS.finditer("\n".join(page))]
    said = ": ".join(parts[:2]) or "no code"
    return Outcome(Result.FAILED, f"the URL gave an error page ({said})"[:SHOWN])


def harmless(text: str) -> str:
    """Make one short line of what came from outside, without what signs a URL.

    A presigned URL lets anyone who has it read the snapshot.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:MAX_LINE]).split())
    line = _URL.sub(lambda match: match[1] + match[2] + ("?..." if match[3] else ""), line)
    return _SIGNED.sub(r"\1\2...", line)[:SHOWN]


def is_fixed(stateful_set: Object) -> bool | None:
    """Tell whether a StatefulSet's etcd-init can restore several members of one cluster.

    None where it has no etcd-init: it is added only to restore, and is gone afterwards.
    """
    container = _container(stateful_set)
    if container is None:
        return None
    given = {at(entry, "name", "") for entry in _entries(container, "env")}
    words = [*_entries(container, "command"), *_entries(container, "args")]
    script = "\n".join(word for word in words if isinstance(word, str))
    if "snapshot restore" not in script:
        # The script is elsewhere, perhaps in the image: what it is given must tell.
        return given >= _GIVEN
    used = set(_VARIABLE.findall(script)) & _GIVEN
    return all(option in script for option in _OPTIONS) and used <= given | _ALWAYS_SET


def _container(stateful_set: Object) -> Object | None:
    return _named(stateful_set, "spec.template.spec.initContainers", CONTAINER)


def _entries(document: object, path: str) -> list[Any]:
    nothing: list[Any] = []
    return at(document, path, nothing)


def _named(document: object, path: str, name: str) -> Object | None:
    found = _entries(document, path)
    return next((one for one in found if at(one, "name", "") == name), None)


def judge(stateful_set: Object, members: int) -> Refusal | None:
    """Say why a StatefulSet must not be left to restore, or to go on; None where it may.

    Args:
        stateful_set: of this control plane, or of another one with the same release.
        members: how many the restored etcd is to have.
    """
    if members <= 1 or is_fixed(stateful_set) is not False:
        return None
    name = f"{at(stateful_set, 'metadata.namespace', '')}/{at(stateful_set, 'metadata.name', '')}"
    return Refusal(
        f"the etcd-init of StatefulSet {name} knows nothing of other members: of {members} it"
        f" makes {members} clusters of one, with the same data at first and different data soon"
        " (OCPBUGS-99534)",
        REMEDY,
    )


#: What to do about an etcd-init without the fix.
REMEDY = (
    "delete the new HostedCluster, then restore again with a release whose control-plane-operator"
    " has the fix (or with one that has it in the annotation"
    " hypershift.openshift.io/control-plane-operator-image), or with controllerAvailabilityPolicy"
    " SingleReplica; the backup is untouched"
)


def etcd_init_gone(stateful_set: Object) -> bool:
    """Tell whether no pod of an etcd will download the snapshot again.

    So it is when the template has no etcd-init, and no pod is left that was made of an older one.
    Only then the object that the URL names may be removed. False where that can't be told.
    """
    if not _named(stateful_set, "spec.template.spec.containers", "etcd"):
        return False
    if _container(stateful_set):
        return False
    replicas = at(stateful_set, "spec.replicas", 1)
    return at(stateful_set, "status.updatedReplicas", 0) >= replicas and at(
        stateful_set, "status.observedGeneration", 0
    ) >= at(stateful_set, "metadata.generation", 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a pod says of its etcd-init.

    Attributes:
        exit_code: of the run that has ended last; None where none has.
        running: whether one is going on.
        ended: whether it has ended well; a run that failed is followed by another.
        attempts: how often it has been started, as far as it is known.
    """

    exit_code: int | None
    running: bool
    ended: bool
    attempts: int

    @property
    def has_log(self) -> bool:
        """Whether there is something to read."""
        return self.attempts > 0


def read_pod(pod: Object) -> Run | None:
    """Read from an etcd pod how its etcd-init fares; None where it has none."""
    if not _named(pod, "spec.initContainers", CONTAINER):
        return None
    status = _named(pod, "status.initContainerStatuses", CONTAINER)
    now, last = _exit(status, "state"), _exit(status, "lastState")
    running = bool(status) and "running" in at(status, "state", _NOTHING)
    started = running or now is not None or last is not None
    return Run(
        exit_code=last if now is None else now,
        running=running,
        ended=now == 0,
        attempts=max(at(status, "restartCount", 0), 0) + 1 if started else 0,
    )


_NOTHING: Object = {}


def _exit(status: Object | None, which: str) -> int | None:
    """The exit code of a run that has ended; -1 where it is not told."""
    ended = at(at(status, which, _NOTHING), "terminated", _NOTHING)
    return at(ended, "exitCode", -1) if ended else None
