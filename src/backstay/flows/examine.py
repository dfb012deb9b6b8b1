"""Looking into a snapshot: every question that the file alone can answer, in few passes."""

from dataclasses import dataclass

from backstay.checks import content, structure
from backstay.checks.question import Answer
from backstay.clock import Clock
from backstay.mvcc.content import Content
from backstay.mvcc.examination import examine, work
from backstay.mvcc.hashkv import HashKV, compute_hashkv
from backstay.mvcc.snapshot import Snapshot, Trailer
from backstay.mvcc.status import Status
from backstay.report import Check, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a snapshot file says of itself.

    Attributes:
        trailer: how the SHA-256 at its end compares.
        sha256: of the database, hex.
        status: hash, keys and size; None where the structure is damaged.
        content: what is in bucket `key`; None where it is damaged.
        checks: structure and content, with their verdicts.
    """

    trailer: Trailer
    sha256: str
    status: Status | None
    content: Content | None
    checks: tuple[Check, ...]


def look_into(snapshot: Snapshot, clock: Clock, report: Report) -> Findings:
    """Examine a snapshot; damage is a verdict, not an error.

    Args:
        snapshot: the file.
        clock: measures.
        report: is told how far it is, and of what is odd but no damage.
    """
    for warning in snapshot.bolt.warnings:
        report.warn(warning)
    began = clock.monotonic()
    with report.task("examining the snapshot", work(snapshot)) as progress:
        found = examine(snapshot, progress)
    seconds = clock.monotonic() - began
    return Findings(
        trailer=found.trailer,
        sha256=found.sha256.hex(),
        status=found.status,
        content=found.content if isinstance(found.content, Content) else None,
        checks=(
            _check(structure.NAME, structure.structure(found.structure), seconds),
            _check(content.NAME, content.content(found.content), seconds),
        ),
    )


def _check(name: str, answer: Answer, seconds: float) -> Check:
    return Check(name=name, verdict=answer.verdict, detail=answer.detail, seconds=seconds)


def hashkv_of(snapshot: Snapshot, found: Findings) -> HashKV | None:
    """Compute HashKV at the newest revision; None where the file is too damaged for it."""
    if found.status is None or found.content is None:
        return None
    return compute_hashkv(snapshot)
