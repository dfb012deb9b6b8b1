"""What a consolidated backup of a control plane takes over from the one that it is made from.

Keys lie under the name of their backup, so the new one gets a keyring of its own, with the same
keys, and with the same archive where there is one. They are tried on what was made: keys that came
later are not among them, and then there is no backup.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import BinaryIO

import msgspec

from backstay.checks import keys as keys_check
from backstay.checks import partner
from backstay.checks.question import Answer, ask, both
from backstay.clock import Clock
from backstay.errors import CheckFailedError, DamagedError, NotFoundError
from backstay.files import unnamed_file
from backstay.flows.companion import Document, Kept
from backstay.flows.fetch import BackupSubject
from backstay.flows.keyring import Known, check_means, prove
from backstay.kubedata.podarchive import read_archive
from backstay.mvcc.snapshot import Snapshot
from backstay.repo import keyring as keyrings
from backstay.repo.archive import fetch_archive
from backstay.repo.catalogue import Repository
from backstay.repo.keyring import Keyring, Saved
from backstay.repo.manifest import KeyringEntry, Manifest, ObjectEntry, OkdEntry
from backstay.repo.name import Run
from backstay.report import Check, Report, Verdict

#: What lies beside snapshots is small: objects of one control plane.
_MAX_DOCUMENT = 64 << 20


@dataclass(frozen=True)
class Inheritance:
    """The companion of a consolidated backup of a control plane.

    Attributes:
        base: the old backup, which has keys.
        keys: the repository where these lie, and where those of the new one go.
        clock: for durations.
        report: is told.
    """

    base: BackupSubject
    keys: Repository
    clock: Clock
    report: Report

    def examine(self, snapshot: Snapshot) -> tuple[Check, ...]:
        """Try the old backup's keys on what was made.

        Raises:
            CheckFailedError: they don't open it.
            NotFoundError: they are gone.
            SealError: the identity does not open them.
        """
        known = Known.of_keyring(self._keyring)
        if self._manifest.okd is not None:
            known = known.discovering(snapshot)
        check = ask(keys_check.NAME, lambda: prove(snapshot, known)[1], self.clock)
        if check.verdict is Verdict.FAIL:
            raise CheckFailedError(
                f"the keys of {self._manifest.id} don't open what was recorded since:"
                f" {check.detail}",
                f"make a backup of the cluster: `backstay backup {self._manifest.kind}` saves the"
                " keys of now",
            )
        return (check,)

    def keep(self, run: Run) -> Kept:
        """Save the keys under the new name, and take over what the old manifest says.

        Raises:
            StoreError: the store refuses.
            DamagedError: something is not what was stored.
        """
        documents = tuple(map(self._document, self.base.documents))
        with ExitStack() as stack:
            file = stack.enter_context(unnamed_file(self.base.spool_dir)) if self._okd else None
            if file is not None:
                fetch_archive(self.keys, self._saved.header, file, self.base.identities)
                file.seek(0)
            entry = keyrings.save(
                self.keys,
                self._keyring,
                run,
                data=self.base.repository.config.repository,
                archive=file,
            )
            checks = () if file is None else (self._partner(entry, run, file),)
        hosted = self._manifest.hosted
        if hosted is not None:
            # Nobody has stopped anything for this one.
            hosted = msgspec.structs.replace(hosted, quiesced=None, api_downtime=None)
        return Kept(keyring=entry, documents=documents, hosted=hosted, okd=self._okd, checks=checks)

    @property
    def _manifest(self) -> Manifest:
        return self.base.entry.manifest

    @property
    def _okd(self) -> OkdEntry | None:
        found = self._manifest.okd
        # Where raft stood then is no measure for a later revision.
        return None if found is None else msgspec.structs.replace(found, etcd_revision=None)

    @cached_property
    def _saved(self) -> Saved:
        entry = check_means(self._manifest, self.keys)
        return keyrings.find(self.keys, entry, self._manifest.name)

    @cached_property
    def _keyring(self) -> Keyring:
        return keyrings.load(self.keys, self._saved, self.base.identities)

    def _document(self, stored: ObjectEntry) -> Document:
        if stored.size > _MAX_DOCUMENT:
            raise DamagedError(
                f"{stored.path} has {stored.size} bytes, more than lies beside a snapshot",
                "use another backup",
            )
        sink = BytesIO()
        self.base.fetch(stored, sink, self.report)
        return Document(stored.role, sink.getvalue())

    def _partner(self, entry: KeyringEntry, run: Run, file: BinaryIO) -> Check:
        """Is the archive where a restore will look for it, and is it the one that is meant?"""
        okd = self._okd
        assert okd is not None

        def question() -> Answer:
            header = keyrings.find(self.keys, entry, run.backup(0)).header
            saved = partner.saved(okd, header, self.keys.store, lambda _: None)
            return both(saved, inside)

        def inside() -> Answer:
            file.seek(0)
            text = self._keyring.encryption_configuration
            return partner.inside(okd, read_archive(file, okd.archive_name), text)

        return ask(partner.NAME, question, self.clock)


def check_inheritable(manifest: Manifest) -> None:
    """Hold a backup to have all that its control plane needs.

    Raises:
        NotFoundError: nothing was saved with it.
    """
    okd = manifest.okd
    if manifest.keyring is None or (okd is not None and not okd.archive_sha256):
        raise NotFoundError(
            f"no keys were saved with {manifest.id}",
            "make a backup of the cluster, which saves them",
        )
