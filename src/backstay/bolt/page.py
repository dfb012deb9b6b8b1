"""The layout of bolt's pages: offsets, sizes, magic numbers.

Source: go.etcd.io/bbolt, format version 2, little-endian.

A page header is {id u64, flags u16, count u16, overflow u32}. A leaf element is {flags u32,
pos u32, ksize u32, vsize u32}, a branch element {pos u32, ksize u32, child page u64}; `pos`
counts from the start of the element itself. A bucket's value is {root page u64, sequence u64},
followed by a page image where the root is 0 (an inline bucket).
"""

from struct import Struct

PAGE_HEADER = Struct("<QHHI")
LEAF_ELEMENT = Struct("<IIII")
BRANCH_ELEMENT = Struct("<IIQ")
BUCKET_HEADER = Struct("<QQ")

#: What follows the header of a meta page: magic, version, page size, flags, root page,
#: root sequence, freelist page, high-water page, transaction id, checksum.
META = Struct("<IIIIQQQQQQ")
#: The checksum is FNV-1a 64 over the bytes of the meta before it.
META_CHECKED_SIZE = META.size - 8

MAGIC = 0xED0CDAED
VERSION = 2
NO_FREELIST = 0xFFFF_FFFF_FFFF_FFFF

BRANCH_PAGE = 0x01
LEAF_PAGE = 0x02
META_PAGE = 0x04
FREELIST_PAGE = 0x10

#: A leaf element's flag: its value is a bucket.
BUCKET_FLAG = 0x01

DEFAULT_PAGE_SIZE = 4096
MIN_PAGE_SIZE = 512
MAX_PAGE_SIZE = 1 << 16


def fnv1a_64(data: bytes) -> int:
    """FNV-1a, 64 bit, as bolt sums its meta pages (56 bytes: a loop is fast enough)."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFF_FFFF_FFFF_FFFF
    return value
