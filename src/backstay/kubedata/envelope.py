"""How Kubernetes wraps what it stores in etcd: protobuf, JSON, or encrypted.

A value is only recognised here. What an object says of itself is the business of `objects`, the
opening of encrypted values that of `cipher`. No bytes make these functions raise: what is none of
the known forms is `Unreadable`, with the reason.

Source: k8s.io/apimachinery, runtime/serializer/protobuf (the bytes `k8s` and 0, then a message
Unknown {typeMeta 1 {apiVersion 1, kind 2}, raw 2, contentEncoding 3, contentType 4});
k8s.io/apiserver, server/options/encryptionconfig (the prefixes of encrypted values).
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from backstay.mvcc.wire import BYTES, MalformedError, fields

PROTOBUF_MAGIC = b"k8s\x00"
ENCRYPTED_MAGIC = b"k8s:enc:"
#: A header is read from this many bytes of the value; longer key names than fit are refused.
HEADER_LIMIT = 1024

_HEADER = re.compile(rb"k8s:enc:([a-z0-9-]{1,32}):(v[0-9]{1,3}):")
_TYPE_META, _RAW, _ENCODING, _CONTENT_TYPE = range(1, 5)


@dataclass(frozen=True, slots=True)
class Protobuf:
    """An object of a built-in kind.

    Attributes:
        api_version: group and version, as `apps/v1`.
        kind: its kind, as `Deployment`.
        raw: the object's own message; in the clear, so it is in no repr.
    """

    api_version: str
    kind: str
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Json:
    """A custom resource, or one of the few built-in kinds that are stored as JSON.

    Attributes:
        api_version: group and version.
        kind: its kind.
        document: the whole object; in the clear, so it is in no repr.
    """

    api_version: str
    kind: str
    document: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Encrypted:
    """A value under encryption at rest.

    Attributes:
        provider: who encrypted it: `aescbc`, `aesgcm`, `secretbox`, `kms`, or an unknown name.
        version: the provider's format, as `v1`.
        key_name: which of the provider's keys; for kms the provider's own name.
        payload: what follows the header.
    """

    provider: str
    version: str
    key_name: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """None of the forms that Kubernetes writes.

    Attributes:
        reason: what is wrong; it never quotes the value.
    """

    reason: str


Envelope = Protobuf | Json | Encrypted | Unreadable


def read_envelope(value: bytes, colon_names: Collection[str] = ()) -> Envelope:
    """Recognise a stored value.

    Args:
        value: the value of an etcd key.
        colon_names: key names with a colon in them that are known from a configuration. Nothing
            but the configuration tells where such a name ends.
    """
    if value.startswith(ENCRYPTED_MAGIC):
        return read_encrypted(value, colon_names)
    if value.startswith(PROTOBUF_MAGIC):
        try:
            return _read_protobuf(value[len(PROTOBUF_MAGIC) :])
        except (MalformedError, UnicodeDecodeError):
            return Unreadable("it begins as protobuf and goes on as something else")
    if value.startswith(b"{"):
        return _read_json(value)
    return Unreadable("it is neither protobuf nor JSON" if value else "it is empty")


def read_encrypted(value: bytes, colon_names: Collection[str] = ()) -> Encrypted | Unreadable:
    """Take an encrypted value apart; its first bytes (`HEADER_LIMIT`) do for all but the payload.

    Args:
        value: begins with `ENCRYPTED_MAGIC`.
        colon_names: see `read_envelope`.
    """
    header = _HEADER.match(value)
    if header is None:
        return Unreadable("its header of an encrypted value names no provider and version")
    provider, version = (part.decode() for part in header.groups())
    start = header.end()
    for name in colon_names:
        end = start + len(name.encode())
        if value[start : end + 1] == name.encode() + b":":
            return Encrypted(provider, version, name, value[end + 1 :])
    end = value.find(b":", start, HEADER_LIMIT)
    if end <= start:
        return Unreadable("its header of an encrypted value names no key")
    try:
        name = value[start:end].decode()
    except UnicodeDecodeError:
        return Unreadable("its header of an encrypted value has a key name that is no text")
    return Encrypted(provider, version, name, value[end + 1 :])


def _read_protobuf(data: bytes) -> Protobuf | Unreadable:
    found = _texts(data, {_TYPE_META, _RAW, _ENCODING, _CONTENT_TYPE})
    if found[_ENCODING]:
        return Unreadable("its content is encoded once more")
    meta = _texts(found[_TYPE_META], {1, 2})
    api_version, kind = meta[1].decode(), meta[2].decode()
    if not api_version or not kind:
        return Unreadable("it is protobuf without a kind")
    return Protobuf(api_version, kind, found[_RAW])


def _texts(data: bytes, wanted: set[int]) -> dict[int, bytes]:
    """The fields of a message that are bytes; a field that comes twice has its last value."""
    found = dict.fromkeys(wanted, b"")
    for number, kind, value in fields(data):
        if number in wanted:
            if kind != BYTES or not isinstance(value, bytes):
                raise MalformedError(f"field {number} has wire type {kind}, not {BYTES}")
            found[number] = value
    return found


def _read_json(value: bytes) -> Json | Unreadable:
    try:
        document = json.loads(value.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return Unreadable("it begins as JSON and goes on as something else")
    if isinstance(document, dict):
        api_version, kind = document.get("apiVersion"), document.get("kind")
        if isinstance(api_version, str) and isinstance(kind, str) and api_version and kind:
            return Json(api_version, kind, document)
    return Unreadable("it is JSON without a kind")


def _no_constant(_: str) -> NoReturn:
    raise ValueError("JSON has no such number")
