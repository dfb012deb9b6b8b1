"""Sets of keys, for looking up millions of elements in them.

Looking at a key costs a microsecond, so most are ruled out first, thousands at a time: by a table
that says which last eight bytes occur at all. Names of objects differ at their ends.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

#: Bytes of a digest of a key.
_DIGEST_SIZE = 25
#: Bytes at the end of a key that the table goes by.
TAIL_SIZE = 8
#: For each size of a key up to that, the bits of its tail that are the key's own.
TAIL_MASKS = np.array(
    [(1 << 64) - (1 << (64 - 8 * size)) for size in range(TAIL_SIZE + 1)], dtype=np.uint64
)
_TABLE_BITS = 20
#: An odd number with bits all over: multiplied with it, a tail's highest bits depend on all.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - _TABLE_BITS)


def fingerprint(key: bytes) -> bytes:
    """Give what stands for a key in large sets: itself, or a digest that takes less memory.

    No key that stands for itself is as long as a digest, so two keys never have the same one.
    """
    if len(key) < _DIGEST_SIZE:
        return key
    return blake2b(key, digest_size=_DIGEST_SIZE).digest()


def tail(key: bytes) -> int:
    """Give the last eight bytes of a key as a little-endian number; zeros before a shorter one."""
    return int.from_bytes(key[-TAIL_SIZE:].rjust(TAIL_SIZE, b"\0"), "little")


class KeyTable:
    """Tells which keys may be in a set: all that are, and few that are not."""

    def __init__(self) -> None:
        self._table = np.zeros(1 << _TABLE_BITS, np.bool_)

    def add(self, tails: NDArray[np.uint64]) -> None:
        """Add keys by their tails."""
        self._table[tails * _SPREAD >> _SHIFT] = True

    def may_have(self, tails: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Tell for each tail whether a key of the set may have it."""
        found: NDArray[np.bool_] = self._table[tails * _SPREAD >> _SHIFT]
        return found
