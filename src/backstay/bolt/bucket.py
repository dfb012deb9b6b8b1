"""One bucket of a bolt file: a tree of pages, walked without trust.

Walks go from the root down with a stack of their own. Each page is visited once at most, keys
rise within a leaf, from leaf to leaf, and stay within what the branches above say, and the depth
is limited: whatever the bytes are, a walk ends after as many pages as the file has. Buckets
inside buckets are refused: this reader is for files with one level of them.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from backstay.bolt.image import Element, Image, Page
from backstay.bolt.page import BUCKET_FLAG, BUCKET_HEADER
from backstay.bolt.visited import Visited
from backstay.errors import DamagedError

__all__ = ["MAX_DEPTH", "Branch", "Bucket", "Step", "Visited", "open_bucket"]

#: With two children for each branch, the least that bolt makes, this is more than 64-bit
#: ids can fill with the key sizes that occur; real files have 2 to 5 levels.
MAX_DEPTH = 24


class Step(NamedTuple):
    """A page that is still to be visited, and the keys that may lie below it.

    Attributes:
        number: its id.
        low: the least key that may lie there; empty where there is no limit.
        high: the least key that may not; None where there is no limit.
        depth: how many branches are above it.
    """

    number: int
    low: bytes
    high: bytes | None
    depth: int

    def has(self, key: bytes) -> bool:
        """Whether a key may lie there."""
        return key >= self.low and (self.high is None or key < self.high)


@dataclass(frozen=True, slots=True)
class Branch:
    """The children of a branch page, in key order.

    Attributes:
        numbers: their ids.
        lows: the least key that may lie below each.
        high: the least key that may not lie below the last; None where there is no limit.
        depth: how many branches are above them.
    """

    numbers: list[int]
    lows: list[bytes]
    high: bytes | None
    depth: int

    def steps(self, start: int = 0) -> list[Step]:
        """The children from `start` on, each as a step of a walk."""
        highs = [*self.lows[start + 1 :], self.high]
        return [
            Step(number, low, high, self.depth)
            for number, low, high in zip(
                self.numbers[start:], self.lows[start:], highs, strict=False
            )
        ]


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
        for page, _ in self.walk(visited or Visited(self.image)):
            yield page

    def walk(
        self, visited: Visited, steps: list[Step] | None = None, upto: bytes | None = None
    ) -> Iterator[tuple[Page, Step]]:
        """Walk the leaves in key order, each with the keys that may lie there.

        Args:
            visited: pages that count as seen; those of the walk are added.
            steps: the subtrees to walk; default: all.
            upto: leave out those that have no key up to this one.

        Raises:
            DamagedError: the tree is damaged.
        """
        stack = self.steps() if steps is None else steps[::-1]
        while stack:
            step = stack.pop()
            if upto is not None and step.low > upto:
                continue
            page = self.visit(step, visited)
            if page.is_leaf:
                yield page, step
            else:
                stack.extend(reversed(self.below(page, step).steps()))

    def steps(self) -> list[Step]:
        """Where a walk of the whole bucket begins."""
        return [Step(self.root, b"", None, 0)]

    def visit(self, step: Step, visited: Visited) -> Page:
        """Read the header of a page of this bucket, once in a walk.

        Raises:
            DamagedError: its header can't be right, or it has been visited before.
        """
        if self._inline is not None:
            return self._inline
        page = self.image.page(step.number, self.owner)
        visited.add(page, self.owner)
        return page

    def below(self, page: Page, step: Step) -> Branch:
        """Read the children of a branch, with the keys that may lie below each.

        Raises:
            DamagedError: it has none, its keys don't rise or leave `step`'s, or it is too deep.
        """
        if step.depth >= MAX_DEPTH:
            raise self.image.damaged(f"{self.owner} is more than {MAX_DEPTH} levels deep")
        numbers, keys = self.image.branch(page, self.owner)
        if not (step.has(keys[0]) and step.has(keys[-1])):
            raise self.image.damaged(
                f"page {page.number} of {self.owner} has keys outside of what the page above says"
            )
        return Branch(numbers, keys, step.high, step.depth + 1)

    def ordered(self, page: Page, step: Step) -> Iterator[tuple[bytes, Element]]:
        """Read the elements of a leaf: key, and where the value lies.

        Raises:
            DamagedError: the leaf is damaged, its keys do not rise, or leave `step`'s.
        """
        last: bytes | None = None
        for index, element in enumerate(self.image.elements(page, self.owner)):
            key = self.image.data[element.key : element.value]
            if (last is not None and key <= last) or not step.has(key):
                raise self.image.damaged(
                    f"element {index} of {self.image.place(page, self.owner)} breaks the order of"
                    " keys"
                )
            last = key
            yield key, element

    def entries(self, visited: Visited | None = None) -> Iterator[tuple[bytes, Element]]:
        """Read all elements in order: key, and where the value lies.

        Raises:
            DamagedError: the tree is damaged, or keys do not rise.
        """
        for page, step in self.walk(visited or Visited(self.image)):
            yield from self.ordered(page, step)

    def items(self, visited: Visited | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Read all keys and values in order.

        Raises:
            DamagedError: the tree is damaged, keys do not rise, or a value is a bucket.
        """
        data = self.image.data
        for key, element in self.entries(visited):
            if element.flags:
                raise self.nested(key, element)
            yield key, data[element.value : element.end]

    def between(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Read keys and values with `low` <= key < `high`; pages that have none are not read.

        Raises:
            DamagedError: the tree is damaged on the way, or a value is a bucket.
        """
        visited, stack = Visited(self.image), self.steps()
        while stack:
            step = stack.pop()
            if step.low >= high or (step.high is not None and step.high <= low):
                continue
            page = self.visit(step, visited)
            if not page.is_leaf:
                stack.extend(reversed(self.below(page, step).steps()))
                continue
            for key, element in self.ordered(page, step):
                if low <= key < high:
                    if element.flags:
                        raise self.nested(key, element)
                    yield key, self.image.data[element.value : element.end]

    def nested(self, key: bytes, element: Element) -> DamagedError:
        """Make the error for an element whose value is no plain one."""
        what = "is a bucket inside it" if element.flags == BUCKET_FLAG else "is of unknown kind"
        return self.image.damaged(f"{self.owner}: entry {key[:64]!r} {what}")

    def find(self, key: bytes) -> Element | None:
        """Look up where one entry lies; None where there is no such key.

        Raises:
            DamagedError: the path to it is damaged.
        """
        for element in self.image.elements(self.path(key)[-1], self.owner):
            if self.image.data[element.key : element.value] == key:
                return element
        return None

    def get(self, key: bytes) -> bytes | None:
        """Look up one value; None where there is no such key.

        Raises:
            DamagedError: the path to it is damaged, or the value is a bucket.
        """
        element = self.find(key)
        if element is None:
            return None
        if element.flags:
            raise self.nested(key, element)
        return self.image.data[element.value : element.end]

    def last(self) -> tuple[bytes, bytes] | None:
        """Read the entry with the greatest key; None where the bucket is empty.

        Raises:
            DamagedError: the path to it is damaged, or the value is a bucket.
        """
        elements = deque(self.image.elements(self.path(None)[-1], self.owner), maxlen=1)
        if not elements:
            return self._last_by_walk()
        found = elements[0]
        key = self.image.data[found.key : found.value]
        if found.flags:
            raise self.nested(key, found)
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
        return tuple(page.number for page in self.path(None)) if self._inline is None else ()

    def path(self, key: bytes | None) -> list[Page]:
        """Give the pages from the root to the leaf that has `key`, or to the rightmost one.

        Args:
            key: the key; None goes to the right.

        Raises:
            DamagedError: a page on the way is damaged.
        """
        if self._inline is not None:
            return [self._inline]
        path = [self.image.page(self.root, self.owner)]
        while not path[-1].is_leaf:
            if len(path) > MAX_DEPTH:
                raise self.image.damaged(f"{self.owner} is more than {MAX_DEPTH} levels deep")
            numbers, keys = self.image.branch(path[-1], self.owner)
            # As bolt does: the last child whose least key is not above, or else the first.
            index = len(keys) if key is None else bisect_right(keys, key)
            path.append(self.image.page(numbers[max(index - 1, 0)], self.owner))
        return path


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
