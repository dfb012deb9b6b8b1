"""Making a backup: stream, spool, seal and check; then the manifest, last.

Until the manifest is written nothing of it is a backup (promise 1). A thread seals behind the
stream and reads back what the store has, while the snapshot that came is looked into.
"""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from backstay.checks.question import ask
from backstay.checks.stored import stored
from backstay.checks.transfer import transfer
from backstay.client.snapshot import Received
from backstay.clock import Clock
from backstay.errors import BackstayError, DamagedError, RefusedError
from backstay.flows.examine import Findings, hashkv_of, look_into
from backstay.flows.intake import Intake
from backstay.flows.source import Source
from backstay.flows.spool import Follower
from backstay.mvcc.hashkv import HashKV
from backstay.mvcc.snapshot import NEVER_COMPACTED, Snapshot
from backstay.mvcc.status import Status
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role
from backstay.repo.manifest import CheckEntry, Manifest, ObjectEntry, SnapshotEntry, figures
from backstay.repo.manifest import HashKV as HashKVEntry
from backstay.repo.name import Run
from backstay.repo.sealing import Sealing, seal
from backstay.report import Check, Report

ROLE = "snapshot"
#: The one snapshot of a cluster that is not sharded.
NAME = "etcd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a backup is made.

    Attributes:
        cluster: the cluster's name.
        spool_dir: where the snapshot lies meanwhile.
        sealing: how hard to compress.
    """

    cluster: str
    spool_dir: Path
    sealing: Sealing = field(default_factory=Sealing)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the store has, and whether it has it."""

    entry: ObjectEntry
    check: Check


def backup(
    source: Source, repository: Repository, options: Options, *, clock: Clock, report: Report
) -> Manifest:
    """Back up a cluster of one etcd.

    Args:
        source: the cluster.
        repository: where to.
        options: how.
        clock: for names and durations.
        report: is told of each step.

    Returns:
        The manifest, as it was published; its checks say whether the backup is good.

    Raises:
        RefusedError: the repository is not for data.
        EtcdError: no member gave a whole snapshot.
        StoreError: the store refuses.
        SpaceError: the spool or the store is full.
    """
    if repository.config.role is not Role.DATA:
        raise RefusedError(
            f"{repository.store.url} is a repository for {repository.config.role}",
            "name one that was made with --role data",
        )
    if not repository.config.recipients:
        report.warn(f"{repository.store.url} is not encrypted: who can read it reads every secret")
    run = Run.begin(options.cluster, clock.now())

    def keep(follower: Follower, number: int) -> _Kept:
        path = f"{run.folder}{ROLE}{number or ''}"
        entry = _seal(follower, path, repository, options.sealing)
        return _Kept(entry, _read_back(entry, follower, repository, clock, report))

    with Intake(options.spool_dir, source.choose(report), keep) as intake:
        received = source.fetch(intake, report)
        intake.finish()
        with Snapshot.open(intake.fd, name="the snapshot that came") as snapshot:
            found = look_into(snapshot, clock, report)
            hashkv = hashkv_of(snapshot, found)
            kept = intake.kept(report)
            taken = _entry(snapshot, found, hashkv, received=received, path=kept.entry.path)
            manifest = Manifest(
                repository=repository.config.repository,
                id=str(run.backup(taken.revision)),
                cluster=run.cluster,
                kind=source.kind,
                taken_at=run.began,
                snapshots=(taken,),
                objects=(kept.entry,),
                recipients=repository.config.recipients,
                checks=_checks(found, received, kept.check, clock=clock, report=report),
                **figures(taken),
            )
    repository.publish(manifest)
    _sweep(repository, report)
    return manifest


def _seal(follower: Follower, path: str, repository: Repository, sealing: Sealing) -> ObjectEntry:
    config = repository.config
    path += config.suffix
    sealed = seal(follower, repository.store, path, config.recipients, sealing)
    return ObjectEntry(
        path=path,
        role=ROLE,
        size=sealed.size,
        sha256=sealed.sha256,
        stored_size=sealed.stored_size,
        stored_sha256=sealed.stored_sha256,
    )


def _read_back(
    entry: ObjectEntry, follower: Follower, repository: Repository, clock: Clock, report: Report
) -> Check:
    with report.task("reading back what is stored", entry.stored_size) as advance:

        def progress(amount: int) -> None:
            follower.check()
            advance(amount)

        return ask("stored", lambda: stored(repository.store, (entry,), progress), clock)


def _checks(
    found: Findings, received: Received, kept: Check, *, clock: Clock, report: Report
) -> tuple[CheckEntry, ...]:
    """Ask what is not asked yet, tell all verdicts, and write them down."""
    came = ask(
        "transfer",
        lambda: transfer(found.trailer, sha256=found.sha256, received=received.db_sha256),
        clock,
    )
    checks = (came, kept, *found.checks)
    for check in checks:
        report.judge(check)
    return tuple(CheckEntry.of(check) for check in checks)


def _entry(
    snapshot: Snapshot, found: Findings, hashkv: HashKV | None, *, received: Received, path: str
) -> SnapshotEntry:
    """Describe what came; where it is too damaged for a figure, that one is 0."""
    source, header = received.source, received.source.header
    status = found.status or Status(hash=0, revision=0, total_keys=0, total_size=0)
    hashkv = hashkv or HashKV(hash=0, revision=0, compact_revision=NEVER_COMPACTED)
    return SnapshotEntry(
        name=NAME,
        # Nothing is proven of an earlier life of this etcd, so each backup begins a lineage.
        lineage=secrets.token_hex(8),
        revision=hashkv.revision or header.revision,
        compact_revision=hashkv.compact_revision,
        etcd_version=source.version,
        cluster_id=f"{header.cluster_id:x}",
        raft_term=header.raft_term,
        raft_index=_raft_index(snapshot) or source.raft_applied_index,
        hash=status.hash,
        total_keys=status.total_keys,
        total_size=status.total_size,
        hashkv=HashKVEntry(
            hash=hashkv.hash,
            revision=hashkv.revision,
            compact_revision=hashkv.compact_revision,
        ),
        object=path,
    )


def _raft_index(snapshot: Snapshot) -> int | None:
    try:
        return snapshot.consistent_index
    except DamagedError:
        return None


def _sweep(repository: Repository, report: Report) -> None:
    """Delete what dead runs left; the backup stands whatever comes of it."""
    try:
        swept = repository.sweep()
    except BackstayError as error:
        report.warn(f"what dead runs left could not be swept: {error}")
        return
    if swept.paths:
        report.say(f"swept {len(swept.paths)} objects ({swept.size} bytes) that dead runs had left")
