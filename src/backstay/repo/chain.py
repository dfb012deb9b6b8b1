"""Retention of what is recorded: which deltas stay and which go, each with a reason in words.

Pure functions over what a store lists (promise 7). A delta stays while it leads on from a backup
that stays: so whatever could be restored from these before can be restored after. Of one lineage
at a time; inside it positions order all, never a clock. How long ago something was recorded, the
store's clock says.

What is kept on no account of that:

- what is younger than the safe age, or has a date ahead of the store's clock;
- the last delta of a lineage that has a backup: a recorder goes on from there;
- what the store has locked;
- all of a cluster of which something can't be read.

Where no backup of a lineage stays nothing can be restored from its deltas: they go.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from backstay.mvcc.delta import Position
from backstay.repo.delta import StoredDelta
from backstay.repo.leftovers import SAFE_AGE

_AHEAD = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A snapshot that stays, in its lineage.

    Attributes:
        id: of its backup.
        revision: at which it stands.
        verified: whether the backup is proven.
        failed: whether a check of it has failed.
    """

    id: str
    revision: int
    verified: bool
    failed: bool = False

    @property
    def after(self) -> Position:
        """The position of the first change that it does not have."""
        return Position(self.revision + 1)


@dataclass(frozen=True, slots=True)
class Judged:
    """What becomes of a delta, and why.

    Attributes:
        delta: which.
        keep: whether it stays.
        reasons: all that speaks for it; where nothing does, why it goes.
    """

    delta: StoredDelta
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Deltas that follow each other and have the same fate.

    Attributes:
        cluster: whose.
        lineage: of which life.
        begin: the position of the first change.
        end: the position after the last.
        first: no time of them is before this second since 1970.
        last: none is after this one.
        deltas: how many there are.
        stored_size: bytes that they take.
        keep: whether they stay.
        reasons: why.
    """

    cluster: str
    lineage: str
    begin: Position
    end: Position
    first: int
    last: int
    deltas: int
    stored_size: int
    keep: bool
    reasons: tuple[str, ...]

    @property
    def revisions(self) -> tuple[int, int]:
        """The first and the last revision of which they have something."""
        last = self.end.main - (0 if self.end.sub else 1)
        return min(self.begin.main, last), last


def judge(
    deltas: Sequence[StoredDelta],
    standing: Sequence[Standing],
    now: datetime,
    *,
    recorded: timedelta | None = None,
    locked: Mapping[str, datetime] | None = None,
    unreadable: str = "",
    age: timedelta = SAFE_AGE,
) -> tuple[Judged, ...]:
    """Decide on each delta of a lineage.

    Args:
        deltas: all that there are, in the order of where they begin.
        standing: the snapshots of the lineage that stay.
        now: the time by the store's clock, asked for before anything was listed.
        recorded: for how long what was recorded is kept; None: from the oldest backup on.
        locked: until when the store deletes nothing, by the path of the delta.
        unreadable: why not all of the cluster can be read; empty where it can.
        age: what is younger stays.

    Returns:
        A decision on each, in the same order.
    """
    window = _Window.of(deltas, standing, now, recorded)
    last = max(deltas, key=lambda one: (one.end, one.name.last), default=None)
    found = []
    for delta in deltas:
        reasons = [*_for_itself(delta, now, age, locked or {}, unreadable)]
        if delta is last and standing:
            reasons.append("the last of its lineage: a recorder goes on from there")
        reasons += window.keeps(delta)
        keep = bool(reasons)
        found.append(Judged(delta, keep, tuple(reasons) if keep else (window.why_not(delta),)))
    return tuple(found)


def _for_itself(
    delta: StoredDelta,
    now: datetime,
    age: timedelta,
    locked: Mapping[str, datetime],
    unreadable: str,
) -> Iterator[str]:
    if unreadable:
        yield f"nothing of {delta.cluster} is removed: {unreadable}"
    if delta.path in locked:
        # A day for all: a reason for each second would make a range of each delta.
        yield f"locked until {locked[delta.path].astimezone(UTC):%Y-%m-%d} or later"
    if delta.modified - now > _AHEAD:
        yield "its date lies ahead of the store's clock"
    elif now - delta.modified < age:
        yield f"younger than {age / timedelta(hours=1):g} h"


@dataclass(frozen=True, slots=True)
class _Window:
    """From where on deltas are needed.

    Attributes:
        oldest: the oldest snapshot that stays; None where none does.
        base: from which on all deltas are needed; None where none are.
        span: for how long they are kept, in words; empty where that is not said.
    """

    oldest: Standing | None
    base: Standing | None
    span: str = ""

    @classmethod
    def of(
        cls,
        deltas: Sequence[StoredDelta],
        standing: Sequence[Standing],
        now: datetime,
        recorded: timedelta | None,
    ) -> "_Window":
        oldest = min(standing, key=lambda one: one.revision, default=None)
        if oldest is None or recorded is None:
            return cls(oldest, oldest)
        recent = [
            delta.begin
            for delta in deltas
            if delta.end >= oldest.after and delta.modified >= now - recorded
        ]
        span = f"{recorded / timedelta(hours=1):g} h"
        if not recent:
            return cls(oldest, None, span)
        return cls(oldest, _base_of(standing, min(recent)) or oldest, span)

    def keeps(self, delta: StoredDelta) -> Iterator[str]:
        """Say why a delta is needed; nothing where it is not.

        One that ends right where the snapshot does has the times of its last revision.
        """
        if self.base is None or delta.end < self.base.after:
            return
        if self.span:
            yield f"{self.base.id} and all after it make what was recorded in the last {self.span}"
        else:
            yield f"goes on from {self.base.id}, the oldest of its lineage"

    def why_not(self, delta: StoredDelta) -> str:
        """Say why a delta is not needed."""
        if self.oldest is None:
            return "no backup of its lineage stays"
        if delta.end < self.oldest.after:
            return f"ends before {self.oldest.id}, the oldest of its lineage"
        return f"recorded more than {self.span} ago"


def _base_of(standing: Sequence[Standing], begin: Position) -> Standing | None:
    """Choose from which snapshot a restore gets to a position; a verified one where there is."""
    fit = [one for one in standing if one.after <= begin]
    verified = [one for one in fit if one.verified]
    whole = [one for one in fit if not one.failed]
    return max(verified or whole or fit, key=lambda one: one.revision, default=None)


def ranges(judged: Iterable[Judged]) -> tuple[Range, ...]:
    """Sum up deltas that follow each other and have the same fate; of one lineage, in order."""
    found = []
    for (keep, reasons), group in groupby(judged, key=lambda one: (one.keep, one.reasons)):
        deltas = [one.delta for one in group]
        found.append(
            Range(
                cluster=deltas[0].cluster,
                lineage=deltas[0].lineage,
                begin=deltas[0].begin,
                end=max(delta.end for delta in deltas),
                first=min(delta.name.first for delta in deltas),
                last=max(delta.name.last for delta in deltas),
                deltas=len(deltas),
                stored_size=sum(delta.stored_size for delta in deltas),
                keep=keep,
                reasons=reasons,
            )
        )
    return tuple(found)
