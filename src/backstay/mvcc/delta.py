"""A delta in the clear: all changes of a range of one etcd's history, in order.

    magic      8 bytes, `bckstdlt`
    blocks     each a header {kind 4 bytes, count u32, size u32, checksum u32}, little-endian,
               then `size` bytes; the checksum is CRC-32C over the header before it and the bytes

    kind    what it holds
    HEAD    the header, a JSON document; first, and once
    CHNG    `count` changes: their sizes (u32 each), then their keys and values one after the other,
            as the leaf of a bolt file has them. A size is that of the value; its highest bit says
            that the key has 18 bytes and not 17 (a delete)
    TIME    `count` times {revision i64, milliseconds since 1970 i64}: by then everything up to the
            revision had come, and nothing after it
    LEAS    `count` leases {id i64, granted TTL in seconds i64}
    PROF    `count` proofs {revision i64, compact revision i64, hash u32}, as HashKV answered
    DONE    SHA-256 of all before this block; last, and once. In hex it is the delta's digest

A key and its value stand as they stand in bucket `key`: nothing is translated, so what is put
together from deltas is what etcd would have stored. A block of changes with more than one is
small (`MAX_BLOCK`), so a reader's memory is bounded by the largest value.

What a delta covers is a half-open range of positions: each change has one, (revision, place in
its transaction). So a transaction that is too large for one delta goes on in the next, and a delta
without a change can still say until when nothing happened. Source: docs/formats.md.
"""

import hashlib
import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Annotated, NamedTuple, NoReturn

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from backstay.bolt.sweep import Run
from backstay.errors import DamagedError, FormatError
from backstay.mvcc.checksum import extend, extend_ranges
from backstay.mvcc.revision import ELEMENT_SIZE

FORMAT = 1
MAGIC = b"bckstdlt"
#: Bytes of a block at most, unless it has a single change.
MAX_BLOCK = 4 << 20
#: A delta spans at most so many revisions: so it is found by where it begins.
MAX_REVISIONS = 1 << 16
#: Of each kind of mark a delta has at most so many.
MAX_MARKS = 1 << 17

BLOCK = Struct("<4sIII")
#: What the checksum of a block covers of its header.
CHECKED = Struct("<4sII")
HEAD, CHANGES, TIMES, LEASES, PROOFS, DONE = b"HEAD", b"CHNG", b"TIME", b"LEAS", b"PROF", b"DONE"
PAIR = Struct("<qq")
PROOF = Struct("<qqI")
_MARKS = {TIMES: PAIR, LEASES: PAIR, PROOFS: PROOF}
_MAX_HEAD = 64 << 10
_LENGTH_BITS = (1 << 31) - 1
_DIGEST_SIZE = 32
_LAST_REVISION = (1 << 63) - 2
_LINEAGE = re.compile(r"[0-9a-f]{16}")
_DIGEST = re.compile(r"([0-9a-f]{64})?")

Number = Annotated[int, Meta(ge=0, le=_LAST_REVISION)]
Text = Annotated[str, Meta(max_length=256)]


class Position(NamedTuple):
    """A place between two changes: just before the one that it names.

    Attributes:
        main: the revision.
        sub: the place in the transaction; 0 is before all of it.
    """

    main: int
    sub: int = 0

    def __str__(self) -> str:
        return f"revision {self.main}" + (f", change {self.sub}" if self.sub else "")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a delta is.

    Attributes:
        format: of the delta.
        requires: words that a reader must know to read it; none so far.
        cluster: whose it is.
        lineage: which life of its etcd: 16 hex digits.
        begin: the position of the first change that it may have.
        end: the position after the last; everything between the two is here.
        changes: how many there are.
        writer: random, of the run of the program that wrote it.
        number: how many deltas that run wrote before, in this lineage.
        previous: digest of the one before, by the same run; empty for the first.
        backstay_version: who wrote it.
    """

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    cluster: Text
    lineage: Text
    begin: tuple[Number, Number]
    end: tuple[Number, Number]
    changes: Number
    writer: Text
    number: Number
    previous: Text
    backstay_version: Text


class Mark(NamedTuple):
    """A time: everything up to a revision had come, and nothing after it.

    Attributes:
        revision: the revision.
        at: milliseconds since 1970, by the clock of whoever recorded.
    """

    revision: int
    at: int


class Proof(NamedTuple):
    """What a member answered to HashKV.

    Attributes:
        revision: up to which revision.
        compact_revision: as compacted at which; -1: never.
        hash: CRC-32C.
    """

    revision: int
    compact_revision: int
    hash: int


@dataclass(frozen=True, slots=True)
class Block:
    """Some changes, as they lie in the mapped bytes.

    Attributes:
        sizes: for each change, the size of its value; the highest bit: its key has 18 bytes.
        start: offset of the first key.
        end: offset after the last value.
    """

    sizes: NDArray[np.uint32]
    start: int
    end: int

    @property
    def key_sizes(self) -> NDArray[np.int64]:
        """Bytes of each key."""
        sizes: NDArray[np.int64] = ELEMENT_SIZE + (self.sizes >> np.uint32(31)).astype(np.int64)
        return sizes

    @property
    def value_sizes(self) -> NDArray[np.int64]:
        """Bytes of each value."""
        return (self.sizes & np.uint32(_LENGTH_BITS)).astype(np.int64)


def run_of(blocks: Sequence[Block]) -> Run:
    """Give the changes of some blocks as the leaves of a bolt file are given.

    Args:
        blocks: at least one; they follow each other.
    """
    sizes = np.concatenate([block.sizes for block in blocks])
    whole = Block(sizes, 0, 0)
    key_sizes, value_sizes = whole.key_sizes, whole.value_sizes
    stops = np.cumsum(key_sizes + value_sizes)
    counts = [len(block.sizes) for block in blocks]
    taken = [block.end - block.start for block in blocks]
    before = np.cumsum([0, *taken[:-1]])
    stops += np.repeat(np.array([block.start for block in blocks]) - before, counts)
    values = stops - value_sizes
    return Run(
        [block.start for block in blocks],
        [block.end for block in blocks],
        values - key_sizes,
        values,
        stops,
        0,
    )


@dataclass(frozen=True, slots=True)
class Delta:
    """A delta that was read: its bytes are whole; what its changes mean was not looked at.

    Attributes:
        name: what messages call it.
        header: what it is.
        digest: SHA-256, hex.
        blocks: its changes, in order.
        times: in the order in which they were written.
        leases: id and granted TTL in seconds.
        proofs: what members answered.
    """

    name: str
    header: Header
    digest: str
    blocks: tuple[Block, ...]
    times: tuple[Mark, ...]
    leases: tuple[tuple[int, int], ...]
    proofs: tuple[Proof, ...]

    @property
    def begin(self) -> Position:
        """Where it begins."""
        return Position(*self.header.begin)

    @property
    def end(self) -> Position:
        """Where it ends."""
        return Position(*self.header.end)


def read_delta(data: mmap.mmap, start: int, size: int, name: str) -> Delta:
    """Read a delta, and prove that its bytes are those that were written.

    Memory: the marks, and 4 bytes for each change where its block is a view of `data`.

    Args:
        data: mapped bytes; they stay in use for as long as the delta.
        start: where it begins in them.
        size: its bytes.
        name: what messages call it.

    Raises:
        DamagedError: it is no delta, cut, changed, or contradicts itself.
        FormatError: it is of a later version.
    """
    return _Reader(data, start, size, name).read()


class _Reader:
    """Reads one delta; believes no number in it."""

    def __init__(self, data: mmap.mmap, start: int, size: int, name: str) -> None:
        self._data = data
        self._view = memoryview(data)
        self._start = start
        self._end = min(start + size, len(data))
        self._name = name
        self._marks: dict[bytes, list[tuple[int, ...]]] = {kind: [] for kind in _MARKS}
        self._blocks: list[Block] = []

    def read(self) -> Delta:
        at = self._start + len(MAGIC)
        if self._data[self._start : at] != MAGIC:
            self._fail("it does not begin as one")
        header: Header | None = None
        while True:
            kind, count, body, end = self._block(at)
            if (header is None) != (kind == HEAD):
                self._fail("its header is not where it should be")
            if kind == HEAD:
                header = self._header(self._data[body:end])
            elif kind == CHANGES:
                self._blocks.append(self._changes(count, body, end))
            elif kind in _MARKS:
                self._take_marks(kind, count, body, end)
            elif kind == DONE:
                break
            else:
                self._fail(f"it has a block of kind {kind!r}")
            at = end
        digest = self._digest(at, body, end)
        assert header is not None
        found = Delta(
            self._name,
            header,
            digest,
            tuple(self._blocks),
            tuple(Mark(*mark) for mark in self._marks[TIMES]),
            tuple((mark[0], mark[1]) for mark in self._marks[LEASES]),
            tuple(Proof(*mark) for mark in self._marks[PROOFS]),
        )
        self._check(found)
        return found

    def _fail(self, what: str) -> NoReturn:
        raise DamagedError(f"{self._name} is no whole delta: {what}", "it can't be used")

    def _block(self, at: int) -> tuple[bytes, int, int, int]:
        """Read the header of a block: kind, count, and where its bytes begin and end."""
        body = at + BLOCK.size
        if body > self._end:
            self._fail("it is cut short")
        kind, count, size, checksum = BLOCK.unpack_from(self._data, at)
        end = body + size
        if end > self._end:
            self._fail("it is cut short")
        if size > MAX_BLOCK and (kind, count) != (CHANGES, 1):
            self._fail(f"it has a block of {size} bytes")
        crc = extend(0, self._data[at : at + CHECKED.size])
        if extend_ranges(crc, self._view, [body], [end]) != checksum:
            self._fail("a block does not match its checksum")
        return kind, count, body, end

    def _header(self, data: bytes) -> Header:
        if len(data) > _MAX_HEAD:
            self._fail("its header is too large")
        try:
            version = msgspec.json.decode(data, type=_Version)
            if version.format > FORMAT or version.requires:
                words = ", ".join(str(word)[:40] for word in version.requires[:5])
                raise FormatError(
                    f"{self._name} has format {version.format}"
                    + (f" and requires {words}" if words else ""),
                    "update backstay to read it",
                )
            return msgspec.json.decode(data, type=Header)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._fail(f"its header makes no sense: {str(error)[:200]}")

    def _changes(self, count: int, body: int, end: int) -> Block:
        start = body + 4 * count
        if not count or start > end:
            self._fail("a block has fewer changes than it says")
        sizes: NDArray[np.uint32] = np.frombuffer(self._data, "<u4", count, body)
        block = Block(sizes, start, end)
        if int((block.key_sizes + block.value_sizes).sum()) != end - start:
            self._fail("a block has other sizes than it says")
        return block

    def _take_marks(self, kind: bytes, count: int, body: int, end: int) -> None:
        form, marks = _MARKS[kind], self._marks[kind]
        if end - body != count * form.size or len(marks) + count > MAX_MARKS:
            self._fail("a block of marks has not the size that it says")
        marks += form.iter_unpack(self._data[body:end])

    def _digest(self, at: int, body: int, end: int) -> str:
        digest = hashlib.sha256(self._view[self._start : at])
        if self._data[body:end] != digest.digest() or end - body != _DIGEST_SIZE:
            self._fail("its bytes do not match its digest")
        if end != self._end:
            self._fail("it goes on after its end")
        return digest.hexdigest()

    def _check(self, delta: Delta) -> None:
        """Hold what it says of itself to what it has."""
        header, begin, end = delta.header, delta.begin, delta.end
        if not _LINEAGE.fullmatch(header.lineage) or not _DIGEST.fullmatch(header.previous):
            self._fail("its lineage or its predecessor is none")
        if begin > end or begin.main < 1 or end.main - begin.main > MAX_REVISIONS:
            self._fail(f"it claims to go from {begin} to {end}")
        if header.changes != sum(len(block.sizes) for block in delta.blocks):
            self._fail(f"its {header.changes} changes are not all there")
        if not delta.times or any(
            mark.revision >= end.main or mark.revision < begin.main - 1 or mark.at < 0
            for mark in delta.times
        ):
            self._fail("it has no time, or one that is not of its range")


class _Version(msgspec.Struct):
    """What tells whether the rest can be read."""

    format: int = 0
    requires: tuple[object, ...] = ()
