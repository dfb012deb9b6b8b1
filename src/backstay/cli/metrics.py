"""`backstay metrics`: what there is of backups, as Prometheus reads it."""

from pathlib import Path

import click

from backstay.cli import options
from backstay.cli.connect import StoreOptions, open_repository
from backstay.cli.session import Session
from backstay.cli.values import FilePath


@click.command()
@click.option("--cluster", help="Only what is of this cluster.")
@click.option(
    "-o",
    "--output",
    type=FilePath(dir_okay=False, path_type=Path),
    help="A file for node_exporter's textfile collector; it is replaced, whole."
    "  [default: standard output]",
)
@options.store
@options.recipients
@options.talk
@click.pass_obj
def command(
    session: Session,
    /,
    *,
    cluster: str | None,
    output: Path | None,
    recipient: tuple[str, ...],
    **store: object,
) -> None:
    """Read from the repository when the last good, verified and drilled backups were.

    No identity is needed.  Where the repository can't be read the file stays as it was, and its
    `backstay_collected_timestamp_seconds` gets old.
    """
    from backstay.clock import SystemClock
    from backstay.exposition import exposed, read_textfile, write_textfile
    from backstay.flows.metrics import FAMILIES, collect

    if output is not None:
        read_textfile(output, FAMILIES)  # refuses to replace what is none of ours
    found = collect(open_repository(StoreOptions.of(store), recipient), cluster, SystemClock())
    if output is not None:
        write_textfile(output, found)
    session.close()
    if session.json:
        session.answer(
            [
                {
                    "name": one.family.name,
                    "labels": dict(zip(one.family.labels, one.labels, strict=True)),
                    "value": one.value,
                }
                for one in found
            ]
        )
    elif output is None:
        session.print(exposed(found).decode(), end="")
    else:
        session.tell(f"{output}: {len(found)} values")
