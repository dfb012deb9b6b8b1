"""Metrics of a repository: what its manifests and notes say, for Prometheus.

They are read from the repository, not kept by who writes backups: a writer that has died can't say
that it has. Names and meanings: docs/metrics.md.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from backstay.clock import Clock
from backstay.exposition import Family, Sample
from backstay.repo.catalogue import Repository
from backstay.repo.measure import Figures, Look, Newest, Verdicts, measure

_OF_CLUSTER = ("cluster", "repository")
_WITH_VERDICT = (*_OF_CLUSTER, "verdict")


def _family(name: str, help_: str, labels: tuple[str, ...] = _OF_CLUSTER) -> Family:
    return Family(f"backstay_{name}", help_, labels)


COLLECTED = _family(
    "collected_timestamp_seconds", "When these metrics were read from it.", ("repository",)
)
BACKUPS = _family("backups", "Backups that can be read.")
FAILED = _family("backups_failed", "Backups with a check that failed, then or later.")
VERIFIED = _family("backups_verified", "Backups that are verified.")
UNREADABLE = _family("backups_unreadable", "Manifests that can't be read.")
PINNED = _family("backups_pinned", "Backups that are pinned.")
KEPT = _family(
    "backups_kept_by_change",
    "Backups that were pinned because a later one was not like them, and not unpinned since.",
)
STORED = _family("stored_bytes", "Bytes of all objects that manifests name, as they are stored.")

LAST_CHECKS = _family(
    "last_backup_checks", "Checks of the last backup, by their verdict.", _WITH_VERDICT
)
LAST_CHANGE = _family(
    "last_backup_change",
    "Whether the last backup is like the one before it: its check `change`, by the verdict.",
    _WITH_VERDICT,
)
LAST_MEMBERS = _family(
    "last_backup_members",
    "Whether members have what the last backup has: its check `members`, by the verdict.",
    _WITH_VERDICT,
)
TAKEN = _family(
    "latest_timestamp_seconds",
    "When the newest backup without a failed check was taken, by the earlier of two clocks.",
)
DURATION = _family("latest_duration_seconds", "Seconds that it took to make that backup.")
SIZE = _family("latest_bytes", "Bytes of what that backup holds, in the clear.")
STORED_SIZE = _family("latest_stored_bytes", "Bytes of that backup's objects as they are stored.")
REVISION = _family("latest_revision", "The revision of that backup's first snapshot.")
KEYS = _family("latest_keys", "Keys in that backup, old revisions of them included.")
VERIFIED_TAKEN = _family(
    "latest_verified_timestamp_seconds", "When the newest verified backup was taken."
)

VERIFY_AT = _family("verify_timestamp_seconds", "When any backup was verified last.")
VERIFY_GOOD_AT = _family(
    "verify_good_timestamp_seconds", "When a verify last had nothing to find fault with."
)
VERIFY_CHECKS = _family(
    "verify_checks", "Checks of the last verify, by their verdict.", _WITH_VERDICT
)
DRILL_AT = _family("drill_timestamp_seconds", "When the last drill was.")
DRILL_GOOD_AT = _family("drill_good_timestamp_seconds", "When a drill last passed all its checks.")
DRILL_SECONDS = _family(
    "drill_restore_seconds", "Seconds of the last drill until the restored etcd served."
)
DRILL_CHECKS = _family("drill_checks", "Checks of the last drill, by their verdict.", _WITH_VERDICT)

OKD_TAKEN = _family(
    "okd_restorable_timestamp_seconds",
    "When the newest backup was taken that restores this release of OKD.",
    (*_OF_CLUSTER, "version"),
)

FAMILIES = (
    COLLECTED,
    BACKUPS,
    FAILED,
    VERIFIED,
    UNREADABLE,
    PINNED,
    KEPT,
    STORED,
    LAST_CHECKS,
    LAST_CHANGE,
    LAST_MEMBERS,
    TAKEN,
    DURATION,
    SIZE,
    STORED_SIZE,
    REVISION,
    KEYS,
    VERIFIED_TAKEN,
    VERIFY_AT,
    VERIFY_GOOD_AT,
    VERIFY_CHECKS,
    DRILL_AT,
    DRILL_GOOD_AT,
    DRILL_SECONDS,
    DRILL_CHECKS,
    OKD_TAKEN,
)


def collect(repository: Repository, cluster: str | None, clock: Clock) -> tuple[Sample, ...]:
    """Read the metrics of one cluster, or of all, from a repository.

    Raises:
        UsageError: that is no name of a cluster.
        StoreError: the store refuses.
    """
    found = repository.backups(cluster)
    now = clock.now()
    return samples(measure(found, now), repository.store.url, now)


def samples(figures: Iterable[Figures], url: str, now: datetime) -> tuple[Sample, ...]:
    """Make samples of figures.

    Args:
        figures: of clusters.
        url: of the repository.
        now: when they were read.
    """
    of_clusters = (sample for one in figures for sample in _cluster(one, (one.cluster, url)))
    return (COLLECTED.of(url, value=now.timestamp()), *of_clusters)


Labels = tuple[str, str]


def _cluster(one: Figures, labels: Labels) -> Iterator[Sample]:
    yield BACKUPS.of(*labels, value=one.backups)
    yield FAILED.of(*labels, value=one.failed)
    yield VERIFIED.of(*labels, value=one.verified)
    yield UNREADABLE.of(*labels, value=one.unreadable)
    yield PINNED.of(*labels, value=one.pinned)
    yield KEPT.of(*labels, value=one.kept)
    yield STORED.of(*labels, value=one.stored_size)
    for family, found in (
        (LAST_CHECKS, one.last),
        (LAST_CHANGE, one.change),
        (LAST_MEMBERS, one.members),
    ):
        if found is not None:
            yield from verdicts(family, labels, found)
    if one.newest is not None:
        yield from _newest(one.newest, labels)
    yield from _time(VERIFIED_TAKEN, labels, one.verified_at)
    yield from _look(one.verify, labels, VERIFY_AT, VERIFY_CHECKS)
    yield from _time(VERIFY_GOOD_AT, labels, one.verify_good_at)
    yield from _look(one.drill, labels, DRILL_AT, DRILL_CHECKS)
    yield from _time(DRILL_GOOD_AT, labels, one.drill_good_at)
    if one.drill is not None and one.drill.seconds:
        yield DRILL_SECONDS.of(*labels, value=one.drill.seconds)
    for version, taken in one.releases:
        yield OKD_TAKEN.of(*labels, version, value=taken.timestamp())


def _newest(newest: Newest, labels: Labels) -> Iterator[Sample]:
    yield from _time(TAKEN, labels, newest.at)
    if newest.seconds is not None:
        yield DURATION.of(*labels, value=newest.seconds)
    yield SIZE.of(*labels, value=newest.size)
    yield STORED_SIZE.of(*labels, value=newest.stored_size)
    yield REVISION.of(*labels, value=newest.revision)
    yield KEYS.of(*labels, value=newest.keys)


def _look(look: Look | None, labels: Labels, at: Family, checks: Family) -> Iterator[Sample]:
    if look is not None:
        yield from _time(at, labels, look.at)
        yield from verdicts(checks, labels, look.verdicts)


def _time(family: Family, labels: Labels, moment: datetime | None) -> Iterator[Sample]:
    if moment is not None:
        yield family.of(*labels, value=moment.timestamp())


def verdicts(family: Family, labels: tuple[str, ...], found: Verdicts) -> Iterator[Sample]:
    """Make a sample for each verdict, also where none was given: a series that comes late is none.

    Args:
        family: its last label is the verdict.
        labels: all but that.
        found: how many there are of each.
    """
    yield family.of(*labels, "pass", value=found.passed)
    yield family.of(*labels, "fail", value=found.failed)
    yield family.of(*labels, "could_not_verify", value=found.unverified)
