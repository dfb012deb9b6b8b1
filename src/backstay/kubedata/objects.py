"""What a stored object says of itself: kind, namespace, name, uid.

Just the metadata is read, not the rest of an object: enough to tell a real object from noise, and
to tell whether it lies where it belongs. A Secret's data and annotations are the one exception: the
keys of other API servers are kept in Secrets.

Source: k8s.io/apimachinery, pkg/apis/meta/v1/generated.proto (ObjectMeta is field 1 of every
built-in object: name 1, namespace 3, uid 5, annotations 12); k8s.io/api, core/v1/generated.proto
(Secret: data 2). Maps are lists of key 1 and value 2.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from backstay.errors import DamagedError
from backstay.kubedata.envelope import Encrypted, Json, Protobuf, Unreadable, read_envelope
from backstay.kubedata.keypath import ObjectPath
from backstay.kubedata.resource import WITHOUT_API
from backstay.mvcc.wire import BYTES, MalformedError, fields

_META = 1
_NAME, _NAMESPACE, _UID = 1, 3, 5
_ANNOTATIONS = 12
_SECRET_DATA = 2


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The identity of an object.

    Attributes:
        api_version: group and version, as `v1`.
        kind: its kind, as `Secret`.
        namespace: its namespace; empty where it has none.
        name: its name.
        uid: its uid.
    """

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


def read_object(value: bytes) -> StoredObject:
    """Read the identity of an object that is stored in the clear, or has been decrypted.

    Raises:
        DamagedError: it is no Kubernetes object.
    """
    envelope = read_envelope(value)
    if isinstance(envelope, Encrypted):
        raise DamagedError("the value is no Kubernetes object: it is encrypted")
    if isinstance(envelope, Unreadable):
        raise DamagedError(f"the value is no Kubernetes object: {envelope.reason}")
    try:
        namespace, name, uid = (
            _from_protobuf(envelope.raw)
            if isinstance(envelope, Protobuf)
            else _from_json(envelope.document)
        )
    except (MalformedError, UnicodeDecodeError) as error:
        raise DamagedError("the value is no Kubernetes object: its metadata is broken") from error
    return StoredObject(envelope.api_version, envelope.kind, namespace, name, uid)


def misplaced(found: StoredObject, path: ObjectPath | None) -> str:
    """Say why an object can't belong to the etcd key at which it lies; empty where it can."""
    if path is None or path.resource.plural in WITHOUT_API:
        return ""
    if found.name != path.name:
        return f"the object is named {found.name!r}"
    if found.namespace != path.namespace:
        return f"the object's namespace is {found.namespace!r}"
    return ""


def _from_protobuf(raw: bytes) -> tuple[str, str, str]:
    # All fields of the object are walked, so that noise behind good metadata is seen.
    meta = _meta(raw)
    found = {_NAME: b"", _NAMESPACE: b"", _UID: b""}
    for number, kind, value in fields(meta):
        if number in found:
            found[number] = _bytes(kind, value)
    return found[_NAMESPACE].decode(), found[_NAME].decode(), found[_UID].decode()


def _meta(raw: bytes) -> bytes:
    return b"".join(_bytes(kind, value) for number, kind, value in fields(raw) if number == _META)


def _from_json(document: Mapping[str, object]) -> tuple[str, str, str]:
    meta = document.get("metadata")
    if not isinstance(meta, dict):
        raise MalformedError("there is no metadata")
    found = [meta.get(name, "") for name in ("namespace", "name", "uid")]
    namespace, name, uid = (text if isinstance(text, str) else None for text in found)
    if namespace is None or name is None or uid is None:
        raise MalformedError("metadata has something else than text")
    return namespace, name, uid


def _bytes(kind: int, value: int | bytes) -> bytes:
    if kind != BYTES or not isinstance(value, bytes):
        raise MalformedError(f"a field has wire type {kind}, not {BYTES}")
    return value


def read_secret_data(value: bytes) -> dict[str, bytes]:
    """Read the data of a Secret that is stored in the clear, or has been decrypted.

    Raises:
        DamagedError: it is no Secret. The message quotes nothing of it.
    """
    envelope = read_envelope(value)
    if not isinstance(envelope, Protobuf | Json) or (envelope.api_version, envelope.kind) != (
        "v1",
        "Secret",
    ):
        raise DamagedError("the value is no Secret")
    reason = ""
    try:
        if isinstance(envelope, Protobuf):
            return dict(
                _map_entry(_bytes(kind, field))
                for number, kind, field in fields(envelope.raw)
                if number == _SECRET_DATA
            )
        return _json_data(envelope.document.get("data") or {})
    except (MalformedError, UnicodeDecodeError, binascii.Error):
        reason = "the Secret's data is broken"
    raise DamagedError(reason)


def read_annotations(value: bytes) -> dict[str, str]:
    """Read the annotations of an object that is stored in the clear, or has been decrypted.

    Raises:
        DamagedError: it is no Kubernetes object. The message quotes nothing of it.
    """
    envelope = read_envelope(value)
    reason = "the object's annotations are broken"
    try:
        if isinstance(envelope, Protobuf):
            entries = (
                _map_entry(_bytes(kind, field))
                for number, kind, field in fields(_meta(envelope.raw))
                if number == _ANNOTATIONS
            )
            return {name: text.decode() for name, text in entries}
        if isinstance(envelope, Json):
            return _json_annotations(envelope.document.get("metadata"))
        reason = "the value is no Kubernetes object"
    except (MalformedError, UnicodeDecodeError):
        pass
    raise DamagedError(reason)


def _json_annotations(meta: object) -> dict[str, str]:
    found = (meta.get("annotations") or {}) if isinstance(meta, dict) else {}
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise MalformedError("annotations are no texts")
    return found


def _map_entry(entry: bytes) -> tuple[str, bytes]:
    found = {1: b"", 2: b""}
    for number, kind, value in fields(entry):
        if number in found:
            found[number] = _bytes(kind, value)
    return found[1].decode(), found[2]


def _json_data(data: object) -> dict[str, bytes]:
    if not isinstance(data, dict):
        raise MalformedError("data is no object")
    found: dict[str, bytes] = {}
    for name, text in data.items():
        if not isinstance(text, str) or not text.isascii():
            raise MalformedError("a value is no text")
        found[name] = base64.b64decode(text, validate=True)
    return found
