"""Pins: whoever pins a backup keeps it from being pruned, until someone unpins it.

    clusters/CLUSTER/pins/NAME/TIME-RAND.json           a pin, see `PinDocument`
    clusters/CLUSTER/removals/NAME/TIME-RAND.json       a removal that was announced, see `removal`

A pin is an object of its own, so two who pin at once don't know of each other, and both count.
That it is there is what counts; what it says only explains it: one that can't be read pins too.
An unpin deletes the pins that it saw, and none that came since.

There are no locks, so pin and prune look out for each other: each first writes down what it is
about to do, and then looks for what the other has written. Whichever comes second sees the first.
A prune that finds a pin gives way; a pin that finds a removal waits to see what becomes of it. So
a pin that has returned holds.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from backstay import __version__
from backstay.clock import Clock
from backstay.errors import FormatError, NotFoundError, NotVerifiedError
from backstay.repo.document import FORMAT, MAX_SIZE, check_time, decode, encode
from backstay.repo.manifest import Short, Text
from backstay.repo.name import BackupId, manifests_of, pins_of, removals_of
from backstay.repo.store import ObjectInfo, Store

#: Who pins the backup that was there before a change that nobody may have meant (check `change`).
BY_BACKUP = "backstay backup"
#: An announced removal that is older, by the store's clock, was left by a prune that has died.
REMOVAL_LASTS = timedelta(minutes=10)
#: How long a pin waits for a removal, in seconds, and how often it looks.
_PATIENCE = 60.0
_POLL = 1.0


class PinDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A pin as it is stored.

    Attributes:
        backup: the ID of what is pinned.
        at: when, by the clock of whoever pinned it.
        by: who pinned it, as `root@host`, or which part of the program.
        reason: why; may be empty.
    """

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: tuple[Short, ...] = ()
    backup: Text
    at: datetime
    by: Short
    reason: Text = ""
    backstay_version: Short = __version__


@dataclass(frozen=True, slots=True)
class Pin:
    """A pin that was found.

    Attributes:
        path: where it lies.
        at: when the backup was pinned, by the clock of whoever did.
        by: who did; empty where that can't be read.
        reason: why; may be empty.
    """

    path: str
    at: datetime
    by: str
    reason: str

    def __str__(self) -> str:
        who = f"pinned by {self.by}" if self.by else "pinned"
        words = f"{who} at {self.at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        return f"{words}: {self.reason}" if self.reason else words

    def as_json(self) -> dict[str, str]:
        """Give it as JSON has it."""
        return {"at": self.at.isoformat(), "by": self.by, "reason": self.reason}


def folder(backup: BackupId) -> str:
    """Where the pins of a backup lie."""
    return f"{pins_of(backup.cluster)}{backup.name}/"


def read_pin(store: Store, info: ObjectInfo) -> Pin | None:
    """Read a pin; what can't be read pins all the same.

    Returns:
        None where somebody has taken it away meanwhile.

    Raises:
        StoreError: the store refuses.
    """
    try:
        document = _parse(store.read(info.path, MAX_SIZE), info.path)
    except NotFoundError:
        return None
    except FormatError as error:
        return Pin(info.path, info.modified, "", f"what the pin says can't be read: {error.what}")
    return Pin(info.path, document.at, document.by, document.reason)


def _parse(data: bytes, name: str) -> PinDocument:
    document = decode(data, PinDocument, name)
    check_time(document.at, name)
    _, cluster, _, backup, *_ = name.split("/")
    if document.backup != f"{cluster}/{backup}":
        raise FormatError(f"{name} is a pin of {document.backup[:200]}")
    return document


def pin(store: Store, backup: BackupId, *, by: str, reason: str, clock: Clock) -> Pin:
    """Pin a backup; when this has returned no prune removes it any more.

    Whoever makes something that needs a backup pins that first, and unpins it when what needs it
    is listed.

    Args:
        store: that of the repository.
        backup: which one.
        by: who pins it; at most 256 characters.
        reason: why, for those who wonder later; at most 4096 characters.
        clock: for the date of the pin, and for waiting.

    Raises:
        NotFoundError: there is no such backup, or it was removed meanwhile.
        NotVerifiedError: somebody has begun to remove it, and does not come to an end.
        StoreError: the store refuses.
    """
    document = PinDocument(backup=str(backup), at=clock.now(), by=by[:256], reason=reason[:4096])
    when = document.at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = f"{folder(backup)}{when}-{secrets.token_hex(4)}.json"
    store.put_new(path, encode(document))
    _settle(store, backup, path, clock)
    return Pin(path, document.at, document.by, document.reason)


def _settle(store: Store, backup: BackupId, path: str, clock: Clock) -> None:
    """Wait until no removal that may have missed the pin is under way."""
    began = clock.monotonic()
    while True:
        # In this order: a removal that is over is not announced any more.
        announced = removals_under_way(store, backup)
        try:
            store.stat(f"{manifests_of(backup.cluster)}{backup.name}.json")
        except NotFoundError:
            store.delete(path)
            raise NotFoundError(
                f"{store.url} has no backup {backup}, or not any more", "see `backstay list`"
            ) from None
        if not announced:
            return
        if clock.monotonic() - began > _PATIENCE:
            raise NotVerifiedError(
                f"{backup} is pinned, but a prune has begun to remove it and does not come to an"
                " end",
                f"look whether it is still there in {REMOVAL_LASTS.total_seconds() / 60:.0f}"
                f" minutes: backstay show {backup}",
            )
        clock.sleep(_POLL)


def removals_under_way(store: Store, backup: BackupId) -> tuple[ObjectInfo, ...]:
    """Find the removals of a backup that were announced and may still be going on.

    Raises:
        StoreError: the store refuses.
    """
    found = tuple(store.list(f"{removals_of(backup.cluster)}{backup.name}"))
    if not found:
        return ()
    before = store.now() - REMOVAL_LASTS
    return tuple(info for info in found if info.modified >= before)


def unpin(store: Store, pins: tuple[Pin, ...]) -> None:
    """Delete the pins that somebody has seen; others that came since stay.

    Raises:
        StoreError: the store refuses.
    """
    for one in pins:
        store.delete(one.path)
