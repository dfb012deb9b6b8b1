"""Bolt files written whole, from streams of sorted elements.

Trees grow in `bolt.tree`; here is what a file needs around them: the bucket of buckets and the
two metas. No freelist is stored: whoever opens the file takes each page that nothing reaches as
free, and in a file from here there is none. Changing a file that is there is `bolt.patch`'s.

Source: go.etcd.io/bbolt, format 2; see `bolt.page`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from backstay.bolt.page import (
    BUCKET_FLAG,
    BUCKET_HEADER,
    DEFAULT_PAGE_SIZE,
    MAGIC,
    MAX_PAGE_SIZE,
    META,
    META_CHECKED_SIZE,
    META_PAGE,
    MIN_PAGE_SIZE,
    NO_FREELIST,
    PAGE_HEADER,
    VERSION,
    fnv1a_64,
)
from backstay.bolt.tree import Bytes, Element, PageWriter, TreeWriter
from backstay.errors import UsageError

#: Pages 0 and 1 are metas.
FIRST_PAGE = 2


@dataclass(frozen=True, slots=True)
class NewBucket:
    """A bucket to write.

    Attributes:
        name: its key in the bucket of buckets.
        elements: its contents, in the order of the keys; taken once.
        sequence: the counter that bolt keeps for each bucket.
    """

    name: bytes
    elements: Iterable[Element]
    sequence: int = 0


def write_file(
    target: BinaryIO, buckets: Iterable[NewBucket], *, page_size: int = DEFAULT_PAGE_SIZE
) -> int:
    """Write a bolt file.

    Args:
        target: an empty file that can seek; it is written front to back, the metas last.
        buckets: in the order of their names.
        page_size: in bytes, a power of two from 512 to 65536.

    Returns:
        the size of the file in bytes.

    Raises:
        UsageError: the page size is none that bolt takes.
        DamagedError: names or keys are not in rising order, or an element is too large.
        OSError: the target can't be written; `files.explained` words it.
    """
    if not MIN_PAGE_SIZE <= page_size <= MAX_PAGE_SIZE or page_size & (page_size - 1):
        raise UsageError(
            f"{page_size} bytes is no page size of a bolt file",
            f"use a power of two from {MIN_PAGE_SIZE} to {MAX_PAGE_SIZE}",
        )

    def write(data: Bytes) -> None:
        write_all(target, data)

    write(bytes(FIRST_PAGE * page_size))
    pages = PageWriter(write, page_size, FIRST_PAGE)
    names = TreeWriter(pages, BUCKET_FLAG)
    for bucket in buckets:
        tree = TreeWriter(pages)
        tree.extend(bucket.elements)
        names.extend(((bucket.name, BUCKET_HEADER.pack(tree.finish(), bucket.sequence)),))
    root = names.finish()
    pages.flush()
    target.seek(0)
    write(metas(page_size=page_size, root=root, high_water=pages.next))
    target.seek(pages.next * page_size)
    return pages.next * page_size


def metas(*, page_size: int, root: int, high_water: int, sequence: int = 0, txid: int = 1) -> bytes:
    """The two meta pages of a file, which say the same under two transaction ids.

    Args:
        page_size: in bytes.
        root: the root page of the bucket of buckets.
        high_water: how many pages the file has.
        sequence: the counter of the bucket of buckets.
        txid: the higher of the two transaction ids, 1 at least; its meta is the current one.
    """
    pages = []
    for page in range(FIRST_PAGE):
        # bbolt writes transaction N into meta N % 2, so the other one is the next to go.
        number = txid if txid % FIRST_PAGE == page else txid - 1
        checked = META.pack(
            MAGIC, VERSION, page_size, 0, root, sequence, NO_FREELIST, high_water, number, 0
        )[:META_CHECKED_SIZE]
        image = PAGE_HEADER.pack(page, META_PAGE, 0, 0) + checked
        pages.append((image + fnv1a_64(checked).to_bytes(8, "little")).ljust(page_size, b"\0"))
    return b"".join(pages)


def write_all(target: BinaryIO, data: Bytes) -> None:
    """Write all of `data`: an unbuffered file may take a part at a time.

    Raises:
        OSError: the target can't be written.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[target.write(rest) :]
