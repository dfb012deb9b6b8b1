"""What a keyring says: the secrets that a restore needs, and the header that lies beside them.

The keyring is sealed, always, and so is the archive that some have beside them. The header is in
the clear, so that keys can be matched with a snapshot without opening anything: it has their names
and hashes, and never a secret. Source: docs/formats.md.

Border: documents. Where they lie, and how they are sealed and opened, is `keyring`'s business.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from backstay import __version__
from backstay.errors import FormatError, UsageError
from backstay.kubedata.configuration import parse_configuration
from backstay.kubedata.document import SIZE_LIMIT
from backstay.kubedata.encryption import EncryptionConfiguration
from backstay.kubedata.keyname import data_hash, key_name
from backstay.repo.document import FORMAT, check_time, decode
from backstay.repo.manifest import ObjectEntry, Sha256, Short, Text
from backstay.repo.name import check_cluster

#: As many bytes as a keyring may have in the clear. Secrets have 1 MiB each at most.
MAX_KEYRING = 64 << 20
#: As many bytes as an archive may have in the clear; they are tens of megabytes.
MAX_ARCHIVE = 1 << 30
#: What zstd and age add to bytes that can't be compressed is far less than this share of them.
_OVERHEAD = 100
#: The name of a keyring is that of the run that made it: TIME-RAND.
NAME = "^[0-9]{8}T[0-9]{6}Z-[a-z0-9]{4}$"
#: The kind of cluster whose keys are named as HyperShift names them.
HOSTED = "hosted"
#: The kind whose keys are those of a configuration, which numbers them.
OKD = "okd"
#: What the Secret is called whose copy on a control plane host has that configuration.
_CONFIGURATION = ("openshift-kube-apiserver", "encryption-config")
_LABELS = 16
_LONGEST = 256

Role = Literal["active", "backup", "target"]
#: Ids and ARNs of a KMS's keys, by what they are called where they were found.
Places = Annotated[dict[Short, Text], Meta(max_length=64)]
RepositoryId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
D = TypeVar("D", "Keyring", "KeyringHeader")


class KeyLabel(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said of a key in the clear.

    Attributes:
        role: what the cluster used it for: `active` writes and reads; `backup` reads; `target`
            is the one that a rotation is on its way to.
        provider: who encrypts with it, as `aescbc`.
        namespace: of the Secret that held it.
        secret: that Secret's name.
        key_name: as it stands in the values that it encrypted.
        data_hash: SHA-256 of the raw key, hex, as a HostedCluster's status has it.
    """

    role: Role
    provider: Short
    namespace: Short
    secret: Short
    key_name: Short
    data_hash: Sha256


class SavedKey(KeyLabel, frozen=True, kw_only=True):
    """A key. Its repr does not show it.

    Attributes:
        value: the raw bytes: what Secret data `key` decodes to.
    """

    value: Annotated[bytes, Meta(min_length=1, max_length=1024)]

    @classmethod
    def of(
        cls, role: Role, namespace: str, secret: str, value: bytes, *, provider: str = "aescbc"
    ) -> "SavedKey":
        """Name a raw key as HyperShift does."""
        return cls(
            role=role,
            provider=provider,
            namespace=namespace,
            secret=secret,
            key_name=key_name(value),
            data_hash=data_hash(value),
            value=value,
        )

    @property
    def label(self) -> KeyLabel:
        """All but the key itself."""
        return KeyLabel(**{name: getattr(self, name) for name in KeyLabel.__struct_fields__})

    def __repr__(self) -> str:
        return f"SavedKey({self.role} {self.key_name} of {self.namespace}/{self.secret})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("label", self.label)]


class Kms(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a KMS: where they are, since nobody can save them. Nothing in it is a secret.

    Attributes:
        provider: `AWS`, `Azure` or `IBMCloud`.
        state: of a rotation, in the cluster's own words; empty where there is none.
        active: ids or ARNs of the key that writes.
        backup: of the one that still reads.
        target: of the one that a rotation is on its way to.
    """

    provider: Short
    state: Short = ""
    active: Places = msgspec.field(default_factory=dict)
    backup: Places = msgspec.field(default_factory=dict)
    target: Places = msgspec.field(default_factory=dict)


class Keyring(msgspec.Struct, frozen=True, kw_only=True):
    """The secrets that a restore of one backup needs. Its repr shows none.

    Attributes:
        cluster: the cluster's name.
        kind: its kind.
        made_at: when it was made, by the writer's clock; aware.
        keys: encryption keys, the active one first.
        kms: the keys of a KMS.
        rotating: whether keys were being changed, so that the snapshot may need two.
        manifests: YAML of the Secrets that a restore needs.
        encryption_configuration: kube-apiserver's EncryptionConfiguration, as its host has it;
            empty where there is none, or the cluster's kind keeps keys otherwise.
        nonce: random, minted when it is saved: makes the SHA-256 in the header say nothing of
            what is in here.
    """

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: tuple[Short, ...] = ()
    cluster: Short
    kind: Short
    made_at: datetime
    keys: Annotated[tuple[SavedKey, ...], Meta(max_length=16)]
    kms: Kms | None = None
    rotating: bool = False
    manifests: Annotated[str, Meta(max_length=32 << 20)] = ""
    encryption_configuration: Annotated[str, Meta(max_length=SIZE_LIMIT)] = ""
    nonce: Short = ""

    @property
    def labels(self) -> tuple[KeyLabel, ...]:
        """What may be said in the clear: of its keys, and of those in its configuration.

        A configuration that can't be read is kept all the same, and has none.
        """
        labels = tuple(key.label for key in self.keys)
        if not self.encryption_configuration:
            return labels
        try:
            return (*labels, *_labels(self.configuration))[:_LABELS]
        except FormatError:
            return labels

    @property
    def configuration(self) -> EncryptionConfiguration:
        """Its configuration.

        Raises:
            FormatError: it can't be read.
        """
        data = self.encryption_configuration.encode("utf-8", "backslashreplace")
        return parse_configuration(data, name=f"the EncryptionConfiguration of {self.cluster}")

    def __repr__(self) -> str:
        keys = ", ".join(key.key_name for key in self.keys) or "no key"
        return f"Keyring({self.cluster}: {keys})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("cluster", self.cluster), ("keys", [key.key_name for key in self.keys])]


def _labels(configuration: EncryptionConfiguration) -> tuple[KeyLabel, ...]:
    """Name each key of a configuration once; those that write something are the active ones."""
    found: dict[tuple[str, str, bytes], Role] = {}
    for rule in configuration.rules:
        for place, provider in enumerate(rule.providers):
            for number, key in enumerate(provider.keys):
                one = (provider.kind, key.name, key.secret)
                if place == number == 0:
                    found[one] = "active"
                found.setdefault(one, "backup")
    namespace, secret = _CONFIGURATION
    return tuple(
        KeyLabel(
            role=role,
            provider=kind,
            namespace=namespace,
            secret=secret,
            key_name=name,
            data_hash=data_hash(value),
        )
        for (kind, name, value), role in found.items()
        if len(name) <= _LONGEST and name.isprintable()
    )


class KeyringHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a keyring in the clear; written last, so that listed means complete.

    Attributes:
        repository: id of the repository that it lies in.
        data: id of the repository that has the backup.
        cluster: the cluster's name.
        name: TIME-RAND of the run that made it, and the backup.
        kind: the cluster's kind.
        made_at: as in the keyring.
        object: the sealed keyring.
        recipients: who can open it.
        keys: its keys, without the keys themselves.
        kms: as in the keyring.
        rotating: as in the keyring.
        archive: a sealed archive that lies beside the keyring; None where there is none.
        lineage: whose recorded changes need it, where a recorder saved it; empty for a backup's.
    """

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: tuple[Short, ...] = ()
    repository: RepositoryId
    data: RepositoryId
    cluster: Short
    name: Annotated[str, Meta(pattern=NAME)]
    kind: Short
    made_at: datetime
    object: ObjectEntry
    recipients: Annotated[tuple[Short, ...], Meta(min_length=1, max_length=256)]
    keys: Annotated[tuple[KeyLabel, ...], Meta(max_length=16)]
    kms: Kms | None = None
    rotating: bool = False
    archive: ObjectEntry | None = None
    lineage: Short = ""
    backstay_version: Short = __version__

    @property
    def id(self) -> str:
        """Its full name: `CLUSTER/TIME-RAND`."""
        return f"{self.cluster}/{self.name}"

    @property
    def parts(self) -> tuple[ObjectEntry, ...]:
        """What is sealed: the keyring, and its archive where there is one."""
        return (self.object,) if self.archive is None else (self.object, self.archive)


def parse_keyring(data: bytes, name: str) -> Keyring:
    """Read a keyring, and hold the names and hashes of its keys to the keys.

    Args:
        data: its bytes in the clear.
        name: what messages call it.

    Raises:
        FormatError: it is none, contradicts itself, or is too new. No secret is in it.
    """
    keyring = _checked(decode(data, Keyring, name, limit=MAX_KEYRING), name)
    for number, key in enumerate(keyring.keys, start=1):
        # Other kinds of cluster number their keys.
        named = keyring.kind != HOSTED or key.key_name == key_name(key.value)
        if not named or key.data_hash != data_hash(key.value):
            raise FormatError(f"{name}: key {number} is not what its name and hash say")
    return keyring


def parse_header(data: bytes, name: str) -> KeyringHeader:
    """Read the header of a keyring.

    Args:
        data: its bytes.
        name: what messages call it.

    Raises:
        FormatError: it is none, contradicts itself, or is too new.
    """
    return check_bounds(_checked(decode(data, KeyringHeader, name), name), name)


def check_bounds(header: KeyringHeader, name: str) -> KeyringHeader:
    """Give a header back if its parts are as large as parts can be.

    Raises:
        FormatError: no keyring has as many bytes.
    """
    if header.object.size > MAX_KEYRING or header.object.stored_size > MAX_KEYRING:
        raise FormatError(f"{name}: no keyring has as many bytes as it says")
    archive = header.archive
    if archive is not None and (
        archive.size > MAX_ARCHIVE or archive.stored_size > MAX_ARCHIVE + MAX_ARCHIVE // _OVERHEAD
    ):
        raise FormatError(f"{name}: no archive has as many bytes as it says")
    return header


def _checked(document: D, name: str) -> D:
    check_time(document.made_at, name)
    try:
        check_cluster(document.cluster)
    except UsageError as error:
        raise FormatError(f"{name}: {error.what}") from error
    return document
