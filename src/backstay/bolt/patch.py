"""A bolt file made from another one with a few buckets changed, written in one pass.

What is kept stays on its pages under its page ids and is copied; pages that nothing reaches any
more come out as zeros, for they can hold what was deleted long ago; what is new goes to the end
of the file. All of it is planned before the first byte comes out, since the metas are in front:
`bolt.sweep` proves the source and says which pages are in use, and what is new is built once for
nothing but its size. What the elements mean is not known here.

A change gives its elements by a function, which is called once for planning and once for writing
and must give the same both times. Memory holds a byte for each page and what `bolt.tree` holds.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from itertools import cycle
from operator import itemgetter
from typing import TYPE_CHECKING

from backstay.bolt.bucket import Visited, open_bucket
from backstay.bolt.edge import Cut, cut
from backstay.bolt.file import BoltFile
from backstay.bolt.page import BUCKET_FLAG, BUCKET_HEADER
from backstay.bolt.sweep import Sweep
from backstay.bolt.tree import Bytes, Edge, Element, PageWriter, TreeWriter
from backstay.bolt.write import FIRST_PAGE, metas

if TYPE_CHECKING:
    from backstay.bolt.image import Element as Place
    from backstay.bolt.packed import Packed

#: A multiple of every page size; large enough that the work for each page counts, small enough
#: to stay in a processor's cache from one use to the next.
BLOCK_SIZE = 1 << 20

_UNUSED = re.compile(rb"\0+")


@dataclass(frozen=True, slots=True)
class Replace:
    """Change the whole contents of a bucket.

    Attributes:
        elements: gives the new contents in the order of their keys, the same at each call.
    """

    elements: Callable[[], Iterable[Element]]


@dataclass(frozen=True, slots=True)
class Append:
    """Keep what a bucket has, or its beginning, and put elements after it.

    Attributes:
        elements: gives them in the order of their keys, the same at each call; one by one, or
            many that lie one after the other.
        upto: the last key that is kept; None keeps all.
    """

    elements: Callable[[], "Iterable[Element | Packed]"]
    upto: bytes | None = None


Change = Replace | Append


class Patch:
    """A file to be made from another one.

    Args:
        source: the file to start from; it must stay open, and as it is, to the end.
        changes: what to change, by the names of buckets; one that is not there is made. Without
            any change the file comes out as it is, free pages included, and is checked all
            the same.

    Attributes:
        size: bytes of the file to be made.

    Raises:
        DamagedError: the source is damaged, or new keys are not in rising order.
    """

    def __init__(self, source: BoltFile, changes: Mapping[bytes, Change]) -> None:
        self._source = source
        self._image = source.image
        self._view = memoryview(source.image.data)
        self._changes = changes
        self._cuts: dict[bytes, Cut] = {}
        self._kept, self._missing = self._survey()
        self._root, self._high_water = self._measure() if changes else (0, 0)
        self.size = self._high_water * source.page_size if changes else source.size

    def blocks(self) -> Iterator[Bytes]:
        """Make the file, front to back.

        Yields:
            its bytes; each block is good until the second one after it is asked for, so that one
            can be written while the next is made.

        Raises:
            DamagedError: the source is damaged, or changed meanwhile.
        """
        page_size = self._source.page_size
        used = self._source.high_water * page_size
        buffers = cycle((bytearray(BLOCK_SIZE), bytearray(BLOCK_SIZE)))
        for start in range(0, used, BLOCK_SIZE):
            data = self._view[start : min(start + BLOCK_SIZE, used)]
            kept = self._kept[start // page_size : (start + len(data)) // page_size]
            if self._changes and (start == 0 or 0 in kept):
                block = memoryview(next(buffers))[: len(data)]
                block[:] = data
                for unused in _UNUSED.finditer(kept):
                    first, end = (number * page_size for number in unused.span())
                    block[first:end] = bytes(end - first)
                if start == 0:
                    self._put_metas(block)
                yield block
            else:
                yield data
        if self._changes:
            yield from self._new_pages()
        else:
            for start in range(used, self.size, BLOCK_SIZE):
                yield self._view[start : min(start + BLOCK_SIZE, self.size)]

    def _put_metas(self, block: memoryview) -> None:
        meta = self._source.meta
        # A count that has come to its end is started anew: nothing depends on it but the order.
        txid = meta.txid + 1 if meta.txid + 1 < 1 << 64 else 1
        pages = metas(
            page_size=meta.page_size,
            root=self._root,
            high_water=self._high_water,
            sequence=meta.sequence,
            txid=txid,
        )
        block[: len(pages)] = pages

    def _new_pages(self) -> Iterator[Bytes]:
        out: deque[Bytes] = deque()
        pages = PageWriter(out.append, self._source.page_size, self._source.high_water)
        root = 0
        for step in self._build(pages):
            root = step
            while out:
                yield out.popleft()
        pages.flush()
        yield from out
        if (root, pages.next) != (self._root, self._high_water):
            raise self._image.damaged("it changed while it was read")

    def _measure(self) -> tuple[int, int]:
        """Build the new pages for nothing: where the root comes to lie, and how many there are."""
        pages = PageWriter(None, self._source.page_size, self._source.high_water)
        return deque(self._build(pages), maxlen=1).pop(), pages.next

    def _build(self, pages: PageWriter) -> Iterator[int]:
        """Write the new pages; yields after each step, and at last the root's page id."""
        names = TreeWriter(pages, BUCKET_FLAG)
        old: Iterator[tuple[bytes, Place | None]] = self._source.root.entries()
        new: list[tuple[bytes, Place | None]] = [(name, None) for name in self._missing]
        for name, place in merge(old, new, key=itemgetter(0)):
            change = self._changes.get(name)
            value: Bytes
            if change is not None:
                found = self._cuts.get(name)
                tree = TreeWriter(pages, edge=found.edge if found else Edge())
                for element in change.elements():
                    if isinstance(element, tuple):
                        tree.extend((element,))
                    else:
                        tree.extend_packed(element)
                    yield 0
                sequence = open_bucket(self._image, name, place).sequence if place else 0
                value = BUCKET_HEADER.pack(tree.finish(), sequence)
            elif place is not None:
                value = self._view[place.value : place.end]
            names.extend(((name, value),))
            yield 0
        yield names.finish()

    def _survey(self) -> tuple[bytearray, list[bytes]]:
        """Prove the source; give a byte for each page, 1 where it is kept, and missing buckets."""
        visited = Visited(self._image)
        buckets = dict(self._source.buckets(visited))
        tops = bytes(visited.seen)
        for name, bucket in buckets.items():
            change = self._changes.get(name)
            if isinstance(change, Replace):
                continue
            upto = change.upto if change else None
            for _ in Sweep(bucket, visited, upto=upto).runs():
                pass
            if change:
                self._cuts[name] = cut(bucket, upto)
        kept = bytearray(visited.seen)
        # Of what is in use, this is written anew at the end of the file.
        for top in re.finditer(b"\1", tops):
            kept[top.start()] = 0
        for found in self._cuts.values():
            for page in found.opened:
                kept[page.number : page.number + page.overflow + 1] = bytes(page.overflow + 1)
        kept[:FIRST_PAGE] = b"\1" * FIRST_PAGE
        return kept, sorted(self._changes.keys() - buckets.keys())
