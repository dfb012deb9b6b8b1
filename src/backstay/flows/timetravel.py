"""A backup or a file at another revision: found, fetched, and opened as a snapshot.

What a point needs is chosen by `flows.point` from names alone, so that a hole is told before
anything is fetched.
"""

import mmap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

from backstay.errors import CheckFailedError, GapError, UsageError
from backstay.flows.deltafetch import Fetched
from backstay.flows.fetch import BackupSubject, FileSubject, Subject
from backstay.flows.point import Base, Gap, Moment, Plan, around, moment, plan
from backstay.flows.spool import Spool
from backstay.mvcc.delta import Delta, Mark, Proof
from backstay.mvcc.export import Exported, export
from backstay.mvcc.hashkv import compute_hashkv
from backstay.mvcc.history import LOST_LEASE_TTL, Past, look_back
from backstay.mvcc.recorded import Recorded
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.delta import StoredDelta, list_deltas, list_from
from backstay.repo.entry import Entry
from backstay.repo.name import LATEST_VERIFIED
from backstay.repo.roll import begin_before
from backstay.report import Report


@dataclass(frozen=True, slots=True)
class Target:
    """Which point is asked for: a revision, or a time.

    Attributes:
        revision: which one; None where a time is given.
        time: aware; None where a revision is given.
        lost_lease_ttl: seconds for leases whose granted TTL is not known.
    """

    revision: int | None = None
    time: datetime | None = None
    lost_lease_ttl: int = LOST_LEASE_TTL


@dataclass(frozen=True, slots=True)
class PointSubject:
    """A snapshot at another revision than the one at which it was taken.

    Attributes:
        base: the backup or file that it is made from.
        revision: which one.
        spool_dir: where files lie while they are worked on.
        deltas: what is added, in order.
        moment: what the time that was asked for means; None where a revision was asked for.
        lost_lease_ttl: see `Target`.
    """

    base: FileSubject | BackupSubject
    revision: int
    spool_dir: Path
    deltas: tuple[StoredDelta, ...] = ()
    moment: Moment | None = None
    lost_lease_ttl: int = LOST_LEASE_TTL

    @property
    def name(self) -> str:
        """That of its base, and the revision."""
        return f"{self.base.name} at revision {self.revision}"

    @property
    def asked(self) -> str:
        """What the user wrote."""
        return f"{self.base.asked} at revision {self.revision}"

    @property
    def moving(self) -> bool:
        """Whether the user wrote `latest`: tomorrow another base may be chosen."""
        return self.base.moving

    @property
    def etcd_version(self) -> str:
        """Version of the etcd that its base came from."""
        return self.base.etcd_version

    @contextmanager
    def opened(self, report: Report) -> Iterator[Snapshot]:
        """Make the snapshot in a nameless file, and open it."""
        with self.open_base(report) as (snapshot, past):
            size = snapshot.size + sum(delta.name.size for delta in self.deltas)
            with Spool(self.spool_dir, expected=size) as spool:
                with report.task(f"making revision {self.revision}", size) as progress:
                    # It writes front to back, and asks for nothing but `write`.
                    made = export(snapshot, cast("BinaryIO", spool), None, progress, past=past)
                spool.finish()
                tell_leases(made, report)
                with Snapshot.open(spool.fd, name=self.name) as opened:
                    self.prove(opened, past, report)
                    yield opened

    @contextmanager
    def open_base(self, report: Report) -> Iterator[tuple[Snapshot, Past]]:
        """Fetch the base and what is added to it; gives what makes the one the other.

        Raises:
            DamagedError: something is not what was stored, or two deltas differ.
            GapError: revisions are missing after all.
        """
        with ExitStack() as stack:
            snapshot = stack.enter_context(self.base.opened(report))
            changes = None
            if self.deltas:
                data, deltas = stack.enter_context(self._fetched(report))
                changes = Recorded(snapshot, data, deltas, self.revision)
            yield (
                snapshot,
                look_back(snapshot, self.revision, changes, lost_lease_ttl=self.lost_lease_ttl),
            )

    @contextmanager
    def _fetched(self, report: Report) -> Iterator[tuple[mmap.mmap, Iterator[Delta]]]:
        assert isinstance(self.base, BackupSubject)
        with Fetched(self.base, self.deltas) as fetched:
            yield fetched.data, fetched.read(report)

    def prove(
        self, made: Snapshot, past: Past, report: Report, *, since: int | None = None
    ) -> Proof | None:
        """Compare a snapshot that was made with what a member said, where that was recorded.

        Args:
            made: the result.
            past: how it was made.
            report: is told.
            since: where its history begins, where a bump has marked more as compacted.

        Returns:
            What was compared; None where nothing was recorded that can be.

        Raises:
            CheckFailedError: they differ.
        """
        first = made.compact_revision if since is None else since
        proof = choose_proof(self._proofs(past), first, self.revision)
        if proof is None:
            return None
        found = compute_hashkv(
            made, revision=proof.revision, compact_revision=proof.compact_revision, since=since
        )
        what = f"HashKV at revision {proof.revision}, compacted at {proof.compact_revision}"
        if found.hash != proof.hash:
            raise CheckFailedError(
                f"{self.name}: {what} is {found.hash}, and a member said {proof.hash}",
                "don't use it; try another backup as its base",
            )
        report.say(f"{what}: {found.hash}, as a member said")
        return proof

    def _proofs(self, past: Past) -> Iterator[Proof]:
        if past.recorded:
            yield from past.recorded.proofs
        if isinstance(self.base, BackupSubject):
            said = self.base.snapshot.hashkv
            yield Proof(said.revision, said.compact_revision, said.hash)


def choose_proof(proofs: Iterator[Proof], first: int, revision: int) -> Proof | None:
    """Choose what a member said of the latest revision that a snapshot can answer for.

    Args:
        proofs: what members said.
        first: where the snapshot's history begins; -1: never compacted.
        revision: at which it stands.
    """
    fit = [
        proof for proof in proofs if first <= proof.compact_revision <= proof.revision <= revision
    ]
    return max(fit, default=None)


@contextmanager
def opened_at(subject: Subject, report: Report) -> Iterator[tuple[Snapshot, Past | None]]:
    """Open a subject to be exported: what makes its point is done in the pass that writes it.

    Raises:
        DamagedError: something is not what was stored.
        SealError: the identity does not open it.
    """
    if isinstance(subject, PointSubject):
        with subject.open_base(report) as pair:
            yield pair
    else:
        with subject.opened(report) as snapshot:
            yield snapshot, None


def prove_export(
    subject: Subject, fd: int, snapshot: Snapshot, past: Past | None, report: Report
) -> Proof | None:
    """Compare what was exported at a point with what a member said, where that was recorded.

    Args:
        subject: what was exported.
        fd: the file that was written.
        snapshot: what it was made from.
        past: how.
        report: is told.

    Raises:
        CheckFailedError: they differ.
    """
    if past is None or not isinstance(subject, PointSubject):
        return None
    with Snapshot.open(fd, name=subject.name) as made:
        return subject.prove(made, past, report, since=snapshot.compact_revision)


def tell_leases(exported: Exported, report: Report) -> None:
    """Say it where leases got entries that they had lost."""
    if exported.leases_added:
        report.say(
            f"{exported.leases_added} leases had run out or were not there yet; keys hang on them,"
            " so each has an entry again"
        )


def at_point(
    subject: FileSubject | BackupSubject, target: Target, spool_dir: Path, report: Report
) -> PointSubject:
    """Find what makes a point; nothing of it is fetched but the times around one.

    Args:
        subject: a file; the backup to start from; or one that the user called `latest`: then any
            of its lineage may be chosen.
        target: which point.
        spool_dir: where files lie while they are worked on.
        report: is told what was chosen, and why.

    Raises:
        GapError: revisions on the way are missing, or the time is not recorded.
        UsageError: a file has no recorded times.
        StoreError: the store refuses.
    """
    if isinstance(subject, FileSubject):
        if target.revision is None:
            raise UsageError(
                f"{subject.name} is a file: it has no times",
                "give --to-revision, or a backup whose changes were recorded",
            )
        return PointSubject(
            subject, target.revision, spool_dir, lost_lease_ttl=target.lost_lease_ttl
        )
    found = _Finding(subject, report)
    meant = found.moment(target.time) if target.time else None
    revision = meant.revision if meant else target.revision
    if revision is None:
        raise UsageError("no point is given", "give --to-revision or --to-time")
    if meant:
        report.say(str(meant))
        if meant.astray:
            report.warn(
                "the clock of the recorder went back around that time: another revision fits, too;"
                " --to-revision says which"
            )
    chosen, base = found.plan(revision)
    report.say(f"revision {revision}: {chosen.reason}")
    return PointSubject(base, revision, spool_dir, chosen.deltas, meant, target.lost_lease_ttl)


class _Finding:
    """Looks for what makes a point of one lineage."""

    def __init__(self, subject: BackupSubject, report: Report) -> None:
        self._subject = subject
        self._repository = subject.repository
        self._lineage = subject.snapshot.lineage
        self._cluster = subject.entry.manifest.cluster
        self._report = report

    def plan(self, revision: int) -> tuple[Plan, BackupSubject]:
        """Choose the base and the deltas."""
        subjects = {subject.name: subject for subject in self._candidates()}
        bases = [_base(subject) for subject in subjects.values()]
        since = max((base.revision for base in bases if base.revision < revision), default=revision)
        covered = any(base.first <= revision <= base.revision for base in bases)
        deltas = (
            []
            if covered
            else list(list_deltas(self._repository, self._cluster, self._lineage, since=since))
        )
        chosen = plan(revision, bases, deltas)
        if isinstance(chosen, Gap):
            raise GapError(chosen.reason, chosen.do)
        return chosen, subjects[chosen.base.name]

    def _candidates(self) -> list[BackupSubject]:
        """The backups that may be the base: the one that was named, or all of its lineage."""
        if not self._subject.moving:
            return [self._subject]
        verified = self._subject.asked.endswith(f"/{LATEST_VERIFIED}")
        entries = [
            entry
            for entry in self._repository.backups(self._cluster)
            if isinstance(entry, Entry) and not entry.failed and (entry.verified or not verified)
        ]
        entries.sort(key=lambda entry: entry.verified, reverse=True)
        return [
            part
            for entry in entries
            for part in replace(self._subject, entry=entry).parts
            if part.snapshot.lineage == self._lineage
        ]

    def moment(self, asked: datetime) -> Moment:
        """Find what a time means, from the deltas around it."""
        begin = begin_before(self._repository, self._cluster, self._lineage, asked.timestamp())
        deltas = list(list_from(self._repository, self._cluster, self._lineage, begin))
        marks: list[Mark] = []
        near = around(asked, deltas)
        if near:
            with Fetched(self._subject, near) as fetched:
                marks = [mark for delta in fetched.read(self._report) for mark in delta.times]
        found = moment(asked, marks)
        if isinstance(found, Gap):
            raise GapError(f"{self._cluster}: {found.reason}", found.do)
        return found


def _base(subject: BackupSubject) -> Base:
    snapshot = subject.snapshot
    return Base(subject.name, snapshot.revision, snapshot.compact_revision)
