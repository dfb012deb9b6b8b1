"""Revisions, and the keys under which etcd stores them in bucket `key`.

Source: etcd, server/mvcc (revision.go): main revision u64 big-endian, `_`, sub revision u64
big-endian; a tombstone has `t` after it.
"""

from struct import Struct
from typing import NamedTuple

ELEMENT_KEY = Struct(">qcq")
ELEMENT_SIZE = ELEMENT_KEY.size
TOMBSTONE_SIZE = ELEMENT_SIZE + 1
SEPARATOR = b"_"
TOMBSTONE = b"t"


class Revision(NamedTuple):
    """One change.

    Attributes:
        main: the transaction.
        sub: the position of the change in it.
        tombstone: whether the change is a delete.
    """

    main: int
    sub: int
    tombstone: bool = False


def parse_revision(key: bytes) -> Revision | None:
    """Read an element's key, or a revision as bucket `meta` has it; None where it is neither."""
    if len(key) == TOMBSTONE_SIZE and not key.endswith(TOMBSTONE):
        return None
    if len(key) not in {ELEMENT_SIZE, TOMBSTONE_SIZE}:
        return None
    main, separator, sub = ELEMENT_KEY.unpack_from(key)
    if separator != SEPARATOR or main < 0 or sub < 0:
        return None
    return Revision(main, sub, len(key) == TOMBSTONE_SIZE)


def element_key(main: int, sub: int, *, tombstone: bool = False) -> bytes:
    """Write an element's key; bytes of keys and (main, sub) have the same order."""
    return ELEMENT_KEY.pack(main, SEPARATOR, sub) + (TOMBSTONE if tombstone else b"")


def last_key(main: int) -> bytes:
    """Write the greatest key that an element of a revision can have."""
    return element_key(main, (1 << 63) - 1, tombstone=True)
