"""Whether an etcd is quiet: nobody writes to it any more, and a while has passed to be sure.

Leases go on running out when all writers are gone (events live for three hours), so a quiet etcd
does move. What counts is a put, and a delete of a key that had no lease.

A watch that tells nothing proves nothing: it may have died. So quiet also takes that all up to
the revision which a leader gives now has been seen.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol, Self

from backstay.client.answer import Change
from backstay.client.etcd import Etcd
from backstay.client.watch import Watch
from backstay.clock import Clock
from backstay.closing import Closing
from backstay.errors import ConnectionFailedError, EtcdError, EtcdUnavailableError
from backstay.mvcc.keyvalue import parse_keyvalue
from backstay.mvcc.wire import MalformedError

#: Places in the key space that a message names; keys themselves may tell more than they should.
_NAMED = 3
#: Bytes of a place that are shown.
_SHOWN = 60
#: How often a watch that broke is begun again.
_RENEWALS = 5


@dataclass(frozen=True, slots=True)
class Event:
    """A write to etcd.

    Attributes:
        key: what was written.
        delete: whether it was deleted.
        lease: id of the lease that the key had before; 0 where it had none, or nothing tells.
    """

    key: bytes
    delete: bool
    lease: int = 0

    @property
    def disturbs(self) -> bool:
        """Whether somebody must have done it: a lease that ends takes its keys with it."""
        return not self.delete or self.lease == 0


class Watched(Protocol):
    """All writes to an etcd, from when it was opened on."""

    def next(self, timeout: float) -> Sequence[Event]:
        """Wait for writes; gives none where the time is over.

        Raises:
            BackstayError: they can't be told any more.
        """
        ...

    def settled(self) -> bool:
        """Whether all that is written by now has been told: asks the leader.

        Raises:
            BackstayError: there is no answer.
        """
        ...


#: Opens a watch on everything, and closes it again.
Watcher = Callable[[], AbstractContextManager[Watched]]


@dataclass(frozen=True, slots=True)
class Stillness:
    """For how long nobody has written, and who did last.

    Attributes:
        since: when the last write was told, by the monotonic clock; at first, when it began.
        writes: how many there were.
        places: where the last of them were, the last one last.
    """

    since: float
    writes: int = 0
    places: tuple[str, ...] = ()

    def after(self, events: Sequence[Event], now: float) -> "Stillness":
        """Take in what was told now."""
        disturbing = [event for event in events if event.disturbs]
        if not disturbing:
            return self
        # A place that is named again goes to the end.
        recent = dict.fromkeys(self.places)
        for event in disturbing:
            name = place(event.key)
            recent.pop(name, None)
            recent[name] = None
        return replace(
            self,
            since=now,
            writes=self.writes + len(disturbing),
            places=tuple(recent)[-_NAMED:],
        )

    def has_lasted(self, seconds: float, now: float) -> bool:
        """Whether nobody has written for so long."""
        return now - self.since >= seconds

    def words(self) -> str:
        """Who wrote last, for a message."""
        return f"{self.writes} writes, last under {', '.join(self.places)}"


def place(key: bytes) -> str:
    """Name the part of the key space that a key is in: its first two parts, never its name."""
    parts = key[: 4 * _SHOWN].split(b"/")
    # A key without slashes is no object's: `compact_rev_key`.
    kept = b"/".join(parts[:3]) + b"/..." if len(parts) > 3 else b"/".join(parts[:-1]) + b"/..."
    kept = key[:_SHOWN] if len(parts) == 1 else kept
    return "".join(c if c.isprintable() else "?" for c in kept.decode(errors="replace"))[:_SHOWN]


class EtcdWatched(Closing):
    """The writes of an etcd that can be reached. Made by `watch_etcd`."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self._seen = self._revision()
        self._renewals = 0
        self._open = ExitStack()
        self._watch = self._begin()

    def close(self) -> None:
        """End the watch."""
        # The connection may be gone already; what ends a watch then is that it is.
        with suppress(EtcdError):
            self._open.close()

    def next(self, timeout: float) -> tuple[Event, ...]:
        """Wait for writes; gives none where the time is over.

        Raises:
            EtcdError: they can't be told any more.
        """
        try:
            message = self._watch.next(timeout)
        except (EtcdUnavailableError, ConnectionFailedError):
            # A member that restarts, a port-forward that breaks: another one can go on.
            self._renewals += 1
            if self._renewals > _RENEWALS:
                raise
            self.close()
            self._open = ExitStack()
            self._watch = self._begin()
            return ()
        if message is None:
            return ()
        events = [_event(change) for change in message.changes]
        if events and not message.more:
            # Only what came with the last part of a revision is all of it.
            self._seen = max(self._seen, events[-1][1])
        return tuple(event for event, _ in events)

    def settled(self) -> bool:
        """Whether all that is written by now has been told: asks the leader.

        Raises:
            EtcdError: there is no answer.
        """
        return self._revision() <= self._seen

    def _revision(self) -> int:
        # Linearizable: a member that lags would answer with an old revision.
        return self._etcd.range(b"\0", count_only=True).header.revision

    def _begin(self) -> Watch:
        return self._open.enter_context(
            self._etcd.watch(start_revision=self._seen + 1, previous=True)
        )


def watch_etcd(etcd: Etcd) -> Watcher:
    """Make what opens a watch on everything in an etcd.

    Opening raises `EtcdError`.
    """
    return lambda: EtcdWatched(etcd)


class Together:
    """Several etcds, as one: the shards of a control plane."""

    def __init__(self, watched: Sequence[Watched]) -> None:
        self._watched = tuple(watched)

    def next(self, timeout: float) -> tuple[Event, ...]:
        """Wait for writes to any of them."""
        found: list[Event] = []
        for watched in self._watched:
            # Those that come behind one that had something don't wait at all.
            found += watched.next(0 if found else timeout / len(self._watched))
        return tuple(found)

    def settled(self) -> bool:
        """Whether all that is written by now has been told."""
        return all(watched.settled() for watched in self._watched)


def watch_all(watchers: Sequence[Watcher]) -> Watcher:
    """Make one of several: quiet is what all of them are."""

    @contextmanager
    def opened() -> Iterator[Watched]:
        with ExitStack() as stack:
            yield Together([stack.enter_context(watcher()) for watcher in watchers])

    return watchers[0] if len(watchers) == 1 else opened


@dataclass(frozen=True, slots=True)
class Drained:
    """What came until now.

    Attributes:
        complete: whether all has been told; False where that can't be known.
        stillness: with all that was told.
    """

    complete: bool
    stillness: Stillness

    @classmethod
    def of(cls, watched: Watched, stillness: Stillness, clock: Clock, seconds: float) -> Self:
        """Take in all that has been written by now, for at most so long.

        Raises:
            BackstayError: the watch has ended, or etcd does not answer.
        """
        deadline = clock.monotonic() + seconds
        while not watched.settled():
            left = deadline - clock.monotonic()
            if left <= 0:
                return cls(complete=False, stillness=stillness)
            events = watched.next(min(left, 0.1))
            stillness = stillness.after(events, clock.monotonic())
        return cls(complete=True, stillness=stillness)


def _event(change: Change) -> tuple[Event, int]:
    """Read a change, and its revision."""
    try:
        now = parse_keyvalue(change.keyvalue)
        before = parse_keyvalue(change.previous) if change.previous else None
    except MalformedError as error:
        raise EtcdError(f"the watch told a change that can't be read: {error}") from error
    lease = before.lease if before is not None and change.delete else 0
    return Event(key=now.key, delete=change.delete, lease=lease), now.mod_revision
