"""What a verify, an export, a restore or a drill is about: a backup, or a snapshot file."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backstay.flows.spool import Spool
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.catalogue import Entry, Repository
from backstay.repo.identity import Identities
from backstay.repo.manifest import ObjectEntry, SnapshotEntry
from backstay.repo.sealing import unseal
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
    """

    repository: Repository
    entry: Entry
    asked: str
    identities: Identities | None
    spool_dir: Path

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
        """The snapshot that is meant: the first one."""
        return self.entry.manifest.snapshots[0]

    @property
    def etcd_version(self) -> str:
        """Version of the etcd that it came from."""
        return self.snapshot.etcd_version

    @contextmanager
    def opened(self, report: Report) -> Iterator[Snapshot]:
        """Fetch, decrypt, unpack and compare with the manifest; then open."""
        stored = self.entry.manifest.object_of(self.snapshot)
        with Spool(self.spool_dir, expected=stored.size) as spool:
            self._fetch(stored, spool, report)
            with Snapshot.open(spool.fd, name=self.name) as snapshot:
                yield snapshot

    def _fetch(self, stored: ObjectEntry, spool: Spool, report: Report) -> None:
        store, config = self.repository.store, self.repository.config
        with report.task("fetching", stored.stored_size) as progress:
            unseal(
                store,
                stored,
                spool,
                identities=self.identities,
                encryption=config.encryption,
                progress=progress,
            )
        spool.finish()
