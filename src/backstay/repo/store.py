"""The store: a place for named objects, and the seam where tests inject faults.

A store knows nothing of backups. It keeps bytes under paths, publishes an object whole or not at
all, and tells the time by its own clock. Everything above it takes a `Store`; which kind it is,
is decided once, from the repository's URL (`url.open_store`).

Border: names. A store takes paths of the grammar below and nothing else, so that neither a
manifest nor a user can reach out of it. No object's path may be the folder of another's: a
directory can't keep both.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from backstay.client.secret import Secret
from backstay.errors import StoreError

#: How much a stream yields at a time at most, in bytes.
CHUNK_SIZE = 8 << 20
MAX_PATH = 900
#: A leading dot is never a path's: partial files and `..` begin with one.
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=@-]{0,199}")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object.

    Attributes:
        path: its name, below the repository's root.
        size: bytes.
        modified: when it was written, by the store's own clock; aware.
    """

    path: str
    size: int
    modified: datetime


class Writer(Protocol):
    """Takes the bytes of an object that does not exist yet."""

    def write(self, data: bytes, /) -> int:
        """Append; returns how many bytes were taken, which is all.

        Raises:
            StoreError: the store refuses or can't be reached.
            SpaceError: it is full.
        """
        ...


class Store(Protocol):
    """A place for objects. All methods may be called by several threads at the same time.

    Every method raises `StoreError` where the store refuses, fails, can't be reached or gives no
    answer within its time, and says what to do about it; `SpaceError` where it is full.
    """

    @property
    def url(self) -> str:
        """Where it is, as the user wrote it, without a slash at the end. Never a secret."""
        ...

    @property
    def residue(self) -> str:
        """What killed writers can leave that `clear_partial` can't see, and what removes it.

        Empty where there is none.
        """
        ...

    def describe(self) -> str:
        """Say in a few words what it is and how it is reached. Never a secret."""
        ...

    def put_new(self, path: str, data: bytes) -> None:
        """Write a small object in one atomic step.

        Where the store honours it (see the probe) an existing object is never replaced;
        elsewhere the caller's names must be unique.

        Raises:
            AlreadyExistsError: another object has that name.
        """
        ...

    def writer(self, path: str) -> AbstractContextManager[Writer]:
        """Write an object of any size, in bounded memory.

        It appears when the block ends without an exception, whole; else never.
        """
        ...

    def read(self, path: str, limit: int) -> bytes:
        """Read a small object whole.

        Raises:
            NotFoundError: there is none.
            FormatError: it has more than `limit` bytes.
        """
        ...

    def stream(self, path: str, *, offset: int = 0) -> Iterator[bytes]:
        """Read an object in pieces of at most `CHUNK_SIZE` bytes, none of them empty.

        Args:
            path: its name.
            offset: where to begin; at or after the end nothing comes.

        Raises:
            NotFoundError: there is none; raised by the first `next`.
        """
        ...

    def stat(self, path: str) -> ObjectInfo:
        """Look at an object.

        Raises:
            NotFoundError: there is none.
        """
        ...

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        """Name all objects below a folder, sorted by path, byte by byte.

        Args:
            prefix: a folder, with or without a slash at the end; empty is all. Part of a
                name is no prefix: `a/b` names what is below `a/b/`, not `a/bc`.
            after: only paths after this one, which need not exist; the others cost nothing.
        """
        ...

    def delete(self, path: str) -> None:
        """Delete an object; nothing happens where there is none."""
        ...

    def now(self) -> datetime:
        """Ask for the time by the clock that `modified` goes by; writes to the store. Aware."""
        ...

    def clear_partial(self, before: datetime) -> tuple[str, ...]:
        """Delete what killed writers left that no `list` shows.

        Args:
            before: what was touched since then, by the store's clock, may still be written.

        Returns:
            The names of what was deleted.
        """
        ...


@runtime_checkable
class Presigner(Protocol):
    """What some stores can do besides: let others fetch an object, by a URL that is the key."""

    @property
    def authorities(self) -> bytes:
        """PEM certificates that are trusted beside the system's; empty is none."""
        ...

    def presign(self, path: str, seconds: int, method: Literal["GET", "HEAD"] = "GET") -> Secret:
        """Sign a request for an object; whoever has the URL can make it, until it expires.

        Nothing is asked of the store: not whether the object is there, nor whether we may. Where
        the credentials come from a server (a role), that one is asked.

        Args:
            path: its name.
            seconds: how long the URL is good from now, by this machine's clock; its credentials
                may end before.
            method: the request.

        Raises:
            UsageError: no store signs for so long, or for no time at all.
            StoreError: there are no credentials.
        """
        ...


@runtime_checkable
class Locker(Protocol):
    """What some stores can do besides: refuse to delete an object for a time."""

    def locked_until(self, path: str) -> datetime | None:
        """Ask until when an object can't be deleted, by the store's clock; aware.

        Returns:
            None where it is not locked, or not there.

        Raises:
            StoreError: the store refuses to say.
        """
        ...


def check_path(path: str) -> str:
    """Give a path back if it is one.

    Raises:
        StoreError: it is none.
    """
    if not is_path(path):
        raise StoreError(f"{path[:100]!r} is no path of an object")
    return path


def check_prefix(prefix: str) -> str:
    """Give a folder back, without a slash at the end, if it is one.

    Raises:
        StoreError: it is none.
    """
    folder = prefix.removesuffix("/")
    return check_path(folder) if folder else ""


def is_path(path: str) -> bool:
    """Tell whether a name that was found could be an object of ours."""
    return len(path) <= MAX_PATH and all(_SEGMENT.fullmatch(part) for part in path.split("/"))
