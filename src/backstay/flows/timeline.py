"""What can be restored of a cluster, and what can't: from manifests and names alone.

Pure over what a repository lists: no delta is read. Revisions of two lineages are never compared;
where one lineage follows another, what lies between is told as far as numbers can tell it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backstay.mvcc.delta import Position
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry, Unreadable
from backstay.repo.manifest import SnapshotEntry
from backstay.repo.note import DRILL
from backstay.repo.roll import Stretch, recorded
from backstay.report import Verdict

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Point:
    """A backup, as a timeline has it.

    Attributes:
        id: its ID.
        snapshot: name of its snapshot.
        first: the first revision that it can be rewound to.
        revision: at which it stands.
        taken_at: when it was made.
        state: `verified`, `not verified` or `FAILED`.
        drilled_at: when it was last restored into an etcd that was thrown away; None: never.
    """

    id: str
    snapshot: str
    first: int
    revision: int
    taken_at: datetime
    state: str
    drilled_at: datetime | None

    @property
    def usable(self) -> bool:
        """Whether something may be made from it."""
        return self.state != "FAILED"


@dataclass(frozen=True, slots=True)
class Window:
    """Revisions without a hole, each of which can be restored.

    Attributes:
        first: the first.
        last: the last.
        since: from when on times are recorded in it; None where there are none.
        until: until when it is known what happened.
        backups: IDs of the backups in it.
        deltas: how many it needs at most.
        stored_size: bytes that these take.
    """

    first: int
    last: int
    since: datetime | None
    until: datetime | None
    backups: tuple[str, ...]
    deltas: int
    stored_size: int


@dataclass(frozen=True, slots=True)
class Missing:
    """Revisions that can't be restored.

    Attributes:
        first: the first.
        last: the last.
        reason: why.
    """

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Life:
    """One lineage.

    Attributes:
        lineage: its id.
        predecessor: the lineage that was the newest when it began; None where there was none.
        reason: why it began.
        points: its backups, oldest first.
        windows: what can be restored, in order.
        missing: what can't, in order.
    """

    lineage: str
    predecessor: str | None
    reason: str
    points: tuple[Point, ...]
    windows: tuple[Window, ...]
    missing: tuple[Missing, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """All lineages of a cluster, oldest first.

    Attributes:
        cluster: its name.
        lives: its lineages.
        unreadable: manifests that can't be read, one line each.
    """

    cluster: str
    lives: tuple[Life, ...]
    unreadable: tuple[str, ...]


def look(repository: Repository, cluster: str) -> Timeline:
    """Draw up the timeline of a cluster.

    It reads the manifests; of what is recorded it reads names, by a LIST for each thousand rolls
    and one for what each lineage has after its last roll.

    Raises:
        StoreError: the store refuses.
    """
    found = repository.backups(cluster)
    entries = [entry for entry in found if isinstance(entry, Entry)]
    unreadable = tuple(entry.reason for entry in found if isinstance(entry, Unreadable))
    lineages = dict.fromkeys(part.lineage for entry in entries for part in entry.manifest.snapshots)
    stretches = recorded(repository, cluster, lineages)
    lives = lives_of(entries, stretches)
    return Timeline(cluster, lives, unreadable)


def lives_of(
    entries: Sequence[Entry], stretches: dict[str, tuple[Stretch, ...]]
) -> tuple[Life, ...]:
    """Sort what there is into lineages, oldest first.

    Args:
        entries: backups of one cluster, oldest first by the store's clock.
        stretches: what is recorded of each lineage.
    """
    parts: dict[str, list[tuple[Entry, SnapshotEntry]]] = {}
    for entry in entries:
        for part in entry.manifest.snapshots:
            parts.setdefault(part.lineage, []).append((entry, part))
    lives: dict[str, Life] = {}
    for lineage, some in parts.items():
        before = lives.get(some[0][1].predecessor or "")
        lives[lineage] = _life(lineage, some, stretches.get(lineage, ()), before)
    for lineage, some_stretches in stretches.items():
        if lineage not in lives and some_stretches:
            missing = tuple(_orphans(some_stretches, ()))
            reason = "it has no backup yet"
            lives[lineage] = Life(lineage, None, reason, (), (), missing)
    return tuple(lives.values())


def _life(
    lineage: str,
    parts: Sequence[tuple[Entry, SnapshotEntry]],
    stretches: Sequence[Stretch],
    before: Life | None,
) -> Life:
    points = tuple(_point(entry, part) for entry, part in parts)
    windows = tuple(windows_of(points, stretches))
    first = parts[0][1]
    missing = [*_between(windows), *_orphans(stretches, windows), *_lost(before, windows)]
    return Life(
        lineage,
        first.predecessor,
        first.lineage_reason,
        points,
        windows,
        tuple(sorted(missing, key=lambda one: one.first)),
    )


def _point(entry: Entry, part: SnapshotEntry) -> Point:
    manifest = entry.manifest
    drills = [
        note.at
        for note in entry.notes
        if note.action == DRILL and all(check.verdict is Verdict.PASS for check in note.checks)
    ]
    state = "FAILED" if entry.failed else "verified" if entry.verified else "not verified"
    first = max(part.compact_revision, 1)
    drilled = max(drills, default=None)
    return Point(manifest.id, part.name, first, part.revision, manifest.taken_at, state, drilled)


def windows_of(points: Iterable[Point], stretches: Sequence[Stretch]) -> Iterator[Window]:
    """Join the backups' own windows and what is recorded after them.

    Args:
        points: backups of one lineage; those that failed count for nothing.
        stretches: what is recorded of it, in order, without overlaps.
    """
    whole: Window | None = None
    for point in sorted(
        (one for one in points if one.usable), key=lambda one: (one.first, one.revision)
    ):
        window = _window(point, stretches)
        if whole is not None and window.first <= whole.last + 1:
            whole = _joined(whole, window)
            continue
        if whole is not None:
            yield whole
        whole = window
    if whole is not None:
        yield whole


def _window(point: Point, stretches: Sequence[Stretch]) -> Window:
    after = Position(point.revision + 1)
    following = next((one for one in stretches if one.begin <= after <= one.end), None)
    if following is None:
        return Window(point.first, point.revision, None, None, (point.id,), 0, 0)
    return Window(
        point.first,
        max(following.end.main - 1, point.revision),
        _time(following.first),
        _time(following.last),
        (point.id,),
        following.deltas,
        following.stored_size,
    )


def _joined(one: Window, other: Window) -> Window:
    same = one.since == other.since and one.until == other.until
    times = [time for time in (one.since, other.since) if time is not None]
    ends = [time for time in (one.until, other.until) if time is not None]
    return Window(
        one.first,
        max(one.last, other.last),
        min(times, default=None),
        max(ends, default=None),
        one.backups + other.backups,
        max(one.deltas, other.deltas) if same else one.deltas + other.deltas,
        max(one.stored_size, other.stored_size) if same else one.stored_size + other.stored_size,
    )


def _between(windows: Sequence[Window]) -> Iterator[Missing]:
    for index in range(1, len(windows)):
        one, other = windows[index - 1], windows[index]
        reason = f"not recorded; {other.backups[0]} covers from {other.first}"
        yield Missing(one.last + 1, other.first - 1, reason)


def _orphans(stretches: Iterable[Stretch], windows: Sequence[Window]) -> Iterator[Missing]:
    """Find what is recorded and has no backup to start from."""
    for stretch in stretches:
        first, last = stretch.begin.main, stretch.end.main - 1
        inside = [one for one in windows if one.first <= last and first <= one.last + 1]
        if last >= first and not any(one.last >= last for one in inside):
            yield Missing(first, last, "recorded, but no backup is there to start from")


def _lost(before: Life | None, windows: Sequence[Window]) -> Iterator[Missing]:
    """Say what is between two lineages, where the numbers can be those of one history."""
    if before is None or not before.windows or not windows:
        return
    first, last = before.windows[-1].last + 1, windows[0].first - 1
    if first <= last:
        yield Missing(
            first,
            last,
            f"not recorded, where this goes on with lineage {before.lineage}, which nothing proves",
        )


def _time(second: int) -> datetime:
    try:
        return _EPOCH + timedelta(seconds=second)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
