"""What goes with the snapshot of an OKD control plane: its partner, the tar.

The tar has the keys, so it goes to the repository for keys, sealed. The keys in it are tried on the
snapshot, and the host is looked at again: what a rollout has moved on meanwhile does not belong
together, and is no backup.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO

from backstay.checks import partner
from backstay.checks.keys import NAME as KEYS
from backstay.checks.question import Answer, ask, both, failed
from backstay.clock import Clock
from backstay.errors import BackstayError, FormatError
from backstay.flows.companion import Kept
from backstay.flows.places import Places
from backstay.kinds.okd import keys as host_keys
from backstay.kinds.okd.archive import Archived
from backstay.kinds.okd.cluster import Cluster, Release
from backstay.kinds.okd.host import Guarded, Host
from backstay.kinds.okd.pair import PairNames
from backstay.kinds.okd.static_pods import check_unmoved, etcd_revision
from backstay.kubedata.podarchive import read_archive
from backstay.mvcc.snapshot import Snapshot
from backstay.repo import keyring as keyrings
from backstay.repo.keyring import Keyring
from backstay.repo.keyring_document import OKD
from backstay.repo.manifest import EtcdRevision, KeyringEntry, OkdEntry
from backstay.repo.name import Run
from backstay.repo.packing import Readable
from backstay.report import Check, Report

_SHORT, _TEXT = 256, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Partner:
    """The tar that was taken of a host, and what is known of the cluster.

    Attributes:
        host: it was taken of.
        archived: what is in it.
        cluster: as its API, or its etcd, told.
        guarded: what the guards said.
        prove_all: whether keys are tried on all values, not on samples.
        clock: for durations.
        report: is warned.
    """

    host: Host
    archived: Archived
    cluster: Cluster
    guarded: Guarded
    prove_all: bool
    clock: Clock
    report: Report

    def check_keys(self, snapshot: Snapshot) -> Check:
        """Try the keys in the tar on what is encrypted in a snapshot."""

        def question() -> Answer:
            return host_keys.prove_with(self.archived, snapshot, prove_all=self.prove_all)

        return ask(KEYS, question, self.clock)

    def look_inside(self, file: Readable, okd: OkdEntry) -> Answer:
        """Is a tar, read again, the one that was written, and does it hold what the host runs?

        Args:
            file: the tar, at its start.
            okd: what is said of it.

        Raises:
            DamagedError: it can't be unpacked, or would write elsewhere than where it belongs.
        """
        hashed = _Hashed(file)
        found = read_archive(hashed, okd.archive_name)
        if hashed.digest.hexdigest() != self.archived.sha256:
            return failed(f"{okd.archive_name} is not what was written to it")
        return partner.inside(okd, found, _text(self.archived))

    def check_unmoved(self) -> None:
        """Hold the host to run what is in the tar.

        Raises:
            BackstayError: it does not any more.
        """
        check_unmoved(self.host.tree, self.archived.pods)

    def revision(self) -> EtcdRevision | None:
        """Read what etcd's operator keeps of raft; what can't be read is told, and left out."""
        try:
            return etcd_revision(self.host.tree)
        except BackstayError as error:
            self.report.warn(f"{error}; restores fall back on a bump of 1000000000 without it")
            return None

    def entry(self, moment: datetime, revision: EtcdRevision | None) -> OkdEntry:
        """Describe the backup, for its manifest.

        Args:
            moment: when it was begun, for the names of its files.
            revision: what etcd's operator kept of raft.
        """
        names = PairNames.of(moment, dirty=self.guarded.dirty)
        release = self.cluster.release or Release()
        return OkdEntry(
            infrastructure=self.cluster.infrastructure[:_SHORT],
            version=release.running[:_SHORT],
            release_image=release.image[:_TEXT],
            release_digest=release.digest[:_SHORT],
            node=self.host.etcd.node,
            static_pods=self.archived.revisions,
            etcd_revision=revision,
            encryption=host_keys.encryption(self.archived),
            snapshot_name=names.snapshot,
            archive_name=names.archive,
            archive_sha256=self.archived.sha256,
            archive_size=self.archived.size,
            forced=self.guarded.forced,
        )


@dataclass(slots=True)
class OkdCompanion:
    """The companion of an OKD control plane's backup.

    Attributes:
        partner: the tar.
        file: that has it; private, and read from its start.
        places: where the backup goes.
    """

    partner: Partner
    file: BinaryIO
    places: Places
    _revision: EtcdRevision | None = field(default=None, init=False)

    def examine(self, snapshot: Snapshot) -> tuple[Check, ...]:
        """Try the keys on what is encrypted in a snapshot."""
        # As soon as the snapshot has come: it says where raft stood beside it.
        self._revision = self.partner.revision()
        return (self.partner.check_keys(snapshot),)

    def keep(self, run: Run) -> Kept:
        """Save the tar, look for it, and say what the manifest should know.

        Raises:
            BackstayError: a rollout went on meanwhile.
            StoreError: the store refuses.
        """
        self.partner.check_unmoved()
        self.file.seek(0)
        entry = keyrings.save(
            self.places.keys,
            keyring_of(self.partner.archived, run.cluster, self.partner.clock.now()),
            run,
            data=self.places.data.config.repository,
            archive=self.file,
        )
        okd = self.partner.entry(run.began, self._revision)
        check = ask(partner.NAME, lambda: self._look(entry, okd, run), self.partner.clock)
        return Kept(keyring=entry, okd=okd, checks=(check,), told=self.partner.guarded.checks)

    def _look(self, entry: KeyringEntry, okd: OkdEntry, run: Run) -> Answer:
        """Is the tar where a restore will look for it, and is it the one that was taken?"""
        keys = self.places.keys
        header = keyrings.find(keys, entry, run.backup(0)).header

        def inside() -> Answer:
            self.file.seek(0)
            return self.partner.look_inside(self.file, okd)

        return both(partner.saved(okd, header, keys.store, lambda _: None), inside)


class _Hashed:
    """A source, and the digest of what was read of it."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data


def keyring_of(archived: Archived, cluster: str, now: datetime) -> Keyring:
    """Make the keyring that goes with a tar.

    Args:
        archived: what is in the tar.
        cluster: its name in the repositories.
        now: when it is made.

    Raises:
        FormatError: the configuration in it is no text.
    """
    return Keyring(
        cluster=cluster,
        kind=OKD,
        made_at=now,
        keys=(),
        encryption_configuration=_text(archived),
    )


def _text(archived: Archived) -> str:
    if archived.encryption is None:
        return ""
    try:
        return archived.encryption.decode()
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{archived.encryption_name} is no text in UTF-8", "look at the host"
        ) from error
