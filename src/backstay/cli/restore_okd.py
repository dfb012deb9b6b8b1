"""`backstay restore okd`: write both files of a backup, as cluster-restore.sh takes them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.complete import backups
from backstay.cli.connect import (
    at_point,
    check_keys_repo,
    check_point,
    open_keys_repository,
    subject_of,
)
from backstay.cli.session import Session
from backstay.cli.values import FilePath
from backstay.errors import UsageError

if TYPE_CHECKING:
    from backstay.flows.fetch import BackupSubject
    from backstay.flows.timetravel import PointSubject
    from backstay.kinds.okd.restore import Restored, Running
    from backstay.report import Report


@click.command("okd")
@click.argument("subject", metavar="ID", shell_complete=backups)
@click.option(
    "--output-dir",
    required=True,
    type=FilePath(file_okay=False, path_type=Path),
    help="The directory to make: new, or empty.",
)
@click.option(
    "--version",
    "release",
    default="",
    metavar="X.Y.Z",
    help="The release that is to be restored; it must be that of the backup.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Lift what a rule forbids: another release, keys that don't open, expired certificates.",
)
@click.option(
    "--kubeconfig",
    type=FilePath(dir_okay=False, path_type=Path),
    help="Ask this cluster which release it runs.",
)
@click.option("--context", metavar="NAME", help="Another context of it than the current.")
@options.point
@options.store
@options.keys_store
@options.recipients
@options.keys_recipients
@options.identity
@options.spool
@options.talk
@click.pass_obj
def okd(
    session: Session,
    /,
    *,
    subject: str,
    output_dir: Path,
    release: str,
    force: bool,
    kubeconfig: Path | None,
    context: str | None,
    **more: Any,
) -> int:
    """Write both files of an OKD backup, and print what remains to be done.

    The snapshot and the static pod resources appear under the names that they had, 0600, both or
    none.  Refused are two that don't belong together, another z-stream release than the one that
    runs, keys that don't open the data, and certificates that have run out.  With --to-revision or
    --to-time the snapshot is that of another revision; the keys are tried on what is written.
    """
    from backstay.clock import SystemClock
    from backstay.flows.partner import Partner
    from backstay.kinds.okd.restore import Options, exit_code, restore_okd

    check_keys_repo(more)
    check_point(more)
    report = session.report()
    found, point = _subject_and_point(subject, more, report)
    partner = Partner(
        found.entry.manifest, lambda: open_keys_repository(more), found.identities, found.spool_dir
    )
    wanted = Options(
        output_dir=output_dir,
        running=_running(release, kubeconfig, context),
        force=force,
        point=point,
    )
    restored = restore_okd(found, partner, wanted, clock=SystemClock(), report=report)
    session.close()
    _tell(session, restored, point)
    return exit_code(restored.checks)


def _subject_and_point(
    text: str, more: dict[str, Any], report: "Report"
) -> "tuple[BackupSubject, PointSubject | None]":
    """Find the backup; where a point is asked for, that, and the backup that it is made from."""
    from backstay.flows.fetch import BackupSubject
    from backstay.flows.timetravel import PointSubject

    found = subject_of(text, more)
    if isinstance(found, BackupSubject):
        point = at_point(found, more, report)
        if not isinstance(point, PointSubject):
            return found, None
        if isinstance(point.base, BackupSubject):
            return point.base, point
    raise UsageError(f"{text} is a file", "name a backup; `backstay import` makes one of files")


def _running(release: str, kubeconfig: Path | None, context: str | None) -> "Running":
    from backstay.kinds.okd.restore import Running, running_of

    if release or not (kubeconfig or context):
        return Running(version=release)
    from backstay.kubeapi.connect import connect

    with connect(kubeconfig, context) as api:
        return running_of(api)


def _tell(session: Session, restored: "Restored", point: "PointSubject | None") -> None:
    from backstay.cli.points import point_facts
    from backstay.cli.steps import answer_steps, tell_steps
    from backstay.cli.verdicts import answer_checks, tell_checks

    if session.json:
        files = [
            {"path": str(it.path), "size": it.size, "sha256": it.sha256} for it in restored.files
        ]
        session.answer(
            answer_checks(
                restored.checks,
                output_dir=str(restored.output_dir),
                files=files,
                steps=answer_steps(restored.steps),
                **(point_facts(point, restored.proof) if point else {}),
            )
        )
        return
    for file in restored.files:
        session.tell(f"{file.path}: {file.size} bytes, SHA-256 {file.sha256}")
    tell_checks(session, restored.checks, good="proven")
    session.tell("What remains to be done:")
    tell_steps(session, restored.steps)
