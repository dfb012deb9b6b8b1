"""Elements of bucket `key` by the thousand: revisions and stored KeyValues, as numpy columns.

Values of the form that etcd writes are read by `columns`, all of a run at once; any other goes to
`keyvalue.parse_keyvalue`, which reads what etcd would read, or refuses it.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from backstay.bolt.sweep import Run, Sweep
from backstay.errors import DamagedError
from backstay.mvcc.columns import Bools, Fields, Ints, Values, Words, read_values
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

#: Where the sub revision begins in an element's key.
_SUB = 9


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of a run, in order.

    Attributes:
        starts: offset in the file of each element's own key.
        values: offset of its value, which is where its key ends.
        stops: offset after its value.
        mains: main revision.
        subs: sub revision.
        tombstones: whether it is a delete.
        names: offset of the key that was changed.
        name_sizes: bytes of that; 0 for the element that a bump leaves behind, which has no value.
        creates: create revision; 0 for deletes and bumps, as are the next two.
        mods: mod revision.
        versions: version.
        leases: id of the lease; 0 where it has none.
        tails: the last eight bytes of the key, see `keyset.tail`.
        odd: what was read one by one, by its place; for these `names` means nothing.
    """

    starts: Ints
    values: Ints
    stops: Ints
    mains: Ints
    subs: Ints
    tombstones: Bools
    names: Ints
    name_sizes: Ints
    creates: Ints
    mods: Ints
    versions: Ints
    leases: Ints
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

    def before(self, revision: int) -> int:
        """How many elements there are before a main revision; only where mains rise."""
        return int(np.searchsorted(self.mains, revision, "left"))

    def part(self, first: int, last: int) -> "Elements":
        """Give elements `first` to `last` - 1."""
        if first == 0 and last == len(self):
            return self
        columns: dict[str, Any] = {
            column.name: getattr(self, column.name)[first:last]
            for column in fields(self)
            if column.name != "odd"
        }
        odd = {index - first: value for index, value in self.odd.items() if first <= index < last}
        return replace(self, odd=odd, **columns)

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


def read_elements(snapshot: Snapshot, upto: bytes | None = None) -> Iterator[Elements]:
    """Read bucket `key`, run by run.

    Args:
        snapshot: the file.
        upto: leave out leaves that have no key up to this one; the last one may have later ones.

    Raises:
        DamagedError: the tree is damaged, a key is no revision, or a value is no KeyValue.
    """
    bucket = snapshot.bucket(b"key")
    if bucket is None:
        return
    reader = ElementReader(snapshot.bolt.image)
    for run in Sweep(bucket, upto=upto).runs():
        yield reader.read(run)


class Source(Protocol):
    """Where elements lie: a bolt file, or something else that has them as such a file has."""

    @property
    def data(self) -> mmap.mmap:
        """The mapped bytes."""
        ...

    def damaged(self, what: str) -> DamagedError:
        """Make the error that says what is wrong there."""
        ...


class ElementReader:
    """Reads runs of bucket `key`.

    Args:
        image: where they lie.
    """

    def __init__(self, image: Source) -> None:
        self._image = image
        data = image.data
        self._size = len(data)
        self._bytes = np.frombuffer(data, np.uint8)
        self._eights = np.ndarray((self._size - 7,), "V8", data, 0, (1,))
        self._fields = Fields(data)

    def read(self, run: Run) -> Elements:
        """Read all elements of a run.

        Raises:
            DamagedError: a key is no revision, or a value is no KeyValue.
        """
        starts, values, stops = (
            np.asarray(offsets, np.int64) for offsets in (run.keys, run.values, run.stops)
        )
        mains, subs, tombstones = self._revisions(starts, values - starts)
        parsed = read_values(self._fields, values, stops)
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
            parsed.leases[index] = value.lease
        return Elements(
            starts,
            values,
            stops,
            mains,
            subs,
            tombstones,
            parsed.names,
            parsed.name_sizes,
            parsed.creates,
            parsed.mods,
            parsed.versions,
            parsed.leases,
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

    def _tails(self, values: Values) -> Words:
        ends = np.where(values.plain, values.names + values.name_sizes, TAIL_SIZE)
        tails: Words = self._eights[ends - TAIL_SIZE].view("<u8").astype(np.uint64)
        tails &= TAIL_MASKS[np.minimum(values.name_sizes, TAIL_SIZE)]
        return tails
