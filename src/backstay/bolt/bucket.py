"""One bucket of a bolt file: a tree of pages, walked without trust.

Walks go from the root down with a stack of their own. Each page is visited once at most, keys
rise within a leaf, from leaf to leaf, and stay within what the branches above say, and the depth
is limited: whatever the bytes are, a walk ends after as many pages as the file has. Buckets
inside buckets are refused: this reader is for files with one level of them.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from backstay.bolt.image import Element, Image, Page
from backstay.bolt.page import BUCKET_FLAG, BUCKET_HEADER
from backstay.errors import DamagedError

#: With two children for each branch, the least that bolt makes, this is more than 64-bit
#: ids can fill with the key sizes that occur; real files have 2 to 5 levels.
MAX_DEPTH = 24


@dataclass(frozen=True, slots=True)
class _Step:
    """A page that is still to be visited, and the keys that may lie below it: low <= key < high."""

    number: int
    low: bytes | None
    high: bytes | None
    depth: int


class Visited:
    """Which pages have been seen: one byte a page."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._seen = bytearray(image.high_water)

    def add(self, page: Page, owner: str) -> None:
        """Note a page with its overflow.

        Raises:
            DamagedError: it has been seen before.
        """
        seen = self._seen
        if seen[page.number] or (page.overflow and any(seen[page.number : self._end(page)])):
            raise self._image.damaged(
                f"page {page.number} of {owner} is reached twice, or overlaps another page"
            )
        if page.overflow:
            seen[page.number : self._end(page)] = b"\1" * (page.overflow + 1)
        else:
            seen[page.number] = 1

    @staticmethod
    def _end(page: Page) -> int:
        return page.number + page.overflow + 1

    def count(self) -> int:
        """How many pages have been seen."""
        return self._seen.count(1)


class Bucket:
    """A bucket.

    Attributes:
        name: its name; empty for the bucket of buckets.
        root: page id of its root; 0 where it is inline.
        sequence: its counter.
    """

    def __init__(
        self, image: Image, name: bytes, root: int, sequence: int, inline: Page | None = None
    ) -> None:
        self.image = image
        self.name = name
        self.root = root
        self.sequence = sequence
        self._inline = inline

    @property
    def inline(self) -> bool:
        """Whether it lies in its parent's leaf and has no page of its own."""
        return self._inline is not None

    @property
    def owner(self) -> str:
        """How messages call it."""
        if not self.name:
            return "the bucket of buckets"
        return f"bucket {self.name.decode('utf-8', 'backslashreplace')}"

    def leaves(self, visited: Visited | None = None) -> Iterator[Page]:
        """Walk the leaves in key order; the order of keys inside them is not looked at.

        Raises:
            DamagedError: the tree is damaged.
        """
        for page, _ in self._walk(visited or Visited(self.image)):
            yield page

    def _walk(self, visited: Visited) -> Iterator[tuple[Page, _Step]]:
        if self._inline is not None:
            yield self._inline, _Step(0, None, None, 0)
            return
        stack = [_Step(self.root, None, None, 0)]
        while stack:
            step = stack.pop()
            page = self.image.page(step.number, self.owner)
            visited.add(page, self.owner)
            if page.is_leaf:
                yield page, step
                continue
            stack.extend(reversed(self._below(page, step)))

    def _below(self, page: Page, step: _Step) -> list[_Step]:
        """The children of a branch, with the keys that may lie below each."""
        if step.depth >= MAX_DEPTH:
            raise self.image.damaged(f"{self.owner} is more than {MAX_DEPTH} levels deep")
        children = self.image.children(page, self.owner)
        keys = [key for key, _ in children]
        if (step.low is not None and keys[0] < step.low) or (
            step.high is not None and keys[-1] >= step.high
        ):
            raise self.image.damaged(
                f"page {page.number} of {self.owner} has keys outside of what the page above says"
            )
        lows: list[bytes | None] = [*keys]
        lows[0] = keys[0] if step.low is None else step.low
        return [
            _Step(child, low, high, step.depth + 1)
            for (_, child), low, high in zip(children, lows, [*keys[1:], step.high], strict=True)
        ]

    def entries(self, visited: Visited | None = None) -> Iterator[tuple[bytes, Element]]:
        """Read all elements in order: key, and where the value lies.

        Raises:
            DamagedError: the tree is damaged, or keys do not rise.
        """
        last: bytes | None = None
        for page, step in self._walk(visited or Visited(self.image)):
            for index, element in enumerate(self.image.elements(page, self.owner)):
                key = self.image.data[element.key : element.value]
                if (last is not None and key <= last) or not _within(key, step):
                    raise self.image.damaged(
                        f"element {index} of {self.image.place(page, self.owner)} breaks the"
                        " order of the keys"
                    )
                last = key
                yield key, element

    def items(self, visited: Visited | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Read all keys and values in order.

        Raises:
            DamagedError: the tree is damaged, keys do not rise, or a value is a bucket.
        """
        data = self.image.data
        for key, element in self.entries(visited):
            if element.flags:
                raise self._nested(key, element)
            yield key, data[element.value : element.end]

    def _nested(self, key: bytes, element: Element) -> DamagedError:
        what = "is a bucket inside it" if element.flags == BUCKET_FLAG else "is of unknown kind"
        return self.image.damaged(f"{self.owner}: entry {key[:64]!r} {what}")

    def get(self, key: bytes) -> bytes | None:
        """Look up one value; None where there is no such key.

        Raises:
            DamagedError: the path to it is damaged, or the value is a bucket.
        """
        path = self._path(key)
        for element in self.image.elements(path[-1], self.owner):
            if self.image.data[element.key : element.value] == key:
                if element.flags:
                    raise self._nested(key, element)
                return self.image.data[element.value : element.end]
        return None

    def last(self) -> tuple[bytes, bytes] | None:
        """Read the entry with the greatest key; None where the bucket is empty.

        Raises:
            DamagedError: the path to it is damaged, or the value is a bucket.
        """
        elements = deque(self.image.elements(self._path(None)[-1], self.owner), maxlen=1)
        if not elements:
            return self._last_by_walk()
        found = elements[0]
        key = self.image.data[found.key : found.value]
        if found.flags:
            raise self._nested(key, found)
        return key, self.image.data[found.value : found.end]

    def _last_by_walk(self) -> tuple[bytes, bytes] | None:
        # bolt can leave an empty leaf at the edge; then only the walk finds the last entry.
        items = deque(self.items(), maxlen=1)
        return items[0] if items else None

    def edge(self) -> tuple[int, ...]:
        """Give the page ids from the root to the rightmost leaf; empty where the bucket is inline.

        Raises:
            DamagedError: a page on the way is damaged.
        """
        return tuple(page.number for page in self._path(None)) if self._inline is None else ()

    def _path(self, key: bytes | None) -> list[Page]:
        """The pages from the root to the leaf that has `key`, or to the rightmost one."""
        if self._inline is not None:
            return [self._inline]
        path = [self.image.page(self.root, self.owner)]
        while not path[-1].is_leaf:
            if len(path) > MAX_DEPTH:
                raise self.image.damaged(f"{self.owner} is more than {MAX_DEPTH} levels deep")
            children = self.image.children(path[-1], self.owner)
            index = len(children) - 1
            while key is not None and index > 0 and children[index][0] > key:
                index -= 1
            path.append(self.image.page(children[index][1], self.owner))
        return path


def _within(key: bytes, step: _Step) -> bool:
    return (step.low is None or key >= step.low) and (step.high is None or key < step.high)


def open_bucket(image: Image, name: bytes, element: Element) -> Bucket:
    """Read the value of a bucket's element in the bucket of buckets.

    Raises:
        DamagedError: it is too short, or its inline page does not fit.
    """
    bucket = f"bucket {name[:64]!r}"
    if element.end - element.value < BUCKET_HEADER.size:
        raise image.damaged(f"{bucket} has a header of {element.end - element.value} bytes")
    root, sequence = BUCKET_HEADER.unpack_from(image.data, element.value)
    if root:
        return Bucket(image, name, root, sequence)
    start = element.value + BUCKET_HEADER.size
    return Bucket(image, name, 0, sequence, image.inline_page(start, element.end, bucket))
