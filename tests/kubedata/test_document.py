"""Documents of people: YAML and JSON, bounded, never quoted."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import FormatError
from backstay.kubedata.document import SIZE_LIMIT, load_document

SECRET = "c2VjcmV0LXRoYXQtbm9ib2R5LXNlZXM="


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": ["b", {"c": 1}]}',
        b'\t{\n\t"a":\t["b", {"c": 1}]}\n',
        b"a:\n- b\n- c: 1\n",
        b"---\na: [b, {c: 1}]\n",
        b"\xef\xbb\xbfa: [b, {c: 1}]",
    ],
)
def test_both_notations(data):
    assert load_document(data, "x") == {"a": ["b", {"c": 1}]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a: &x [1]\nb: *x\n", "anchors"),
        (b"a: &x 1\n", "anchors"),
        (b"a: *x\n", "anchors"),
        (b"a: !!python/object:os.system x\n", "tags"),
        (b"a: !x y\n", "tags"),
        (b"a: 1\n---\nb: 2\n", "more than one"),
        (b"- " * 1000 + b"a", "nested"),
        (b"[" * 1500, "nested"),
        (b"[{}], " * 2000, "brackets"),
        (b'{"a":' * 10_000, "broken"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "number"),
        (b"a: 1\na: 2\n", "line 2"),
        (b'{"a": }', "line 1, column 7"),
        (b"\xff\xfe", "byte 0 is no UTF-8"),
        (b"a: \x00", "broken"),
        (b"a: 2001-99-99", "broken"),
        (b"a" * (SIZE_LIMIT + 1), "more than 65536 bytes"),
    ],
)
def test_what_is_refused(data, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        load_document(data, "x")
    assert str(caught.value).startswith("x ")


def test_a_bomb_of_aliases_is_refused_at_once():
    lines = ["a0: &a0 [x]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)
    ]
    began = time.monotonic()
    with pytest.raises(FormatError, match="anchors"):
        load_document("\n".join(lines).encode(), "x")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "unit", [b"- 1\n", b"? - \n", b"a:\n", b"[", b"{a: ", b"'", b"|\n", b"- ["]
)
def test_the_worst_of_the_largest_size_ends_soon(unit):
    began = time.monotonic()
    with suppress(FormatError):
        load_document((unit * SIZE_LIMIT)[:SIZE_LIMIT], "x")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "text",
    [
        f"a: {SECRET}\n  b: c: d",
        f"a: '{SECRET}",
        f'{{"a": "{SECRET}",}}',
        f'{{"a": "{SECRET}" "{SECRET}"}}',
        f"a: !{SECRET} x",
        f"a: &{SECRET} x",
        f"a: *{SECRET}",
        f"{SECRET}: 1\n{SECRET}: 2",
        f'{{"{SECRET}": 1, "{SECRET}": 2}}',
        f"a: {SECRET}: {SECRET}",
        f"%TAG {SECRET}",
        f"a: 2001-99-99 # {SECRET}",
    ],
)
def test_promise_5_no_error_quotes_the_document(text):
    with pytest.raises(FormatError) as caught:
        load_document(text.encode(), "x")
    error = caught.value
    assert SECRET not in repr(error) + str(error)
    assert error.__cause__ is None
    assert error.__context__ is None


@given(
    st.one_of(
        st.binary(max_size=80), st.text("a:-{}[]\"' \n&*!|>?#1,", max_size=40).map(str.encode)
    )
)
def test_no_bytes_raise_anything_else(data):
    with suppress(FormatError):
        load_document(data, "x")
