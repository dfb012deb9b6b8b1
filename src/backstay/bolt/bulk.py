"""Leaves proven many at a time, with a few operations on long lists and long integers.

A file of a gigabyte has hundreds of thousands of leaves and millions of elements: a loop over
elements in Python takes longer than a disk. bolt writes keys and values of a leaf one after the
other, so that a leaf is one range of bytes for whoever sums it, once it is proven that the header
of each element says just that. Here this is proven for a batch of leaves.

The proof only ever accepts. Where it does not (None), `bolt.image` looks at each element and
accepts the leaf too, or says exactly what is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, islice
from operator import add, le, lt

from backstay.bolt.image import ELEMENT_SIZE, FIRST_PAGE, HEADER_SIZE, Image
from backstay.bolt.page import LEAF_PAGE

#: A batch of leaves has so many elements at most.
MAX_ELEMENTS = 1 << 14

_LANE_BITS = 8 * ELEMENT_SIZE
#: What must be 0 in each lane, see `_contiguous`.
_FORBIDDEN = 0xC0000000_C0000000_C0000000_FFFFFFFF
_LOW = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Leaves:
    """Leaves that follow each other in key order, with proven element headers.

    Attributes:
        tables: for each leaf, its element headers.
        starts: for each leaf, the offset of its first key.
        ends: for each leaf, the offset after its last value.
        counts: for each leaf, the number of its elements.
        spans: for each leaf, the number of its pages.
    """

    tables: list[bytes]
    starts: list[int]
    ends: list[int]
    counts: list[int]
    spans: list[int]


def prove(
    image: Image, numbers: Sequence[int], lows: Sequence[bytes], high: bytes | None
) -> Leaves | None:
    """Prove pages to be leaves that can be read as ranges of bytes.

    Args:
        image: the file.
        numbers: ids of the pages, as a branch gives them.
        lows: for each page, the least key that may lie there, as that branch gives it.
        high: the least key that may not lie in the last page.

    Returns:
        The leaves: of the pages at the beginning, as many as make a batch. None where one of
        those is no leaf, is empty, or has anything unusual about it.
    """
    heads = _heads(image, numbers)
    if heads is None:
        return None
    counts, spans = heads
    size = image.page_size
    begins = [number * size + HEADER_SIZE for number in numbers[: len(counts)]]
    starts = [begin + ELEMENT_SIZE * count for begin, count in zip(begins, counts, strict=True)]
    limits = [(number + span) * size for number, span in zip(numbers, spans, strict=False)]
    if max(limits) > image.high_water * size or not all(map(le, starts, limits)):
        return None
    data = image.data
    tables = [data[begin:start] for begin, start in zip(begins, starts, strict=True)]
    if not _contiguous(tables, counts):
        return None
    edges = _Edges.of(image, tables, starts)
    if not all(map(le, edges.ends, limits)):
        return None
    highs = [*lows[1 : len(counts)], lows[len(counts)] if len(counts) < len(lows) else high]
    if not edges.within(lows, highs):
        return None
    return Leaves(tables, starts, edges.ends, counts, spans)


def _heads(image: Image, numbers: Sequence[int]) -> tuple[list[int], list[int]] | None:
    """Read page headers: number of elements and of pages, for as many as make a batch."""
    if min(numbers) < FIRST_PAGE or max(numbers) >= image.high_water:
        return None
    data, size = image.data, image.page_size
    starts = [number * size for number in numbers]
    heads = b"".join([data[start : start + HEADER_SIZE] for start in starts])
    with memoryview(heads) as view:
        ids = view.cast("Q")[::2].tolist()
        kinds = view.cast("H")[4::8].tolist()
        counts = view.cast("H")[5::8].tolist()
        overflows = view.cast("I")[3::4].tolist()
    if ids != list(numbers) or kinds.count(LEAF_PAGE) != len(kinds) or 0 in counts:
        return None
    if sum(counts) > MAX_ELEMENTS:
        fit = sum(1 for total in accumulate(counts) if total <= MAX_ELEMENTS)
        counts, overflows = counts[:fit], overflows[:fit]
    return (counts, [overflow + 1 for overflow in overflows]) if counts else None


@cache
def _lanes(pattern: int) -> int:
    return int.from_bytes(pattern.to_bytes(ELEMENT_SIZE, "little") * MAX_ELEMENTS, "little")


@cache
def _inner(count: int) -> bytes:
    """A mask for the table of one leaf: the low 32 bits of all lanes but the last."""
    return _LOW.to_bytes(ELEMENT_SIZE, "little") * (count - 1) + bytes(ELEMENT_SIZE)


def _contiguous(tables: list[bytes], counts: list[int]) -> bool:
    """Whether the data of each element begin where those of the one before it end.

    Taken as one little-endian number, the tables have a lane of 128 bits for each element: flags,
    pos, ksize, vsize from the lowest bits up. Flags must be 0, and the others below 2**30: then
    no sum of three of them leaves its 32 bits, and adding whole tables adds each lane for itself.
    An element ends pos + ksize + vsize bytes after its header, and the next header lies 16 bytes
    on. The last lane of each leaf is masked out, as it has no next.
    """
    lanes = int.from_bytes(b"".join(tables), "little")
    if lanes & _lanes(_FORBIDDEN):
        return False
    inner = int.from_bytes(b"".join(map(_inner, counts)), "little")
    lanes >>= 32
    ends = (lanes + (lanes >> 32) + (lanes >> 64)) & inner
    following = (lanes >> _LANE_BITS) & inner
    return ends == following + (inner & _lanes(ELEMENT_SIZE))


@dataclass(frozen=True, slots=True)
class _Edges:
    """First and last keys of leaves, and where the data of each ends; empty where unproven."""

    firsts: list[bytes]
    lasts: list[bytes]
    ends: list[int]

    @classmethod
    def of(cls, image: Image, tables: list[bytes], starts: list[int]) -> "_Edges":
        data = image.data
        with memoryview(b"".join([table[:ELEMENT_SIZE] for table in tables])).cast("I") as first:
            positions = first[1::4].tolist()
            first_sizes = first[2::4].tolist()
        if positions != [len(table) for table in tables]:
            return cls([], [], [image.high_water * image.page_size + 1])
        with memoryview(b"".join([table[-ELEMENT_SIZE:] for table in tables])).cast("I") as last:
            offsets = last[1::4].tolist()
            key_sizes = last[2::4].tolist()
            value_sizes = last[3::4].tolist()
        # The last header lies one element before the first key.
        keys = [start + at - ELEMENT_SIZE for start, at in zip(starts, offsets, strict=True)]
        values = list(map(add, keys, key_sizes))
        return cls(
            [data[a : a + size] for a, size in zip(starts, first_sizes, strict=True)],
            [data[a:b] for a, b in zip(keys, values, strict=True)],
            list(map(add, values, value_sizes)),
        )

    def within(self, lows: Sequence[bytes], highs: Sequence[bytes | None]) -> bool:
        """Whether the keys of each leaf lie within what the branch says."""
        return all(map(le, lows, self.firsts)) and all(
            high is None or last < high for last, high in zip(self.lasts, highs, strict=True)
        )


def rising(image: Image, leaves: Leaves) -> bool:
    """Whether keys rise, in the leaves and from leaf to leaf."""
    with memoryview(b"".join(leaves.tables)).cast("I") as words:
        sizes = words.tolist()
    del sizes[::4]
    del sizes[::3]
    # Now these are key size, value size, key size, ...; the space between the data of two leaves
    # is added to the last value, so that the sums are offsets in the file.
    at = 0
    for count, end, start in zip(leaves.counts, leaves.ends, leaves.starts[1:], strict=False):
        at += 2 * count
        sizes[at - 1] += start - end
    bounds = list(accumulate(sizes, initial=leaves.starts[0]))
    data = image.data
    keys = [data[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=False)]
    return all(map(lt, keys, islice(keys, 1, None)))
