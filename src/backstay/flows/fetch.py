"""What a verify, an export, a restore or a drill is about: a backup, or a snapshot file."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from backstay.errors import NotFoundError
from backstay.flows.spool import Spool
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry
from backstay.repo.identity import Identities
from backstay.repo.manifest import ObjectEntry, SnapshotEntry
from backstay.repo.sealing import unseal
from backstay.repo.store import Writer
from backstay.report import Report


class Subject(Protocol):
    """A snapshot that can be opened."""

    @property
    def name(self) -> str:
        """Its full ID, or the file's path."""
        ...

    @property
    def asked(self) -> str:
        """What the user wrote."""
        ...

    @property
    def moving(self) -> bool:
        """Whether what the user wrote may mean another backup tomorrow (`latest`)."""
        ...

    @property
    def etcd_version(self) -> str:
        """Version of the etcd that it came from, where that is known before it is opened."""
        ...

    def opened(self, report: Report) -> AbstractContextManager[Snapshot]:
        """Fetch it where it must be fetched, and open it.

        Raises:
            DamagedError: it is no snapshot, or not the one that was stored.
            SealError: the identity does not open it.
        """
        ...


@dataclass(frozen=True, slots=True)
class FileSubject:
    """A snapshot file on this machine."""

    path: Path

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    @property
    def asked(self) -> str:
        """The file's path."""
        return str(self.path)

    @property
    def moving(self) -> bool:
        """A file is what it is."""
        return False

    @property
    def etcd_version(self) -> str:
        """Not known before it is opened."""
        return ""

    def opened(self, report: Report) -> AbstractContextManager[Snapshot]:
        """Open the file."""
        del report
        return Snapshot.open(self.path)


@dataclass(frozen=True, slots=True)
class BackupSubject:
    """A backup in a repository.

    Attributes:
        repository: where it lies.
        entry: the backup.
        asked: what the user wrote.
        identities: what opens it; None for repositories without encryption.
        spool_dir: where it lies while it is worked on.
        chosen: name of the snapshot that is meant, where it has several; empty: the first one.
    """

    repository: Repository
    entry: Entry
    asked: str
    identities: Identities | None
    spool_dir: Path
    chosen: str = ""

    @property
    def name(self) -> str:
        """Its full ID."""
        return self.entry.manifest.id

    @property
    def moving(self) -> bool:
        """Whether the user wrote `latest`."""
        return self.asked != self.name

    @property
    def snapshot(self) -> SnapshotEntry:
        """The snapshot that is meant.

        Raises:
            NotFoundError: the backup has none of the chosen name.
        """
        snapshots = self.entry.manifest.snapshots
        if not self.chosen:
            return snapshots[0]
        for snapshot in snapshots:
            if snapshot.name == self.chosen:
                return snapshot
        names = ", ".join(snapshot.name for snapshot in snapshots)
        raise NotFoundError(f"{self.name} has no snapshot {self.chosen}", f"it has {names}")

    def check_chosen(self) -> None:
        """Look whether the chosen snapshot is there, before anything is done for it.

        Raises:
            NotFoundError: the backup has none of that name.
        """
        _ = self.snapshot

    @property
    def parts(self) -> tuple["BackupSubject", ...]:
        """One subject for each of its snapshots."""
        names = [snapshot.name for snapshot in self.entry.manifest.snapshots]
        return tuple(replace(self, chosen=name) for name in names)

    @property
    def documents(self) -> tuple[ObjectEntry, ...]:
        """What lies beside its snapshots."""
        manifest = self.entry.manifest
        snapshots = {snapshot.object for snapshot in manifest.snapshots}
        return tuple(entry for entry in manifest.objects if entry.path not in snapshots)

    @property
    def etcd_version(self) -> str:
        """Version of the etcd that it came from."""
        return self.snapshot.etcd_version

    @contextmanager
    def opened(self, report: Report) -> Iterator[Snapshot]:
        """Fetch, decrypt, unpack and compare with the manifest; then open."""
        stored = self.entry.manifest.object_of(self.snapshot)
        if not self.chosen and len(self.parts) > 1:
            names = ", ".join(part.chosen for part in self.parts)
            report.say(f"{self.name} has {names}: this is {self.snapshot.name}")
        name = f"{self.name} ({self.chosen})" if len(self.parts) > 1 else self.name
        with Spool(self.spool_dir, expected=stored.size) as spool:
            self.fetch(stored, spool, report)
            spool.finish()
            with Snapshot.open(spool.fd, name=name) as snapshot:
                yield snapshot

    def fetch(self, stored: ObjectEntry, sink: Writer, report: Report) -> None:
        """Fetch, decrypt and unpack one of its objects, and compare it with the manifest.

        What is in the sink counts for nothing unless this function returns.

        Raises:
            DamagedError: it is not what was stored.
            SealError: the identity does not open it.
        """
        store, config = self.repository.store, self.repository.config
        if stored.path == self.snapshot.object:
            self._tell_passed_over(report)
        with report.task("fetching", stored.stored_size) as progress:
            unseal(
                store,
                stored,
                sink,
                identities=self.identities,
                encryption=config.encryption,
                progress=progress,
            )

    def _tell_passed_over(self, report: Report) -> None:
        for reason in self.entry.passed_over:
            report.warn(f"{reason}; it came later than {self.name}, which is taken instead")
