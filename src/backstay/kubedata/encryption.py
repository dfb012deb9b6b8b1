"""Encryption at rest: which keys an API server writes and reads with, for which resources.

This is what the program knows of it, wherever it comes from: a file (see `configuration`), or the
keys of a hosted cluster. No key is in any repr.

Source: k8s.io/apiserver, pkg/server/options/encryptionconfig: the providers of all rules for one
resource count, in order; a resource's own rules go before those of its group (`*.apps`), and
these before `*.*`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from backstay.errors import FormatError
from backstay.kubedata.cipher import AES_CBC, KEY_SIZES
from backstay.kubedata.keyname import key_name
from backstay.kubedata.resource import ANY, UNKNOWN, Resource

IDENTITY = "identity"
KMS = "kms"


@dataclass(frozen=True, slots=True)
class Key:
    """A named key.

    Attributes:
        name: as it stands in the values that it encrypted.
        secret: its raw bytes.
    """

    name: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider of a rule.

    Attributes:
        kind: `identity`, `aescbc`, `aesgcm`, `secretbox` or `kms`.
        keys: its keys, the one for writing first; none for identity and kms.
        name: what a kms provider is called, else empty.
    """

    kind: str
    keys: tuple[Key, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """Providers for some resources; the first one writes, all read."""

    resources: tuple[Resource, ...]
    providers: tuple[Provider, ...]


@dataclass(frozen=True, slots=True)
class EncryptionConfiguration:
    """What one API server knows about encryption at rest.

    Attributes:
        rules: its rules.
        prefix: the etcd prefix under which that server keeps its objects; empty where that is
            not known, and the configuration is taken to speak of all.
    """

    rules: tuple[Rule, ...]
    prefix: str = ""

    def providers(self, prefix: str, resource: Resource) -> tuple[Provider, ...]:
        """Give the providers that read a resource, the one that writes first; else none.

        Args:
            prefix: the etcd prefix under which the objects lie.
            resource: which objects.
        """
        if self.prefix not in {"", prefix}:
            return ()
        for wanted in _lookups(resource):
            found = [
                provider
                for rule in self.rules
                if any(_names(named, wanted) for named in rule.resources)
                for provider in rule.providers
            ]
            if found:
                return tuple(found)
        return ()

    def encrypts(self, prefix: str, resource: Resource) -> bool:
        """Tell whether the API server encrypts a resource when it writes."""
        found = self.providers(prefix, resource)
        return bool(found) and found[0].kind != IDENTITY

    def all_keys(self) -> Iterator[Key]:
        """Give the keys of all providers."""
        for rule in self.rules:
            for provider in rule.providers:
                yield from provider.keys


def _lookups(resource: Resource) -> Sequence[Resource]:
    """What to look a resource up as, in order of precedence."""
    return resource, Resource(ANY, resource.group), Resource(ANY, ANY)


def _names(named: Resource, wanted: Resource) -> bool:
    # A path does not tell the group of a resource that this program does not know.
    if wanted.group == UNKNOWN and wanted.plural != ANY:
        return named.plural == wanted.plural
    return named == wanted


def hypershift_configuration(keys: Sequence[bytes]) -> EncryptionConfiguration:
    """Make the configuration that HyperShift makes of a cluster's aescbc keys.

    HyperShift encrypts Secrets only. The second rule is not in its file; it lets the keys be tried
    on whatever else bears their names, and reports nothing as stored in the clear.

    Args:
        keys: the raw keys (Secret data `key`), the active one first.

    Raises:
        FormatError: there is no key, one twice, or one of a length that the API server refuses.
    """
    if not keys:
        raise FormatError("there is no key")
    if len(set(keys)) < len(keys):
        raise FormatError("a key is given twice")
    for index, key in enumerate(keys):
        if len(key) not in KEY_SIZES[AES_CBC]:
            raise FormatError(
                f"key {index + 1} has {len(key)} bytes, and aescbc takes 16, 24 or 32",
                "give the decoded data of the Secret, not its base64",
            )
    aescbc = Provider(AES_CBC, tuple(Key(key_name(key), key) for key in keys))
    identity = Provider(IDENTITY)
    return EncryptionConfiguration(
        (
            Rule((Resource("secrets"),), (aescbc, identity)),
            Rule((Resource(ANY, ANY),), (identity, aescbc)),
        )
    )
