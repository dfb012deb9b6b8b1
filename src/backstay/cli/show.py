"""`backstay show`: the manifest of a backup."""

import click

from backstay.cli import options
from backstay.cli.complete import backups
from backstay.cli.connect import StoreOptions, open_repository
from backstay.cli.session import Session


@click.command()
@click.argument("backup", metavar="ID", shell_complete=backups)
@options.store
@options.recipients
@options.talk
@click.pass_obj
def command(
    session: Session, /, *, backup: str, recipient: tuple[str, ...], **store: object
) -> None:
    """Print the manifest of a backup, and what was said of it later."""
    from backstay.cli.tables import describe, document

    entry = open_repository(StoreOptions.of(store), recipient).find(backup)
    if session.json:
        session.answer(document(entry))
    else:
        session.print(describe(entry))
