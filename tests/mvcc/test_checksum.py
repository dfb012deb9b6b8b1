"""Checksums of ranges, and of parts that were summed apart."""

from google_crc32c import value
from hypothesis import given
from hypothesis import strategies as st

from backstay.mvcc import checksum
from backstay.mvcc.checksum import combine, extend_ranges


def test_the_known_answer():
    assert extend_ranges(0, memoryview(b"..123456789.."), [2], [11]) == 0xE3069283


@given(data=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_ranges_are_summed_one_after_the_other(data, cuts):
    bounds = sorted(min(cut, len(data)) for cut in cuts)
    starts, ends = bounds[:-1:2], bounds[1::2]
    joined = b"".join(data[a:b] for a, b in zip(starts, ends, strict=False))
    before, checksum._PIECE = checksum._PIECE, 64
    try:
        found = extend_ranges(0, memoryview(data), starts[: len(ends)], ends)
    finally:
        checksum._PIECE = before
    assert found == value(joined)


@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_parts_are_combined(first, second):
    assert combine(value(first), value(second), len(second)) == value(first + second)


def test_long_parts_are_combined():
    second = bytes(5_000_001)
    assert combine(value(b"abc"), value(second), len(second)) == value(b"abc" + second)
