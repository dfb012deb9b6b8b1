"""CRC-32C over ranges of a mapped file, and of two parts that were summed apart.

etcd's status hash and HashKV are CRC-32C (Castagnoli) over keys and values. google-crc32c sums
long pieces fast and takes bytes objects only, so ranges are joined to pieces that stay in the
processor's cache.
"""

from operator import sub

from google_crc32c import extend

#: Bytes of a piece at most.
_PIECE = 1 << 20
#: The polynomial without its highest term; the highest bit is the coefficient of 1.
_POLYNOMIAL = 0x82F63B78
_ONE = 1 << 31
_X = 1 << 30

__all__ = ["combine", "extend", "extend_ranges"]


def extend_ranges(crc: int, view: memoryview, starts: list[int], ends: list[int]) -> int:
    """Sum ranges of bytes one after the other.

    Args:
        crc: the sum of what comes before them.
        view: the mapped file.
        starts: the offset of each range.
        ends: the offset after each.
    """
    ranges = list(zip(starts, ends, strict=True))
    longest = max(map(sub, ends, starts), default=0)
    if longest > _PIECE:
        ranges = [(at, min(at + _PIECE, end)) for a, end in ranges for at in range(a, end, _PIECE)]
    at_once = _PIECE // min(max(longest, 1), _PIECE)
    for first in range(0, len(ranges), at_once):
        pieces = [view[start:end] for start, end in ranges[first : first + at_once]]
        crc = extend(crc, b"".join(pieces))
    return crc


def combine(first: int, second: int, length: int) -> int:
    """Give the CRC-32C of two parts together from those of each.

    Appending `length` bytes multiplies what is there by x to the power of 8 * length.

    Args:
        first: the sum of the first part.
        second: the sum of the second part, begun at 0.
        length: bytes of the second part.
    """
    return _multiply(_power(8 * length), first) ^ second


def _multiply(a: int, b: int) -> int:
    """Multiply polynomials over GF(2), modulo CRC-32C's."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def _power(exponent: int) -> int:
    """Give x to the power of `exponent`."""
    result, square = _ONE, _X
    while exponent:
        if exponent & 1:
            result = _multiply(result, square)
        square = _multiply(square, square)
        exponent >>= 1
    return result
