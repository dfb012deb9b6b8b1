"""`backstay consolidate`: a full backup from an old one and what was recorded since."""

from typing import Any

import click

from backstay.cli import options
from backstay.cli.connect import (
    StoreOptions,
    open_keys_repository,
    open_repository,
    read_identities,
    spool_directory,
)
from backstay.cli.sealing import sealing
from backstay.cli.session import Session


@click.command()
@options.cluster
@click.option(
    "--to-revision",
    type=click.IntRange(min=1),
    metavar="R",
    help="Of this revision.  [default: the newest that is recorded without a hole]",
)
@options.store
@options.keys_store
@options.recipients
@options.keys_recipients
@options.identity
@options.spool
@sealing
@options.talk
@click.pass_obj
def command(
    session: Session,
    /,
    *,
    cluster: str,
    to_revision: int | None,
    recipient: tuple[str, ...],
    level: int,
    threads: int | None,
    **more: Any,
) -> int:
    """Make a full backup from an old one and what was recorded since.

    No etcd is touched: a backup and the deltas after it become a new backup, in the repository.  It
    is decrypted and sealed again on this machine, so the identity is needed.  The new backup is
    whole without the old one.  That of a control plane takes over keys, objects and archive, which
    takes --keys-repo.
    """
    from backstay.cli.verdicts import exit_code, tell_checks
    from backstay.clock import SystemClock
    from backstay.errors import SealError
    from backstay.flows.consolidate import Nothing, Wanted, consolidate
    from backstay.repo.document import plain
    from backstay.repo.name import check_cluster
    from backstay.repo.sealing import Sealing

    check_cluster(cluster)
    wanted = Wanted(
        cluster=cluster,
        spool_dir=spool_directory(more["spool_dir"]),
        revision=to_revision,
        sealing=Sealing(level=level, threads=threads),
        keys=(lambda: open_keys_repository(more)) if more["keys_repo"] else None,
    )
    report = session.report()
    repository = open_repository(StoreOptions.of(more), recipient)
    identities = read_identities(more["identity"])
    if repository.config.recipients and identities is None:
        raise SealError(
            f"the backups in {repository.store.url} are encrypted, and this opens one",
            "give the identity file with --identity or BACKSTAY_IDENTITY",
        )
    made = consolidate(repository, wanted, identities, clock=SystemClock(), report=report)
    session.close()
    if isinstance(made, Nothing):
        if session.json:
            session.answer({"made": False, "reason": made.reason, "id": made.backup})
        else:
            session.tell(f"nothing to do: {made.reason}")
        return 0
    if session.json:
        session.answer({"made": True, "reason": "", "id": made.id, "manifest": plain(made)})
    else:
        session.tell(f"{made.id}: revision {made.revision}, made from {made.base}")
        tell_checks(session, made.checks)
    return exit_code(made.checks)
