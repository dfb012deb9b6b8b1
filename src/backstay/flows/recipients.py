"""Who can read a repository: changed for what comes, and looked at for what is there.

A change is a new generation of the repository's configuration; what was written before keeps the
recipients that it was sealed to. Which backups an identity opens is told from the headers of their
objects: a few bytes each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from backstay.checks.question import Answer, ask, failed, passed
from backstay.clock import Clock
from backstay.errors import NotFoundError, RefusedError, UsageError
from backstay.repo import generation as generations
from backstay.repo import keyring as keyrings
from backstay.repo.catalogue import Repository
from backstay.repo.config import Config, Role, with_recipients
from backstay.repo.entry import Entry, Unreadable
from backstay.repo.identity import Identities, check_recipient
from backstay.repo.manifest import ObjectEntry
from backstay.repo.sealing import opens
from backstay.report import Check, Report, Verdict


@dataclass(frozen=True, slots=True)
class Holding:
    """Something that is sealed: a backup, or a keyring.

    Attributes:
        name: `CLUSTER/NAME`.
        recipients: who can open it, as it says itself.
        objects: what it consists of.
    """

    name: str
    recipients: tuple[str, ...]
    objects: tuple[ObjectEntry, ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """A recipient, and what it can open.

    Attributes:
        recipient: its public key.
        since: when it was added; None for one that is a recipient no more.
        holdings: how many backups or keyrings name it.
    """

    recipient: str
    since: datetime | None
    holdings: int

    @property
    def current(self) -> bool:
        """Whether new backups are sealed to it."""
        return self.since is not None


def holdings(
    repository: Repository, cluster: str | None = None
) -> tuple[Holding | Unreadable, ...]:
    """Name what is sealed in a repository: its backups, or its keyrings.

    Args:
        repository: of either role.
        cluster: only what is of this one.

    Raises:
        StoreError: the store refuses.
    """
    if repository.config.role is Role.KEYS:
        return tuple(
            one
            if isinstance(one, Unreadable)
            else Holding(one.header.id, one.header.recipients, one.header.parts)
            for one in keyrings.headers(repository, cluster)
        )
    return tuple(
        Holding(one.manifest.id, one.manifest.recipients, one.manifest.objects)
        if isinstance(one, Entry)
        else one
        for one in repository.backups(cluster)
    )


def readers(repository: Repository) -> tuple[Reader, ...]:
    """Name all who can read something, or will: the recipients of now, then earlier ones.

    Raises:
        FormatError: a generation of the configuration can't be read.
        StoreError: the store refuses.
    """
    found = [one for one in holdings(repository) if isinstance(one, Holding)]
    since = _since(generations.history(repository.store, repository.first))
    named = {recipient for one in found for recipient in one.recipients}
    order = (*since, *sorted(named - since.keys()))
    return tuple(
        Reader(name, since.get(name), sum(name in one.recipients for one in found))
        for name in order
    )


def _since(history: Sequence[Config]) -> dict[str, datetime]:
    """Tell since when each recipient of the newest generation is one without a break."""
    since: dict[str, datetime] = {}
    for config in history:
        since = {name: since.get(name, config.created_at) for name in config.recipients}
    return since


def add(repository: Repository, recipient: str, clock: Clock) -> Config:
    """Seal what comes to one more recipient.

    Returns:
        The new generation.

    Raises:
        UsageError: it is no recipient.
        RefusedError: it is one already, the repository is not encrypted, or somebody else changed
            the recipients at the same time.
        StoreError: the store refuses.
    """
    name, current = check_recipient(recipient), repository.config
    if name in current.recipients:
        raise RefusedError(f"{name} is a recipient of {repository.store.url} already")
    return _change(repository, (*current.recipients, name), clock)


def remove(repository: Repository, recipient: str, clock: Clock) -> Config:
    """Seal what comes to one recipient less; what is there stays readable by it.

    Returns:
        The new generation.

    Raises:
        UsageError: it is no recipient.
        NotFoundError: it is none of this repository.
        RefusedError: it is the last one, or somebody else changed them at the same time.
        StoreError: the store refuses.
    """
    name, current = check_recipient(recipient), repository.config
    if name not in current.recipients:
        raise NotFoundError(
            f"{name} is no recipient of {repository.store.url}", "see `backstay recipients list`"
        )
    if current.recipients == (name,):
        raise RefusedError(
            f"{name} is the last recipient: nobody could read what comes", "add another one first"
        )
    return _change(repository, [other for other in current.recipients if other != name], clock)


def _change(repository: Repository, recipients: Sequence[str], clock: Clock) -> Config:
    current = repository.config
    config = with_recipients(current, recipients, clock.now())
    generations.publish(repository.store, current, config)
    return config


def check_openable(
    repository: Repository,
    identities: Identities,
    *,
    cluster: str | None = None,
    clock: Clock,
    report: Report,
) -> tuple[Check, ...]:
    """Ask of everything that is sealed whether an identity opens it; each is one check.

    Args:
        repository: of either role.
        identities: private keys.
        cluster: only what is of this one.
        clock: for durations.
        report: is told how far it is.

    Raises:
        UsageError: the repository is not encrypted.
        StoreError: the store refuses.
    """
    if not repository.config.recipients:
        raise UsageError(f"{repository.store.url} is not encrypted: no identity is needed")
    found, checks = holdings(repository, cluster), []
    with report.task("looking at headers", len(found), "backups") as advance:
        for one in found:
            checks.append(_check(repository, one, identities, clock))
            advance(1)
    return tuple(checks)


def _check(
    repository: Repository, one: Holding | Unreadable, identities: Identities, clock: Clock
) -> Check:
    if isinstance(one, Unreadable):
        detail = f"{one.reason}: {one.do}"
        return Check(name=one.path, verdict=Verdict.COULD_NOT_VERIFY, detail=detail, seconds=0.0)
    return ask(one.name, lambda: openable(repository, one, identities), clock)


def openable(repository: Repository, one: Holding, identities: Identities) -> Answer:
    """Does an identity open every object of a backup or a keyring? Their headers are looked at.

    Raises:
        DamagedError: an object is no age file, or its header was changed.
        NotFoundError: an object is gone.
        StoreError: the store could not be asked.
    """
    shut = [entry for entry in one.objects if not opens(repository.store, entry, identities)]
    if shut:
        known = ", ".join(one.recipients)
        return failed(f"{identities.name} does not open {shut[0].path}: it is sealed to {known}")
    number = len(one.objects)
    return passed(f"{identities.name} opens {number} object{'s'[: number != 1]}")
