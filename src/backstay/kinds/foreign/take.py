"""Taking in what other tools made: each file is proven, then backed up as if it came from an etcd.

A file that is damaged is refused before anything is stored, and the others go on. What is in the
repository already is not stored again, so an import that was cut short is simply run again.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from backstay.checks.question import worst
from backstay.checks.transfer import transfer
from backstay.clock import Clock
from backstay.errors import (
    BackstayError,
    CheckFailedError,
    DamagedError,
    NotVerifiedError,
    UsageError,
)
from backstay.flows import backup as flow
from backstay.flows.companion import Alone, Companion
from backstay.flows.examine import look_into
from backstay.flows.places import Places
from backstay.flows.sweeping import sweep_keys
from backstay.kinds.foreign.names import CLUSTER_BACKUP
from backstay.kinds.foreign.scan import Candidate, Scan, open_inside
from backstay.kinds.foreign.source import FileSource, status_of
from backstay.kinds.foreign.unzip import unzip
from backstay.kinds.okd.imported import ImportedOkd, PartnerFile
from backstay.kinds.okd.stored import StoredCluster, read_stored
from backstay.mvcc.snapshot import Snapshot
from backstay.repo import keyring as keyrings
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry
from backstay.repo.keyring_document import OKD
from backstay.repo.manifest import Manifest
from backstay.repo.name import check_cluster
from backstay.repo.sealing import Sealing
from backstay.report import Check, Report, Verdict

_ETCD = "etcd"
_PIECE = 1 << 20


class Fate(StrEnum):
    """What became of a file."""

    IMPORTED = "imported"
    WOULD = "would be imported"
    THERE = "there already"
    PASSED = "skipped"
    DAMAGED = "damaged"
    REFUSED = "not imported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How files are taken in.

    Attributes:
        directory: where they lie.
        spool_dir: where a snapshot lies meanwhile.
        cluster: what they are backups of; empty asks each for its infrastructure's name.
        dry_run: whether nothing is stored.
        sealing: how hard to compress.
    """

    directory: Path
    spool_dir: Path
    cluster: str = ""
    dry_run: bool = False
    sealing: Sealing = field(default_factory=Sealing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A file, and what became of it.

    Attributes:
        path: of the snapshot.
        fate: what became of it.
        detail: why, in one line.
        candidate: what was known of it by its name; None where it looked like no backup.
        cluster: what it is of; empty where that was not found out.
        revision: the snapshot's; 0 where that was not found out.
        checks: what was asked of it.
        manifest: of the backup that it became; None where it became none.
    """

    path: Path
    fate: Fate
    detail: str
    candidate: Candidate | None = None
    cluster: str = ""
    revision: int = 0
    checks: tuple[Check, ...] = ()
    manifest: Manifest | None = None


@dataclass(frozen=True)
class Importer:
    """Takes files in, one after the other.

    Attributes:
        repository: where backups go; None only for a look at what would be imported.
        keys: where archives of static pod resources go; None where there are none.
        options: how.
        clock: for names and durations.
        report: is told of each step.
    """

    repository: Repository | None
    keys: Repository | None
    options: Options
    clock: Clock
    report: Report

    def check_places(self, found: Scan) -> None:
        """Hold the repositories to be what the files need.

        Raises:
            UsageError: there are archives, and no repository for keys is given.
            RefusedError: the two are one place, or the second is not for keys.
        """
        if self.keys is None:
            if any(one.partner for one in found.candidates) and not self.options.dry_run:
                raise UsageError(
                    f"{self.options.directory} has static pod resources, which hold keys, and no"
                    " repository for keys is given",
                    "name it with --keys-repo or BACKSTAY_KEYS_REPO",
                )
            return
        keyrings.check_place(self.keys)
        if self.repository is not None:
            Places(data=self.repository, keys=self.keys).check()

    def take_all(self, found: Scan) -> Iterator[Taken]:
        """Take in all that was found, and say what became of each.

        Raises:
            UsageError, RefusedError: as `check_places`.
            StoreError: the store refuses.
            SpaceError: a disk is full.
        """
        self.check_places(found)
        if self.repository and self.keys and not self.options.dry_run:
            sweep_keys(self.repository, self.keys, self.report)
        for one in found.candidates:
            yield self.take(one)
        for passed in found.passed:
            yield Taken(path=passed.path, fate=Fate.PASSED, detail=passed.reason)

    def take(self, one: Candidate) -> Taken:
        """Take one file in.

        Raises:
            StoreError: the store refuses.
            SpaceError: a disk is full.
        """
        self.report.say(f"looking at {one.path}")
        with ExitStack() as stack:
            taking = _Taking(self, one, stack)
            try:
                return taking.take()
            except CheckFailedError as error:
                return taking.ended(Fate.DAMAGED, str(error))
            except (UsageError, _UnreadableError) as error:
                return taking.ended(Fate.REFUSED, str(error))

    @cached_property
    def _known(self) -> dict[str, list[Manifest]]:
        return {}

    def known(self, cluster: str) -> list[Manifest]:
        """Give the backups of a cluster that are in the repository; asked for once."""
        if cluster not in self._known:
            entries = self.repository.backups(cluster) if self.repository else ()
            self._known[cluster] = [entry.manifest for entry in entries if isinstance(entry, Entry)]
        return self._known[cluster]


class _UnreadableError(BackstayError):
    """A file that was found can't be read."""


@dataclass(slots=True)
class _Taking:
    """One file on its way."""

    importer: Importer
    one: Candidate
    stack: ExitStack
    cluster: str = ""
    revision: int = 0
    checks: tuple[Check, ...] = ()

    def ended(self, fate: Fate, detail: str, manifest: Manifest | None = None) -> Taken:
        return Taken(
            path=self.one.path,
            fate=fate,
            detail=detail,
            candidate=self.one,
            cluster=self.cluster,
            revision=self.revision,
            checks=self.checks,
            manifest=manifest,
        )

    def take(self) -> Taken:
        importer, options = self.importer, self.importer.options
        fd = self._open_snapshot()
        size, sha256 = _summed(fd)
        with Snapshot.open(fd, name=str(self.one.path)) as snapshot:
            stored = read_stored(snapshot)
            self.cluster = self._name(stored)
            self.revision = snapshot.revision
            partner = self._partner()
            there = self._there(sha256, partner)
            if there is not None:
                return self.ended(Fate.THERE, there.id)
            self._examine(snapshot)
            status = status_of(snapshot)
        kind = OKD if self.one.named.tool == CLUSTER_BACKUP or stored.infrastructure else _ETCD
        if options.dry_run or importer.repository is None:
            return self.ended(Fate.WOULD, self._would(partner))
        source = FileSource(
            kind=kind, fd=fd, size=size, sha256=sha256, status=status, name=str(self.one.path)
        )
        manifest = flow.backup(
            [flow.Part(flow.NAME, source)],
            importer.repository,
            flow.Options(
                cluster=self.cluster,
                spool_dir=options.spool_dir,
                sealing=options.sealing,
                taken_at=self.one.taken_at,
                bare=True,
            ),
            companion=self._companion(kind, stored, partner, importer.repository),
            clock=importer.clock,
            report=importer.report,
        )
        importer.known(self.cluster).append(manifest)
        self.checks = tuple(
            Check(name=it.name, verdict=it.verdict, detail=it.detail, seconds=it.seconds)
            for it in manifest.checks
        )
        return self.ended(Fate.IMPORTED, manifest.id, manifest)

    def _open_snapshot(self) -> int:
        file = self._open(self.one.path)
        if not self.one.named.zipped:
            return file.fileno()
        spool_dir = self.importer.options.spool_dir
        return self.stack.enter_context(unzip(file, self.one.path, spool_dir)).fd

    def _open(self, path: Path) -> BinaryIO:
        try:
            file = open_inside(path, self.importer.options.directory)
        except BackstayError as error:
            raise _UnreadableError(error.what, error.do) from error
        return self.stack.enter_context(file)

    def _name(self, stored: StoredCluster) -> str:
        wanted = self.importer.options.cluster or stored.infrastructure
        if not wanted:
            raise UsageError(
                f"{self.one.path} does not say which cluster it is of", "name it with --cluster"
            )
        return check_cluster(wanted)

    def _partner(self) -> PartnerFile | None:
        path = self.one.partner
        return None if path is None else PartnerFile.look(path.name, self._open(path))

    def _there(self, sha256: str, partner: PartnerFile | None) -> Manifest | None:
        """Find the backup that has this snapshot already, and its archive where there is one."""
        for manifest in self.importer.known(self.cluster):
            same = manifest.object_of(manifest.snapshots[0]).sha256 == sha256
            archive = manifest.okd.archive_sha256 if manifest.okd else ""
            if same and (partner is None or archive == partner.sha256):
                return manifest
        return None

    def _examine(self, snapshot: Snapshot) -> None:
        """Hold the file to be whole before anything is stored."""
        found = look_into(snapshot, self.importer.clock, self.importer.report)
        answer = transfer(found.trailer, sha256=found.sha256, received=found.sha256)
        came = Check(name="transfer", verdict=answer.verdict, detail=answer.detail, seconds=0.0)
        self.checks = (came, *found.checks)
        if worst(self.checks) is Verdict.FAIL:
            wrong = [f"{it.name}: {it.detail}" for it in self.checks if it.verdict is Verdict.FAIL]
            raise DamagedError(f"{self.one.path}: {'; '.join(wrong)}", "use another backup")

    def _would(self, partner: PartnerFile | None) -> str:
        if partner is not None:
            return f"with {partner.name}"
        if self.one.named.tool == CLUSTER_BACKUP:
            return "without its static pod resources, so never as a verified one"
        return "alone"

    def _companion(
        self,
        kind: str,
        stored: StoredCluster,
        partner: PartnerFile | None,
        repository: Repository,
    ) -> Companion:
        if kind != OKD:
            return Alone()
        return ImportedOkd(
            snapshot_name=self.one.path.name,
            stored=stored,
            partner=partner,
            dirty=self.one.named.dirty,
            keys=self.importer.keys,
            data=repository.config.repository,
            clock=self.importer.clock,
        )


def _summed(fd: int) -> tuple[int, str]:
    digest, offset = hashlib.sha256(), 0
    while piece := os.pread(fd, _PIECE, offset):
        offset += len(piece)
        digest.update(piece)
    return offset, digest.hexdigest()


def exit_code(taken: Sequence[Taken]) -> int:
    """Sum up: 3 where a file is damaged, 1 where one was not imported, 4 where one is unproven."""
    verdicts = {worst(one.checks) for one in taken if one.checks}
    fates = {one.fate for one in taken}
    if Fate.DAMAGED in fates or Verdict.FAIL in verdicts:
        return CheckFailedError.exit_code
    if Fate.REFUSED in fates:
        return BackstayError.exit_code
    return NotVerifiedError.exit_code if Verdict.COULD_NOT_VERIFY in verdicts else 0
