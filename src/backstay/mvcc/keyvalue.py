"""The value of an element in bucket `key`: one version of one key.

Source: etcd, api/mvccpb/kv.proto.
"""

from dataclasses import dataclass

from backstay.mvcc.wire import BYTES, VARINT, MalformedError, fields, signed, varint

_KEY, _CREATE, _MOD, _VERSION, _VALUE, _LEASE = range(1, 7)
_NUMBERS = {_CREATE, _MOD, _VERSION, _LEASE}


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A version of a key; a tombstone has just the key.

    Attributes:
        key: the key.
        create_revision: main revision of the put that made it.
        mod_revision: main revision of this version.
        version: 1 for the put that made it, and counting.
        value: the value.
        lease: id of its lease; 0 where it has none.
    """

    key: bytes
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    value: bytes = b""
    lease: int = 0


def parse_keyvalue(data: bytes) -> KeyValue:
    """Read a stored KeyValue; fields of no known number are passed over, as etcd does.

    Raises:
        MalformedError: the bytes are no KeyValue.
    """
    texts = {_KEY: b"", _VALUE: b""}
    numbers = dict.fromkeys(_NUMBERS, 0)
    for number, kind, value in fields(data):
        if number in numbers:
            if kind != VARINT or not isinstance(value, int):
                raise MalformedError(f"field {number} has wire type {kind}, not {VARINT}")
            numbers[number] = signed(value)
        elif number in texts:
            if kind != BYTES or not isinstance(value, bytes):
                raise MalformedError(f"field {number} has wire type {kind}, not {BYTES}")
            texts[number] = value
    return KeyValue(
        texts[_KEY],
        numbers[_CREATE],
        numbers[_MOD],
        numbers[_VERSION],
        texts[_VALUE],
        numbers[_LEASE],
    )


def encode_key(key: bytes) -> bytes:
    """Write a KeyValue that has just the key: what etcd stores of a delete."""
    return bytes([_KEY << 3 | BYTES]) + varint(len(key)) + key
