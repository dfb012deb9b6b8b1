"""The wire format: what is written is read, and what is cut or too large is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.mvcc.keyvalue import KeyValue, parse_keyvalue
from backstay.mvcc.wire import MalformedError, fields, numbers, read_varint, signed
from kit.snapfile import keyvalue, varint


@given(number=st.integers(0, 2**64 - 1), after=st.binary(max_size=3))
def test_numbers_are_read(number, after):
    assert read_varint(varint(number) + after, 0) == (number, len(varint(number)))


@given(number=st.integers(0, 2**64 - 1))
def test_numbers_that_are_cut_are_refused(number):
    for size in range(len(varint(number))):
        with pytest.raises(MalformedError, match="does not end"):
            read_varint(varint(number)[:size], 0)


@given(number=st.integers(-(2**63), 2**63 - 1))
def test_signed_numbers(number):
    assert signed(number % 2**64) == number


NUMBERS = st.integers(0, 2**63 - 1)


@given(
    texts=st.tuples(st.binary(max_size=50), st.binary(max_size=300)),
    numbers=st.tuples(NUMBERS, NUMBERS, NUMBERS, st.integers(-(2**63), 2**63 - 1)),
)
def test_key_values_are_read(texts, numbers):
    (key, value), (create, mod, version, lease) = texts, numbers
    data = keyvalue(key, create, mod, version, value, lease)
    assert parse_keyvalue(data) == KeyValue(key, create, mod, version, value, lease)


@given(data=st.binary(max_size=100))
def test_nothing_else_comes_out_than_an_error_of_its_own(data):
    for read in (parse_keyvalue, lambda one: list(fields(one)), lambda one: numbers(one, {1: "x"})):
        try:
            read(data)
        except MalformedError:
            continue


def test_the_last_of_equal_fields_counts():
    assert parse_keyvalue(keyvalue(b"a") + keyvalue(b"b")).key == b"b"
    assert numbers(b"\x08\x01\x08\x02", {1: "x"}) == {"x": 2}


def test_fields_without_a_name_are_passed_over():
    assert numbers(b"\x08\x01\x12\x01z\x1d1234\x21" + bytes(8), {1: "x", 5: "y"}) == {
        "x": 1,
        "y": 0,
    }


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x00\x01", "no field number 0"),
        (varint(1 << 32) + b"\x01", "no field number 536870912"),
        (b"\x0b", "no wire type 3"),
        (b"\x0c", "no wire type 4"),
        (b"\x0f", "no wire type 7"),
        (b"\x0a\x02x", "claims 2 bytes, and 1 are left"),
        (b"\x09" + bytes(7), "claims 8 bytes, and 7 are left"),
        (b"\x0d" + bytes(3), "claims 4 bytes, and 3 are left"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
    ],
)
def test_what_breaks_the_format_is_said(data, what):
    with pytest.raises(MalformedError, match=what):
        list(fields(data))
