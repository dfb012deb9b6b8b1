"""Elements that lie one after the other as in a leaf, and leaves made of them by the hundred.

Where millions of small elements are written, a loop over them in Python takes far longer than
writing the bytes. Here leaves are cut with one search each, their headers are filled in with a few
dozen operations on arrays, and keys and values are copied a leaf at a time. The same pages come
out as from `bolt.tree`, which this is a part of.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from backstay.bolt.page import LEAF_ELEMENT, LEAF_PAGE, PAGE_HEADER

Ints = NDArray[np.int64]

#: Leaves are made in images of about so many bytes.
_IMAGE = 1 << 20


@dataclass(frozen=True, slots=True)
class Packed:
    """Elements in the order of their keys: `k0 v0 k1 v1 ...`. That their keys rise is proven.

    Attributes:
        data: where they lie.
        start: offset of the first key.
        key_sizes: bytes of each key.
        value_sizes: bytes of each value.
    """

    data: memoryview
    start: int
    key_sizes: Ints
    value_sizes: Ints

    def __len__(self) -> int:
        return len(self.key_sizes)

    def bounds(self) -> Ints:
        """For each element, how many bytes are before it; and at last, how many there are."""
        sizes = np.zeros(len(self) + 1, np.int64)
        np.cumsum(self.key_sizes + self.value_sizes, out=sizes[1:])
        return sizes

    def elements(self, first: int, last: int) -> Iterator[tuple[bytes, memoryview]]:
        """Give elements `first` to `last` - 1 one by one."""
        at = self.start + int(self.key_sizes[:first].sum() + self.value_sizes[:first].sum())
        for key_size, value_size in zip(
            self.key_sizes[first:last].tolist(), self.value_sizes[first:last].tolist(), strict=True
        ):
            value, end = at + key_size, at + key_size + value_size
            yield bytes(self.data[at:value]), self.data[value:end]
            at = end


class Cutter:
    """Cuts elements into leaves.

    Args:
        packed: the elements.
        page_size: in bytes.
    """

    def __init__(self, packed: Packed, page_size: int) -> None:
        self._packed = packed
        self._page_size = page_size
        bounds = packed.bounds()
        self._offsets = bounds
        self._bounds: list[int] = bounds.tolist()
        # Bytes that the elements take in leaves, their headers included.
        self._taken: Ints = bounds + LEAF_ELEMENT.size * np.arange(len(bounds))

    def fitting(self, room: int) -> int:
        """How many elements from the first on fit into that many bytes."""
        return int(np.searchsorted(self._taken, room, "right")) - 1

    def size(self, index: int) -> int:
        """Bytes that one element takes in a leaf."""
        return int(self._taken[index + 1] - self._taken[index])

    def cut(self, first: int) -> list[int]:
        """Give where leaves begin, from element `first` on; the last one may not be full."""
        taken, page_size, header = self._taken, self._page_size, PAGE_HEADER.size
        # What is larger than a page goes on in overflow pages; the rest of the last is used.
        pages = np.maximum(-(-(np.diff(taken) + header) // page_size), 1)
        ends = taken[:-1] + pages * page_size - header
        following: list[int] = (np.searchsorted(taken, ends, "right") - 1).tolist()
        cuts, last = [], len(following)
        while first < last:
            cuts.append(first)
            first = following[first]
        return cuts

    def first_key(self, index: int) -> bytes:
        """Give the key of an element."""
        at = self._packed.start + self._bounds[index]
        return bytes(self._packed.data[at : at + int(self._packed.key_sizes[index])])

    def keys(self, cuts: list[int], *, sizes_only: bool = False) -> list[bytes]:
        """Give the first key of each leaf, or zeros where only their sizes matter."""
        data, start, bounds = self._packed.data, self._packed.start, self._bounds
        sizes = self._packed.key_sizes[cuts].tolist()
        if sizes_only:
            return list(map(bytes, sizes))
        return [
            bytes(data[start + bounds[cut] : start + bounds[cut] + size])
            for cut, size in zip(cuts, sizes, strict=True)
        ]

    def spans(self, cuts: list[int]) -> list[int]:
        """Give the pages of each leaf; `cuts` has one more, where the last one ends."""
        used = np.diff(self._offsets[cuts] + LEAF_ELEMENT.size * np.array(cuts))
        spans: list[int] = (-(-(used + PAGE_HEADER.size) // self._page_size)).tolist()
        return spans

    def images(
        self, cuts: list[int], spans: list[int], page: int
    ) -> Iterator[tuple[bytearray, int]]:
        """Make leaves.

        Args:
            cuts: where they begin, and at last where the last one ends.
            spans: the pages of each.
            page: the id of the first.

        Yields:
            Some of them, and how many pages they take.
        """
        at_once = max(1, _IMAGE // self._page_size)
        ends = list(accumulate(spans, initial=0))
        first = 0
        while first < len(spans):
            last = min(bisect_left(ends, ends[first] + at_once, first + 1), len(spans))
            pages = ends[last] - ends[first]
            yield self._image(cuts[first : last + 1], spans[first:last], page), pages
            page += pages
            first = last

    def _image(self, cuts: list[int], spans: list[int], page: int) -> bytearray:
        packed, page_size = self._packed, self._page_size
        image = bytearray(sum(spans) * page_size)
        wide = np.array(spans, np.int64)
        numbers = np.cumsum(wide) - wide
        begins = numbers * page_size
        edges = np.array(cuts, np.int64)
        counts = np.diff(edges)
        words = np.frombuffer(image, "<u4")
        np.frombuffer(image, "<u8")[begins // 8] = numbers + page
        words[begins // 4 + 2] = LEAF_PAGE | counts << 16
        words[begins // 4 + 3] = wide - 1
        # For each element, where in its page its header and its key lie.
        first, last = cuts[0], cuts[-1]
        places = np.arange(first, last) - np.repeat(edges[:-1], counts)
        headers = PAGE_HEADER.size + LEAF_ELEMENT.size * places
        bounds = self._offsets[first:last] - np.repeat(self._offsets[edges[:-1]], counts)
        keys = PAGE_HEADER.size + LEAF_ELEMENT.size * np.repeat(counts, counts) + bounds
        table = (np.repeat(begins, counts) + headers) // 4
        words[table + 1] = keys - headers
        words[table + 2] = packed.key_sizes[first:last]
        words[table + 3] = packed.value_sizes[first:last]
        del words
        start = packed.start
        data, out = packed.data, memoryview(image)
        tables = (PAGE_HEADER.size + LEAF_ELEMENT.size * counts + begins).tolist()
        sizes = [self._bounds[cut] for cut in cuts]
        for at, begin, end in zip(tables, sizes, sizes[1:], strict=False):
            out[at : at + end - begin] = data[start + begin : start + end]
        return image
