"""The partner of an OKD backup: its archive of static pod resources, found and looked into."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from backstay.checks import partner as question
from backstay.checks.question import Answer, both, passed, unknown
from backstay.errors import FormatError
from backstay.flows.keyring import check_means, opened
from backstay.flows.spool import Spool
from backstay.kubedata.podarchive import PodArchive, read_archive
from backstay.repo.archive import fetch_archive
from backstay.repo.catalogue import Repository
from backstay.repo.identity import Identities
from backstay.repo.keyring import Saved, find, load
from backstay.repo.manifest import Manifest, OkdEntry
from backstay.report import Report


@dataclass(frozen=True)
class Partner:
    """The partner of a backup, in the repository for keys.

    Attributes:
        manifest: of the backup.
        open: opens the repository that its keys should lie in.
        identities: private keys; without them it is not opened.
        spool_dir: where the archive lies meanwhile.
    """

    manifest: Manifest
    open: Callable[[], Repository]
    identities: Identities | None
    spool_dir: Path

    @property
    def okd(self) -> OkdEntry:
        """What the manifest says of the control plane.

        Raises:
            FormatError: nothing.
        """
        if self.manifest.okd is None:
            raise FormatError(f"{self.manifest.id} says nothing of an OKD control plane")
        return self.manifest.okd

    @cached_property
    def place(self) -> Repository:
        """The repository for keys.

        Raises:
            NotFoundError: nothing was saved with the backup.
            RefusedError: its keys lie in another one, or this one is for data.
            StoreError: there is none, or the store refuses.
        """
        repository = opened(self.open)
        check_means(self.manifest, repository)
        return repository

    @cached_property
    def saved(self) -> Saved:
        """The keyring; not opened.

        Raises:
            NotFoundError: it is gone.
            DamagedError: it is another one.
        """
        entry = check_means(self.manifest, self.place)
        return find(self.place, entry, self.manifest.name)

    @cached_property
    def configuration(self) -> str:
        """kube-apiserver's EncryptionConfiguration, as the keyring has it.

        Raises: as `keyring.load`.
        """
        return load(self.place, self.saved, self.identities).encryption_configuration

    def ask(self, report: Report) -> Answer:
        """Answer whether it is there and whole; with an identity, whether it is the right one too.

        Raises: as the properties.
        """
        if not self.okd.archive_sha256 or self.manifest.keyring is None:
            return unknown(
                "no static pod resources were saved with this backup: it restores an etcd, and no"
                " control plane"
            )
        header, store = self.saved.header, self.place.store
        size = header.object.stored_size + (header.archive.stored_size if header.archive else 0)
        with report.task("reading what is stored with the keys", size) as progress:
            answer = question.saved(self.okd, header, store, progress)
        return both(answer, lambda: self._inside(report))

    def _inside(self, report: Report) -> Answer:
        if self.identities is None:
            return passed("not opened, for want of an identity")
        return question.inside(self.okd, self.archive(report), self.configuration)

    def archive(self, report: Report) -> PodArchive:
        """Fetch the archive, hold it to the header, and look into it.

        Raises:
            DamagedError: it is not what was stored, or none that a host makes.
            SealError: no identity opens it.
        """
        expected = self.saved.header.archive
        with Spool(self.spool_dir, expected=expected.size if expected else 0) as spool:
            stored = expected.stored_size if expected else 0
            with report.task("fetching the static pod resources", stored) as progress:
                fetch_archive(self.place, self.saved.header, spool, self.identities, progress)
            spool.finish()
            return read_archive(spool.follow(), f"the archive of {self.manifest.id}")
