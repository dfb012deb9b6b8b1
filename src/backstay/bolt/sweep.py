"""All leaves of a bucket, many at a time: the way to read a whole tree.

`Bucket.items` gives one element after the other; here a reader gets runs of leaves. Each leaf is
one range of bytes that holds its keys and values one after the other, without gaps: proven, with
the order of the keys. Large files go through `bolt.bulk`; small ones, and what is unusual, are
looked at page by page.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from backstay.bolt.bucket import MAX_DEPTH, Bucket, Step
from backstay.bolt.image import Element, Image, Page
from backstay.bolt.visited import Visited

if TYPE_CHECKING:
    from backstay.bolt.batch import Batch, Ints, Leaves
    from backstay.bolt.bulk import Bulk

#: In a smaller file, looking page by page takes less time than importing numpy.
_BULK_BYTES = 16 << 20
#: The fast way takes so many pages at a time.
BATCH_PAGES = 1 << 11
#: A run is handed out when it has so many elements or bytes.
_RUN_ELEMENTS = 1 << 12
_RUN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """Some leaves that follow each other in key order; all is proven.

    Attributes:
        starts: for each leaf, the offset of its first key.
        ends: for each leaf, the offset after its last value.
        keys: for each element, the offset of its key.
        values: for each element, the offset of its value, which is where its key ends.
        stops: for each element, the offset after its value.
        pages: bytes of the pages that the leaves take.
    """

    starts: list[int]
    ends: list[int]
    keys: "Sequence[int] | Ints"
    values: "Sequence[int] | Ints"
    stops: "Sequence[int] | Ints"
    pages: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return len(self.keys)


class Sweep:
    """The leaves of a bucket in key order.

    Args:
        bucket: whose leaves.
        visited: pages that count as seen; those of the sweep are added.
        upto: leave out leaves that have no key up to this one; the last one may have later ones.
    """

    def __init__(
        self, bucket: Bucket, visited: Visited | None = None, *, upto: bytes | None = None
    ) -> None:
        self._bucket = bucket
        self._upto = upto
        self._image: Image = bucket.image
        self._visited = visited or Visited(bucket.image)

    @property
    def is_large(self) -> bool:
        """Whether the bucket lies in a large file."""
        return not self._bucket.inline and len(self._image.data) >= _BULK_BYTES

    def runs(self, half: int | None = None) -> Iterator[Run]:
        """Read the leaves.

        Args:
            half: 0 for about the first half of the leaves, 1 for the others; default: all. Pages
                above both belong to the first; where the bucket is not large, all do.

        Raises:
            DamagedError: the tree is damaged, keys do not rise, or a value is a bucket.
        """
        if not self.is_large:
            return self._walk(self._bucket.steps()) if half != 1 else iter(())
        # numpy takes 70 ms to import, and small files do without. Its linear algebra, which is not
        # used, would start threads, and a process with threads can't fork safely.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from backstay.bolt import batch as batches  # noqa: PLC0415 - see above
        from backstay.bolt import bulk  # noqa: PLC0415 - see above

        # A root that is no page can't even be put into an array.
        self._image.page(self._bucket.root, self._bucket.owner)
        batch = batches.Batch.of(self._bucket.root)
        if half is not None:
            batch = bulk.divide(self._image, self._visited, batch, half)
        return self._bulk(bulk.Bulk(self._image, self._visited), batch)

    def _bulk(self, bulk: "Bulk", batch: "Batch") -> Iterator[Run]:
        stack = [batch]
        limit = BATCH_PAGES
        while stack:
            batch = stack.pop()
            if not batch:
                continue
            some = batch[:limit]
            proven = bulk.prove(some) if batch.depth <= MAX_DEPTH else None
            if proven is None and len(some) > 1:
                # Something is unusual: narrow it down, so that the rest still goes fast.
                limit = (len(some) + 15) // 16
                stack.append(batch)
                continue
            done = 1 if proven is None else proven.pages
            if done < len(batch):
                stack.append(batch[done:])
            if proven is None:
                yield from self._walk(some.steps(self._image))
                continue
            limit = min(2 * limit, BATCH_PAGES)
            if proven.below:
                stack.append(self._clipped(proven.below))
            if proven.leaves:
                yield self._run(proven.leaves)

    def _clipped(self, below: "Batch") -> "Batch":
        """Leave out what has no key up to the last one that is wanted."""
        if self._upto is None:
            return below
        data, offsets, sizes = self._image.data, below.lows.offsets, below.lows.sizes

        def low(index: int) -> bytes:
            return data[offsets[index] : offsets[index] + sizes[index]]

        return below[: bisect_right(range(len(below)), self._upto, key=low)]

    def _run(self, leaves: "Leaves") -> Run:
        return Run(
            leaves.starts.tolist(),
            leaves.ends.tolist(),
            leaves.keys.offsets,
            leaves.keys.offsets + leaves.keys.sizes,
            leaves.stops,
            leaves.pages * self._image.page_size,
        )

    def _walk(self, steps: list[Step]) -> Iterator[Run]:
        """Read subtrees page by page."""
        leaves: list[Page] = []
        elements: list[Element] = []
        size = 0
        for page, step in self._bucket.walk(self._visited, steps, self._upto):
            if not page.count:
                continue
            for key, element in self._bucket.ordered(page, step):
                if element.flags:
                    raise self._bucket.nested(key, element)
                elements.append(element)
            leaves.append(page)
            size += page.end - page.start
            if len(elements) >= _RUN_ELEMENTS or size >= _RUN_BYTES:
                yield _run(leaves, elements)
                leaves, elements, size = [], [], 0
        if leaves:
            yield _run(leaves, elements)


def _run(leaves: list[Page], elements: list[Element]) -> Run:
    starts = [leaf.data for leaf in leaves]
    lasts = accumulate(leaf.count for leaf in leaves)
    return Run(
        starts,
        [elements[last - 1].end for last in lasts],
        [element.key for element in elements],
        [element.value for element in elements],
        [element.end for element in elements],
        sum(leaf.end - leaf.start for leaf in leaves),
    )
