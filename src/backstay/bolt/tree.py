"""Trees of bolt pages built from sorted elements, bottom-up, in one stream.

The open leaf is written when it is full and then named in the open branch page above it, which
is written when that is full. So memory holds one open page for each level, and pages come out in
the order of their ids. What a whole file needs besides trees is in `bolt.write`.

Source: go.etcd.io/bbolt, format 2 (layout in `bolt.page`). One rule is not in the format but in
what bbolt asserts when it deletes from a file later: a branch page has at least two children.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from struct import pack
from typing import TYPE_CHECKING

from backstay.bolt.page import (
    BRANCH_ELEMENT,
    BRANCH_PAGE,
    LEAF_ELEMENT,
    LEAF_PAGE,
    PAGE_HEADER,
)
from backstay.errors import DamagedError

if TYPE_CHECKING:
    from backstay.bolt.packed import Packed

Bytes = bytes | bytearray | memoryview
Element = tuple[bytes, Bytes]

#: bbolt refuses longer ones, so nobody could ever write such an element again.
MAX_KEY_SIZE = 32768
MAX_VALUE_SIZE = (1 << 31) - 2

_MIN_CHILDREN = 2
_BUFFER_SIZE = 1 << 20
#: What has so many bytes is not copied to be written together with others.
_LARGE = 1 << 16


class PageWriter:
    """Hands out page ids in order and writes each page as it gets its id.

    Args:
        write: takes all bytes it is given; called in the order of the page ids, with whole
            pages except where one page alone is larger than a MiB. None: pages are counted only.
        page_size: in bytes.
        first: the id of the first page.
    """

    def __init__(self, write: Callable[[Bytes], object] | None, page_size: int, first: int) -> None:
        self.page_size = page_size
        self.next = first
        self._write = write
        self._parts: list[Bytes] = []
        self._size = 0

    def add(self, flags: int, count: int, body: Iterable[Bytes], size: int) -> int:
        """Write one page.

        Args:
            flags: the page's type.
            count: how many elements it has.
            body: what follows the page header.
            size: the bytes in `body`.

        Returns:
            the page's id.
        """
        page = self.next
        used = PAGE_HEADER.size + size
        pages = -(-used // self.page_size)
        if self.counts_only:
            self.next += pages
            return page
        self._parts.append(PAGE_HEADER.pack(page, flags, count, pages - 1))
        self._parts += body
        self._parts.append(bytes(pages * self.page_size - used))
        self._size += pages * self.page_size
        self.next += pages
        if self._size >= _BUFFER_SIZE:
            self.flush()
        return page

    @property
    def counts_only(self) -> bool:
        """Whether nothing is written."""
        return self._write is None

    def add_image(self, image: Bytes, pages: int) -> None:
        """Write pages that were made elsewhere, with the ids from `next` on.

        Args:
            image: their bytes, headers included.
            pages: how many they are.
        """
        self.next += pages
        self._parts.append(image)
        self._size += len(image)
        if self._size >= _BUFFER_SIZE:
            self.flush()

    def flush(self) -> None:
        """Write what is still held back."""
        if self._write is None:
            return
        small: list[Bytes] = []
        for part in self._parts:
            if len(part) < _LARGE:
                small.append(part)
                continue
            if small:
                self._write(b"".join(small))
                small.clear()
            self._write(part)
        if small:
            self._write(b"".join(small))
        self._parts.clear()
        self._size = 0


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree that goes on growing: the open pages, as they are so far.

    What lies to the left of it is on written pages, which the branches name.

    Attributes:
        leaf: the elements of the rightmost leaf; taken once.
        branches: from the lowest level up, the children to the left of the edge, each as the
            first key under it and its page id. A level without any, below one that has some,
            makes a branch with one child where nothing more is added; bbolt leaves no such edge.
        last: the last key of the tree, above which it goes on.
    """

    leaf: Iterable[Element] = ()
    branches: Sequence[Sequence[tuple[bytes, int]]] = ()
    last: bytes = b""


@dataclass(slots=True)
class _Branch:
    """An open branch page.

    Attributes:
        children: the first key and the page id of each child that is not written yet.
        size: bytes of their elements.
        fitting: how many of them go into one page, once there are more than that.
    """

    children: list[tuple[bytes, int]] = field(default_factory=list)
    size: int = 0
    fitting: int | None = None


class TreeWriter:
    """Builds one tree.

    Args:
        pages: where its pages go. Several trees may grow at a time over one writer.
        flags: the flags of each leaf element (1: values are buckets).
        edge: where a tree that is there already ends; its right edge is written anew.
    """

    def __init__(self, pages: PageWriter, flags: int = 0, edge: Edge | None = None) -> None:
        self._pages = pages
        self._flags = flags
        self._room = pages.page_size - PAGE_HEADER.size
        self._keys: list[bytes] = []
        self._values: list[Bytes] = []
        self._used = 0
        self._capacity = self._room
        self._last = b""
        self._branches: list[_Branch] = []
        if edge is not None:
            self._branches = [_Branch() for _ in edge.branches]
            # From the top: a branch page that is full is named in the one above it.
            for depth, children in reversed(list(enumerate(edge.branches))):
                for key, child in children:
                    self._add_child(depth, key, child)
            self.extend(edge.leaf)
            self._last = max(self._last, edge.last)

    def extend(self, elements: Iterable[Element]) -> None:
        """Add elements in the order of their keys.

        Raises:
            DamagedError: a key is not above the one before, or a size is out of bounds.
        """
        last = self._last
        for key, value in elements:
            if key <= last:
                raise DamagedError("the keys to write are not in rising order")
            if len(key) > MAX_KEY_SIZE or len(value) > MAX_VALUE_SIZE:
                raise DamagedError(
                    f"an element with a key of {len(key)} and a value of {len(value)} bytes "
                    "is more than a bolt file takes"
                )
            size = LEAF_ELEMENT.size + len(key) + len(value)
            if self._used + size > self._capacity:
                self._start_leaf(size)
            self._keys.append(key)
            self._values.append(value)
            self._used += size
            last = key
        self._last = last

    def extend_packed(self, packed: "Packed") -> None:
        """Add elements that lie one after the other, many at a time.

        The same leaves come out as from `extend`.

        Raises:
            DamagedError: the first key is not above the last one, or a size is out of bounds.
        """
        # It brings numpy, which takes 70 ms to import: whoever has such elements has it already.
        from backstay.bolt.packed import Cutter  # noqa: PLC0415 - see above

        count = len(packed)
        if not count:
            return
        cutter = Cutter(packed, self._pages.page_size)
        if packed.key_sizes.max() > MAX_KEY_SIZE or packed.value_sizes.max() > MAX_VALUE_SIZE:
            raise DamagedError("an element is more than a bolt file takes")
        first = cutter.fitting(self._capacity - self._used) if self._keys else 0
        self.extend(packed.elements(0, first))
        if first == count:
            return
        if self._keys:
            self._close_leaf()
        if cutter.first_key(first) <= self._last:
            raise DamagedError("the keys to write are not in rising order")
        cuts = cutter.cut(first)
        spans = cutter.spans(cuts)
        page = self._pages.next
        if self._pages.counts_only:
            self._pages.next += sum(spans)
        else:
            for image, pages in cutter.images(cuts, spans, page):
                self._pages.add_image(image, pages)
        # The last leaf stays open.
        if spans:
            keys = cutter.keys(cuts[:-1], sizes_only=self._pages.counts_only)
            self._add_children(0, keys, list(accumulate(spans[:-1], initial=page)))
        self._start_leaf(cutter.size(cuts[-1]))
        self.extend(packed.elements(cuts[-1], count))

    def finish(self) -> int:
        """Write the open pages.

        Returns:
            the id of the root page; a tree without elements is one leaf without elements.
        """
        while self._branches and not self._branches[-1].children:
            self._branches.pop()
        if not self._branches:
            return self._write_leaf()
        if self._keys:
            self._close_leaf()
        depth = 0
        while True:
            children = self._close_branch(depth)
            depth += 1
            if len(children) == 1 and depth == len(self._branches):
                return children[0][1]
            for key, child in children:
                self._add_child(depth, key, child)

    def _start_leaf(self, size: int) -> None:
        """Begin a leaf for an element that takes `size` bytes."""
        if self._keys:
            self._close_leaf()
        # What is larger than a page goes on in overflow pages; the rest of the last is used.
        page_size = self._pages.page_size
        self._capacity = -(-(PAGE_HEADER.size + size) // page_size) * page_size - PAGE_HEADER.size

    def _close_leaf(self) -> None:
        first = self._keys[0]
        self._add_child(0, first, self._write_leaf())

    def _write_leaf(self) -> int:
        count = len(self._keys)
        fields: list[int] = []
        pos = count * LEAF_ELEMENT.size
        for key, value in zip(self._keys, self._values, strict=True):
            fields += self._flags, pos, len(key), len(value)
            pos += len(key) + len(value) - LEAF_ELEMENT.size
        body: list[Bytes] = [pack(f"<{len(fields)}I", *fields)]
        for pair in zip(self._keys, self._values, strict=True):
            body += pair
        page = self._pages.add(LEAF_PAGE, count, body, self._used)
        self._keys.clear()
        self._values.clear()
        self._used = 0
        return page

    def _add_child(self, depth: int, key: bytes, child: int) -> None:
        if depth == len(self._branches):
            self._branches.append(_Branch())
        branch = self._branches[depth]
        size = BRANCH_ELEMENT.size + len(key)
        if branch.fitting is None and branch.size + size > self._room:
            branch.fitting = max(len(branch.children), _MIN_CHILDREN)
        branch.children.append((key, child))
        branch.size += size
        if branch.fitting is None or len(branch.children) - branch.fitting < _MIN_CHILDREN:
            return
        full = branch.children[: branch.fitting]
        del branch.children[: branch.fitting]
        branch.size = _branch_size([key for key, _ in branch.children])
        branch.fitting = None
        self._add_child(depth + 1, full[0][0], self._write_branch(full))

    def _add_children(self, depth: int, keys: list[bytes], numbers: list[int]) -> None:
        """Add many children at once; the same branches come out as one by one.

        There are a few hundred thousand in a gigabyte of small elements, so nothing here is done
        for each but in C.
        """
        if depth == len(self._branches):
            self._branches.append(_Branch())
        branch = self._branches[depth]
        keys = [key for key, _ in branch.children] + keys
        numbers = [number for _, number in branch.children] + numbers
        ends = list(accumulate(map(BRANCH_ELEMENT.size.__add__, map(len, keys))))
        done = base = 0
        while True:
            fitting = bisect_right(ends, base + self._room, done) - done
            last = done + max(fitting, _MIN_CHILDREN)
            if len(keys) - last < _MIN_CHILDREN:
                break
            page = self._write_children(keys[done:last], numbers[done:last])
            self._add_child(depth + 1, keys[done], page)
            done, base = last, ends[last - 1]
        branch.children = list(zip(keys[done:], numbers[done:], strict=True))
        branch.size = ends[-1] - base
        branch.fitting = last - done if branch.size > self._room else None

    def _close_branch(self, depth: int) -> list[tuple[bytes, int]]:
        """Write what is left of a level: one page, or two; a lone child of the top none."""
        children = self._branches[depth].children
        if len(children) == 1 and depth + 1 == len(self._branches):
            return children
        cut = len(children)
        if self._branches[depth].fitting is not None and cut >= 2 * _MIN_CHILDREN:
            cut -= _MIN_CHILDREN
        parts = [part for part in (children[:cut], children[cut:]) if part]
        self._branches[depth] = _Branch()
        return [(part[0][0], self._write_branch(part)) for part in parts]

    def _write_branch(self, children: Sequence[tuple[bytes, int]]) -> int:
        keys, numbers = zip(*children, strict=True) if children else ((), ())
        return self._write_children(keys, numbers)

    def _write_children(self, keys: Sequence[bytes], numbers: Sequence[int]) -> int:
        count, used = len(keys), _branch_size(keys)
        if self._pages.counts_only:
            return self._pages.add(BRANCH_PAGE, count, (), used)
        sizes = list(map(len, keys))
        # A position counts from its own element: each next one is nearer by that element's size.
        steps = [size - BRANCH_ELEMENT.size for size in sizes[:-1]]
        fields = [0] * (3 * count)
        fields[0::3] = accumulate(steps, initial=count * BRANCH_ELEMENT.size)
        fields[1::3] = sizes
        fields[2::3] = numbers
        body = [pack("<" + "IIQ" * count, *fields), b"".join(keys)]
        return self._pages.add(BRANCH_PAGE, count, body, used)


def _branch_size(keys: Sequence[bytes]) -> int:
    return len(keys) * BRANCH_ELEMENT.size + sum(map(len, keys))
