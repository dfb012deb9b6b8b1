"""Opening one value of etcd: decrypted, and held to be the object that belongs there.

The second half matters with aescbc, which has no seal of its own: a wrong key can give noise. What
it means that a value opens, or does not, is the business of whoever asks.
"""

from collections.abc import Collection, Iterable, Sequence

from backstay.errors import CheckFailedError
from backstay.kubedata.cipher import decrypt
from backstay.kubedata.encryption import EncryptionConfiguration, Provider
from backstay.kubedata.envelope import Encrypted, read_envelope
from backstay.kubedata.keypath import parse_path
from backstay.kubedata.objects import misplaced, read_object


def colon_names(configurations: Iterable[EncryptionConfiguration]) -> tuple[str, ...]:
    """Give the key names with a colon in them, the longest first (see `envelope.read_envelope`)."""
    names = {key.name for configuration in configurations for key in configuration.all_keys()}
    return tuple(sorted((name for name in names if ":" in name), key=len, reverse=True))


def keys_named(providers: Iterable[Provider], kind: str, name: str) -> tuple[bytes, ...]:
    """Give the raw keys of a name; there can be several.

    Args:
        providers: where to look.
        kind: of the provider.
        name: of the key.
    """
    found = (
        key.secret
        for provider in providers
        for key in provider.keys
        if (provider.kind, key.name) == (kind, name)
    )
    return tuple(dict.fromkeys(found))


def open_value(
    value: bytes, key: bytes, secrets: Sequence[bytes], colons: Collection[str] = ()
) -> bytes:
    """Give a value in the clear.

    Args:
        value: as it is stored.
        key: the etcd key at which it lies.
        secrets: raw keys; each is tried, as the API server does where two have one name.
        colons: see `colon_names`.

    Raises:
        CheckFailedError: no key opens it, or what comes out is no object that belongs there.
    """
    envelope = read_envelope(value, colons)
    if not isinstance(envelope, Encrypted):
        return _object(value, key)
    reason = "there is no key to open it with"
    for secret in secrets:
        try:
            return _object(decrypt(envelope.provider, secret, envelope.payload, key), key)
        except CheckFailedError as error:
            reason = error.what
    raise CheckFailedError(reason)


def _object(value: bytes, key: bytes) -> bytes:
    wrong = misplaced(read_object(value), parse_path(key))
    if wrong:
        raise CheckFailedError(wrong)
    return value
