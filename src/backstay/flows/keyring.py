"""The keys that belong to a snapshot, and whether they open it.

Border: which keys, and what it means that there are none. How keys are tried on values is
`kubedata.proof`'s business; which keyrings suit a file that no manifest names, `keymatch`'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from backstay.checks import keys as question
from backstay.checks.question import Answer, passed
from backstay.errors import FormatError, NotFoundError, StoreError
from backstay.kubedata.cipher import AES_CBC
from backstay.kubedata.discovery import Discovery, discover
from backstay.kubedata.encryption import (
    IDENTITY,
    KMS,
    EncryptionConfiguration,
    Provider,
    Rule,
    hypershift_configuration,
)
from backstay.kubedata.outcome import KeyProof, shown
from backstay.kubedata.proof import prove_keys
from backstay.kubedata.resource import ANY, Resource
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.catalogue import Repository
from backstay.repo.identity import Identities
from backstay.repo.keyring import Keyring, Kms, SavedKey, check_meant, find, load
from backstay.repo.keyring_document import HOSTED, OKD
from backstay.repo.manifest import KeyringEntry, Manifest
from backstay.report import Verdict

#: The order in which an API server would have the keys of a cluster.
_ORDER = {"active": 0, "target": 1, "backup": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of the keys that encrypted a snapshot.

    Attributes:
        configurations: the API servers'.
        none_saved: the cluster had no key to save when it was backed up.
        note: what else there is to say where they do not open everything.
        inside: what the snapshot itself had of keys; it is among the configurations already.
    """

    configurations: tuple[EncryptionConfiguration, ...]
    none_saved: bool = False
    note: str = ""
    inside: Discovery | None = None

    @classmethod
    def of(cls, keys: Sequence[SavedKey], kms: Kms | None = None) -> "Known":
        """Take what was found on a hosted cluster, or saved of it.

        Raises:
            FormatError: as `configuration`.
        """
        note = f"saved of the KMS: {_places(kms)}" if kms else ""
        made = configuration(keys, kms)
        return cls(configurations=(made,), none_saved=not keys and kms is None, note=note)

    @classmethod
    def of_configuration(cls, found: EncryptionConfiguration | None) -> "Known":
        """Take what a kube-apiserver runs with; None where it encrypts nothing."""
        if found is not None:
            return cls(configurations=(found,))
        # What is encrypted all the same, misses its key.
        plain = Rule((Resource("secrets"), Resource("configmaps")), (Provider(IDENTITY),))
        return cls(configurations=(EncryptionConfiguration((plain,)),), none_saved=True)

    @classmethod
    def of_keyring(cls, keyring: Keyring) -> "Known":
        """Take what was saved.

        Raises:
            FormatError: the keyring is of a kind, or has keys of a kind, that is not known here.
        """
        check_kind(keyring)
        if keyring.kind == OKD:
            text = keyring.encryption_configuration
            return cls.of_configuration(keyring.configuration if text else None)
        return cls.of(keyring.keys, keyring.kms)

    def discovering(self, snapshot: Snapshot) -> "Known":
        """Add the keys that the snapshot has of other API servers, where these keys open them.

        Raises:
            DamagedError: bucket `key` is damaged.
        """
        inside = discover(snapshot, self.configurations)
        configurations = (*self.configurations, *inside.configurations)
        return replace(self, configurations=configurations, inside=inside)


def _places(kms: Kms) -> str:
    roles = (("active", kms.active), ("backup", kms.backup), ("target", kms.target))
    found = [
        f"{role} {name} {shown(place)}" for role, places in roles for name, place in places.items()
    ]
    return ", ".join([shown(kms.provider), *found])


def prove(snapshot: Snapshot, known: Known, *, prove_all: bool = False) -> tuple[KeyProof, Answer]:
    """Try keys on a snapshot, and answer whether they open what is encrypted.

    Args:
        snapshot: an open snapshot.
        known: the keys.
        prove_all: try every value, not samples.

    Raises:
        DamagedError: bucket `key` is damaged.
    """
    proof = prove_keys(snapshot, known.configurations, prove_all=prove_all)
    if not proof.groups and known.none_saved:
        return proof, passed("nothing in it is encrypted, so no key is needed, and none was saved")
    if known.inside is not None:
        proof = known.inside.explain(proof)
    answer = question.keys(proof)
    if known.note and answer.verdict is not Verdict.PASS:
        answer = Answer(answer.verdict, f"{answer.detail}; {known.note}")
    return proof, answer


@dataclass(frozen=True)
class BackupKeys:
    """The keys of a backup, as its keyring has them; fetched when they are first asked for.

    Attributes:
        manifest: of the backup.
        open: opens the repository that its keys should lie in.
        identities: private keys.
    """

    manifest: Manifest
    open: Callable[[], Repository]
    identities: Identities | None

    def prepare(self) -> None:
        """Find early what makes the question pointless.

        Raises:
            NotFoundError: no keys were saved with the backup.
            RefusedError: its keys lie in another repository, or this one is for data.
            StoreError: there is no such repository, or the store refuses.
        """
        self._place  # noqa: B018 - it is opened by that

    def __call__(self, snapshot: Snapshot) -> Known:
        """Open the keyring.

        Raises: as `keyring_for_backup`.
        """
        del snapshot
        return self._known

    @cached_property
    def _place(self) -> Repository:
        repository = opened(self.open)
        check_means(self.manifest, repository)
        return repository

    @cached_property
    def _known(self) -> Known:
        keyring = keyring_for_backup(self.manifest, self._place, self.identities)
        return Known.of_keyring(keyring)


def opened(open_repository: Callable[[], Repository]) -> Repository:
    """Open a repository; that there is none says nothing of the keys, so it is no NotFoundError.

    Raises:
        RefusedError: it is for data.
        StoreError: there is none, or the store refuses.
    """
    try:
        return open_repository()
    except NotFoundError as error:
        raise StoreError(error.what, error.do) from error


def check_kind(keyring: Keyring) -> None:
    """Hold a keyring to be of a kind of cluster whose keys are known.

    Raises:
        FormatError: it is of another.
    """
    if keyring.kind not in {HOSTED, OKD}:
        raise FormatError(
            f"the keyring is of a cluster of kind {keyring.kind!r}", "update backstay to use it"
        )


def configuration(keys: Sequence[SavedKey], kms: Kms | None = None) -> EncryptionConfiguration:
    """Make the configuration of a hosted cluster's API server from its keys.

    Without a key and a KMS it says that nothing is encrypted: what is, misses its key then.

    Args:
        keys: in any order; one that is there twice counts once.
        kms: the KMS, where one encrypts.

    Raises:
        FormatError: a key is none that this version knows.
    """
    for key in keys:
        if key.provider != AES_CBC:
            raise FormatError(
                f"the key {shown(key.key_name)} is of {shown(key.provider)}",
                "update backstay to use it",
            )
    ordered = sorted(keys, key=lambda key: _ORDER[key.role])
    values = list(dict.fromkeys(key.value for key in ordered))
    identity = Provider(IDENTITY)
    if kms is None and values:
        return hypershift_configuration(values)
    aescbc: tuple[Provider, ...] = (Provider(AES_CBC),)
    if values:
        aescbc = hypershift_configuration(values).rules[0].providers[:1]
    if kms is None:
        return EncryptionConfiguration((Rule((Resource(ANY, ANY),), (identity, *aescbc)),))
    # HyperShift's KMS encrypts more than Secrets; that Secrets are is what must not be missed.
    writes = Provider(KMS, name=kms.provider)
    return EncryptionConfiguration(
        (
            Rule((Resource("secrets"),), (writes, *aescbc, identity)),
            Rule((Resource(ANY, ANY),), (identity, writes, *aescbc)),
        )
    )


def keyring_for_backup(
    manifest: Manifest, repository: Repository, identities: Identities | None
) -> Keyring:
    """Open the keyring of a backup.

    Args:
        manifest: of the backup.
        repository: where its keys should lie.
        identities: private keys.

    Raises:
        NotFoundError: it has none, or it is gone.
        RefusedError: its keys lie in another repository.
        DamagedError: the keyring is damaged, or is that of another backup.
        SealError: none of the identities opens it.
        FormatError: it is of a later version.
        StoreError: the store refuses.
    """
    saved = find(repository, check_means(manifest, repository), manifest.name)
    return load(repository, saved, identities)


def check_means(manifest: Manifest, repository: Repository) -> KeyringEntry:
    """Hold a repository to be the one that has the keys of a backup.

    Raises:
        NotFoundError: no keys were saved with the backup.
        RefusedError: they lie in another repository, or this one is for data.
    """
    entry = manifest.keyring
    if entry is None:
        raise NotFoundError(
            f"no keys were saved with {manifest.id}",
            "give those that you have with --encryption-config",
        )
    check_meant(repository, entry, manifest.name)
    return entry
