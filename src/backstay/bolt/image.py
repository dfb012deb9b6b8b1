"""The bytes of a bolt file as pages, none of whose numbers is believed.

All readers of pages go through here: a page is handed out only when its id, its overflow and its
number of elements fit into the file. What a page's elements mean is `bolt.bucket`'s business.
Format: see `bolt.page`.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from operator import add, lt

from backstay.bolt.page import (
    BRANCH_PAGE,
    LEAF_ELEMENT,
    LEAF_PAGE,
    PAGE_HEADER,
)
from backstay.errors import DamagedError

HEADER_SIZE = PAGE_HEADER.size
ELEMENT_SIZE = LEAF_ELEMENT.size
#: Pages 0 and 1 are the metas.
FIRST_PAGE = 2


@dataclass(frozen=True, slots=True)
class Page:
    """A branch or leaf page whose header has been checked.

    Attributes:
        number: its id; 0 for the page image of an inline bucket.
        flags: `BRANCH_PAGE` or `LEAF_PAGE`.
        count: its elements; their table fits into the page.
        start: offset of its header in the file.
        end: offset of the first byte after it, overflow pages included.
        overflow: how many more pages it has.
    """

    number: int
    flags: int
    count: int
    start: int
    end: int
    overflow: int

    @property
    def is_leaf(self) -> bool:
        """Whether it holds keys and values, and not children."""
        return self.flags == LEAF_PAGE

    @property
    def table(self) -> int:
        """Offset of the first element's header."""
        return self.start + HEADER_SIZE

    @property
    def data(self) -> int:
        """Offset of the first byte after the element headers, where keys and values begin."""
        return self.table + self.count * ELEMENT_SIZE


@dataclass(frozen=True, slots=True)
class Element:
    """Where one element of a leaf has its key and value: offsets in the file."""

    flags: int
    key: int
    value: int
    end: int


class Image:
    """A mapped bolt file.

    Args:
        data: the mapped file.
        name: what messages call it.
        page_size: bytes of a page.
        high_water: ids are below it; the file is known to have that many pages.
    """

    def __init__(self, data: mmap.mmap, name: str, page_size: int, high_water: int) -> None:
        self.data = data
        self.name = name
        self.page_size = page_size
        self.high_water = high_water

    def damaged(self, what: str) -> DamagedError:
        """Make the error that says what is wrong in this file."""
        return DamagedError(f"{self.name} is damaged: {what}", "use another backup")

    def page(self, number: int, owner: str) -> Page:
        """Read the header of a page of a tree.

        Args:
            number: the page's id, as some other page gives it.
            owner: whose page it is, for messages (`bucket key`).

        Raises:
            DamagedError: there is no such page, or its header can't be right.
        """
        if not FIRST_PAGE <= number < self.high_water:
            raise self.damaged(
                f"{owner} refers to page {number}, and pages in use are"
                f" {FIRST_PAGE} to {self.high_water - 1}"
            )
        start = number * self.page_size
        said, flags, count, overflow = PAGE_HEADER.unpack_from(self.data, start)
        if said != number:
            raise self.damaged(f"page {number} of {owner} says that it is page {said}")
        if overflow >= self.high_water - number:
            raise self.damaged(
                f"page {number} of {owner} claims {overflow} overflow pages, and only"
                f" {self.high_water - number - 1} pages follow it"
            )
        end = start + (overflow + 1) * self.page_size
        page = Page(number, flags, count, start, end, overflow)
        self._check_header(page, owner)
        return page

    def inline_page(self, start: int, end: int, owner: str) -> Page:
        """Read the header of the page image that an inline bucket has in its value.

        Raises:
            DamagedError: the image is no leaf, or does not fit.
        """
        if end - start < HEADER_SIZE:
            raise self.damaged(f"{owner} is inline and has no room for a page")
        _, flags, count, _ = PAGE_HEADER.unpack_from(self.data, start)
        page = Page(0, flags, count, start, end, 0)
        self._check_header(page, owner)
        if not page.is_leaf:
            raise self.damaged(f"{owner} is inline and no leaf")
        return page

    def _check_header(self, page: Page, owner: str) -> None:
        if page.flags not in {LEAF_PAGE, BRANCH_PAGE}:
            raise self.damaged(
                f"{self.place(page, owner)} is of kind {page.flags:#x}, neither branch nor leaf"
            )
        if page.data > page.end:
            raise self.damaged(
                f"{self.place(page, owner)} claims {page.count} elements, more than fit into"
                f" its {page.end - page.start} bytes"
            )

    def place(self, page: Page, owner: str) -> str:
        """How messages call a page."""
        return f"page {page.number} of {owner}" if page.number else f"the inline page of {owner}"

    def elements(self, page: Page, owner: str) -> Iterator[Element]:
        """Read the element headers of a leaf, in order.

        bolt stores keys and values one after the other, in order and without gaps. That is
        demanded here: else a few elements that overlap could stand for any number of bytes.

        Raises:
            DamagedError: an element is not where the one before it ends, or leaves the page.
        """
        header = page.table
        expected = page.data
        for flags, pos, key_size, value_size in LEAF_ELEMENT.iter_unpack(
            self.data[page.table : page.data]
        ):
            key = header + pos
            value = key + key_size
            end = value + value_size
            if key != expected or end > page.end:
                index = (header - page.table) // ELEMENT_SIZE
                raise self.damaged(
                    f"element {index} of {self.place(page, owner)} lies at bytes"
                    f" {key - page.start} to {end - page.start} of the page, and should begin at"
                    f" {expected - page.start} and end by {page.end - page.start}"
                )
            yield Element(flags, key, value, end)
            header += ELEMENT_SIZE
            expected = end

    def children(self, page: Page, owner: str) -> list[tuple[bytes, int]]:
        """Read the elements of a branch: the least key below each child, and its page id.

        Raises:
            DamagedError: there is none, their keys do not rise, or they leave the page.
        """
        numbers, keys = self.branch(page, owner)
        return list(zip(keys, numbers, strict=True))

    def branch(self, page: Page, owner: str) -> tuple[list[int], list[bytes]]:
        """Read the elements of a branch as two lists: page ids, and the least key below each.

        Raises:
            DamagedError: there is none, their keys do not rise, or they leave the page.
        """
        if page.count == 0:
            raise self.damaged(f"{self.place(page, owner)} is a branch without children")
        with memoryview(self.data)[page.table : page.data] as table:
            numbers = table.cast("Q")[1::2].tolist()
            positions = table.cast("I")[::4].tolist()
            sizes = table.cast("I")[1::4].tolist()
        bounds = list(accumulate(sizes, initial=page.data))
        headers = range(page.table, page.data, ELEMENT_SIZE)
        if list(map(add, headers, positions)) != bounds[:-1] or bounds[-1] > page.end:
            raise self.damaged(f"the keys of {self.place(page, owner)} are not in their places")
        keys = [self.data[a:b] for a, b in pairwise(bounds)]
        if not all(map(lt, keys, islice(keys, 1, None))):
            raise self.damaged(f"the keys of {self.place(page, owner)} do not rise")
        return numbers, keys
