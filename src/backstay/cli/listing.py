"""`backstay list`: the backups of a repository."""

import click

from backstay.cli import options
from backstay.cli.connect import StoreOptions, open_repository
from backstay.cli.session import Session


@click.command("list")
@click.option("--cluster", help="Only the backups of this cluster.")
@options.store
@options.recipients
@options.talk
@click.pass_obj
def command(
    session: Session, /, *, cluster: str | None, recipient: tuple[str, ...], **store: object
) -> None:
    """List the backups of a repository, oldest first."""
    from backstay.cli.tables import table_of
    from backstay.repo.catalogue import Entry
    from backstay.repo.document import plain

    found = open_repository(StoreOptions.of(store), recipient).backups(cluster)
    unreadable = [entry for entry in found if not isinstance(entry, Entry)]
    if session.json:
        session.answer([plain(entry.manifest) for entry in found if isinstance(entry, Entry)])
    else:
        session.print(table_of(found))
    for entry in unreadable:
        session.complain(f"unreadable: {entry.reason}", do=entry.do)
