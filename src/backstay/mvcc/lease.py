"""Leases as bucket `lease` has them: id and times, without the keys that hold on to them.

Source: etcd, server/lease/leasepb/lease.proto; the key is the id, 8 bytes big-endian.
"""

from dataclasses import dataclass

from backstay.mvcc.wire import VARINT, MalformedError, numbers, signed, varint

KEY_SIZE = 8
_FIELDS = {1: "id", 2: "ttl", 3: "remaining_ttl"}


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease.

    Attributes:
        id: its id, signed.
        ttl: the granted time, in seconds.
        remaining_ttl: seconds left at the last checkpoint; 0 where there was none.
    """

    id: int
    ttl: int
    remaining_ttl: int


def parse_lease(key: bytes, value: bytes) -> Lease:
    """Read an entry of bucket `lease`.

    Raises:
        MalformedError: it is no lease, or its id is not that of its key.
    """
    found = {name: signed(number) for name, number in numbers(value, _FIELDS).items()}
    if key != found["id"].to_bytes(KEY_SIZE, "big", signed=True):
        raise MalformedError(
            f"a lease under key {key[:16].hex()} says that its id is {found['id']}"
        )
    return Lease(**found)


def encode_lease(lease: Lease) -> tuple[bytes, bytes]:
    """Write an entry of bucket `lease`: key and value, as etcd writes them."""
    fields = ((1, lease.id), (2, lease.ttl), (3, lease.remaining_ttl))
    value = b"".join(
        bytes([number << 3 | VARINT]) + varint(amount) for number, amount in fields if amount
    )
    return lease.id.to_bytes(KEY_SIZE, "big", signed=True), value
