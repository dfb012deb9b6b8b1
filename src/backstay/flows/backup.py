"""Making a backup: stream, spool, seal and check; then the manifest, last.

Until the manifest is written nothing of it is a backup (promise 1). A thread seals behind the
stream and reads back what the store has, while the snapshot that came is looked into.
"""

import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path

from backstay.checks.question import ask
from backstay.checks.stored import stored
from backstay.checks.together import together
from backstay.checks.transfer import transfer
from backstay.client.snapshot import Received
from backstay.clock import Clock
from backstay.errors import BackstayError, DamagedError, RefusedError, StoreError
from backstay.flows.ancestry import (
    Inside,
    Past,
    Watched,
    compared,
    keep_older,
    look_back,
    trace,
)
from backstay.flows.companion import Alone, Companion, Document, Kept
from backstay.flows.examine import Findings, hashkv_of, look_into
from backstay.flows.intake import Intake
from backstay.flows.origin import Origin
from backstay.flows.polling import Polling
from backstay.flows.source import Poller, Source
from backstay.flows.spool import Follower
from backstay.mvcc.hashkv import HashKV
from backstay.mvcc.snapshot import NEVER_COMPACTED, Snapshot
from backstay.mvcc.status import Status
from backstay.repo import leftovers
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role
from backstay.repo.lineage import Lineage, Stored
from backstay.repo.manifest import (
    CheckEntry,
    Manifest,
    MemberEntry,
    ObjectEntry,
    SnapshotEntry,
    figures,
)
from backstay.repo.manifest import HashKV as HashKVEntry
from backstay.repo.name import Run
from backstay.repo.packing import Readable
from backstay.repo.sealing import Sealing, seal
from backstay.report import Check, Report, Verdict

#: The role of an object that is a snapshot.
ROLE = "snapshot"
#: The one snapshot of a cluster that is not sharded.
NAME = "etcd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a backup is made.

    Attributes:
        cluster: the cluster's name.
        spool_dir: where the snapshots lie meanwhile.
        sealing: how hard to compress.
        taken_at: when the snapshot was taken, where that was before the backup began; aware.
        origin: what it is made from, where no etcd is asked; None: it comes from one.
        bare: whether it is a file that nobody knows the etcd of: it continues no lineage, and is
            held against no other backup.
    """

    cluster: str
    spool_dir: Path
    sealing: Sealing = field(default_factory=Sealing)
    taken_at: datetime | None = None
    origin: Origin | None = None
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One etcd of a cluster; most clusters have just the one.

    Attributes:
        name: what the manifest calls its snapshot.
        source: where the snapshot comes from.
        poller: asks its members whether they have what the snapshot has; None: they are not asked.
        watched: which lineage it is, where a recorder has watched it without a break; None: what
            is stored tells.
    """

    name: str
    source: Source
    poller: Poller | None = None
    watched: Watched | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the store has, and whether it has it."""

    entry: ObjectEntry
    check: Check


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was found of one part."""

    snapshot: SnapshotEntry
    stored: ObjectEntry
    checks: tuple[Check, ...]


def backup(
    parts: Sequence[Part],
    repository: Repository,
    options: Options,
    *,
    companion: Companion | None = None,
    during: Callable[[], AbstractContextManager[object]] = nullcontext,
    clock: Clock,
    report: Report,
) -> Manifest:
    """Back up a cluster.

    Args:
        parts: its etcds, at least one; all of one kind.
        repository: where to.
        options: how.
        companion: what else belongs to the backup.
        during: is held while the snapshots come, and no longer.
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
    check_role(repository)
    if not repository.config.recipients:
        report.warn(f"{repository.store.url} is not encrypted: who can read it reads every secret")
    run, began = Run.begin(options.cluster, clock.now()), clock.monotonic()
    past = _past(repository, options)
    if past.trouble:
        report.warn(f"not all that is stored could be looked at: {past.trouble}")
    making = _Making(repository, options, run, past, companion or Alone(), clock, report, began)
    manifest = making.make(parts, during)
    repository.publish(manifest)
    _sweep(repository, report)
    return manifest


def check_role(repository: Repository) -> None:
    """Hold a repository to be one for data.

    Raises:
        RefusedError: it is not.
    """
    if repository.config.role is not Role.DATA:
        raise RefusedError(
            f"{repository.store.url} is a repository for {repository.config.role}",
            "name one that was made with --role data",
        )


def _past(repository: Repository, options: Options) -> Past:
    """Say what a new backup comes after."""
    if options.bare:
        return Past()
    return options.origin.past if options.origin else look_back(repository, options.cluster)


@dataclass(frozen=True, slots=True)
class _Making:
    """One backup, up to its manifest."""

    repository: Repository
    options: Options
    run: Run
    past: Past
    companion: Companion
    clock: Clock
    report: Report
    began: float

    def make(
        self, parts: Sequence[Part], during: Callable[[], AbstractContextManager[object]]
    ) -> Manifest:
        several = len(parts) > 1
        with ExitStack() as stack:
            intakes = [stack.enter_context(self._intake(part, several=several)) for part in parts]
            with during():
                came = [
                    self._take(part, intake) for part, intake in zip(parts, intakes, strict=True)
                ]
            looked = [
                self._look(part, intake, *one)
                for part, intake, one in zip(parts, intakes, came, strict=True)
            ]
        checks = together([(one.snapshot.name, one.checks) for one in looked])
        store = self.repository.store
        checks = keep_older(self.past, checks, store, self.clock, self.report)
        self._judge(checks)
        kept = self.companion.keep(self.run)
        self._judge(kept.checks)
        checks = (*checks, *kept.checks, *kept.told)
        return self._manifest(parts[0].source.kind, looked, checks, kept)

    def _judge(self, checks: tuple[Check, ...]) -> None:
        for check in checks:
            self.report.judge(check)

    def _intake(self, part: Part, *, several: bool) -> Intake[_Stored]:
        role = f"{ROLE}-{part.name}" if several else ROLE

        def keep(follower: Follower, number: int) -> _Stored:
            path = f"{self.run.folder}{role}{number or ''}"
            entry = _seal(follower, path, self.repository, self.options.sealing)
            return _Stored(entry, self._read_back(entry, follower))

        return Intake(self.options.spool_dir, part.source.choose(self.report), keep)

    def _read_back(self, entry: ObjectEntry, follower: Follower) -> Check:
        with self.report.task("reading back what is stored", entry.stored_size) as advance:

            def progress(amount: int) -> None:
                follower.check()
                advance(amount)

            store = self.repository.store
            return ask("stored", lambda: stored(store, (entry,), progress), self.clock)

    def _take(self, part: Part, intake: Intake[_Stored]) -> tuple[Received, Polling]:
        """Have a snapshot come, and its members asked before it and right after it."""
        polling = Polling(part.poller, self.past.snapshot(part.name), self.report)
        polling.before()
        received = part.source.fetch(intake, self.report)
        intake.finish()
        polling.after(intake.fd)
        return received, polling

    def _look(
        self, part: Part, intake: Intake[_Stored], received: Received, polling: Polling
    ) -> _Looked:
        """Look into what came, while the rest of it is stored."""
        with Snapshot.open(intake.fd, name="the snapshot that came") as snapshot:
            found = look_into(snapshot, self.clock, self.report)
            hashkv = hashkv_of(snapshot, found)
            own = self.companion.examine(snapshot)
            index = _raft_index(snapshot) or received.source.raft_applied_index
            lineage = self._lineage(
                part, snapshot, received, raft_index=index, sound=hashkv is not None
            )
            inside = Inside.of(snapshot) if hashkv else Inside()
            own += polling.check(snapshot, received, hashkv, self.clock)
            kept = intake.kept(self.report)
            entry = _entry(
                part.name,
                found,
                hashkv,
                received=received,
                raft_index=index,
                lineage=lineage,
                inside=inside,
                members=polling.entries,
                path=kept.entry.path,
            )
            own += compared(self.past, entry, lineage, self.clock)
        origin = self.options.origin
        came = ask(
            "transfer",
            lambda: (
                origin.came(found.trailer, found.sha256)
                if origin
                else transfer(found.trailer, sha256=found.sha256, received=received.db_sha256)
            ),
            self.clock,
        )
        return _Looked(entry, kept.entry, (came, kept.check, *found.checks, *own))

    def _lineage(
        self,
        part: Part,
        snapshot: Snapshot,
        received: Received,
        *,
        raft_index: int,
        sound: bool,
    ) -> Lineage:
        """Say which lineage a snapshot is of."""
        if self.options.bare:
            return Lineage.first(secrets.token_hex(8), "a bare file continues no lineage")
        if self.options.origin:
            return self.options.origin.lineage
        before = self.past.snapshot(part.name)
        stored = part.watched or (None if before is None else Stored.of(before))
        return trace(stored, snapshot, received, raft_index=raft_index, sound=sound)

    def _manifest(
        self, kind: str, looked: Sequence[_Looked], checks: Sequence[Check], kept: Kept
    ) -> Manifest:
        config, first, origin = self.repository.config, looked[0].snapshot, self.options.origin
        taken_at = origin.taken_at if origin else self.options.taken_at
        documents = [self._document(document) for document in kept.documents]
        return Manifest(
            repository=config.repository,
            id=str(self.run.backup(first.revision)),
            cluster=self.run.cluster,
            kind=kind,
            taken_at=taken_at or self.run.began,
            seconds=round(self.clock.monotonic() - self.began, 3),
            snapshots=tuple(one.snapshot for one in looked),
            objects=(*(one.stored for one in looked), *documents),
            recipients=config.recipients,
            base=origin.base if origin else None,
            keyring=kept.keyring,
            hosted=kept.hosted,
            okd=kept.okd,
            checks=tuple(CheckEntry.of(check) for check in checks),
            **figures(first),
        )

    def _document(self, document: Document) -> ObjectEntry:
        """Store something small; it is read back at once, whole."""
        entry = _seal(
            BytesIO(document.data),
            f"{self.run.folder}{document.role}",
            self.repository,
            self.options.sealing,
            role=document.role,
        )
        answer = stored(self.repository.store, (entry,), lambda _: None)
        if answer.verdict is not Verdict.PASS:
            raise StoreError(answer.detail, "find out why the store changes what it is given")
        return entry


def _seal(
    source: Readable, path: str, repository: Repository, sealing: Sealing, *, role: str = ROLE
) -> ObjectEntry:
    config = repository.config
    path += config.suffix
    sealed = seal(source, repository.store, path, config.recipients, sealing)
    return sealed.entry(path, role)


def _entry(
    name: str,
    found: Findings,
    hashkv: HashKV | None,
    *,
    received: Received,
    raft_index: int,
    lineage: Lineage,
    inside: Inside,
    members: tuple[MemberEntry, ...],
    path: str,
) -> SnapshotEntry:
    """Describe what came; where it is too damaged for a figure, that one is 0."""
    source, header = received.source, received.source.header
    status = found.status or Status(hash=0, revision=0, total_keys=0, total_size=0)
    hashkv = hashkv or HashKV(hash=0, revision=0, compact_revision=NEVER_COMPACTED)
    return SnapshotEntry(
        name=name,
        lineage=lineage.id,
        predecessor=lineage.predecessor,
        root=lineage.root,
        lineage_reason=lineage.reason,
        revision=hashkv.revision or header.revision,
        compact_revision=hashkv.compact_revision,
        etcd_version=source.version,
        cluster_id=f"{header.cluster_id:x}",
        raft_term=header.raft_term,
        raft_index=raft_index,
        hash=status.hash,
        total_keys=status.total_keys,
        total_size=status.total_size,
        hashkv=HashKVEntry(
            hash=hashkv.hash,
            revision=hashkv.revision,
            compact_revision=hashkv.compact_revision,
        ),
        live_keys=inside.live_keys,
        live_size=inside.live_size,
        tip=inside.tip,
        members=members,
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
        swept = leftovers.sweep(repository)
    except BackstayError as error:
        report.warn(f"what dead runs left could not be swept: {error}")
        return
    if swept.paths:
        report.say(f"swept {len(swept.paths)} objects ({swept.size} bytes) that dead runs had left")
