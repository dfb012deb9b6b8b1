"""Making a repository: probe the store, write down what it can do, say what it can't."""

from collections.abc import Sequence

from backstay.clock import Clock
from backstay.errors import AlreadyExistsError, NotFoundError
from backstay.repo import config as configuration
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config
from backstay.repo.probe import probe
from backstay.repo.store import Store
from backstay.report import Report


def init(
    store: Store, role: Role, recipients: Sequence[str], *, clock: Clock, report: Report
) -> Repository:
    """Make a repository.

    Args:
        store: where.
        role: what will lie in it.
        recipients: who can read it; none: it is not encrypted.
        clock: for the date.
        report: is told what the store can't do.

    Raises:
        AlreadyExistsError: there is one.
        UsageError: a recipient is none.
        StoreError: the store refuses.
    """
    # Before anything is written: what is wrong with the words costs nothing to find.
    new_config(role, recipients, {}, clock.now())
    try:
        store.stat(configuration.PATH)
    except NotFoundError:
        pass
    else:
        raise AlreadyExistsError(
            f"{store.url} is a repository already", "use it, or name another place"
        )
    found = probe(store, clock)
    for line in found.warnings:
        report.warn(line)
    if store.residue:
        report.say(store.residue)
    return Repository.init(store, new_config(role, recipients, found.as_dict(), clock.now()))
