"""Writing a backup out as a stock snapshot file."""

from pathlib import Path

from backstay.files import new_file
from backstay.flows.fetch import Subject
from backstay.flows.timetravel import opened_at, prove_export, tell_leases
from backstay.mvcc.delta import Proof
from backstay.mvcc.export import Edits, Exported, export
from backstay.mvcc.snapshot import Trailer
from backstay.report import Report


def export_file(
    subject: Subject, path: Path, edits: Edits, report: Report
) -> tuple[Exported, Proof | None]:
    """Write a stock snapshot file; it appears whole, or not at all.

    Args:
        subject: the backup or file, or one at another revision.
        path: where; nothing may stand there.
        edits: what to change.
        report: is told of each step.

    Returns:
        What was written; and of a subject at another revision what a member had said, and was
        compared with it.

    Raises:
        AlreadyExistsError: something has that name.
        CheckFailedError: what was made is not what a member said; nothing is written then.
        DamagedError: the source is damaged.
        GapError: revisions on the way are missing.
        SpaceError: a disk is full.
    """
    with (
        new_file(path) as file,
        opened_at(subject, report) as (snapshot, past),
    ):
        with report.task(f"writing {path.name}", snapshot.size) as progress:
            exported = export(snapshot, file, edits, progress, past=past)
        file.flush()
        proof = prove_export(subject, file.fileno(), snapshot, past, report)
    tell_leases(exported, report)
    if exported.source_trailer is Trailer.ABSENT:
        report.warn("the source had no SHA-256: its structure was checked, its bytes were not")
    return exported, proof
