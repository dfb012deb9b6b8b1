"""`backstay pin`: keep a backup, whatever a prune would have it be."""

import click

from backstay.cli import options
from backstay.cli.complete import backups
from backstay.cli.connect import StoreOptions, open_repository
from backstay.cli.session import Session


@click.command()
@click.argument("backup", metavar="ID", shell_complete=backups)
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who wonder later.")
@options.store
@options.recipients
@options.talk
@click.pass_obj
def command(
    session: Session, /, *, backup: str, reason: str, recipient: tuple[str, ...], **store: object
) -> None:
    """Keep a backup from being pruned, until it is unpinned.

    Several may pin the same backup; each pin counts.
    """
    from backstay.clock import SystemClock
    from backstay.repo.pin import pin

    repository = open_repository(StoreOptions.of(store), recipient)
    found = repository.find(backup).manifest
    made = pin(repository.store, found.name, by=whoever(), reason=reason, clock=SystemClock())
    if session.json:
        session.answer({"backup": found.id, "pin": made.as_json()})
    else:
        session.tell(f"pinned: {found.id}")


def whoever() -> str:
    """Name who is at work, as `root@host`."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in many containers
        user = "unknown"
    return f"{user[:100]}@{socket.gethostname()[:100] or 'unknown'}"
