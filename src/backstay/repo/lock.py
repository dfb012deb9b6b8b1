"""Object lock: what a repository has its store keep, whoever wants to delete it.

A repository that is made with it says so in its configuration. From then on what counts is written
locked: deltas, all below `clusters/` and `config/` but pins and removals, and `backstay.json`.
What a probe or a question for the time leaves is not: it would be junk that nobody can delete.

Border: what is locked, and for how long. How a store does it is its own business.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Protocol, runtime_checkable

import msgspec
from msgspec import Meta

from backstay.errors import RefusedError
from backstay.repo.store import Locker, ObjectInfo, Store

_COUNTS = frozenset({"clusters", "config", "backstay.json", "deltas"})
#: Below a cluster: what is deleted again, by whoever unpins or has pruned.
_PASSING = frozenset({"pins", "removals"})


class Mode(StrEnum):
    """Who can lift a lock: somebody with a special right, or nobody."""

    GOVERNANCE = "governance"
    COMPLIANCE = "compliance"


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """How what is written is locked.

    Attributes:
        mode: who can lift it.
        days: how long it holds, from the moment of the write by the store's clock.
    """

    mode: Mode
    days: Annotated[int, Meta(ge=1, le=36_500)]


@runtime_checkable
class Lockable(Protocol):
    """What some stores can do besides: become one that locks what is written."""

    def locking(self, lock: Lock) -> Store:
        """Give a store in the same place that locks what counts; nothing is asked of it yet."""
        ...


@runtime_checkable
class BucketLock(Protocol):
    """A store that locks where its bucket lets it."""

    def check_bucket(self) -> str:
        """Look whether the bucket can lock, before anything is written to it.

        Returns:
            What is to know of it: a warning, or nothing.

        Raises:
            RefusedError: it can't.
            NotVerifiedError: it may not be asked.
            StoreError: it can't be reached.
        """
        ...


def locking(store: Store, lock: Lock | None) -> Store:
    """Give the store that a repository with this lock writes to, as far as the store can."""
    return store.locking(lock) if lock is not None and isinstance(store, Lockable) else store


def check_locking(store: Store, lock: Lock | None) -> None:
    """Hold a store to lock, where the repository in it says that what is written is locked.

    Raises:
        RefusedError: it can't: the repository was copied to another kind of store.
    """
    if lock is not None and not isinstance(store, Locker):
        raise RefusedError(
            f"the repository in {store.url} says that what is written is locked, and this store"
            " can't lock",
            "write to the bucket that it was made in; what lies here can be read",
        )


def counts(path: str) -> bool:
    """Tell whether an object of this name is worth a lock."""
    top, _, rest = path.partition("/")
    return top in _COUNTS and rest.partition("/")[2].partition("/")[0] not in _PASSING


def unlocked(store: Store, found: Iterable[ObjectInfo]) -> list[ObjectInfo]:
    """Choose what the store lets go.

    Raises:
        StoreError: it does not say what it locks.
    """
    if not isinstance(store, Locker):
        return list(found)
    return [info for info in found if store.locked_until(info.path) is None]
