"""Leaves checked in the order of the file, many at a time, while it is copied.

Walks (`bolt.bucket`) go from key to key and look at each page by itself. A copy goes from byte to
byte: this module checks the leaves of a stretch of the file together, so that what is written
has been looked at and nothing is read twice. It looks at what bytes a page claims; the order of
the keys is the walks' business.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from backstay.bolt.image import ELEMENT_SIZE, HEADER_SIZE, Image
from backstay.bolt.page import LEAF_PAGE

_Numbers = npt.NDArray[np.int64]


class State(IntEnum):
    """What a page is to a copy."""

    #: Nothing that is kept reaches it.
    FREE = 0
    #: A leaf, by what the branch above says; not looked at yet.
    LEAF = 1
    #: It is kept and has been looked at, or goes on from a page before it.
    KEPT = 2
    #: It is reached, and written anew elsewhere.
    LEFT = 3


class LeafCheck:
    """A pass over a file from front to back.

    Args:
        image: the pages.
        states: a `State` for each page; the overflow pages of leaves are noted in it.
    """

    def __init__(self, image: Image, states: bytearray) -> None:
        self._image = image
        self._states = np.frombuffer(states, np.uint8)

    def kept(self, first: int, data: memoryview) -> npt.NDArray[np.bool_]:
        """Check the leaves that begin in a stretch of the file, and say which pages are kept.

        Args:
            first: the id of its first page.
            data: its bytes, whole pages.

        Raises:
            DamagedError: a leaf is none, overlaps another page, or has elements that do not
                follow each other within its pages.
        """
        here = self._states[first : first + len(data) // self._image.page_size]
        places = np.flatnonzero(here == State.LEAF)
        if places.size:
            self._check(places, first, np.frombuffer(data, "<u4").reshape(-1, 4))
        kept: npt.NDArray[np.bool_] = (here == State.LEAF) | (here == State.KEPT)
        return kept

    def _check(self, places: _Numbers, first: int, rows: npt.NDArray[np.uint32]) -> None:
        """Check leaves; `rows` has 16 bytes in each, as many as a header and an element have."""
        page_size = self._image.page_size
        ids = places + first
        starts = places * (page_size // ELEMENT_SIZE)
        heads = rows[starts].astype(np.int64)
        kinds, counts, overflows = heads[:, 2] & 0xFFFF, heads[:, 2] >> 16, heads[:, 3]
        sizes = (overflows + 1) * page_size
        sane = (heads[:, 0] | heads[:, 1] << 32) == ids
        sane &= (kinds == LEAF_PAGE) & (overflows < self._image.high_water - ids)
        sane &= HEADER_SIZE + counts * ELEMENT_SIZE <= sizes
        self._demand(sane, ids)
        self._note_overflow(ids, overflows)
        # A table that goes on after this stretch is rare: one leaf at a time will do for it.
        apart = starts + 1 + counts > len(rows)
        for page in ids[apart]:
            self._look(int(page))
        self._demand_elements(ids[~apart], starts[~apart], counts[~apart], sizes[~apart], rows)

    def _note_overflow(self, ids: _Numbers, overflows: _Numbers) -> None:
        if not overflows.any():
            return
        self._demand(np.append(ids[:-1] + overflows[:-1] < ids[1:], True), ids)
        pages = np.repeat(ids + 1, overflows) + _within(overflows)
        taken = self._states[pages] != State.FREE
        self._demand(~taken, np.repeat(ids, overflows))
        self._states[pages] = State.KEPT

    def _demand_elements(
        self,
        ids: _Numbers,
        starts: _Numbers,
        counts: _Numbers,
        sizes: _Numbers,
        rows: npt.NDArray[np.uint32],
    ) -> None:
        within = _within(counts)
        elements = rows[np.repeat(starts + 1, counts) + within].astype(np.int64)
        begins = HEADER_SIZE + within * ELEMENT_SIZE + elements[:, 1]
        ends = begins + elements[:, 2] + elements[:, 3]
        expected = np.empty_like(ends)
        expected[1:] = ends[:-1]
        some = counts > 0
        last = np.cumsum(counts)[some] - 1
        expected[last - counts[some] + 1] = HEADER_SIZE + counts[some] * ELEMENT_SIZE
        sane = (begins == expected) & (elements[:, 0] == 0)
        self._demand(sane, np.repeat(ids, counts))
        self._demand(ends[last] <= sizes[some], ids[some])

    def _demand(self, sane: npt.NDArray[np.bool_], ids: _Numbers) -> None:
        if not sane.all():
            number = int(ids[np.argmin(sane)])
            self._look(number)
            raise self._image.damaged(f"page {number} overlaps another page")

    def _look(self, number: int) -> None:
        """Check the page of one leaf slowly, and say exactly what is wrong with it."""
        page = self._image.page(number, "a bucket")
        if not page.is_leaf:
            raise self._image.damaged(f"page {number} is a branch where its siblings are leaves")
        for element in self._image.elements(page, "a bucket"):
            if element.flags:
                raise self._image.damaged(f"page {number} has a bucket inside a bucket")


def _within(counts: _Numbers) -> _Numbers:
    """Number the members of each group: [2, 3] gives 0 1 0 1 2."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
