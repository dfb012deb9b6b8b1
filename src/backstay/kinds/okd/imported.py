"""What goes with an imported snapshot of an OKD control plane: its archive, and what is known.

Nobody can ask the cluster any more: what the manifest says comes from the snapshot, from the
archive and from the names of the files.
"""

import hashlib
from dataclasses import dataclass, field
from typing import BinaryIO

from backstay.checks import keys as keys_check
from backstay.checks import partner as partner_check
from backstay.checks.question import Answer, ask, passed, unknown
from backstay.clock import Clock
from backstay.errors import DamagedError, FormatError
from backstay.flows.companion import Kept
from backstay.flows.keyring import Known, prove
from backstay.kinds.okd.stored import StoredCluster
from backstay.kubedata.configuration import parse_configuration
from backstay.kubedata.encryption import IDENTITY, EncryptionConfiguration
from backstay.kubedata.podarchive import PodArchive, read_archive
from backstay.kubedata.resource import Resource
from backstay.mvcc.snapshot import Snapshot
from backstay.repo import keyring as keyrings
from backstay.repo.catalogue import Repository
from backstay.repo.keyring import Keyring
from backstay.repo.keyring_document import MAX_ARCHIVE, OKD
from backstay.repo.manifest import OkdEntry
from backstay.repo.name import Run
from backstay.report import Check, Verdict

#: What is said to have been forced where cluster-backup.sh says that something was, and not what.
FORCED = "cluster-backup.sh --force"
_PREFIX = "/kubernetes.io"
_SHORT, _TEXT = 256, 4096
_PIECE = 1 << 20


@dataclass(slots=True)
class Summed:
    """A file that is summed up while it is read.

    Attributes:
        file: which; open.
        size: bytes so far.
    """

    file: BinaryIO
    size: int = 0
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def read(self, size: int, /) -> bytes:
        """Read on."""
        piece = self.file.read(size)
        self.size += len(piece)
        self._digest.update(piece)
        return piece

    @property
    def sha256(self) -> str:
        """Of what was read so far, hex."""
        return self._digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerFile:
    """An archive that was looked into.

    Attributes:
        name: its file name.
        file: it, open.
        size: bytes.
        sha256: hex.
        inside: what is in it.
    """

    name: str
    file: BinaryIO
    size: int
    sha256: str
    inside: PodArchive

    @classmethod
    def look(cls, name: str, file: BinaryIO) -> "PartnerFile":
        """Look into an archive.

        Args:
            name: its file name.
            file: it, open.

        Raises:
            DamagedError: it is none that cluster-backup.sh makes, or too large.
        """
        summed = Summed(file)
        inside = read_archive(summed, name)
        if summed.size > MAX_ARCHIVE:
            raise DamagedError(f"{name} has more than {MAX_ARCHIVE} bytes", "look at what it is")
        return cls(name=name, file=file, size=summed.size, sha256=summed.sha256, inside=inside)

    @property
    def text(self) -> str:
        """Its encryption configuration, as a keyring has it; empty where there is none."""
        return (self.inside.configuration or b"").decode("utf-8", "backslashreplace")

    @property
    def configuration(self) -> EncryptionConfiguration | None:
        """Its encryption configuration; None where there is none.

        Raises:
            FormatError: it can't be read, or there are several.
        """
        if len(self.inside.configurations) > 1:
            raise FormatError(f"{self.name} has several encryption configurations")
        data = self.inside.configuration
        name = f"the encryption configuration in {self.name}"
        return None if data is None else parse_configuration(data, name=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedOkd:
    """The companion of an imported snapshot.

    Attributes:
        snapshot_name: the snapshot's file name.
        stored: what the snapshot says of its cluster.
        partner: its archive; None where there is none.
        dirty: whether cluster-backup.sh was told to skip its checks.
        keys: the repository for keys; None where there is no archive.
        data: id of the repository that the backup goes to.
        clock: for dates and durations.
    """

    snapshot_name: str
    stored: StoredCluster
    partner: PartnerFile | None
    dirty: bool
    keys: Repository | None
    data: str
    clock: Clock

    def examine(self, snapshot: Snapshot) -> tuple[Check, ...]:
        """Try the keys in the archive on what is encrypted in the snapshot."""
        partner = self.partner
        if partner is None:
            return ()
        return (ask(keys_check.NAME, lambda: _prove(partner, snapshot), self.clock),)

    def keep(self, run: Run) -> Kept:
        """Save the archive, and say what the manifest should know.

        Raises:
            DamagedError: the archive was changed meanwhile.
            StoreError: the store refuses.
        """
        entry, partner = self.entry, self.partner
        if partner is None or self.keys is None:
            check = ask(partner_check.NAME, _alone, self.clock)
            return Kept(okd=entry, checks=(check,))
        partner.file.seek(0)
        kept = keyrings.save(
            self.keys, self._keyring(run, partner), run, data=self.data, archive=partner.file
        )
        header = keyrings.find(self.keys, kept, run.backup(0)).header
        meant = partner_check.meant(entry, header)
        if meant.verdict is not Verdict.PASS:
            raise DamagedError(f"{partner.name} was changed while it was imported", "import again")
        check = ask(partner_check.NAME, lambda: self._whole(entry, partner), self.clock)
        return Kept(keyring=kept, okd=entry, checks=(check,))

    def _whole(self, entry: OkdEntry, partner: PartnerFile) -> Answer:
        within = partner_check.inside(entry, partner.inside, partner.text)
        if within.verdict is not Verdict.PASS:
            return within
        return passed(f"{partner.size} bytes stored with the keys and read back; {within.detail}")

    def _keyring(self, run: Run, partner: PartnerFile) -> Keyring:
        return Keyring(
            cluster=run.cluster,
            kind=OKD,
            made_at=self.clock.now(),
            keys=(),
            encryption_configuration=partner.text,
        )

    @property
    def entry(self) -> OkdEntry:
        """What the manifest says of the control plane."""
        partner, release = self.partner, self.stored.release
        found = partner.inside.static_pods if partner else {}
        return OkdEntry(
            infrastructure=self.stored.infrastructure[:_SHORT],
            version=release.running[:_SHORT],
            release_image=release.image[:_TEXT],
            release_digest=release.digest[:_SHORT],
            static_pods={pod: revisions[-1] for pod, revisions in found.items()},
            encryption=_encryption(partner) if partner else "",
            # A file's name need not be text.
            snapshot_name=self.snapshot_name.encode(errors="backslashreplace").decode()[:_SHORT],
            archive_name=partner.name if partner else "",
            archive_sha256=partner.sha256 if partner else "",
            archive_size=partner.size if partner else 0,
            forced=(FORCED,) if self.dirty else (),
        )


def _prove(partner: PartnerFile, snapshot: Snapshot) -> Answer:
    known = Known.of_configuration(partner.configuration).discovering(snapshot)
    return prove(snapshot, known)[1]


def _alone() -> Answer:
    return unknown(
        "it came without its static pod resources: it restores an etcd, and no control plane"
    )


def _encryption(partner: PartnerFile) -> str:
    try:
        found = partner.configuration
    except FormatError:
        return ""
    providers = () if found is None else found.providers(_PREFIX, Resource("secrets"))
    return providers[0].kind if providers else IDENTITY
