"""`backstay export`: write a backup as a stock snapshot file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from backstay.cli import options
from backstay.cli.complete import subjects
from backstay.cli.connect import at_point, check_point, subject_of
from backstay.cli.points import point_facts
from backstay.cli.session import Session
from backstay.cli.values import FilePath


@click.command()
@click.argument("subject", metavar="FILE|ID", shell_complete=subjects)
@click.option(
    "-o",
    "--output",
    required=True,
    type=FilePath(dir_okay=False, path_type=Path),
    help="The file to write; it must not exist.",
)
@click.option(
    "--bump-revision",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Raise the revision by N, as etcdutl 3.6 does.",
)
@click.option(
    "--mark-compacted",
    is_flag=True,
    help="Mark all older revisions as compacted; needs --bump-revision.",
)
@options.point
@options.snapshot
@options.store_optional
@options.recipients
@options.identity
@options.spool
@options.talk
@click.pass_obj
def command(
    session: Session,
    /,
    *,
    subject: str,
    output: Path,
    bump_revision: int,
    mark_compacted: bool,
    **more: Any,
) -> None:
    """Write a backup, or a snapshot file, as a stock snapshot file.

    etcdutl takes the result as it is.  With --bump-revision, --to-revision or --to-time free pages
    are wiped, so that values which were deleted or came later are not in it.
    """
    from backstay.flows.export import export_file
    from backstay.mvcc.export import Edits

    edits = Edits(bump=bump_revision, mark_compacted=mark_compacted)
    report = session.report()
    check_point(more)
    found = at_point(subject_of(subject, more), more, report)
    exported, proof = export_file(found, output, edits, report)
    session.close()
    if session.json:
        session.answer(asdict(exported) | {"path": str(output)} | point_facts(found, proof))
        return
    session.tell(f"{output}: {exported.size} bytes, revision {exported.revision}")
    session.tell(f"SHA-256 of the database: {exported.sha256}")
