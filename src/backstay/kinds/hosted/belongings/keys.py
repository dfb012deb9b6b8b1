"""The encryption keys of a hosted control plane, read from where they lie.

Keys are found by what refers to them (`encryption.references`), never by how a Secret's name
begins. What kube-apiserver itself reads, the Secret `kas-secret-encryption-config`, has the last
word: a key that it has and that nothing refers to is saved too. That is also where the key is found
that the operator has made up for a cluster that asked for none.
"""

from dataclasses import dataclass, field

from backstay.errors import FormatError, KubeForbiddenError
from backstay.kinds.hosted.belongings.encryption import (
    Reference,
    awaits_status,
    is_rotating,
    kms_of,
    references,
)
from backstay.kinds.hosted.cluster import Hosted, is_name, secret_value
from backstay.kubeapi.api import Api
from backstay.kubeapi.resource import SECRETS
from backstay.kubedata.cipher import AES_CBC, KEY_SIZES
from backstay.kubedata.configuration import parse_configuration
from backstay.kubedata.keyname import data_hash
from backstay.repo.keyring_document import Kms, Role, SavedKey

#: The field of a Secret that holds an AES key, raw.
FIELD = "key"
#: What kube-apiserver reads, in the control-plane namespace.
CONFIGURATION = "kas-secret-encryption-config"
#: A keyring takes no longer ones, and no more.
_MAX_KEY = 1024
_MAX_KEYS = 16
#: Characters of a wrong name that a message quotes.
_NAME = 100
_ORDER: tuple[Role, ...] = ("active", "target", "backup")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedKeys:
    """What has to be saved of a cluster's encryption.

    Attributes:
        keys: AES keys, the active one first.
        kms: keys that lie with a KMS; None where there are none.
        rotating: whether the snapshot may hold values under two keys.
        problems: what makes the saved keys wrong or incomplete: each is a FAIL.
        replaced: Secrets that no longer hold a key that is in use, where it was still found
            elsewhere: this backup is whole, the cluster is in danger.
        warnings: what the reader should know all the same.
    """

    keys: tuple[SavedKey, ...] = field(default=(), repr=False)
    kms: Kms | None = None
    rotating: bool = False
    problems: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def saved_keys(api: Api, hosted: Hosted) -> SavedKeys:
    """Read the keys that a restore of this cluster needs.

    A Secret that is gone, or that no longer holds the key of which the status has the hash, is
    a problem, not an error; such a key is taken from its copies in the control-plane namespace
    where these still have it.

    Args:
        api: of the management cluster.
        hosted: the cluster.

    Raises:
        KubeForbiddenError: we may not read a Secret.
        KubeError: the API failed.
    """
    drawer = _Drawer(api, hosted)
    for reference in references(hosted):
        drawer.take(reference)
    drawer.take_the_rest()
    kms = kms_of(hosted)
    warnings = [*drawer.warnings, *((_useless(kms),) if kms else ())]
    return SavedKeys(
        keys=tuple(sorted(drawer.keys, key=lambda key: _ORDER.index(key.role))),
        kms=kms,
        rotating=is_rotating(hosted),
        problems=tuple(drawer.problems),
        replaced=tuple(drawer.replaced),
        warnings=tuple(warnings),
    )


class _Drawer:
    """Collects keys, and what is to be said about them."""

    def __init__(self, api: Api, hosted: Hosted) -> None:
        self._api = api
        self._hosted = hosted
        self._configured: dict[str, bytes] | None = None
        self._seen: set[str] = set()
        self.keys: list[SavedKey] = []
        self.problems: list[str] = []
        self.replaced: list[str] = []
        self.warnings: list[str] = []

    def take(self, reference: Reference) -> None:
        """Read the key that a reference names, from wherever it still is."""
        hosted = self._hosted
        own, copied = hosted.namespace, hosted.control_plane_namespace
        wrong: list[str] = []
        # Without a control plane, that namespace may be another's.
        for namespace in (own, copied) if hosted.control_plane is not None else (own,):
            value = self._read(reference, namespace, wrong)
            if value is not None:
                self._tell(reference, wrong, f"Secret {namespace}/{reference.secret}")
                self._add(reference.role, namespace, reference.secret, value)
                return
        value = self._configuration().get(reference.data_hash)
        if value is not None:
            self._tell(reference, wrong, f"Secret {copied}/{CONFIGURATION}")
            self._add(reference.role, own, reference.secret, value)
        elif reference.role == "backup" and not awaits_status(hosted):
            self.warnings.append(f"{wrong[0]}: it was the backup key, which no longer counts")
        else:
            self.problems.append(
                f"{wrong[0]}: what is encrypted with {reference.field} will not open without it;"
                " put the key back into that Secret"
            )

    def take_the_rest(self) -> None:
        """Add what kube-apiserver reads with, and nothing refers to."""
        for hashed, value in self._configuration().items():
            if hashed not in self._seen:
                role: Role = "backup" if self.keys else "active"
                where = self._hosted.control_plane_namespace
                self._add(role, where, CONFIGURATION, value)
                self.warnings.append(
                    f"kube-apiserver reads with a key that the HostedCluster does not name;"
                    f" it was saved from Secret {where}/{CONFIGURATION}"
                )

    def _add(self, role: Role, namespace: str, secret: str, value: bytes) -> None:
        if data_hash(value) in self._seen:
            return
        self._seen.add(data_hash(value))
        title = f"the key of Secret {namespace}/{secret}"
        sizes = KEY_SIZES[AES_CBC]
        if len(value) not in sizes:
            told = ", ".join(str(size) for size in sizes)
            line = value[-1:] in b"\r\n" and len(value) - 1 in sizes
            hint = "; it ends with a line's end" if line else ""
            self.problems.append(
                f"{title} has {len(value)} bytes, and kube-apiserver takes {told}{hint}"
            )
        elif len(value) != max(sizes):
            self.warnings.append(f"{title} has {len(value)} bytes; AES-256 takes {max(sizes)}")
        if len(value) <= _MAX_KEY and len(self.keys) < _MAX_KEYS:
            self.keys.append(SavedKey.of(role, namespace, secret, value))

    def _read(self, reference: Reference, namespace: str, wrong: list[str]) -> bytes | None:
        """Read a Secret of that name; None where it does not hold the key, and why."""
        title = f"Secret {namespace}/{reference.secret[:_NAME]}"
        if not is_name(reference.secret):
            wrong.append(f"{title} can't be: that is no name")
            return None
        try:
            secret = self._api.find(SECRETS, reference.secret, namespace)
        except KubeForbiddenError:
            if namespace == self._hosted.namespace:
                raise
            # A copy, of which no role can know the name; what kube-apiserver reads has it too.
            wrong.append(f"{title} may not be read")
            return None
        value = secret_value(secret, FIELD)
        if secret is None:
            wrong.append(f"{title} is not there")
        elif not value:
            wrong.append(f"{title} has no {FIELD}")
        elif reference.data_hash and data_hash(value) != reference.data_hash:
            wrong.append(f"{title} no longer holds the key of {reference.field}: it was replaced")
            if namespace == self._hosted.namespace:
                # A rotation to it begins as soon as the operator looks.
                self._add("target", namespace, reference.secret, value)
        else:
            return value
        return None

    def _tell(self, reference: Reference, wrong: list[str], title: str) -> None:
        """Tell that a key was found, but not in the Secret that the user has."""
        if not wrong:
            return
        text = f"{wrong[0]}; the key of {reference.field} was still in {title}"
        if reference.data_hash:
            # The operator, and a restore, will look into the Secret.
            self.replaced.append(f"{text}: put it back, before that is gone too")
        else:
            self.warnings.append(text)

    def _configuration(self) -> dict[str, bytes]:
        """The aescbc keys that kube-apiserver has, by their hashes; read once."""
        if self._configured is None:
            self._configured = self._read_configuration()
        return self._configured

    def _read_configuration(self) -> dict[str, bytes]:
        where = self._hosted.control_plane_namespace
        if self._hosted.control_plane is None:
            return {}
        secret = self._api.find(SECRETS, CONFIGURATION, where)
        data = secret_value(secret, "config.yaml")
        if not data:
            return {}
        title = f"Secret {where}/{CONFIGURATION}"
        try:
            parsed = parse_configuration(data, name=title)
        except FormatError as error:
            self.warnings.append(f"what kube-apiserver reads with is not known: {error.what}")
            return {}
        providers = [provider for rule in parsed.rules for provider in rule.providers]
        return {
            data_hash(key.secret): key.secret
            for provider in providers
            if provider.kind == AES_CBC
            for key in provider.keys
        }


def _useless(kms: Kms) -> str:
    named = [kms.active, *(ids for ids in (kms.backup, kms.target) if ids)]
    keys = "; ".join(", ".join(f"{name} {text}" for name, text in ids.items()) for ids in named)
    return (
        f"the snapshot is useless without the key of the {kms.provider} KMS, which nobody can"
        f" save: {keys or 'none is named'}; keep it, and the right to use it, as long as the backup"
    )
