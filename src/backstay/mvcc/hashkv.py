"""HashKV from a file alone: what a server that holds it would answer.

Source: etcd, server/mvcc/hash.go and key_index.go (`Keep`). CRC-32C over the name `key`, then over
key and value of each element up to the revision. Elements up to the compact revision count only
where a compaction at the revision would keep them: the last of its key, and no tombstone. Where
it would keep none at all, etcd leaves nothing out; but a tombstone at the compact revision itself
never counts.

Only what changed since the last compaction is looked at key by key; a finished compaction has left
one element of each key. What counts is summed in ranges that are as long as possible.
"""

import mmap
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backstay.mvcc.checksum import extend, extend_ranges
from backstay.mvcc.columns import Bools
from backstay.mvcc.elements import Elements, read_elements
from backstay.mvcc.keyset import KeyTable, fingerprint
from backstay.mvcc.revision import last_key
from backstay.mvcc.snapshot import NEVER_COMPACTED, Snapshot
from backstay.mvcc.window import compaction_in_window, revision_in_window


@dataclass(frozen=True, slots=True)
class HashKV:
    """A hash of the key space, as etcd answers it.

    Attributes:
        hash: CRC-32C.
        revision: up to which revision.
        compact_revision: as compacted at which revision; -1: never.
    """

    hash: int
    revision: int
    compact_revision: int


def compute_hashkv(
    snapshot: Snapshot,
    *,
    revision: int | None = None,
    compact_revision: int | None = None,
    since: int | None = None,
) -> HashKV:
    """Compute what the HashKV call would answer.

    Memory: about 150 bytes for each key changed since the last finished compaction.

    Args:
        snapshot: the file.
        revision: default: the file's head.
        compact_revision: as if compacted there; default: where the file is compacted. -1 stands
            for a history that was never compacted.
        since: where the file's history really begins, where a bump has marked all as compacted.

    Raises:
        UsageError: the file does not have that revision, or is compacted later.
        DamagedError: the file is damaged.
    """
    at = revision_in_window(snapshot, revision, since)
    compacted = compaction_in_window(snapshot, compact_revision, at, since)
    if compacted == NEVER_COMPACTED:
        return HashKV(_sum_all(snapshot, at), at, compacted)
    crc, kept_any = _sum_kept(snapshot, _Kept(snapshot, compacted, at), at)
    if not kept_any:
        # etcd takes an empty set as "no compaction": all that one at `compacted` left counts.
        crc, _ = _sum_kept(snapshot, _Kept(snapshot, compacted, compacted), at)
    return HashKV(crc, at, compacted)


def _sum_all(snapshot: Snapshot, revision: int) -> int:
    crc: int = extend(0, b"key")
    with memoryview(snapshot.bolt.image.data) as view:
        for elements in read_elements(snapshot, last_key(revision)):
            counts = elements.mains <= revision
            crc = extend_ranges(crc, view, *_ranges(elements, counts))
    return crc


def _ranges(elements: Elements, counts: Bools) -> tuple[list[int], list[int]]:
    """Give the longest ranges of bytes that have just the elements that count."""
    starts, stops = elements.starts, elements.stops
    joined = np.zeros(len(elements) + 1, np.bool_)
    joined[1:-1] = counts[:-1] & counts[1:] & (stops[:-1] == starts[1:])
    return starts[counts & ~joined[:-1]].tolist(), stops[counts & ~joined[1:]].tolist()


class _Kept:
    """What a compaction at a revision keeps of the elements up to the compact revision.

    Args:
        snapshot: the file.
        compacted: the compact revision.
        revision: where a compaction is thought; not below `compacted`.
    """

    def __init__(self, snapshot: Snapshot, compacted: int, revision: int) -> None:
        self.compacted = compacted
        self._data = snapshot.bolt.image.data
        #: Up to here each key has one element.
        self._settled = snapshot.finished_compaction
        #: Keys that were changed between the two.
        self._changed: set[bytes] = set()
        self._table = KeyTable()
        #: For each element after `_settled` and up to `compacted`: whether it is kept.
        self._flags = bytearray()
        #: Whether an element after `compacted` is the last of its key, and no tombstone.
        self.kept_later = False
        self._look_back(*self._collect(snapshot, revision))

    def _collect(self, snapshot: Snapshot, revision: int) -> "tuple[_Columns, int]":
        """Note where the keys lie that were changed, and how many of them up to `compacted`."""
        columns = _Columns()
        early = 0
        for elements in read_elements(snapshot, last_key(revision)):
            first, last = elements.until(self._settled), elements.until(revision)
            early += max(elements.until(self.compacted) - first, 0)
            columns.add(elements, first, last)
            self._table.add(elements.tails[first:last])
        return columns, early

    def _look_back(self, columns: "_Columns", early: int) -> None:
        """Go from the last change to the first: the first that is met of a key is its last."""
        flags = bytearray(early)
        changed = self._changed
        for index, key, tombstone in columns.backwards(self._data):
            if key in changed:
                continue
            changed.add(key)
            if index < early:
                flags[index] = not tombstone
            elif not tombstone:
                self.kept_later = True
        self._flags = flags

    def mask(self, elements: Elements, done: int) -> tuple[Bools, int]:
        """Tell which elements of a run are kept.

        Args:
            elements: the run.
            done: how many flags were used up by runs before it.

        Returns:
            For each element up to the compact revision, whether it is kept; and `done` for the
            next run.
        """
        settled, last = elements.until(self._settled), elements.until(self.compacted)
        kept = ~elements.tombstones[:last]
        for index in np.flatnonzero(self._table.may_have(elements.tails[:settled])).tolist():
            if fingerprint(elements.key(self._data, index)) in self._changed:
                kept[index] = False
        flags = self._flags[done : done + last - settled]
        kept[settled:] = np.frombuffer(bytes(flags), np.bool_)
        return kept, done + last - settled


def live_size(snapshot: Snapshot, limit: int) -> int | None:
    """Count the bytes of all elements that are there at the head: what a compaction there keeps.

    Time and memory grow with the number of changes since the last finished compaction.

    Args:
        snapshot: the file.
        limit: changes since then that are looked at, at most.

    Returns:
        None where there are more.

    Raises:
        DamagedError: the file is damaged.
    """
    settled = snapshot.finished_compaction
    if sum(len(one) - one.until(settled) for one in read_elements(snapshot)) > limit:
        return None
    head = snapshot.revision
    kept, size, done = _Kept(snapshot, head, head), 0, 0
    for elements in read_elements(snapshot):
        mask, done = kept.mask(elements, done)
        size += int((elements.stops - elements.starts)[mask & ~elements.bumps].sum())
    return size


class _Columns:
    """Where the changed keys lie, 13 bytes a change."""

    def __init__(self) -> None:
        self._starts = array("Q")
        self._sizes = array("I")
        self._tombstones = bytearray()
        self._odd: dict[int, bytes] = {}

    def add(self, elements: Elements, first: int, last: int) -> None:
        """Note elements `first` to `last` - 1."""
        if first >= last:
            return
        base = len(self._starts) - first
        self._odd |= {
            base + index: value.key
            for index, value in elements.odd.items()
            if first <= index < last
        }
        self._starts.frombytes(elements.names[first:last].astype(np.uint64).tobytes())
        self._sizes.frombytes(elements.name_sizes[first:last].astype(np.uint32).tobytes())
        self._tombstones += elements.tombstones[first:last].tobytes()

    def backwards(self, data: mmap.mmap) -> Iterator[tuple[int, bytes, bool]]:
        """Give the last change first: its place, its key's fingerprint, whether it is a delete."""
        for index in range(len(self._starts) - 1, -1, -1):
            start = self._starts[index]
            key = self._odd.get(index) if self._odd else None
            if key is None:
                key = data[start : start + self._sizes[index]]
            yield index, fingerprint(key), bool(self._tombstones[index])


def _sum_kept(snapshot: Snapshot, kept: _Kept, revision: int) -> tuple[int, bool]:
    """Sum what counts up to a revision; also tell whether the compaction keeps anything."""
    crc: int = extend(0, b"key")
    kept_any = kept.kept_later
    done = 0
    with memoryview(snapshot.bolt.image.data) as view:
        for elements in read_elements(snapshot, last_key(revision)):
            mask, done = kept.mask(elements, done)
            counts = np.zeros(len(elements), np.bool_)
            counts[: len(mask)] = mask
            counts[len(mask) : elements.until(revision)] = True
            kept_any = kept_any or bool(mask.any())
            crc = extend_ranges(crc, view, *_ranges(elements, counts))
    return crc, kept_any
