import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.cli.values import (
    MAX_DURATION,
    Duration,
    FilePath,
    Rate,
    Size,
    parse_duration,
    parse_size,
    printable,
    show_duration,
    show_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("1h2m3s4ms", 3723.004),
        ("0s", 0),
        ("576h", MAX_DURATION),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)
    assert Duration().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "10", "s", "-1s", "1m1h", "1 s", "1S", "\u0661s", "1e3s", "nan", "577h", "9" * 400 + "h"],
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError):
        parse_duration(text)
    with pytest.raises(click.BadParameter, match="10s or 1h30m"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("8MiB", 8 << 20), ("500MB", 500_000_000), ("2 GiB", 2 << 30), ("1B", 1)],
)
def test_sizes(text, size):
    assert parse_size(text) == size
    assert Size().convert(text, None, None) == size
    assert Size().convert(size, None, None) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5GiB", "1mib", "\u0661", "1 EiB", "9" * 5000])
def test_what_is_no_size(text):
    with pytest.raises(ValueError):
        parse_size(text)
    with pytest.raises(click.BadParameter, match="8MiB or 1024"):
        Size().convert(text, None, None)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 30, "1.0 GiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_sizes_for_people(size, text):
    assert show_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (9.94, "9.9s"), (10, "10s"), (59.6, "1m0s"), (3600, "1h0m0s"), (3725, "1h2m5s")],
)
def test_durations_for_people(seconds, text):
    assert show_duration(seconds) == text


@given(st.text())
def test_whatever_is_shown_can_be_printed(text):
    shown = printable(text)
    assert shown.isprintable()
    assert text.isprintable() == (shown == text)
    shown.encode()


def test_what_is_kept_is_kept():
    assert printable("a\nb\x1b[0m", keep="\n") == "a\nb\\x1b[0m"
    assert printable("a\nb") == "a\\nb"
    assert printable("\udcff") == "\\udcff"


def test_a_name_is_not_empty(tmp_path):
    assert FilePath().convert(str(tmp_path), None, None) == str(tmp_path)
    with pytest.raises(click.BadParameter, match="unset"):
        FilePath().convert("", None, None)


@pytest.mark.parametrize(
    ("text", "rate"), [("20MiB/s", 20 << 20), ("1500", 1500), ("2KB/s", 2000), (7, 7)]
)
def test_rates_are_sizes_a_second(text, rate):
    assert Rate().convert(text, None, None) == rate


@pytest.mark.parametrize("text", ["", "0", "0MiB/s", "fast", "5MiB/m", "-1", "/s"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(click.UsageError, match="20MiB/s"):
        Rate().convert(text, None, None)
