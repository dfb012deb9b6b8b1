"""Canaries: Secrets of the snapshot that the restored API must give back as they were.

Reading one through the API proves in one stroke what no look at etcd can: that the API server is
there, reads this etcd, and has the key that opens what is in it. Nothing of a Secret is kept or
shown but a digest; an unchanged one is told by its resourceVersion, which a restore leaves alone.

Source: k8s.io/apiserver, storage/etcd3 (resourceVersion is etcd's mod revision).
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backstay.checks.question import Answer, failed, passed, unknown
from backstay.errors import CheckFailedError, KubeError
from backstay.kinds.hosted.cluster import at
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.resource import SECRETS
from backstay.kubedata.cipher import decrypt
from backstay.kubedata.encryption import EncryptionConfiguration
from backstay.kubedata.envelope import Encrypted, read_envelope
from backstay.kubedata.inventory import Place, take_inventory
from backstay.kubedata.keypath import ObjectPath, parse_path
from backstay.kubedata.objects import read_secret_data
from backstay.kubedata.resource import Resource
from backstay.mvcc.keyvalue import KeyValue, parse_keyvalue
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.wire import MalformedError

_SECRETS = Resource("secrets")
#: Namespaces whose Secrets are kept up to date by machinery: a restore may change them at once.
_MACHINERY = ("openshift-", "kube-")
#: How many are picked: the first that nobody has changed decides.
NUMBER = 5
#: How many are looked at to pick them.
_MAX_TRIED = 200
#: What an API server says of a value that its keys do not open.
_NO_KEY = "unable to transform key"


@dataclass(frozen=True, slots=True)
class Canary:
    """One Secret as the snapshot has it.

    Attributes:
        namespace: its namespace.
        name: its name.
        revision: at which it was written last.
        digest: SHA-256 over its data; see `digest`.
    """

    namespace: str
    name: str
    revision: int
    digest: str

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"Secret {self.namespace}/{self.name}"


def digest(data: Mapping[str, bytes]) -> str:
    """Sum up the data of a Secret: each name with the SHA-256 of its value, in order of names."""
    lines = (f"{name} {hashlib.sha256(data[name]).hexdigest()}\n" for name in sorted(data))
    return hashlib.sha256("".join(lines).encode(errors="surrogatepass")).hexdigest()


def pick(
    snapshot: Snapshot, configuration: EncryptionConfiguration | None, number: int = NUMBER
) -> tuple[Canary, ...]:
    """Pick Secrets that nobody is likely to change soon: of users, and long unchanged.

    Args:
        snapshot: what is restored.
        configuration: its keys; None where its Secrets are stored in the clear.
        number: at most so many.

    Raises:
        DamagedError: the snapshot is damaged.
    """
    found: list[Canary] = []
    for path, keyvalue in _candidates(snapshot):
        data = _data(keyvalue, path, configuration)
        if data:
            found.append(Canary(path.namespace, path.name, keyvalue.mod_revision, digest(data)))
        if len(found) >= number:
            break
    return tuple(found)


def _candidates(snapshot: Snapshot) -> Iterator[tuple[ObjectPath, KeyValue]]:
    """Secrets in the order of preference, as they are stored."""
    inventory = take_inventory(
        snapshot, lambda _, resource: resource == _SECRETS, words=[b"/secrets/"]
    )
    places: list[tuple[bool, int, ObjectPath, Place]] = []
    for group, stored in inventory.groups.items():
        if group.resource != _SECRETS:
            continue
        for key, place in stored:
            path = parse_path(key)
            if path is not None and path.namespace:
                machinery = path.namespace.startswith(_MACHINERY)
                # Elements lie in the file in no order; the revision is read where it matters.
                places.append((machinery, len(places), path, place))
    places.sort(key=lambda entry: entry[:2])
    for _, _, path, place in places[:_MAX_TRIED]:
        data = snapshot.bolt.image.data[place.start : place.end]
        try:
            yield path, parse_keyvalue(data)
        except MalformedError as error:
            raise snapshot.damaged(f"an element of bucket key is no KeyValue: {error}") from error


def _data(
    keyvalue: KeyValue, path: ObjectPath, configuration: EncryptionConfiguration | None
) -> dict[str, bytes]:
    """The data of a Secret; empty where it can't be opened, which other checks tell."""
    envelope = read_envelope(keyvalue.value)
    texts: Sequence[bytes] = [keyvalue.value]
    if isinstance(envelope, Encrypted):
        texts = list(_opened(envelope, keyvalue.key, path, configuration))
    for text in texts:
        try:
            return read_secret_data(text)
        except CheckFailedError:
            continue
    return {}


def _opened(
    envelope: Encrypted,
    key: bytes,
    path: ObjectPath,
    configuration: EncryptionConfiguration | None,
) -> Iterator[bytes]:
    for provider in configuration.providers(path.prefix, path.resource) if configuration else ():
        for one in provider.keys:
            if (provider.kind, one.name) == (envelope.provider, envelope.key_name):
                try:
                    yield decrypt(provider.kind, one.secret, envelope.payload, key)
                except CheckFailedError:
                    continue


def ask_canaries(guest: Api, canaries: Sequence[Canary]) -> Answer:
    """Does the restored API give a Secret back as it was?

    One that somebody has changed since says nothing, nor does one that is gone; where all are
    gone, they never were there.
    """
    if not canaries:
        return unknown("the snapshot has no Secret that could be compared")
    gone = 0
    for canary in canaries:
        try:
            found = guest.find(SECRETS, canary.name, canary.namespace)
        except KubeError as error:
            if _NO_KEY in error.what:
                return failed(f"the API can't open {canary.title}: it has another key")
            raise
        if found is None:
            gone += 1
            continue
        if at(found, "metadata.resourceVersion", "") != str(canary.revision):
            continue
        if digest(_served(found)) != canary.digest:
            return failed(f"{canary.title} has other data than in the snapshot")
        return passed(f"{canary.title}, read through the API, is as it was")
    if gone == len(canaries):
        return failed(f"none of {gone} Secrets of the snapshot is there, as {canaries[0].title}")
    return unknown("the Secrets that were to be compared have been changed or deleted since")


def _served(secret: Object) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    nothing: Object = {}
    for name, text in at(secret, "data", nothing).items():
        try:
            found[name] = base64.b64decode(text if isinstance(text, str) else "", validate=True)
        except (binascii.Error, ValueError):
            found[name] = b""
    return found
