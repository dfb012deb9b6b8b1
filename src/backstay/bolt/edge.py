"""Where a bucket ends, or is cut off: what must be written anew so that it can go on from there.

To the left of the edge all stays on its pages. Written anew are the leaf at the edge and the
branches above it. A cut can leave a branch there with no child but the open one, which bbolt
asserts against when it deletes later: then the branch to its left is opened, too, and so on up.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from backstay.bolt.bucket import Bucket
from backstay.bolt.image import Page
from backstay.bolt.tree import Edge, Element

_Child = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Cut:
    """The edge of a bucket.

    Attributes:
        edge: what the writer of its tree goes on from.
        opened: pages that are written anew; none of an inline bucket.
    """

    edge: Edge
    opened: tuple[Page, ...]


def cut(bucket: Bucket, upto: bytes | None) -> Cut:
    """Find the edge of a bucket.

    Args:
        bucket: the bucket.
        upto: the last key that stays; None: all stay.

    Raises:
        DamagedError: a page at the edge is damaged.
    """
    edge = _Edge(bucket, upto)
    if bucket.inline:
        edge.take_leaf(next(bucket.leaves()))
    else:
        edge.descend()
    return Cut(
        Edge(edge.leaf, edge.lefts, edge.leaf[-1][0] if edge.leaf else b""), tuple(edge.opened)
    )


@dataclass(slots=True)
class _Edge:
    """An edge that is being found.

    Attributes:
        leaf: the elements of the open leaf.
        lefts: from the lowest level up, the children to the left of the edge.
        opened: the pages that are written anew.
    """

    bucket: Bucket
    upto: bytes | None
    leaf: list[Element] = field(default_factory=list)
    lefts: list[list[_Child]] = field(default_factory=list)
    opened: list[Page] = field(default_factory=list)

    def descend(self) -> None:
        """Go from the root to the leaf at the edge, and make the branches above it fit to go on."""
        *branches, leaf = self.bucket.path(self.upto)
        self.opened = branches
        for page in reversed(branches):
            children = self._children(page)
            keys = [key for key, _ in children]
            index = len(keys) if self.upto is None else bisect_right(keys, self.upto)
            self.lefts.append(children[: max(index - 1, 0)])
        self.take_leaf(leaf)
        self.opened.append(leaf)
        while not self.leaf and any(self.lefts):
            self.opened.append(page := self._last_of(0))
            self.take_leaf(page)
        for level in range(len(self.lefts)):
            if not self.lefts[level] and any(self.lefts[level + 1 :]):
                self._borrow(level)

    def take_leaf(self, page: Page) -> None:
        """Take the elements of a leaf that stay."""
        image = self.bucket.image
        view = memoryview(image.data)
        for place in image.elements(page, self.bucket.owner):
            key = image.data[place.key : place.value]
            if self.upto is not None and key > self.upto:
                break
            self.leaf.append((key, view[place.value : place.end]))

    def _children(self, page: Page) -> list[_Child]:
        numbers, keys = self.bucket.image.branch(page, self.bucket.owner)
        return list(zip(keys, numbers, strict=True))

    def _last_of(self, level: int) -> Page:
        """Take the last child of a level out of it."""
        if not self.lefts[level]:
            self._borrow(level)
        _, number = self.lefts[level].pop()
        return self.bucket.image.page(number, self.bucket.owner)

    def _borrow(self, level: int) -> None:
        """Open the branch to the left, so that a level has children again."""
        page = self._last_of(level + 1)
        self.opened.append(page)
        self.lefts[level] = self._children(page)
