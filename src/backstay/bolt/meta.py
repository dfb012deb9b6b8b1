"""The two meta pages of a bolt file: which tree counts, and how large the file must be.

bolt writes them in turn, so that a crash while one is written leaves the other. This module
reads both and chooses; what the chosen one points to is `bolt.image`'s and `bolt.bucket`'s
business. Format: see `bolt.page`.
"""

import mmap
from dataclasses import dataclass

from backstay.bolt.page import (
    MAGIC,
    MAX_PAGE_SIZE,
    META,
    META_PAGE,
    MIN_PAGE_SIZE,
    PAGE_HEADER,
    VERSION,
    fnv1a_64,
)

_META_END = PAGE_HEADER.size + META.size


@dataclass(frozen=True, slots=True)
class Meta:
    """What a valid meta page says.

    Attributes:
        page: 0 or 1.
        page_size: bytes.
        root: page of the bucket of buckets.
        sequence: that bucket's counter.
        freelist: page of the freelist, or `NO_FREELIST`.
        high_water: number of pages in use: ids are below it.
        txid: the transaction that wrote it.
    """

    page: int
    page_size: int
    root: int
    sequence: int
    freelist: int
    high_water: int
    txid: int


def read_meta(data: mmap.mmap, offset: int, page: int) -> Meta | str:
    """Read the meta page at `offset`; the reason, as a phrase, where it is not valid."""
    raw = data[offset : offset + _META_END]
    if len(raw) < _META_END:
        return "is not there"
    number, flags, _, _ = PAGE_HEADER.unpack_from(raw)
    magic, version, page_size, _, root, sequence, freelist, high_water, txid, checksum = (
        META.unpack_from(raw, PAGE_HEADER.size)
    )
    faults = {
        "has no bolt magic number": magic != MAGIC,
        "does not match its own checksum": checksum != fnv1a_64(raw[PAGE_HEADER.size : -8]),
        f"is of format version {version}, not {VERSION}": version != VERSION,
        f"says that pages have {page_size} bytes": not is_page_size(page_size),
        f"is headed as page {number} of kind {flags:#x}": (number, flags) != (page, META_PAGE),
    }
    return next(
        (reason for reason, holds in faults.items() if holds),
        Meta(page, page_size, root, sequence, freelist, high_water, txid),
    )


def is_page_size(number: int) -> bool:
    """Whether bolt has pages of that many bytes: a power of two within bounds."""
    return MIN_PAGE_SIZE <= number <= MAX_PAGE_SIZE and number & (number - 1) == 0


def read_metas(data: mmap.mmap) -> tuple[Meta | str, Meta | str]:
    """Read both meta pages.

    Where the first is broken, the second is looked for at each page size that bolt has.
    """
    first = read_meta(data, 0, 0)
    if isinstance(first, Meta):
        return first, _same_size(read_meta(data, first.page_size, 1), first.page_size)
    size = MIN_PAGE_SIZE
    reason = "is not to be found at any page size"
    while size <= MAX_PAGE_SIZE:
        second = read_meta(data, size, 1)
        if isinstance(second, Meta) and second.page_size == size:
            return first, second
        if isinstance(second, str) and second.startswith("does not match"):
            reason = second
        size *= 2
    return first, reason


def _same_size(meta: Meta | str, page_size: int) -> Meta | str:
    if isinstance(meta, Meta) and meta.page_size != page_size:
        return f"says that pages have {meta.page_size} bytes, and page 0 says {page_size}"
    return meta


def newest(metas: tuple[Meta | str, Meta | str]) -> Meta | None:
    """The valid meta with the higher transaction id, as bolt chooses; None where none is valid."""
    valid = [meta for meta in metas if isinstance(meta, Meta)]
    return max(valid, key=lambda meta: meta.txid, default=None)
