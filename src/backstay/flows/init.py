"""Making a repository: probe the store, write down what it can do, say what it can't."""

from collections.abc import Sequence

from backstay.clock import Clock
from backstay.errors import AlreadyExistsError, NotFoundError, RefusedError, UsageError
from backstay.repo import config as configuration
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config
from backstay.repo.lock import BucketLock, Lock, Lockable
from backstay.repo.probe import probe
from backstay.repo.store import Locker, Store
from backstay.report import Report


def init(
    store: Store,
    role: Role,
    recipients: Sequence[str],
    *,
    lock: Lock | None = None,
    clock: Clock,
    report: Report,
) -> Repository:
    """Make a repository.

    Args:
        store: where.
        role: what will lie in it.
        recipients: who can read it; none: it is not encrypted.
        lock: how what is written is to be locked; None: not at all.
        clock: for the date.
        report: is told what the store can't do.

    Raises:
        AlreadyExistsError: there is one.
        UsageError: a recipient is none, or the store can't lock.
        RefusedError: its bucket can't lock.
        NotVerifiedError: whether its bucket can lock could not be asked.
        StoreError: the store refuses.
    """
    # Before anything is written: what is wrong with the words costs nothing to find.
    new_config(role, recipients, {}, clock.now(), lock)
    try:
        store.stat(configuration.PATH)
    except NotFoundError:
        pass
    else:
        raise AlreadyExistsError(
            f"{store.url} is a repository already", "use it, or name another place"
        )
    locked = _check_lock(store, lock, report)
    found = probe(store, clock)
    for line in found.warnings:
        report.warn(line)
    if store.residue:
        report.say(store.residue)
    config = new_config(role, recipients, found.as_dict(), clock.now(), lock)
    repository = Repository.init(locked, config)
    _prove_lock(repository)
    return repository


def _check_lock(store: Store, lock: Lock | None, report: Report) -> Store:
    """Give the store that locks, where its bucket can."""
    if lock is None:
        return store
    if not isinstance(store, Lockable):
        raise UsageError(
            f"{store.url} can't lock what is written", "use s3://, or leave out --object-lock"
        )
    locked = store.locking(lock)
    if isinstance(locked, BucketLock) and (warning := locked.check_bucket()):
        report.warn(warning)
    return locked


def _prove_lock(repository: Repository) -> None:
    """Look that what was just written is locked: some servers take the words and do nothing."""
    store = repository.store
    if repository.config.lock is None or not isinstance(store, Locker):
        return
    if store.locked_until(configuration.PATH) is None:
        store.delete(configuration.PATH)
        raise RefusedError(
            f"{store.url} took what was to be locked, and did not lock it",
            "use a server that has object lock, or leave out --object-lock",
        )
