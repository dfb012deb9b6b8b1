"""Which backup and which deltas make a point, and which revision a time means. Pure decisions.

A point is a lineage and a revision. Only backups and deltas of one lineage are looked at together:
revisions of two lives of an etcd are never compared. Where it can be had, a snapshot is rewound
within its own window, which takes nothing else; else recorded changes are added to the last
snapshot before it. Clocks decide nothing but what a time means, and only those that recorded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backstay.mvcc.delta import Mark, Position
from backstay.repo.delta import StoredDelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANOTHER = "`backstay list` has the backups; another lineage may have it: name a backup of it"


@dataclass(frozen=True, slots=True)
class Base:
    """A snapshot to start from.

    Attributes:
        name: the backup's ID.
        revision: at which it stands.
        compact_revision: where its history begins; -1: never compacted.
    """

    name: str
    revision: int
    compact_revision: int

    @property
    def first(self) -> int:
        """The first revision that it can be rewound to."""
        return max(self.compact_revision, 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a point is made.

    Attributes:
        base: from which snapshot.
        revision: which revision.
        deltas: what is added to it, in order; none where it is rewound.
        reason: why so.
    """

    base: Base
    revision: int
    deltas: tuple[StoredDelta, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Why a point can't be made.

    Attributes:
        reason: what is missing.
        do: what the reader can do.
    """

    reason: str
    do: str


def plan(revision: int, bases: Sequence[Base], deltas: Sequence[StoredDelta]) -> Plan | Gap:
    """Choose how to make a revision.

    Args:
        revision: which one.
        bases: snapshots of one lineage; where two would do as well, the earlier in this order.
        deltas: of the same lineage, in the order of where they begin.
    """
    covering = [base for base in bases if base.first <= revision <= base.revision]
    if covering:
        base = min(covering, key=lambda base: base.revision)
        reason = f"{base.name} has revisions {base.first} to {base.revision}"
        return Plan(base, revision, (), reason)
    below = [base for base in bases if base.revision < revision]
    if not below:
        oldest = min(bases, key=lambda base: base.first)
        return Gap(
            f"revision {revision} is missing: what there is begins with {oldest.name}, at revision"
            f" {oldest.first}",
            _ANOTHER,
        )
    base = max(below, key=lambda base: base.revision)
    wanted = Position(revision + 1)
    chosen, reached = chain(Position(base.revision + 1), wanted, deltas)
    if reached >= wanted:
        reason = f"{base.name} is at revision {base.revision}; recorded changes go on from there"
        return Plan(base, revision, chosen, reason)
    return _gap(base, reached, wanted, bases, deltas)


def chain(
    begin: Position, wanted: Position, deltas: Iterable[StoredDelta]
) -> tuple[tuple[StoredDelta, ...], Position]:
    """Choose as few deltas as will do to get from one position to another.

    Args:
        begin: where the first must begin, or before that.
        wanted: where the last must end, or after that.
        deltas: in the order of where they begin.

    Returns:
        The deltas, and how far they go without a hole.
    """
    chosen: list[StoredDelta] = []
    at = begin
    best: StoredDelta | None = None
    for delta in deltas:
        if at >= wanted:
            break
        if best is not None and delta.begin > at:
            chosen.append(best)
            at, best = best.end, None
            if at >= wanted:
                break
        if delta.begin <= at and delta.end > (best.end if best else at):
            best = delta
        elif delta.begin > at:
            break
    if best is not None and at < wanted:
        chosen.append(best)
        at = best.end
    return tuple(chosen), at


def _gap(
    base: Base,
    reached: Position,
    wanted: Position,
    bases: Sequence[Base],
    deltas: Sequence[StoredDelta],
) -> Gap:
    later = min((delta.begin for delta in deltas if delta.begin > reached), default=wanted)
    last = max(min(later, wanted).main - 1, reached.main)
    if reached == Position(base.revision + 1):
        upto = f"the last backup before that, {base.name}, is at revision {base.revision}"
    else:
        upto = f"recorded up to revision {reached.main - 1} after {base.name}"
    above = [other for other in bases if other.revision >= wanted.main]
    following = min(above, key=lambda other: other.revision, default=None)
    there = (
        f"the next backup, {following.name}, covers from {following.first}"
        if following
        else "no later backup covers that"
    )
    what = (
        f"revisions {reached.main} to {last} are missing"
        if reached.main < last
        else (f"revision {last} is missing")
    )
    return Gap(
        f"{what}: {upto}; {there}",
        f"ask for revision {reached.main - 1} or before"
        + (f", or for {following.first} or after" if following else ""),
    )


@dataclass(frozen=True, slots=True)
class Moment:
    """What a time means.

    Attributes:
        asked: the time.
        revision: the last one that had come by then.
        before: the last time at or before `asked` at which that was known.
        after: the first time after it that is known.
        next_revision: what had come by `after`; the same revision where nothing had happened.
        astray: whether the clock of the recorder went back around then, so that two answers fit.
    """

    asked: datetime
    revision: int
    before: datetime
    after: datetime
    next_revision: int
    astray: bool = False

    def __str__(self) -> str:
        ago = (self.asked - self.before).total_seconds()
        text = f"{rfc3339(self.asked)} is revision {self.revision}, recorded {ago:.3f} s before"
        if self.next_revision == self.revision:
            return f"{text}; nothing changed until after that time"
        then = (self.after - self.asked).total_seconds()
        return f"{text}; revision {self.next_revision} was there {then:.3f} s after"


def moment(asked: datetime, marks: Iterable[Mark]) -> Moment | Gap:
    """Find the revision of a time.

    Args:
        asked: the time; aware.
        marks: times that deltas of one lineage recorded; those around `asked` at least.
    """
    at = milliseconds(asked)
    known = sorted(marks)
    earlier = [mark for mark in known if mark.at <= at]
    if not earlier:
        if not known:
            return Gap("no times are recorded", _ANOTHER)
        first = min(known, key=lambda mark: mark.at)
        return Gap(
            f"{rfc3339(asked)} is before the first time that is recorded, {show(first.at)}"
            f" (revision {first.revision})",
            _ANOTHER,
        )
    found = max(earlier)
    later = [mark for mark in known if mark.at > at and mark.revision >= found.revision]
    if not later:
        return Gap(
            f"{rfc3339(asked)} is after the last time that is recorded, {show(found.at)}",
            f"ask for revision {found.revision}, or for that time",
        )
    following = min(later, key=lambda mark: (mark.at, mark.revision))
    astray = any(mark.at > at and mark.revision < found.revision for mark in known)
    return Moment(
        asked,
        found.revision,
        moment_of(found.at),
        moment_of(following.at),
        following.revision,
        astray,
    )


def around(asked: datetime, deltas: Sequence[StoredDelta]) -> tuple[StoredDelta, ...]:
    """Choose the deltas whose times must be read to find the revision of a time.

    Those whose span has it, the last one before it, and the first one after it.
    """
    seconds = (asked - _EPOCH).total_seconds()
    spanning = [delta for delta in deltas if delta.name.first <= seconds <= delta.name.last]
    before = [delta for delta in deltas if delta.name.last < seconds]
    after = [delta for delta in deltas if delta.name.first > seconds]
    chosen = set(spanning)
    if before:
        chosen.add(max(before, key=lambda delta: (delta.end, delta.name.last)))
    if after:
        chosen.add(min(after, key=lambda delta: (delta.begin, delta.name.first)))
    return tuple(sorted(chosen, key=lambda delta: delta.name))


def milliseconds(time: datetime) -> int:
    """Give an aware time as deltas have it: milliseconds since 1970."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def moment_of(at: int) -> datetime:
    """Give a time of a delta; what no calendar has becomes the last day of one."""
    try:
        return _EPOCH + timedelta(milliseconds=at)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def show(at: int) -> str:
    """Write a time of a delta."""
    return rfc3339(moment_of(at))


def rfc3339(time: datetime) -> str:
    """Write a time for people and documents: RFC 3339, in UTC, milliseconds where there are any."""
    text = time.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace(".000+00:00", "Z").replace("+00:00", "Z")
