"""`backstay hashkv`: what the HashKV call would answer, from the file alone."""

from pathlib import Path

import click

from backstay.cli import options
from backstay.cli.session import Session
from backstay.cli.values import FilePath


@click.command()
@click.argument("file", type=FilePath(path_type=Path))
@click.option("--rev", type=click.IntRange(min=1), help="At this revision.  [default: the newest]")
@click.option(
    "--compact-revision",
    type=click.IntRange(min=-1),
    help="As after a compaction at this revision.  [default: the file's own]",
)
@options.talk
@click.pass_obj
def command(
    session: Session, /, *, file: Path, rev: int | None, compact_revision: int | None
) -> None:
    """Print the hash that a member with these data answers to `etcdctl endpoint hashkv`.

    Hashes can be compared only at equal revisions and equal compact revisions.
    """
    from backstay.mvcc.hashkv import compute_hashkv
    from backstay.mvcc.snapshot import Snapshot

    with Snapshot.open(file) as snapshot:
        found = compute_hashkv(snapshot, revision=rev, compact_revision=compact_revision)
    if session.json:
        session.answer(
            {
                "hash": found.hash,
                "revision": found.revision,
                "compact_revision": found.compact_revision,
            }
        )
    else:
        session.print(
            f"{found.hash} at revision {found.revision}, compacted at {found.compact_revision}"
        )
