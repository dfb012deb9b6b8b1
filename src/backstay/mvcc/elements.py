"""Elements of bucket `key` by the thousand: revisions and stored KeyValues, as numpy columns.

etcd writes the fields of a KeyValue in the order of their numbers, each at most once and none
that is zero. Values of that form are read with a few dozen operations on arrays, for all elements
of a run at once; any other goes to `keyvalue.parse_keyvalue`, which reads what etcd would read,
or refuses it. The fast way only ever accepts: each step stays inside its element, and the fields
must end where the element ends.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backstay.bolt.image import Image
from backstay.bolt.sweep import Run, Sweep
from backstay.mvcc.keyset import TAIL_MASKS, TAIL_SIZE, tail
from backstay.mvcc.keyvalue import KeyValue, parse_keyvalue
from backstay.mvcc.revision import (
    ELEMENT_SIZE,
    SEPARATOR,
    TOMBSTONE,
    TOMBSTONE_SIZE,
    parse_revision,
)
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.wire import MalformedError

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
#: Where the sub revision begins in an element's key.
_SUB = 9

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


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of a run, in order.

    Attributes:
        starts: offset in the file of each element's own key.
        stops: offset after its value.
        mains: main revision.
        subs: sub revision.
        tombstones: whether it is a delete.
        names: offset of the key that was changed.
        name_sizes: bytes of that; 0 for the element that a bump leaves behind, which has no value.
        creates: create revision; 0 for deletes and bumps, as are the next two.
        mods: mod revision.
        versions: version.
        tails: the last eight bytes of the key, see `keyset.tail`.
        odd: what was read one by one, by its place; for these `names` means nothing.
    """

    starts: Ints
    stops: Ints
    mains: Ints
    subs: Ints
    tombstones: Bools
    names: Ints
    name_sizes: Ints
    creates: Ints
    mods: Ints
    versions: Ints
    tails: Words
    odd: dict[int, KeyValue]

    def __len__(self) -> int:
        return len(self.mains)

    @property
    def bumps(self) -> Bools:
        """Which elements have no value at all: marks that a restore left."""
        bumps: Bools = self.starts + ELEMENT_SIZE == self.stops
        return bumps

    def until(self, revision: int) -> int:
        """How many elements there are up to a main revision; only where mains rise."""
        return int(np.searchsorted(self.mains, revision, "right"))

    def key(self, data: mmap.mmap, index: int) -> bytes:
        """Give the key that an element changed."""
        if index in self.odd:
            return self.odd[index].key
        start = int(self.names[index])
        return data[start : start + int(self.name_sizes[index])]

    def keys(self, data: mmap.mmap, first: int, last: int) -> list[bytes]:
        """Give the keys that elements `first` to `last` - 1 changed."""
        starts = self.names[first:last].tolist()
        sizes = self.name_sizes[first:last].tolist()
        found = [data[start : start + size] for start, size in zip(starts, sizes, strict=True)]
        for index, value in self.odd.items():
            if first <= index < last:
                found[index - first] = value.key
        return found


def read_elements(snapshot: Snapshot) -> Iterator[Elements]:
    """Read bucket `key`, run by run.

    Raises:
        DamagedError: the tree is damaged, a key is no revision, or a value is no KeyValue.
    """
    bucket = snapshot.bucket(b"key")
    if bucket is None:
        return
    reader = ElementReader(snapshot.bolt.image)
    for run in Sweep(bucket).runs():
        yield reader.read(run)


class ElementReader:
    """Reads runs of bucket `key`.

    Args:
        image: the file.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        data = image.data
        self._size = len(data)
        self._bytes: NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        self._eights = np.ndarray((self._size - 7,), "V8", data, 0, (1,))
        self._fields = np.ndarray((self._size - _FIELD + 1,), f"V{_FIELD}", data, 0, (1,))

    def read(self, run: Run) -> Elements:
        """Read all elements of a run.

        Raises:
            DamagedError: a key is no revision, or a value is no KeyValue.
        """
        starts, values, stops = (
            np.asarray(offsets, np.int64) for offsets in (run.keys, run.values, run.stops)
        )
        mains, subs, tombstones = self._revisions(starts, values - starts)
        parsed = self._values(values, stops)
        tails = self._tails(parsed)
        odd = {}
        for index in np.flatnonzero(~parsed.plain).tolist():
            value = self._exactly(int(mains[index]), int(values[index]), int(stops[index]))
            odd[index] = value
            tails[index] = tail(value.key)
            parsed.name_sizes[index] = len(value.key)
            parsed.creates[index] = value.create_revision
            parsed.mods[index] = value.mod_revision
            parsed.versions[index] = value.version
        return Elements(
            starts,
            stops,
            mains,
            subs,
            tombstones,
            parsed.names,
            parsed.name_sizes,
            parsed.creates,
            parsed.mods,
            parsed.versions,
            tails,
            odd,
        )

    def _exactly(self, main: int, start: int, stop: int) -> KeyValue:
        try:
            return parse_keyvalue(self._image.data[start:stop])
        except MalformedError as error:
            raise self._image.damaged(
                f"the entry of revision {main} in bucket key is no KeyValue: {error}"
            ) from error

    def _revisions(self, starts: Ints, sizes: Ints) -> tuple[Ints, Ints, Bools]:
        tombstones = sizes == TOMBSTONE_SIZE
        inside = np.minimum(starts, self._size - TOMBSTONE_SIZE)
        mains = self._eights[inside].view(">i8").astype(np.int64)
        subs = self._eights[inside + _SUB].view(">i8").astype(np.int64)
        good = tombstones | (sizes == ELEMENT_SIZE)
        good &= self._bytes[inside + _SUB - 1] == ord(SEPARATOR)
        good &= ~tombstones | (self._bytes[inside + ELEMENT_SIZE] == ord(TOMBSTONE))
        good &= (mains >= 0) & (subs >= 0) & (inside == starts)
        for index in np.flatnonzero(~good).tolist():
            start, size = int(starts[index]), int(sizes[index])
            key = self._image.data[start : start + size]
            revision = parse_revision(key)
            if revision is None:
                raise self._image.damaged(f"bucket key has a key {key[:32].hex()} of no revision")
            mains[index], subs[index], _ = revision
        return mains, subs, tombstones

    def _values(self, starts: Ints, stops: Ints) -> "_Values":
        """Read values as far as they have the form that etcd writes."""
        cursor = _Cursor(self, starts, stops)
        name_sizes = cursor.number(_KEY_TAG)
        names = cursor.at.copy()
        cursor.skip(name_sizes)
        creates = cursor.number(_CREATE_TAG)
        mods = cursor.number(_MOD_TAG)
        versions = cursor.number(_VERSION_TAG)
        cursor.skip(cursor.number(_VALUE_TAG))
        cursor.number(_LEASE_TAG)
        plain = cursor.good & (cursor.at == stops)
        return _Values(plain, names, name_sizes, creates, mods, versions)

    def _tails(self, values: "_Values") -> Words:
        ends = np.where(values.plain, values.names + values.name_sizes, TAIL_SIZE)
        tails: Words = self._eights[ends - TAIL_SIZE].view("<u8").astype(np.uint64)
        tails &= TAIL_MASKS[np.minimum(values.name_sizes, TAIL_SIZE)]
        return tails

    def field(self, at: Ints) -> tuple[Words, Words]:
        """Read 16 bytes at each offset, as two little-endian numbers; those at the end, not all."""
        words = self._fields[np.minimum(at, self._size - _FIELD)].view("<u8")
        return words[::2], words[1::2]

    def has_field(self, at: Ints) -> Bools:
        """Whether `field` could read all its bytes there."""
        return at <= self._size - _FIELD


@dataclass(frozen=True, slots=True)
class _Values:
    """Values as columns; what is said of those that are not plain means nothing."""

    plain: Bools
    names: Ints
    name_sizes: Ints
    creates: Ints
    mods: Ints
    versions: Ints


class _Cursor:
    """Goes through the fields of all values at the same time.

    Attributes:
        at: where it stands in each value; never beyond its end.
        good: in which values everything was as expected so far.
    """

    def __init__(self, reader: ElementReader, starts: Ints, stops: Ints) -> None:
        self._reader = reader
        self._stops = stops
        self.at = starts.copy()
        self.good: Bools = np.ones(len(starts), np.bool_)

    def number(self, tag: np.uint64) -> Ints:
        """Read a number where a field with that tag stands; 0 where another one does.

        For a field of bytes, that is its length.
        """
        low, high = self._reader.field(self.at)
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
        self.good &= ~here | self._reader.has_field(self.at)
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
