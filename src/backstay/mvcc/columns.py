"""Stored KeyValues as numpy columns, thousands at a time.

etcd writes the fields of a KeyValue in the order of their numbers, each at most once and none
that is zero. Values of that form are read with a few dozen operations on arrays. This only ever
accepts: each step stays inside its value, and the fields must end where the value ends.

Source: etcd, api/mvccpb/kv.proto; protobuf's encoding guide.
"""

import mmap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Words = NDArray[np.uint64]

_KEY_TAG, _CREATE_TAG, _MOD_TAG, _VERSION_TAG, _VALUE_TAG, _LEASE_TAG = (
    np.uint64(tag) for tag in (0x0A, 0x10, 0x18, 0x20, 0x2A, 0x30)
)
#: No length is larger: adding it to an offset can't overflow.
_MAX_LENGTH = 1 << 40
#: Bytes that are read at once for a tag and a number.
_FIELD = 16
_ONE, _EIGHT, _FIFTY_SIX, _BYTE, _CONTINUED, _SEVEN_BITS = map(
    np.uint64, (1, 8, 56, 0xFF, 0x80, 0x7F)
)
_HIGH_BITS = np.uint64(0x8080808080808080)
#: Masks for what stays, and how far the rest moves: 7-bit groups become 14, 28, 56 bits.
_SQUEEZE = (
    (np.uint64(0x007F007F007F007F), np.uint64(1)),
    (np.uint64(0x00003FFF00003FFF), np.uint64(2)),
    (np.uint64(0x000000000FFFFFFF), np.uint64(4)),
)


class Fields:
    """A mapped file, read at many offsets at once.

    Args:
        data: the file; it has at least 16 bytes.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self._last = len(data) - _FIELD
        self._data: NDArray[np.void] = np.ndarray((self._last + 1,), f"V{_FIELD}", data, 0, (1,))

    def read(self, at: Ints) -> tuple[Words, Words]:
        """Read 16 bytes at each offset, as two little-endian numbers."""
        words = self._data[np.minimum(at, self._last)].view("<u8")
        return words[::2], words[1::2]

    def whole(self, at: Ints) -> Bools:
        """Tell at which offsets `read` has read just that, and not what lies before the end."""
        return at <= self._last


@dataclass(frozen=True, slots=True)
class Values:
    """Values as columns; what is said of those that are not plain means nothing."""

    plain: Bools
    names: Ints
    name_sizes: Ints
    creates: Ints
    mods: Ints
    versions: Ints
    leases: Ints


def read_values(fields: Fields, starts: Ints, stops: Ints) -> Values:
    """Read values as far as they have the form that etcd writes.

    Args:
        fields: the file.
        starts: where each value begins.
        stops: the offset after each.
    """
    cursor = _Cursor(fields, starts, stops)
    name_sizes = cursor.number(_KEY_TAG)
    names = cursor.at.copy()
    cursor.skip(name_sizes)
    creates = cursor.number(_CREATE_TAG)
    mods = cursor.number(_MOD_TAG)
    versions = cursor.number(_VERSION_TAG)
    cursor.skip(cursor.number(_VALUE_TAG))
    leases = cursor.number(_LEASE_TAG)
    plain = cursor.good & (cursor.at == stops)
    return Values(plain, names, name_sizes, creates, mods, versions, leases)


class _Cursor:
    """Goes through the fields of all values at the same time.

    Attributes:
        at: where it stands in each value; never beyond its end.
        good: in which values everything was as expected so far.
    """

    def __init__(self, fields: Fields, starts: Ints, stops: Ints) -> None:
        self._fields = fields
        self._stops = stops
        self.at = starts.copy()
        self.good: Bools = np.ones(len(starts), np.bool_)

    def number(self, tag: np.uint64) -> Ints:
        """Read a number where a field with that tag stands; 0 where another one does.

        For a field of bytes, that is its length.
        """
        low, high = self._fields.read(self.at)
        here: Bools = (low & _BYTE == tag) & (self.at < self._stops)
        # The eight bytes after the tag. A number ends with the first byte below 0x80.
        rest = low >> _EIGHT | high << _FIFTY_SIX
        ends: Words = ~rest & _HIGH_BITS
        used: Words = ends ^ (ends - _ONE)
        value = _squeezed(rest & used)
        size = np.bitwise_count(used).astype(np.int64) >> 3
        long = ends == 0
        if long.any():
            # Eight bytes and no end: lease ids, and what is not accepted here.
            ninth = high >> _EIGHT & _BYTE
            value[long] |= ((ninth & _SEVEN_BITS) << _FIFTY_SIX)[long]
            size[long] = 9
            self.good &= ~(here & long & (ninth >= _CONTINUED))
        self.good &= ~here | self._fields.whole(self.at)
        self._advance(np.where(here, size + 1, 0))
        return np.where(here, value, 0).astype(np.int64)

    def skip(self, sizes: Ints) -> None:
        """Go on by so many bytes."""
        self._advance(np.minimum(sizes, _MAX_LENGTH))

    def _advance(self, sizes: Ints) -> None:
        at = self.at + sizes
        self.good &= at <= self._stops
        self.at = np.minimum(at, self._stops)


def _squeezed(words: Words) -> Words:
    """Put the low seven bits of each byte together: the number that a varint says."""
    words = words & ~_HIGH_BITS
    for mask, shift in _SQUEEZE:
        words = (words & mask) | (words & ~mask) >> shift
    return words
