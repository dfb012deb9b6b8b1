"""A server's words in one line."""

from hypothesis import given
from hypothesis import strategies as st

from backstay.client.secret import Secret
from backstay.client.text import LIMIT, one_line


def test_promise_5_secrets_that_a_server_repeats_are_taken_out():
    words = one_line("bad password hunter2 for hunter2", [Secret("hunter2"), None, Secret("")])
    assert words == "bad password *** for ***"


def test_terminal_codes_and_line_ends_are_taken_out():
    assert one_line("a\nb\x1b[31mc\r\n\u202e d") == "a b [31mc d"


@given(st.text(max_size=3 * LIMIT))
def test_any_text_becomes_one_short_printable_line(text):
    line = one_line(text)
    assert line == "" or line.isprintable()
    assert len(line) <= LIMIT + 3
