"""What there is to measure in a catalogue: figures of each cluster, made from its entries alone.

Pure. Nothing here knows a clock: what now is, is said. Times that have not come yet are not
believed: a writer whose clock is ahead would keep an alert quiet for as long as it is.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backstay.repo.entry import Entry, Unreadable, newest
from backstay.repo.manifest import CheckEntry
from backstay.repo.note import DRILL, VERIFY, Note
from backstay.repo.pin import BY_BACKUP
from backstay.report import Verdict

#: Clocks of two machines may differ by this much.
AHEAD = timedelta(hours=1)
#: Checks that are told by themselves, too: see `checks.change` and `checks.members`.
CHANGE, MEMBERS = "change", "members"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """How many checks ended how.

    Attributes:
        passed: PASS.
        failed: FAIL.
        unverified: COULD NOT VERIFY.
    """

    passed: int = 0
    failed: int = 0
    unverified: int = 0

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> "Verdicts":
        """Count them."""
        found = Counter(verdicts)
        return cls(
            passed=found[Verdict.PASS],
            failed=found[Verdict.FAIL],
            unverified=found[Verdict.COULD_NOT_VERIFY],
        )

    @property
    def good(self) -> bool:
        """Whether all that was asked passed, and something was."""
        return self.passed > 0 and not self.failed and not self.unverified


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A verify or a drill.

    Attributes:
        at: when it was, by the clock of who looked.
        seconds: a drill's: from the first byte that was fetched until the restored etcd served.
        verdicts: what it came to.
    """

    at: datetime
    seconds: float
    verdicts: Verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The newest backup that a restore would take.

    Attributes:
        at: when it was taken, see `age`.
        seconds: that it took to make; None where its manifest is from before that was noted.
        size: bytes of what it holds, in the clear.
        stored_size: bytes of its objects as they are stored.
        revision: of its first snapshot.
        keys: of all its snapshots.
    """

    at: datetime
    seconds: float | None
    size: int
    stored_size: int
    revision: int
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is measured of one cluster.

    Attributes:
        cluster: its name.
        backups: that can be read.
        failed: those of them with a check that failed, then or later.
        verified: those of them that are verified.
        unreadable: manifests that can't be read.
        stored_size: bytes of all objects that the manifests name.
        pinned: backups that are pinned.
        kept: those of them that a backup pinned, since it was not like them.
        last: the newest backup, whatever came of its checks: how these ended.
        change: the verdicts of its check `change`; None where it was not asked.
        members: those of its check `members`.
        newest: the newest without a failed check: what `latest` means.
        verified_at: when the newest verified backup was taken.
        verify: the last verify of any of its backups.
        verify_good_at: the last one that had nothing to say.
        drill: the last drill with any of its backups.
        drill_good_at: the last one that had nothing to say.
        releases: of OKD that a backup restores, and when the newest of each was taken.
    """

    cluster: str
    backups: int
    failed: int
    verified: int
    unreadable: int
    stored_size: int
    pinned: int
    kept: int
    last: Verdicts | None
    change: Verdicts | None
    members: Verdicts | None
    newest: Newest | None
    verified_at: datetime | None
    verify: Look | None
    verify_good_at: datetime | None
    drill: Look | None
    drill_good_at: datetime | None
    releases: tuple[tuple[str, datetime], ...]


def measure(found: Sequence[Entry | Unreadable], now: datetime) -> tuple[Figures, ...]:
    """Measure every cluster of which there is something.

    Args:
        found: what the catalogue has.
        now: by the clock that the times of notes are held to.
    """
    by_cluster: dict[str, list[Entry | Unreadable]] = {}
    for one in found:
        name = one.manifest.cluster if isinstance(one, Entry) else one.cluster
        by_cluster.setdefault(name, []).append(one)
    return tuple(_figures(name, by_cluster[name], now) for name in sorted(by_cluster))


def age(entry: Entry) -> datetime:
    """When a backup was taken: by the writer's clock or by the store's, whichever is earlier.

    So neither a clock that is ahead nor a copy of the bucket makes a backup look younger.
    """
    return min(entry.manifest.taken_at, entry.written)


def _figures(cluster: str, found: Sequence[Entry | Unreadable], now: datetime) -> Figures:
    entries = [one for one in found if isinstance(one, Entry)]
    whole = [entry for entry in entries if not entry.failed]
    verified = [entry for entry in entries if entry.verified]
    looks = _looks(entries, now + AHEAD)
    sizes = {item.path: item.stored_size for one in entries for item in one.manifest.objects}
    last = newest(entries).manifest.checks if entries else ()
    return Figures(
        cluster=cluster,
        backups=len(entries),
        failed=len(entries) - len(whole),
        verified=len(verified),
        unreadable=len(found) - len(entries),
        stored_size=sum(sizes.values()),
        pinned=sum(bool(entry.pins) for entry in entries),
        kept=sum(any(pin.by == BY_BACKUP for pin in entry.pins) for entry in entries),
        last=_verdicts(last) if entries else None,
        change=_of(CHANGE, last),
        members=_of(MEMBERS, last),
        newest=_newest(newest(whole)) if whole else None,
        verified_at=age(newest(verified)) if verified else None,
        verify=_last(looks[VERIFY]),
        verify_good_at=_good_at(looks[VERIFY]),
        drill=_last(looks[DRILL]),
        drill_good_at=_good_at(looks[DRILL]),
        releases=_releases(verified),
    )


def _releases(verified: Iterable[Entry]) -> tuple[tuple[str, datetime], ...]:
    """When the newest backup was taken that restores a release of OKD, for each release."""
    found: dict[str, datetime] = {}
    for entry in verified:
        okd = entry.manifest.okd
        if okd is not None and okd.safe and okd.version:
            found[okd.version] = max(age(entry), found.get(okd.version, age(entry)))
    return tuple(sorted(found.items()))


def _newest(entry: Entry) -> Newest:
    manifest = entry.manifest
    return Newest(
        at=age(entry),
        seconds=manifest.seconds,
        size=sum(item.size for item in manifest.objects),
        stored_size=manifest.stored_size,
        revision=manifest.revision,
        keys=sum(snapshot.total_keys for snapshot in manifest.snapshots),
    )


def _verdicts(checks: Iterable[CheckEntry]) -> Verdicts:
    return Verdicts.of(check.verdict for check in checks)


def _of(name: str, checks: Iterable[CheckEntry]) -> Verdicts | None:
    """Give the verdict of one check, as counts; None where it was not asked."""
    found = [check for check in checks if check.name == name]
    return _verdicts(found) if found else None


def _looks(entries: Iterable[Entry], until: datetime) -> Mapping[str, Sequence[Look]]:
    """What was looked at later, by what was done, oldest first."""
    notes = [note for entry in entries for note in entry.notes if note.at <= until]
    notes.sort(key=lambda note: note.at)
    return {
        action: [_look(note) for note in notes if note.action == action]
        for action in (VERIFY, DRILL)
    }


def _look(note: Note) -> Look:
    return Look(at=note.at, seconds=note.seconds, verdicts=_verdicts(note.checks))


def _last(looks: Sequence[Look]) -> Look | None:
    return looks[-1] if looks else None


def _good_at(looks: Sequence[Look]) -> datetime | None:
    return next((look.at for look in reversed(looks) if look.verdicts.good), None)
