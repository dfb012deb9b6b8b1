"""`backstay init`: make a repository."""

from typing import Any

import click

from backstay.cli import options
from backstay.cli.connect import StoreOptions, open_store
from backstay.cli.session import Session


@click.command()
@options.store
@click.option(
    "--recipient",
    multiple=True,
    metavar="AGE1...",
    help="Who can read the backups: the public key of an identity.  May be given several times.",
)
@click.option("--no-encryption", is_flag=True, help="Store in the clear: compressed, no more.")
@click.option(
    "--role",
    type=click.Choice(["data", "keys"]),
    default="data",
    show_default=True,
    help="What will lie in it: backups, or the keys that open what is in them.",
)
@click.option(
    "--object-lock",
    is_flag=True,
    help="Have the bucket keep what is written, whoever wants to delete it (s3://, in a bucket"
    " with object lock; needs backstay[object-lock]).",
)
@click.option(
    "--lock-days",
    type=click.IntRange(1, 36_500),
    default=30,
    show_default=True,
    help="For how long, from each write.",
)
@click.option(
    "--lock-mode",
    type=click.Choice(["governance", "compliance"]),
    default="governance",
    show_default=True,
    help="Who can lift a lock: somebody with the right to, or nobody.",
)
@options.talk
@click.pass_obj
def command(
    session: Session,
    /,
    *,
    recipient: tuple[str, ...],
    no_encryption: bool,
    role: str,
    object_lock: bool,
    lock_days: int,
    lock_mode: str,
    **store: Any,
) -> None:
    """Make a repository, and find out what its store can do."""
    from backstay.cli.tables import columns
    from backstay.clock import SystemClock
    from backstay.errors import UsageError
    from backstay.flows.init import init
    from backstay.repo.config import Role
    from backstay.repo.document import plain
    from backstay.repo.lock import Lock, Mode

    if bool(recipient) == no_encryption:
        raise UsageError(
            "either --recipient or --no-encryption is needed",
            "make a key pair with `backstay keygen`, and give its age1... with --recipient",
        )
    opened = open_store(StoreOptions.of(store))
    report = session.report()
    lock = Lock(mode=Mode(lock_mode), days=lock_days) if object_lock else None
    repository = init(opened, Role(role), recipient, lock=lock, clock=SystemClock(), report=report)
    session.close()
    config = repository.config
    if session.json:
        session.answer(plain(config))
        return
    session.tell(f"{opened.url} is a repository for {config.role} now")
    rows = (
        ("Repository:", config.repository),
        ("Sealed to:", ", ".join(config.recipients) or "nobody: objects are not encrypted"),
        ("Store:", repository.store.describe()),
    )
    session.tell(columns(rows))
    session.tell(f"Next: backstay backup etcd --cluster NAME --repo {opened.url}")
