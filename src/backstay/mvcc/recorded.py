"""Recorded changes put together from deltas: in order, without a hole, each once.

Deltas may overlap, where two recorders ran or one began again. What two of them share must be the
same, byte for byte: else they are of two lives of an etcd, or one was changed. All of it is looked
at here before anything is written, so that a file which is begun can be ended.
"""

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from backstay.bolt.packed import Packed
from backstay.errors import DamagedError, GapError
from backstay.mvcc.columns import Bools
from backstay.mvcc.content import faults_of_values
from backstay.mvcc.delta import Block, Delta, Mark, Position, Proof, run_of
from backstay.mvcc.elements import ElementReader, Elements
from backstay.mvcc.revision import parse_revision
from backstay.mvcc.snapshot import Snapshot

_DO = "don't use it: it was changed, or is of another life of that etcd"
#: So many changes are looked at together, unless a single block has more.
_AT_ONCE = 1 << 13


@dataclass(frozen=True, slots=True)
class _Source:
    """A delta, as `ElementReader` wants it."""

    data: mmap.mmap
    name: str

    def damaged(self, what: str) -> DamagedError:
        return DamagedError(f"{self.name} is damaged: {what}", _DO)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some changes of a delta that follow each other.

    Attributes:
        source: the delta that they are in.
        blocks: its blocks that have them.
        first: the first of them.
        last: the one after the last.
        begin: position of the first.
        end: position after the last.
    """

    source: _Source
    blocks: tuple[Block, ...]
    first: int
    last: int
    begin: Position
    end: Position

    def elements(self) -> Elements:
        return ElementReader(self.source).read(run_of(self.blocks)).part(self.first, self.last)

    def packed(self, view: memoryview) -> Iterator[Packed]:
        ends = accumulate(len(block.sizes) for block in self.blocks)
        for block, end in zip(self.blocks, ends, strict=True):
            count = len(block.sizes)
            first, last = (
                min(max(place - end + count, 0), count) for place in (self.first, self.last)
            )
            keys, values = block.key_sizes, block.value_sizes
            before = int(keys[:first].sum() + values[:first].sum())
            if first < last:
                yield Packed(view, block.start + before, keys[first:last], values[first:last])


class Recorded:
    """The changes after a snapshot, up to a revision.

    Args:
        snapshot: what they come after.
        data: the mapped bytes in which the deltas lie.
        deltas: of the snapshot's lineage, in the order of where they begin; taken once.
        revision: the last that is wanted.

    Attributes:
        revision: the last that is wanted.
        changes: how many there are.
        size: bytes of their keys and values.
        lease_ids: of all leases that these changes name.

    Raises:
        GapError: revisions are missing between the two.
        DamagedError: a delta holds what etcd can't have written, or two differ.
    """

    def __init__(
        self, snapshot: Snapshot, data: mmap.mmap, deltas: Iterable[Delta], revision: int
    ) -> None:
        self._data = data
        self._deltas: list[Delta] = []
        self._bucket = snapshot.bucket(b"key")
        self._name = snapshot.name
        self._begin = self._end = Position(snapshot.revision + 1)
        self._wanted = Position(revision + 1)
        self._parts: list[_Part] = []
        self.revision = revision
        self.changes = self.size = 0
        self.lease_ids: set[int] = set()
        for delta in deltas:
            if self._deltas:
                _check_chain(self._deltas[-1], delta)
            self._take(delta)
            self._deltas.append(delta)
        if self._end < self._wanted:
            raise self._gap(self._wanted)

    @property
    def times(self) -> tuple[Mark, ...]:
        """All times that the deltas noted, also of revisions that are not wanted."""
        return tuple(mark for delta in self._deltas for mark in delta.times)

    @property
    def leases(self) -> dict[int, int]:
        """Granted TTLs in seconds, by the ids of the leases."""
        return {number: ttl for delta in self._deltas for number, ttl in delta.leases}

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """What members answered to HashKV."""
        return tuple(proof for delta in self._deltas for proof in delta.proofs)

    def elements(self) -> Iterator[tuple[mmap.mmap, Elements]]:
        """Read the changes, run by run; each with the bytes in which it lies."""
        for part in self._parts:
            yield self._data, part.elements()

    def packed(self) -> Iterator[Packed]:
        """Give the changes as they go into bucket `key`."""
        view = memoryview(self._data)
        for part in self._parts:
            yield from part.packed(view)

    def _gap(self, to: Position) -> GapError:
        return GapError(
            f"revisions {self._end.main} to {max(to.main - 1, self._end.main)} are missing: they"
            " were not recorded",
            "ask for another revision",
        )

    def _take(self, delta: Delta) -> None:
        """Look at all changes of a delta, and note those that count."""
        if self._end == self._wanted and delta.begin >= self._wanted:
            return
        if delta.begin > self._end:
            raise self._gap(delta.begin)
        source = _Source(self._data, delta.name)
        reader = ElementReader(source)
        at = delta.begin
        for blocks in _together(delta.blocks):
            elements = reader.read(run_of(blocks))
            end = _check(source, elements, at)
            first = _place(elements, self._end)
            last = max(first, _place(elements, self._wanted))
            self._compare(source, elements, first)
            if first < last:
                begin, stop = _position(elements, first), _after(elements, last)
                self._parts.append(_Part(source, blocks, first, last, begin, stop))
                self.changes += last - first
                self.size += int(elements.stops[last - 1] - elements.starts[first])
                self.lease_ids.update(np.unique(elements.leases[first:last]).tolist())
            at = end
        self.lease_ids.discard(0)
        if delta.end not in _ends(at):
            raise source.damaged(f"its changes end before {at}, and it says {delta.end}")
        self._end = max(self._end, min(delta.end, self._wanted))

    def _compare(self, source: _Source, elements: Elements, last: int) -> None:
        """Hold changes that have come before to what came then: those before place `last`."""
        if not last:
            return
        self._compare_with_snapshot(source, elements, last)
        end = _after(elements, last)
        for part in reversed(self._parts):
            if part.end <= _position(elements, 0):
                break
            begin, stop = max(part.begin, _position(elements, 0)), min(part.end, end)
            if begin < stop:
                _same(source, elements, part, begin, stop)

    def _compare_with_snapshot(self, source: _Source, elements: Elements, last: int) -> None:
        """Hold changes of the snapshot's last revision to what it has there."""
        head = self._begin.main - 1
        first, stop = elements.before(head), min(elements.until(head), last)
        if self._bucket is None:
            return
        for index in range(first, stop):
            key, value = _content(self._data, elements, index)
            there = self._bucket.get(key)
            if there is not None and there != value:
                raise DamagedError(f"{source.name} and {self._name} differ at revision {head}", _DO)


def _together(blocks: Iterable[Block]) -> Iterator[tuple[Block, ...]]:
    """Put small blocks together: to look at few changes costs as much as to look at many."""
    some: list[Block] = []
    count = 0
    for block in blocks:
        if some and count + len(block.sizes) > _AT_ONCE:
            yield tuple(some)
            some, count = [], 0
        some.append(block)
        count += len(block.sizes)
    if some:
        yield tuple(some)


def _check_chain(before: Delta, then: Delta) -> None:
    """Find where a delta was replaced: each names the one that its writer wrote before it."""
    one, other = before.header, then.header
    follows = (other.writer, other.number) == (one.writer, one.number + 1)
    if follows and other.previous != before.digest:
        raise DamagedError(f"{then.name} was not written after {before.name}", _DO)


def _check(source: _Source, elements: Elements, at: Position) -> Position:
    """Prove that the changes of a block are such as etcd writes, and that none is missing.

    Args:
        source: where they are.
        elements: the changes.
        at: the position after the change before them.

    Returns:
        The position after the last.
    """
    mains = np.concatenate([[at.main], elements.mains])
    subs = np.concatenate([[at.sub - 1], elements.subs])
    steps = np.diff(mains)
    same = (steps == 0) & (np.diff(subs) == 1)
    following = (steps == 1) & (subs[1:] == 0)
    following[0] &= at.sub > 0
    _fail(source, elements, ~(same | following), "changes are missing before it")
    _fail(source, elements, elements.bumps & ~elements.tombstones, "it has no value")
    for wrong, what in faults_of_values(elements):
        _fail(source, elements, wrong, what)
    return _after(elements, len(elements))


def _fail(source: _Source, elements: Elements, wrong: Bools, what: str) -> None:
    found = np.flatnonzero(wrong)
    if len(found):
        raise source.damaged(f"{_position(elements, int(found[0]))}: {what}")


def _position(elements: Elements, index: int) -> Position:
    return Position(int(elements.mains[index]), int(elements.subs[index]))


def _after(elements: Elements, index: int) -> Position:
    """The position after the change before place `index`."""
    main, sub = _position(elements, index - 1)
    return Position(main, sub + 1)


def _ends(at: Position) -> set[Position]:
    """Where a delta may end whose last change is before a position."""
    return {at, Position(at.main + 1)} if at.sub else {at}


def _place(elements: Elements, position: Position) -> int:
    """How many changes there are before a position."""
    first, last = elements.before(position.main), elements.until(position.main)
    return first + int(np.searchsorted(elements.subs[first:last], position.sub))


def _content(data: mmap.mmap, elements: Elements, index: int) -> tuple[bytes, bytes]:
    start, value, stop = (
        int(column[index]) for column in (elements.starts, elements.values, elements.stops)
    )
    return data[start:value], data[value:stop]


def _same(source: _Source, elements: Elements, part: _Part, begin: Position, end: Position) -> None:
    """Hold the changes between two positions to those of a part that came before."""
    theirs = part.elements()
    mine = range(_place(elements, begin), _place(elements, end))
    others = range(_place(theirs, begin), _place(theirs, end))
    for one, other in zip(mine, others, strict=True):
        content = _content(source.data, elements, one)
        if content != _content(source.data, theirs, other):
            revision = parse_revision(content[0])
            main = revision.main if revision else begin.main
            raise DamagedError(
                f"{source.name} and {part.source.name} differ at revision {main}", _DO
            )
