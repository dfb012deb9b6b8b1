"""The probe: what a store can do, tried when a repository is made, and written down.

Stores that speak the same protocol differ: some ignore create-only puts, some forbid to delete,
some lag behind their own writes. Nothing is guessed from a provider's name. The probe writes a
few objects below `probe/`, looks at what comes of it, and deletes them.

What a backup can't live without (to write, to read it back, to list it) is an error; what it can
live without is a finding.
"""

import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from backstay.clock import Clock
from backstay.errors import AlreadyExistsError, BackstayError, NotFoundError, StoreError
from backstay.repo.store import ObjectInfo, Store

FOLDER = "probe"
#: More than one part of an upload, so that the upload in parts is tried too.
_STREAM_SIZE = 9 << 20
_SKEW = 300.0
_LIMIT = 1 << 16

_NO_CREATE_ONLY = (
    "the store ignores create-only puts: that nothing is overwritten hangs on names that no two"
    " writers share"
)
_NO_DELETES = "nothing can be deleted: what dead runs leave stays, and prune will not work"
_NO_LISTS = "new objects are not listed at once: a backup may show up late"
_NO_ABANDONS = "an upload that was given up is listed: it never counts as a backup, but stays"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store can do.

    Attributes:
        create_only: a put of a new object never replaces one that is there.
        streams: objects of many parts can be written, and come back as they were.
        abandons: an upload that was given up leaves nothing that is listed.
        lists: a new object is listed at once.
        deletes: objects can be deleted, and are gone then.
        clock_skew: seconds that the store's clock is ahead of this machine's.
    """

    create_only: bool
    streams: bool
    abandons: bool
    lists: bool
    deletes: bool
    clock_skew: float

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain values, for the repository's configuration."""
        return asdict(self)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say what is missing, and what follows from it."""
        missing = (
            (self.create_only, _NO_CREATE_ONLY),
            (self.deletes, _NO_DELETES),
            (self.lists, _NO_LISTS),
            (self.abandons, _NO_ABANDONS),
        )
        found = [text for there, text in missing if not there]
        if abs(self.clock_skew) > _SKEW:
            way = "ahead of" if self.clock_skew > 0 else "behind"
            seconds = f"{abs(self.clock_skew):.0f} s"
            found.append(f"the store's clock is {seconds} {way} this machine's: set them by NTP")
        return tuple(found)


class _GivenUpError(Exception):
    """The probe leaves a write half-way."""


def probe(store: Store, clock: Clock) -> Capabilities:
    """Try what a store can do; needs some seconds and a few requests.

    Args:
        store: the store.
        clock: this machine's.

    Raises:
        StoreError: it can't do what every backup needs, or can't be reached.
        SpaceError: it is full.
    """
    folder = f"{FOLDER}/{secrets.token_hex(4)}"
    small, large, half = (f"{folder}/{name}" for name in ("small", "large", "half"))
    deletes = False
    try:
        _write_and_read(store, small)
        create_only = _try_create_only(store, small)
        _stream(store, large)
        _give_up(store, half)
        listed = {info.path for info in store.list(folder)}
        skew = (store.now() - clock.now()).total_seconds()
    finally:
        for path in (small, large, half):
            with suppress(BackstayError):
                store.delete(path)
    with suppress(BackstayError):
        deletes = not list(store.list(folder))
    return Capabilities(
        create_only=create_only,
        streams=True,
        abandons=half not in listed,
        lists={small, large} <= listed,
        deletes=deletes,
        clock_skew=round(skew, 1),
    )


def left_over(store: Store, before: datetime) -> tuple[ObjectInfo, ...]:
    """Find what probes that were killed left.

    Args:
        store: the store.
        before: what is younger, by the store's clock, may be of one that still runs.
    """
    return tuple(info for info in store.list(FOLDER) if info.modified < before)


def _write_and_read(store: Store, path: str) -> None:
    store.put_new(path, b"first\n")
    try:
        data = store.read(path, _LIMIT)
    except NotFoundError:
        data = b""
    if data != b"first\n":
        raise StoreError(
            f"{store.url} does not give back at once what was written to it",
            "use a store that is consistent: every backup is read back",
        )


def _try_create_only(store: Store, path: str) -> bool:
    with suppress(AlreadyExistsError):
        store.put_new(path, b"second\n")
    return store.read(path, _LIMIT) == b"first\n"


def _stream(store: Store, path: str) -> None:
    piece = secrets.token_bytes(1 << 20)
    with store.writer(path) as sink:
        for _ in range(_STREAM_SIZE >> 20):
            sink.write(piece)
    back = b"".join(store.stream(path))
    if back != piece * (_STREAM_SIZE >> 20):
        raise StoreError(
            f"{store.url} does not keep an object of {_STREAM_SIZE} bytes",
            "look at the server's log; uploads in parts of 8 MiB must work",
        )


def _give_up(store: Store, path: str) -> None:
    with suppress(_GivenUpError), store.writer(path) as sink:
        sink.write(b"never to be seen\n")
        raise _GivenUpError
