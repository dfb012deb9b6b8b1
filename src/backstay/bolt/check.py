"""Everything that a bolt file reaches, proven: all trees, all elements, the list of free pages.

Pages that nothing reaches are not looked at: they hold what was deleted, or nothing. What the
values mean is the business of others; `check` hands them the runs as it goes, so that one pass is
enough.
"""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import lt

from backstay.bolt.file import BoltFile
from backstay.bolt.image import FIRST_PAGE, HEADER_SIZE
from backstay.bolt.page import FREELIST_PAGE, NO_FREELIST, PAGE_HEADER
from backstay.bolt.sweep import Run, Sweep
from backstay.bolt.visited import Visited

#: A freelist with so many ids or more has their number in front of them.
_MANY = 0xFFFF
_ID_SIZE = 8


@dataclass(frozen=True, slots=True)
class Structure:
    """What was found to be whole.

    Attributes:
        buckets: how many.
        elements: how many there are in all of them.
        pages: how many are in use, the metas and the list of free pages included.
        free: how many are listed as free; None where no list is stored.
    """

    buckets: int
    elements: int
    pages: int
    free: int | None


def walk(bolt: BoltFile, visited: Visited) -> Iterator[tuple[bytes, Run | None]]:
    """Read all buckets in order: for each its name alone, then its runs.

    Raises:
        DamagedError: a tree is damaged.
    """
    for name, bucket in bolt.buckets(visited):
        yield name, None
        for run in Sweep(bucket, visited).runs():
            yield name, run


def check(
    bolt: BoltFile, *, each: Callable[[bytes, Run | None], None] = lambda _name, _run: None
) -> Structure:
    """Prove all that the file reaches.

    Args:
        bolt: the file.
        each: called with what `walk` gives.

    Raises:
        DamagedError: something is damaged; what `each` raises goes through.
    """
    visited = Visited(bolt.image)
    buckets = elements = 0
    for name, run in walk(bolt, visited):
        each(name, run)
        if run is None:
            buckets += 1
        else:
            elements += run.elements
    free = _check_freelist(bolt, visited)
    return Structure(buckets, elements, FIRST_PAGE + visited.count(), free)


def _check_freelist(bolt: BoltFile, visited: Visited) -> int | None:
    """Prove that no page is both free and in use: bolt would write over it."""
    number = bolt.meta.freelist
    if number == NO_FREELIST:
        return None
    ids = _free_ids(bolt, visited)
    damaged = bolt.image.damaged
    if ids and not (ids[0] >= FIRST_PAGE and ids[-1] < bolt.high_water):
        raise damaged(f"page {number}, the list of free pages, has ids of no pages")
    if not all(map(lt, ids, islice(ids, 1, None))):
        raise damaged(f"the ids on page {number}, the list of free pages, do not rise")
    used = next((page for page in ids if page in visited), None)
    if used is not None:
        raise damaged(f"page {used} is in use and listed as free")
    return len(ids)


def _free_ids(bolt: BoltFile, visited: Visited) -> "array[int]":
    """Read the list of free pages, and note the pages that it takes."""
    image, number = bolt.image, bolt.meta.freelist
    if not FIRST_PAGE <= number < bolt.high_water:
        raise image.damaged(f"its list of free pages is on page {number}, which there is not")
    start = number * bolt.page_size
    said, flags, count, overflow = PAGE_HEADER.unpack_from(image.data, start)
    if said != number or flags != FREELIST_PAGE or overflow >= bolt.high_water - number:
        raise image.damaged(f"page {number} should be the list of free pages, and is not")
    visited.add_pages(number, overflow + 1, "the list of free pages")
    end = start + (overflow + 1) * bolt.page_size
    begin = start + HEADER_SIZE
    if count == _MANY:
        count = int.from_bytes(image.data[begin : begin + _ID_SIZE], "little")
        begin += _ID_SIZE
    if count > (end - begin) // _ID_SIZE:
        raise image.damaged(f"page {number}, the list of free pages, claims {count} of them")
    return array("Q", image.data[begin : begin + count * _ID_SIZE])
