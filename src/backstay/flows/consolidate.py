"""Consolidation: a full backup of a recorded revision, made inside the repository.

An old backup and the deltas after it become a new backup, without touching an etcd. It goes the
way of every backup: spooled, sealed, read back, looked into; the manifest comes last. It is whole
without what it was made from, so that this can go.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

from backstay.checks.question import Answer, passed, unknown
from backstay.checks.transfer import transfer
from backstay.client.answer import Header, Status
from backstay.client.endpoint import Endpoint, Scheme
from backstay.client.snapshot import Received, Sink
from backstay.clock import Clock
from backstay.errors import GapError, NotFoundError, RefusedError, UsageError
from backstay.flows.ancestry import Past
from backstay.flows.backup import NAME, Options, Part, backup
from backstay.flows.companion import Alone, Companion, Kept
from backstay.flows.fetch import BackupSubject
from backstay.flows.inheritance import Inheritance, check_inheritable
from backstay.flows.places import Places
from backstay.flows.point import Base, Gap, chain, moment_of, plan
from backstay.flows.timetravel import PointSubject, tell_leases
from backstay.mvcc.delta import Mark, Position
from backstay.mvcc.export import export
from backstay.mvcc.history import Past as Changes
from backstay.mvcc.snapshot import Snapshot, Trailer
from backstay.repo.catalogue import Repository
from backstay.repo.delta import StoredDelta, list_deltas
from backstay.repo.entry import Entry, newest
from backstay.repo.identity import Identities
from backstay.repo.lineage import Lineage, Stored
from backstay.repo.manifest import Manifest
from backstay.repo.name import Run
from backstay.repo.sealing import Sealing
from backstay.report import Check, Report, Verdict

_FOREVER = Position((1 << 63) - 1)
_ETCD = "etcd"
_FRESH = "make a backup of the etcd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be consolidated, and how.

    Attributes:
        cluster: the cluster's name.
        spool_dir: where snapshots and deltas lie while they are worked on.
        revision: which one the new backup is of; None: the newest that is recorded.
        sealing: how hard to compress.
        keys: opens the repository for keys; None where nobody has named one.
    """

    cluster: str
    spool_dir: Path
    revision: int | None = None
    sealing: Sealing = field(default_factory=Sealing)
    keys: Callable[[], Repository] | None = None


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is nothing to do.

    Attributes:
        reason: why, in one line.
        backup: the ID of the backup that has it all.
    """

    reason: str
    backup: str


@dataclass(frozen=True, slots=True)
class Ground:
    """What a new backup is made from.

    Attributes:
        entry: the old backup.
        revision: which one the new is of.
        deltas: what is added to the old one, in order.
    """

    entry: Entry
    revision: int
    deltas: tuple[StoredDelta, ...]


def consolidate(
    repository: Repository,
    wanted: Wanted,
    identities: Identities | None,
    *,
    clock: Clock,
    report: Report,
) -> Manifest | Nothing:
    """Make a full backup from an old one and what was recorded since.

    Only the newest lineage is looked at: a new backup of an older one would become what `latest`
    means.

    Args:
        repository: where all of it lies.
        wanted: what is wanted.
        identities: what opens backups and deltas; None for repositories without encryption.
        clock: for names and durations.
        report: is told of each step.

    Returns:
        The manifest as it was published, or why there was nothing to do.

    Raises:
        NotFoundError: there is no backup of the cluster.
        RefusedError: another lineage has begun meanwhile, or keys would lie with the data.
        GapError: revisions on the way are missing.
        UsageError: the revision needs no recorded changes, or its keys are nowhere.
        CheckFailedError: something is not what was stored, or not what a member said, or the
            cluster has other keys by now.
        SealError: the identity does not open it.
        StoreError: the store refuses.
        SpaceError: a disk is full.
    """
    entries = _good(repository, wanted.cluster, report)
    found = choose(repository, entries, wanted.revision, report)
    if isinstance(found, Nothing):
        return found
    base = found.entry.manifest
    if not found.entry.verified:
        report.warn(f"{base.id} is not verified, so what is made from it won't be, either")
    subject = BackupSubject(repository, found.entry, base.id, identities, wanted.spool_dir)
    point = PointSubject(subject, found.revision, wanted.spool_dir, found.deltas)
    making = _Making(found.entry, point, clock, _heir(subject, wanted.keys, clock, report))
    options = Options(
        cluster=wanted.cluster, spool_dir=wanted.spool_dir, sealing=wanted.sealing, origin=making
    )
    part = Part(NAME, making)
    return backup([part], repository, options, companion=making, clock=clock, report=report)


def _heir(
    subject: BackupSubject, keys: Callable[[], Repository] | None, clock: Clock, report: Report
) -> Companion:
    """Give what takes over the keys of the old backup, and all else that belongs to it.

    Raises:
        UsageError: it has keys, and nobody says where.
        NotFoundError: it should have some, and has none.
    """
    manifest = subject.entry.manifest
    if manifest.kind == _ETCD and manifest.keyring is None:
        return Alone()
    check_inheritable(manifest)
    if keys is None:
        raise UsageError(
            f"{manifest.id} is one of kind {manifest.kind}: the new backup needs its keys",
            "name their repository with --keys-repo or BACKSTAY_KEYS_REPO",
        )
    places = Places(data=subject.repository, keys=keys())
    places.check()
    return Inheritance(subject, places.keys, clock, report)


def _good(repository: Repository, cluster: str, report: Report) -> list[Entry]:
    """Give the backups that no check has failed of."""
    found = repository.backups(cluster)
    for one in found:
        if not isinstance(one, Entry):
            report.warn(one.reason)
    entries = [one for one in found if isinstance(one, Entry) and not one.failed]
    if not entries:
        raise NotFoundError(
            f"{repository.store.url} has no good backup of {cluster} to begin with", _FRESH
        )
    return entries


def choose(
    repository: Repository, entries: Sequence[Entry], revision: int | None, report: Report
) -> Ground | Nothing:
    """Choose what a new backup is made from, in the newest lineage; nothing is fetched.

    Args:
        repository: where the deltas lie.
        entries: the good backups of a cluster, at least one.
        revision: which one is wanted; None: the newest that can be had.
        report: is told of holes.

    Raises:
        RefusedError: the newest backup has several snapshots.
        GapError: revisions on the way are missing.
        UsageError: the revision needs no recorded changes.
        StoreError: the store refuses.
    """
    last = newest(entries)
    _check_one(last.manifest)
    lineage = last.manifest.snapshots[0].lineage
    same = [
        entry
        for entry in entries
        if entry.manifest.snapshots[0].lineage == lineage
        and entry.manifest.kind == last.manifest.kind
        and len(entry.manifest.snapshots) == 1
    ]
    if revision is not None:
        return _at(repository, same, revision, report)
    head = max(same, key=_revision)
    for pool in ([entry for entry in same if entry.verified], same):
        if not pool:
            continue
        base = max(pool, key=_revision)
        deltas = _after(repository, base)
        chosen, reached = chain(Position(_revision(base) + 1), _FOREVER, deltas)
        if reached.main - 1 > _revision(head):
            _tell_hole(reached, deltas, report)
            return Ground(base, reached.main - 1, chosen)
    return _nothing(head, deltas, report)


def _nothing(head: Entry, deltas: Sequence[StoredDelta], report: Report) -> Nothing:
    _tell_hole(Position(_revision(head) + 1), deltas, report)
    reason = f"{head.manifest.id} is at revision {_revision(head)}, and nothing newer is recorded"
    return Nothing(reason, head.manifest.id)


def _tell_hole(reached: Position, deltas: Sequence[StoredDelta], report: Report) -> None:
    """Say it where more is recorded, and nothing leads there."""
    beyond = min((one.begin for one in deltas if one.begin > reached), default=None)
    if beyond is not None:
        report.warn(
            f"revisions from {reached.main} on are missing; what is recorded from {beyond.main} on"
            f" needs a backup that reaches it: {_FRESH}"
        )


def _at(
    repository: Repository, same: Sequence[Entry], revision: int, report: Report
) -> Ground | Nothing:
    there = next((entry for entry in same if _revision(entry) == revision), None)
    if there is not None:
        return Nothing(f"{there.manifest.id} is at revision {revision}", there.manifest.id)
    verified = [entry for entry in same if entry.verified]
    gap: Gap | None = None
    for pool in (verified, same):
        below = [entry for entry in pool if _revision(entry) < revision]
        deltas = _after(repository, max(below, key=_revision)) if below else []
        named = {entry.manifest.id: entry for entry in pool}
        found = plan(revision, [_base(entry) for entry in pool], deltas) if pool else None
        if isinstance(found, Gap):
            gap = found
        elif found is not None and not found.deltas:
            raise UsageError(
                f"{found.base.name} has revision {revision} in its own window",
                "`export` and `restore` take it from there with --to-revision",
            )
        elif found is not None:
            report.say(f"revision {revision}: {found.reason}")
            return Ground(named[found.base.name], revision, found.deltas)
    assert gap is not None, "there is a backup at least"
    raise GapError(gap.reason, gap.do)


def _after(repository: Repository, base: Entry) -> list[StoredDelta]:
    manifest = base.manifest
    lineage = manifest.snapshots[0].lineage
    since = manifest.revision + 1
    return list(list_deltas(repository, manifest.cluster, lineage, since=since))


def _base(entry: Entry) -> Base:
    snapshot = entry.manifest.snapshots[0]
    return Base(entry.manifest.id, snapshot.revision, snapshot.compact_revision)


def _revision(entry: Entry) -> int:
    return entry.manifest.revision


def _check_one(manifest: Manifest) -> None:
    if len(manifest.snapshots) > 1:
        raise RefusedError(
            f"{manifest.id} has {len(manifest.snapshots)} snapshots: a recorder follows one etcd",
            f"make a backup of the cluster: `backstay backup {manifest.kind}`",
        )


@dataclass(slots=True)
class _Making:
    """The source, the origin and the companion of a consolidated backup."""

    entry: Entry
    point: PointSubject
    clock: Clock
    heir: Companion
    _changes: Changes | None = None
    _sha256: str = ""
    _report: Report = field(default_factory=Report)

    @property
    def kind(self) -> str:
        """That of the old backup."""
        return self.entry.manifest.kind

    @property
    def base(self) -> str:
        """The ID of the old backup."""
        return self.entry.manifest.id

    @property
    def past(self) -> Past:
        """It comes after the old backup."""
        return Past(self.entry, self.entry if self.entry.verified else None)

    @property
    def lineage(self) -> Lineage:
        """That of the old backup."""
        reason = f"made from {self.base} and what was recorded since"
        return Stored.of(self.entry.manifest.snapshots[0]).goes_on(reason)

    @property
    def taken_at(self) -> datetime:
        """When the revision had first come, by the clock that recorded."""
        recorded = self._changes.recorded if self._changes else None
        at = recorded_at(recorded.times if recorded else (), self.point.revision)
        return self.entry.manifest.taken_at if at is None else moment_of(at)

    def choose(self, report: Report) -> int:
        """Say how large it will be at most."""
        self._report = report
        number, base = len(self.point.deltas), self.entry.manifest
        report.say(
            f"{base.id} is at revision {base.revision}; {number} deltas go on to revision"
            f" {self.point.revision}"
        )
        size = base.object_of(base.snapshots[0]).size
        return size + sum(delta.name.size for delta in self.point.deltas)

    def fetch(self, sink: Sink, report: Report) -> Received:
        """Fetch the old backup and the deltas, and write what they make.

        Raises:
            CheckFailedError: something is not what was stored, or two deltas differ.
            GapError: revisions are missing after all.
            SealError: the identity does not open it.
        """
        with self.point.open_base(report) as (snapshot, changes):
            with report.task(f"making revision {self.point.revision}", snapshot.size) as progress:
                # It writes front to back, and asks for nothing but `write`.
                made = export(snapshot, cast("BinaryIO", sink), None, progress, past=changes)
            tell_leases(made, report)
            self._changes, self._sha256 = changes, made.sha256
        return Received(
            source=_status(self.entry.manifest, made.size),
            size=made.size,
            db_sha256=made.sha256,
            sha256="",
            storage_version="",
            seconds=0.0,
        )

    def came(self, trailer: Trailer, sha256: str) -> Answer:
        """Say whether the spooled file is what was made, and what that was made from."""
        answer = transfer(trailer, sha256=sha256, received=self._sha256)
        if answer.verdict is not Verdict.PASS:
            return answer
        base = self.entry.manifest
        source = base.object_of(base.snapshots[0]).sha256
        made = (
            f"no stream: SHA-256 {sha256} as it was made from {base.id}, whose file has SHA-256"
            f" {source} as its manifest says, and {len(self.point.deltas)} deltas, each as its own"
            " digest says"
        )
        if not self.entry.verified:
            return unknown(f"{made}; but {base.id} is not verified: see `backstay verify`")
        return passed(f"{made}; {base.id} is verified")

    def examine(self, snapshot: Snapshot) -> tuple[Check, ...]:
        """Compare it with what a member said, or else with what the old backup's figures say.

        Raises:
            CheckFailedError: they differ: then there is no backup.
        """
        assert self._changes is not None, "it was made"
        began = self.clock.monotonic()
        proof = self.point.prove(snapshot, self._changes, self._report)
        inherited = self.heir.examine(snapshot)
        if proof is None:
            return inherited
        recorded = self._changes.recorded
        by = "a member" if recorded and proof in recorded.proofs else self.base
        detail = (
            f"HashKV {proof.hash} at revision {proof.revision}, compacted at"
            f" {proof.compact_revision}, as {by} says"
        )
        seconds = self.clock.monotonic() - began
        checked = Check(name="proof", verdict=Verdict.PASS, detail=detail, seconds=seconds)
        return (checked, *inherited)

    def keep(self, run: Run) -> Kept:
        """Look once more, before it is published; then keep what the old backup has.

        Raises:
            RefusedError: another lineage has begun, or a check of the old backup has failed.
        """
        found = [one for one in self._repository.backups(run.cluster) if isinstance(one, Entry)]
        if any(one.failed for one in found if one.manifest.id == self.base):
            raise RefusedError(f"a check of {self.base} has failed meanwhile", _FRESH)
        good = [one for one in found if not one.failed]
        # A prune may have taken the old one, and all others: it is whole without them.
        last = newest(good) if good else self.entry
        if last.manifest.snapshots[0].lineage != self.lineage.id:
            raise RefusedError(
                f"{last.manifest.id} has begun another lineage meanwhile, and `latest` means that",
                "leave it at that: the old lineage can be restored from as it is",
            )
        return self.heir.keep(run)

    @property
    def _repository(self) -> Repository:
        assert isinstance(self.point.base, BackupSubject)
        return self.point.base.repository


def recorded_at(times: Sequence[Mark], revision: int) -> int | None:
    """Find when a revision had first come: milliseconds since 1970; None where that is not known.

    Args:
        times: what was recorded.
        revision: which one.
    """
    exact = [mark.at for mark in times if mark.revision == revision]
    later = [mark.at for mark in times if mark.revision > revision]
    return min(exact or later, default=None)


def _status(base: Manifest, size: int) -> Status:
    """Say of the member what the old backup says of it."""
    snapshot = base.snapshots[0]
    return Status(
        endpoint=Endpoint(Scheme.UNIX, "file", 0),
        header=Header(int(snapshot.cluster_id, 16), 0, base.revision, snapshot.raft_term),
        version=snapshot.etcd_version,
        db_size=size,
        db_size_in_use=size,
        quota=None,
        leader=0,
        is_learner=False,
        raft_index=snapshot.raft_index,
        raft_applied_index=snapshot.raft_index,
        storage_version="",
        errors=(),
    )
