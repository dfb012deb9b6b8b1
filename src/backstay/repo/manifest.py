"""The manifest: what one backup is, in the clear, written last.

Source: docs/formats.md. Fields that are not known are ignored; an unknown word in `requires` is
refused. 64-bit ids are hex strings, since JSON's numbers end at 2^53. The top level repeats the
figures of the first snapshot, so that a list needs no more than that.
"""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from backstay import __version__
from backstay.errors import FormatError, UsageError
from backstay.repo.document import FORMAT, check_time, decode
from backstay.repo.name import BackupId, check_cluster, objects_of
from backstay.repo.store import is_path
from backstay.report import Check, Verdict

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Hash32 = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
#: -1 is etcd's word for a history that was never compacted.
CompactRevision = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Meta(pattern="^[0-9a-f]{1,16}$")]
Text = Annotated[str, Meta(max_length=4096)]
Short = Annotated[str, Meta(max_length=256)]
#: Guards of OKD that a restore depends on. They refuse a backup where they can't be asked, too, and
#: one that was made past them by force is none that is known to restore.
SAFETY = frozenset({"rotation", "operators", "upgrade"})


class HashKV(msgspec.Struct, frozen=True, kw_only=True):
    """What members compare: the hash of the history up to a revision."""

    hash: Hash32
    revision: Count
    compact_revision: CompactRevision


class Tip(msgspec.Struct, frozen=True, kw_only=True):
    """What the last revision of a snapshot is known by, without having it; see `mvcc.tip`."""

    salt: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    digest: Sha256


class MemberEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a member answered to HashKV.

    Attributes:
        name: of the member; empty where it is not known.
        id: of the member.
        revision: up to which it summed.
        compact_revision: at which it was compacted then; -1: never.
        hash: its answer.
        seconds: that it took; it could not write meanwhile.
    """

    name: Short
    id: Hex64
    revision: Count
    compact_revision: CompactRevision
    hash: Hash32
    seconds: Annotated[float, Meta(ge=0)]


class SnapshotEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot of a backup, and the etcd that it came from.

    Attributes:
        predecessor: the lineage that was the newest when this one began; None where there was none.
        root: the first lineage of the row that may be one life with this one, see
            `repo.lineage`; empty where an older version wrote this, which did not know.
        lineage_reason: why the lineage is continued, or begins here.
        live_keys: keys that are there at its revision; None where that is not known.
        live_size: bytes of these and of their values, as stored; None where that is not known.
        tip: what its last revision is known by; None where there is nothing to know it by.
        members: what the members answered to HashKV, in the order in which they were asked.
    """

    name: Short
    lineage: Short
    predecessor: Short | None = None
    root: Short = ""
    lineage_reason: Text = ""
    revision: Count
    compact_revision: CompactRevision
    etcd_version: Short
    cluster_id: Hex64
    raft_term: Count
    raft_index: Count
    hash: Hash32
    total_keys: Count
    total_size: Count
    hashkv: HashKV
    live_keys: Count | None = None
    live_size: Count | None = None
    tip: Tip | None = None
    members: Annotated[tuple[MemberEntry, ...], Meta(max_length=256)] = ()
    object: Text


class ObjectEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One object of a backup: as it is in the clear, and as it is stored."""

    path: Text
    role: Short
    size: Count
    sha256: Sha256
    stored_size: Count
    stored_sha256: Sha256


class CheckEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One check and its verdict."""

    name: Short
    verdict: Verdict
    detail: Text
    seconds: Annotated[float, Meta(ge=0)]

    @classmethod
    def of(cls, check: Check) -> "CheckEntry":
        """Take over a verdict."""
        seconds = round(check.seconds, 3)
        detail = check.detail[:4096]
        return cls(name=check.name, verdict=check.verdict, detail=detail, seconds=seconds)


class KeyringEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Where the secrets lie that a restore needs, and what they are."""

    repository: Short
    digest: Sha256


class HostedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup knows of the hosted control plane that it is of. No secret.

    Attributes:
        namespace: of the HostedCluster.
        name: of the HostedCluster.
        platform: as `AWS`.
        release_image: that it ran.
        release_version: that it ran, where that is known.
        etcd: `managed` or `unmanaged`.
        encryption: `aescbc`, `kms`, or empty.
        rotating: whether the keys were being changed, so that two may be needed.
        kms: the keys of a kms by provider and place; without them the snapshot is useless.
        transport: how the snapshot came: `direct`, `port-forward` or `exec`.
        quiesced: whether nothing wrote while the snapshot was taken; None where that was not asked.
        api_downtime: seconds for which the API was down for the backup; None where it was not, or
            nobody saw it come back.
        missing: references of the spec to objects that were not there.
    """

    namespace: Short
    name: Short
    platform: Short = ""
    release_image: Text = ""
    release_version: Short = ""
    etcd: Short = "managed"
    encryption: Short = ""
    rotating: bool = False
    kms: Annotated[dict[Short, Text], Meta(max_length=64)] = msgspec.field(default_factory=dict)
    transport: Short = ""
    quiesced: bool | None = None
    api_downtime: Annotated[float, Meta(ge=0)] | None = None
    missing: Annotated[tuple[Text, ...], Meta(max_length=256)] = ()


class EtcdRevision(msgspec.Struct, frozen=True, kw_only=True):
    """What etcd's operator keeps of raft in `revision.json`, as it stood beside the snapshot.

    Attributes:
        cluster_id: as it stands there, in hex.
        max_raft_index: the highest index of all members; restores work out their bump from it.
        raft_index: of each member, by its name there.
        created: when it was written, as it stands there.
    """

    cluster_id: Short = ""
    max_raft_index: Count
    raft_index: Annotated[dict[Short, Count], Meta(max_length=64)] = msgspec.field(
        default_factory=dict
    )
    created: Short = ""


class OkdEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup knows of the OKD or OpenShift control plane that it is of. No secret.

    Attributes:
        infrastructure: the infrastructure's name; empty where it is not known.
        version: that the cluster ran, as `4.15.3`; empty where it is not known.
        release_image: that it ran.
        release_digest: of that image, as `sha256:...`.
        node: the control plane host that the backup was made on.
        static_pods: revision of the static pod of each of the four, by its name.
        etcd_revision: what the operator keeps of raft; None where it was not there.
        encryption: how kube-apiserver encrypts, as `aescbc`; `identity` where it does not.
        snapshot_name: the snapshot's file name, as the restore scripts look for it.
        archive_name: that of the tar of static pod resources; empty where there is none.
        archive_sha256: of the tar, hex: it lies with the keys. Empty where there is none.
        archive_size: bytes of the tar.
        forced: guards that did not pass, and were skipped by `--force`.
    """

    infrastructure: Short = ""
    version: Short = ""
    release_image: Text = ""
    release_digest: Short = ""
    node: Short = ""
    static_pods: Annotated[dict[Short, Count], Meta(max_length=16)] = msgspec.field(
        default_factory=dict
    )
    etcd_revision: EtcdRevision | None = None
    encryption: Short = ""
    snapshot_name: Short
    archive_name: Short = ""
    archive_sha256: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""
    archive_size: Count = 0
    forced: Annotated[tuple[Short, ...], Meta(max_length=64)] = ()

    @property
    def safe(self) -> bool:
        """Whether no guard was skipped that a restore depends on."""
        return not SAFETY & set(self.forced)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One backup.

    Attributes:
        base: the ID of the backup that it was made from, with recorded changes; it is whole without
            that. None where it came from an etcd.
        needs: IDs of backups of its cluster without which it can't be restored.
    """

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: tuple[Short, ...] = ()
    repository: Short
    id: Text
    cluster: Short
    kind: Short
    revision: Count
    taken_at: datetime
    #: That it took to make; None in manifests from before this was noted.
    seconds: Annotated[float, Meta(ge=0)] | None = None
    total_keys: Count
    total_size: Count
    hash: Hash32
    hashkv: HashKV
    snapshots: Annotated[tuple[SnapshotEntry, ...], Meta(min_length=1, max_length=64)]
    objects: Annotated[tuple[ObjectEntry, ...], Meta(min_length=1, max_length=256)]
    recipients: Annotated[tuple[Short, ...], Meta(max_length=256)]
    base: Text | None = None
    needs: Annotated[tuple[Text, ...], Meta(max_length=256)] = ()
    keyring: KeyringEntry | None = None
    hosted: HostedEntry | None = None
    okd: OkdEntry | None = None
    checks: Annotated[tuple[CheckEntry, ...], Meta(max_length=256)]
    backstay_version: Short = __version__

    @property
    def name(self) -> BackupId:
        """The ID, taken apart."""
        return BackupId.parse(self.id)

    @property
    def stored_size(self) -> int:
        """Bytes that the objects take in the store."""
        return sum(entry.stored_size for entry in self.objects)

    def object_of(self, snapshot: SnapshotEntry) -> ObjectEntry:
        """Find the object that holds a snapshot."""
        return next(entry for entry in self.objects if entry.path == snapshot.object)


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Read a manifest, and hold it to what its fields promise of each other.

    Args:
        data: its bytes.
        name: what messages call it.

    Raises:
        FormatError: it is no manifest, contradicts itself, or is too new.
    """
    manifest = decode(data, Manifest, name)
    try:
        backup = manifest.name
        check_cluster(manifest.cluster)
    except UsageError as error:
        raise FormatError(f"{name}: {error.what}") from error
    if backup.cluster != manifest.cluster:
        raise FormatError(f"{name} is of {manifest.cluster!r}, its ID of {backup.cluster!r}")
    check_time(manifest.taken_at, name)
    _check_figures(manifest, name)
    _check_paths(manifest, name)
    return manifest


def _check_figures(manifest: Manifest, name: str) -> None:
    """Hold what is said twice to be said alike: `latest` goes by one, a restore by the other."""
    first = figures(manifest.snapshots[0])
    for word, value in first.items():
        if getattr(manifest, word) != value:
            raise FormatError(f"{name}: its {word} is not that of its first snapshot")
    if manifest.name.revision != manifest.revision:
        raise FormatError(f"{name}: its ID has another revision")


def _check_paths(manifest: Manifest, name: str) -> None:
    """Hold a hostile manifest to objects of its own cluster: they get read, and deleted."""
    prefix = objects_of(manifest.cluster)
    paths = [entry.path for entry in manifest.objects]
    for path in paths:
        if not path.startswith(prefix) or not is_path(path):
            raise FormatError(f"{name} names an object outside of its cluster: {path[:100]!r}")
    if len(set(paths)) < len(paths):
        raise FormatError(f"{name} names an object twice")
    for snapshot in manifest.snapshots:
        if snapshot.object not in paths:
            raise FormatError(f"{name}: snapshot {snapshot.name!r} has no object")


def figures(snapshot: SnapshotEntry) -> dict[str, Any]:
    """Give what the top level repeats of the first snapshot."""
    names = ("revision", "total_keys", "total_size", "hash", "hashkv")
    return {name: getattr(snapshot, name) for name in names}
