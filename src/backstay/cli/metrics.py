"""`backstay metrics`: what there is of backups, as Prometheus reads it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backstay.cli import options
from backstay.cli.complete import clusters
from backstay.cli.connect import StoreOptions, open_repository
from backstay.cli.session import Session
from backstay.cli.values import Address, Duration, FilePath
from backstay.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backstay.exposition import Sample
    from backstay.repo.catalogue import Repository


@click.command()
@click.option("--cluster", shell_complete=clusters, help="Only what is of this cluster.")
@click.option(
    "-o",
    "--output",
    type=FilePath(dir_okay=False, path_type=Path),
    help="A file for node_exporter's textfile collector; it is replaced, whole."
    "  [default: standard output]",
)
@click.option(
    "--listen",
    type=Address(),
    metavar="HOST:PORT",
    help="Serve them over plain HTTP, until stopped; without HOST at every address.",
)
@click.option(
    "--every",
    type=Duration(),
    default="10m",
    show_default=True,
    help="With --listen: how often the repository is read.",
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
    listen: tuple[str, int] | None,
    every: float,
    recipient: tuple[str, ...],
    **store: object,
) -> None:
    """Read from the repository when the last good, verified and drilled backups were.

    No identity is needed.  Where the repository can't be read a file stays as it was, and its
    `backstay_collected_timestamp_seconds` gets old.
    """
    from backstay.clock import SystemClock
    from backstay.exposition import read_textfile, write_textfile
    from backstay.flows.metrics import FAMILIES, collect
    from backstay.repo.name import check_cluster

    if listen is not None and (output is not None or session.json):
        raise UsageError("--listen serves the metrics", "leave out --output and --json")
    if listen is not None and not every:
        raise UsageError("--every 0s would never stop to read", "write 10m")
    if cluster is not None:
        check_cluster(cluster)
    if output is not None:
        read_textfile(output, FAMILIES)  # refuses to replace what is none of ours

    def opened() -> "Repository":
        return open_repository(StoreOptions.of(store), recipient)

    repository = opened()
    if listen is not None:
        _serve(session, opened, cluster, listen, every)
    found = collect(repository, cluster, SystemClock())
    if output is not None:
        write_textfile(output, found)
    _answer(session, found, output)


def _serve(
    session: Session,
    opened: "Callable[[], Repository]",
    cluster: str | None,
    listen: tuple[str, int],
    every: float,
) -> None:
    """Serve metrics until a signal comes."""
    from backstay.clock import SystemClock
    from backstay.flows.exporter import Exporter, serving

    report = session.report()
    exporter = Exporter(opened, cluster, SystemClock(), report)
    exporter.refresh()
    with serving(exporter, *listen) as port:
        report.say(f"metrics are served at port {port}")
        exporter.keep_fresh(every)


def _answer(session: Session, found: "Sequence[Sample]", output: Path | None) -> None:
    from backstay.exposition import exposed

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
