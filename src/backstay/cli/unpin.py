"""`backstay unpin`: let a prune decide again."""

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
    """Take the pins of a backup away: all that are there now, whoever pinned it."""
    from backstay.cli.values import printable
    from backstay.repo.pin import unpin

    repository = open_repository(StoreOptions.of(store), recipient)
    entry = repository.find(backup)
    unpin(repository.store, entry.pins)
    if session.json:
        removed = [one.as_json() for one in entry.pins]
        session.answer({"backup": entry.manifest.id, "removed": removed})
        return
    for one in entry.pins:
        session.tell(f"it was {printable(str(one))}")
    state = "unpinned" if entry.pins else "it was not pinned"
    session.tell(f"{state}: {entry.manifest.id}")
