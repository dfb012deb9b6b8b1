"""`backstay status`: what `etcdutl snapshot status` prints, byte for byte."""

from pathlib import Path

import click

from backstay.cli import options
from backstay.cli.session import Session
from backstay.cli.values import FilePath


@click.command()
@click.argument("file", type=FilePath(path_type=Path))
@click.option(
    "-w",
    "--write-out",
    "form",
    type=click.Choice(["simple", "fields", "json", "table"]),
    default="simple",
    show_default=True,
    help="The form, as etcdutl has it.",
)
@options.talk
@click.pass_obj
def command(session: Session, /, *, file: Path, form: str) -> None:
    """Print hash, revision, keys and size of a snapshot file, as `etcdutl snapshot status` does."""
    from backstay.mvcc.snapshot import Snapshot
    from backstay.mvcc.status import read_status, render

    with Snapshot.open(file) as snapshot:
        status = read_status(snapshot)
    session.print(render(status, "json" if session.json else form), end="")
