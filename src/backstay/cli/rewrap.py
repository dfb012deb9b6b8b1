"""`backstay rewrap`: seal backups anew, to the recipients of now."""

from typing import TYPE_CHECKING, Any

import click

from backstay.cli import complete, options
from backstay.cli.connect import (
    StoreOptions,
    no_identity,
    open_repository,
    read_identities,
    spool_directory,
)
from backstay.cli.sealing import sealing
from backstay.cli.session import Session
from backstay.errors import BackstayError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backstay.flows.rewrap import Options, Outcome
    from backstay.repo.catalogue import Entry, Repository


@click.command()
@click.argument("backups", metavar="[ID]...", nargs=-1, shell_complete=complete.backups)
@click.option("--all", "everything", is_flag=True, help="All backups that have other recipients.")
@click.option(
    "--cluster", shell_complete=complete.clusters, help="With --all: only what is of this cluster."
)
@options.store
@options.recipients
@options.identity
@options.spool
@sealing
@options.talk
@click.pass_obj
def command(
    session: Session,
    /,
    *,
    backups: tuple[str, ...],
    everything: bool,
    cluster: str | None,
    recipient: tuple[str, ...],
    identity: str | None,
    spool_dir: str | None,
    level: int,
    threads: int | None,
    **store: Any,
) -> int:
    """Seal backups anew, to the recipients that the repository has now.

    Each is decrypted with --identity, proven equal to its manifest, sealed and stored anew, and
    read back; then the new objects count, and the old ones are deleted.  It keeps its ID, and is
    never missing meanwhile.  One that has the recipients of now is left as it is.
    """
    from backstay.flows.rewrap import Options, check_sealed
    from backstay.repo.sealing import Sealing

    if bool(backups) == everything or (cluster and not everything):
        raise UsageError("which backups is not clear", "give IDs, or --all (with --cluster)")
    repository = open_repository(StoreOptions.of(store), recipient)
    check_sealed(repository)
    identities = read_identities(identity)
    if identities is None:
        raise no_identity(f"the backups in {repository.store.url}")
    wanted = Options(
        identities=identities,
        spool_dir=spool_directory(spool_dir),
        sealing=Sealing(level=level, threads=threads),
    )
    return _all(session, repository, _chosen(repository, backups, cluster), wanted)


def _chosen(
    repository: "Repository", backups: tuple[str, ...], cluster: str | None
) -> "Iterator[Entry | BackstayError]":
    from backstay.errors import FormatError
    from backstay.repo.catalogue import Entry

    if backups:
        yield from [repository.find(backup) for backup in backups]
        return
    for one in repository.backups(cluster):
        yield one if isinstance(one, Entry) else FormatError(one.reason, one.do)


def _all(
    session: Session,
    repository: "Repository",
    chosen: "Iterator[Entry | BackstayError]",
    wanted: "Options",
) -> int:
    """Seal one after the other; that one can't be stops no other."""
    from backstay.clock import SystemClock
    from backstay.flows.rewrap import rewrap

    clock, report = SystemClock(), session.report()
    done: list[Outcome] = []
    failed: list[tuple[str, BackstayError]] = []
    for one in chosen:
        if isinstance(one, BackstayError):
            failed.append(("", one))
            continue
        try:
            done.append(rewrap(repository, one, wanted, clock=clock, report=report))
        except BackstayError as error:
            failed.append((one.manifest.id, error))
    session.close()
    if session.json:
        session.answer(
            [_as_json(outcome) for outcome in done]
            + [{"id": name, "outcome": "failed", "detail": str(why)} for name, why in failed]
        )
    else:
        for outcome in done:
            session.tell(f"{outcome.id}: {_words(outcome)}")
    for name, trouble in failed:
        session.complain(f"{name or 'unreadable'}: {trouble.what}", do=trouble.do)
    return max((trouble.exit_code for _, trouble in failed), default=0)


def _words(one: "Outcome") -> str:
    words = [str(one.fate)]
    if one.removed:
        words.append(f"{len(one.removed)} old objects deleted")
    if one.locked:
        last = max(until for _, until in one.locked)
        words.append(f"{len(one.locked)} old objects are locked until {last:%Y-%m-%d %H:%M:%SZ}")
    return ", ".join(words)


def _as_json(one: "Outcome") -> dict[str, Any]:
    return {
        "id": one.id,
        "outcome": str(one.fate),
        "removed": list(one.removed),
        "locked": [{"path": path, "until": until.isoformat()} for path, until in one.locked],
    }
