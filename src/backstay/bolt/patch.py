"""A bolt file made from another one with a few buckets changed, in one pass.

What is kept stays on its pages under its page ids and is copied; pages that nothing reaches any
more come out as zeros, for they can hold what was deleted long ago; what is new goes to the end
of the file. All of it is planned before the first byte comes out, since the metas are in front.
To plan, the branches are read and the changed buckets are built once for nothing but their size;
the leaves are checked as they go by. What the elements mean is not known here.

A change gives its elements by a function, which is called once for planning and once for writing
and must give the same both times. Memory holds a byte for each page and what `bolt.tree` holds.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from operator import itemgetter

import numpy as np

from backstay.bolt.bucket import Bucket, open_bucket
from backstay.bolt.file import BoltFile
from backstay.bolt.image import Element as Place
from backstay.bolt.image import Page
from backstay.bolt.leaves import LeafCheck, State
from backstay.bolt.page import BUCKET_FLAG, BUCKET_HEADER
from backstay.bolt.tree import Bytes, Edge, Element, PageWriter, TreeWriter
from backstay.bolt.write import FIRST_PAGE, metas
from backstay.errors import DamagedError

#: A multiple of every page size; large enough that the work for each page counts, small enough
#: to stay in a processor's cache from one use to the next.
BLOCK_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Replace:
    """Change the whole contents of a bucket.

    Attributes:
        elements: gives the new contents in the order of their keys, the same at each call.
    """

    elements: Callable[[], Iterable[Element]]


@dataclass(frozen=True, slots=True)
class Append:
    """Keep what a bucket has and put elements after it.

    Attributes:
        elements: gives them in the order of their keys, the same at each call.
    """

    elements: Callable[[], Iterable[Element]]


Change = Replace | Append


@dataclass(frozen=True, slots=True)
class _Open:
    """A bucket that is appended to.

    Attributes:
        leaf: its rightmost leaf.
        branches: from the lowest level up, the children to the left of the right edge.
    """

    leaf: Page
    branches: tuple[list[tuple[bytes, int]], ...] = ()


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
        self._states = bytearray(source.high_water)
        self._states[:FIRST_PAGE] = bytes([State.KEPT] * FIRST_PAGE)
        self._open: dict[bytes, _Open] = {}
        self._missing = sorted(changes.keys() - self._mark())
        self._root, self._high_water = self._measure() if changes else (0, 0)
        self.size = self._high_water * source.page_size if changes else source.size

    def blocks(self) -> Iterator[Bytes]:
        """Make the file, front to back.

        Yields:
            its bytes; each block is good until the next one is asked for.

        Raises:
            DamagedError: the source is damaged, or changed meanwhile.
        """
        used = self._source.high_water * self._source.page_size
        leaves = LeafCheck(self._image, bytearray(self._states))
        buffer = bytearray(BLOCK_SIZE)
        for start in range(0, used, BLOCK_SIZE):
            data = self._view[start : min(start + BLOCK_SIZE, used)]
            kept = leaves.kept(start // self._source.page_size, data)
            if self._changes and (start == 0 or not kept.all()):
                block = memoryview(buffer)[: len(data)]
                block[:] = data
                np.frombuffer(block, np.uint8).reshape(len(kept), -1)[~kept] = 0
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
        build = self._build(pages)
        while True:
            try:
                next(build)
            except StopIteration as end:
                root = end.value
                break
            while out:
                yield out.popleft()
        pages.flush()
        yield from out
        if (root, pages.next) != (self._root, self._high_water):
            raise self._image.damaged("it changed while it was read")

    def _measure(self) -> tuple[int, int]:
        """Build the new pages for nothing: where the root comes to lie, and how many there are."""
        pages = PageWriter(lambda _: None, self._source.page_size, self._source.high_water)
        build = self._build(pages)
        while True:
            try:
                next(build)
            except StopIteration as end:
                return end.value, pages.next

    def _build(self, pages: PageWriter) -> Generator[None, None, int]:
        """Write the new pages, stopping after each element; the return value is the root."""
        names = TreeWriter(pages, BUCKET_FLAG)
        old: Iterator[tuple[bytes, Place | None]] = self._source.root.entries()
        new: list[tuple[bytes, Place | None]] = [(name, None) for name in self._missing]
        for name, place in merge(old, new, key=itemgetter(0)):
            change = self._changes.get(name)
            value: Bytes
            if change is not None:
                tree = TreeWriter(pages, edge=self._edge(name))
                for element in change.elements():
                    tree.extend((element,))
                    yield
                sequence = open_bucket(self._image, name, place).sequence if place else 0
                value = BUCKET_HEADER.pack(tree.finish(), sequence)
            elif place is not None:
                value = self._view[place.value : place.end]
            names.extend(((name, value),))
            yield
        return names.finish()

    def _edge(self, name: bytes) -> Edge:
        bucket = self._open.get(name)
        if bucket is None:
            return Edge()
        return Edge(self._elements(bucket.leaf, name), bucket.branches)

    def _elements(self, leaf: Page, name: bytes) -> Iterator[Element]:
        owner = f"bucket {name.decode('utf-8', 'backslashreplace')}"
        for place in self._image.elements(leaf, owner):
            if place.flags:
                raise self._image.damaged(f"{owner} has a bucket inside it")
            yield self._image.data[place.key : place.value], self._view[place.value : place.end]

    def _mark(self) -> set[bytes]:
        """Note what is kept of all buckets; give the names of those that are there."""
        present = set()
        for name, bucket in self._source.buckets():
            change = self._changes.get(name)
            if change is not None:
                present.add(name)
            if isinstance(change, Append):
                self._open[name] = self._mark_left_of_edge(bucket)
            elif change is None:
                self._mark_whole(bucket)
        return present

    def _mark_whole(self, bucket: Bucket) -> None:
        if bucket.inline:
            for _ in bucket.items():
                pass
            return
        edge = bucket.edge()
        self._keep(edge[:1], len(edge) - 1, bucket.owner)

    def _mark_left_of_edge(self, bucket: Bucket) -> _Open:
        if bucket.inline:
            return _Open(next(bucket.leaves()))
        path = [self._image.page(number, bucket.owner) for number in bucket.edge()]
        for page in path:
            self._take(page, State.LEFT, bucket.owner)
        branches = []
        for height, page in enumerate(reversed(path[:-1])):
            children = self._image.children(page, bucket.owner)[:-1]
            self._keep([child for _, child in children], height, bucket.owner)
            branches.append(children)
        return _Open(path[-1], tuple(branches))

    def _keep(self, roots: Sequence[int], height: int, owner: str) -> None:
        """Note all pages of some trees that have so many levels of branches.

        In a bolt tree all leaves are equally deep. So a leaf is known by its place and is left
        alone here.
        """
        stack = [(roots, height)]
        while stack:
            numbers, height = stack.pop()
            if height == 0:
                self._keep_leaves(numbers, owner)
                continue
            for number in numbers:
                page = self._image.page(number, owner)
                if page.is_leaf:
                    raise self._image.damaged(f"page {number} of {owner} is a leaf among branches")
                self._take(page, State.KEPT, owner)
                children = [child for _, child in self._image.children(page, owner)]
                stack.append((children, height - 1))

    def _keep_leaves(self, numbers: Sequence[int], owner: str) -> None:
        for number in numbers:
            if not FIRST_PAGE <= number < self._source.high_water:
                self._image.page(number, owner)
            if self._states[number]:
                raise self._twice(number, owner)
            self._states[number] = State.LEAF

    def _take(self, page: Page, state: State, owner: str) -> None:
        span = slice(page.number, page.number + page.overflow + 1)
        if any(self._states[span]):
            raise self._twice(page.number, owner)
        self._states[span] = bytes([state] * (page.overflow + 1))

    def _twice(self, number: int, owner: str) -> DamagedError:
        return self._image.damaged(
            f"page {number} of {owner} is reached twice, or overlaps another page"
        )
