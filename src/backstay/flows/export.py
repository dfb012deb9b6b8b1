"""Writing a backup out as a stock snapshot file."""

from pathlib import Path

from backstay.files import new_file
from backstay.flows.fetch import Subject
from backstay.mvcc.export import Edits, Exported, export
from backstay.mvcc.snapshot import Trailer
from backstay.report import Report


def export_file(subject: Subject, path: Path, edits: Edits, report: Report) -> Exported:
    """Write a stock snapshot file; it appears whole, or not at all.

    Args:
        subject: the backup or file.
        path: where; nothing may stand there.
        edits: what to change.
        report: is told of each step.

    Raises:
        AlreadyExistsError: something has that name.
        DamagedError: the source is damaged.
        SpaceError: a disk is full.
    """
    with (
        new_file(path) as file,
        subject.opened(report) as snapshot,
        report.task(f"writing {path.name}", snapshot.size) as progress,
    ):
        exported = export(snapshot, file, edits, progress)
    if exported.source_trailer is Trailer.ABSENT:
        report.warn("the source had no SHA-256: its structure was checked, its bytes were not")
    return exported
