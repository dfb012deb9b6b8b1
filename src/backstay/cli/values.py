"""Durations, sizes and names as people write them, and as they are shown."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

#: What is longer is a slip, and more milliseconds than the system can count.
MAX_DURATION = 24 * 24 * 3600.0
_DURATION = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?(?:([0-9]+)ms)?")
_AGE = re.compile(r"([0-9]{1,5})([hdw])")
_AGES = {"h": "hours", "d": "days", "w": "weeks"}
_SIZE = re.compile(r"([0-9]{1,20})\s*([KMGT]i?B|B)?")
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_.-]*)):([0-9]{1,5})")
_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _UNITS[f"{_letter}iB"] = 1024**_power
    _UNITS[f"{_letter}B"] = 1000**_power


def parse_duration(text: str) -> float:
    """Seconds of a duration as Go writes it: `10s`, `1h30m`, `250ms`.

    Raises:
        ValueError: it is no such duration, or longer than `MAX_DURATION`.
    """
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(text)
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    total = hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    if total > MAX_DURATION:
        raise ValueError(text)
    return total


def parse_size(text: str) -> int:
    """Bytes of a size: `8MiB`, `500MB`, `1024`.

    Raises:
        ValueError: it is no such size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _UNITS[match[2] or ""]


def parse_time(text: str) -> datetime:
    """Read a time as RFC 3339 writes it.

    Raises:
        ValueError: it is none, or has no zone.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(text)
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(text) from error


def printable(text: str, keep: str = "") -> str:
    r"""Write what a terminal would obey, or can't show, as `\x1b`.

    Names of files, and what a repository says, are other people's words.

    Args:
        text: any text.
        keep: characters that pass all the same, such as line ends.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def show_size(size: float) -> str:
    """Write a number of bytes for people: `1.2 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def show_duration(seconds: float) -> str:
    """Write a duration for people, as Go does: `1h2m3s`."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if minutes or hours else ""
    return f"{text}{secs}s"


class Duration(click.ParamType[float]):
    """A duration, in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Take a duration as Go writes it."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError:
            self.fail(f"{value!r} is no duration: write 10s or 1h30m", param, ctx)


class Age(click.ParamType[timedelta]):
    """A stretch of hours, days or weeks."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Take a number with its unit."""
        if isinstance(value, timedelta):
            return value
        found = _AGE.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no stretch of time: write 36h, 30d or 8w", param, ctx)
        return timedelta(**{_AGES[found[2]]: int(found[1])})


class Size(click.ParamType[int]):
    """A size, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Take a size with its unit."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError:
            self.fail(f"{value!r} is no size: write 8MiB or 1024", param, ctx)


class Rate(click.ParamType[int]):
    """A size for each second, in bytes."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Take a size with its unit, above zero; `/s` may stand behind it."""
        if isinstance(value, int):
            return value
        try:
            found = parse_size(str(value).removesuffix("/s"))
        except ValueError:
            found = 0
        if not found:
            self.fail(f"{value!r} is no rate: write 20MiB/s", param, ctx)
        return found


class Time(click.ParamType[datetime]):
    """A moment, as RFC 3339 writes it; one without a zone is refused, not guessed."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Take a time with its zone."""
        if isinstance(value, datetime):
            return value
        try:
            return parse_time(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time: write 2026-11-20T23:10:00Z, with a zone", param, ctx)


class Address(click.ParamType[tuple[str, int]]):
    """Where to listen, as Go writes it: `:9479`, `127.0.0.1:9479`, `[::1]:9479`."""

    name = "address"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Take an address; an empty host is every one."""
        if isinstance(value, tuple):
            return value
        match = _ADDRESS.fullmatch(str(value))
        if match is None or int(match[3]) >= 1 << 16:
            self.fail(f"{value!r} is no address: write :9479 or 127.0.0.1:9479", param, ctx)
        return match[1] or match[2] or "", int(match[3])


class FilePath(click.Path):
    """The name of a file or directory; not an empty one, which an unset variable gives."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Take a name."""
        if value in {"", b""}:
            self.fail("the name is empty; is a variable unset?", param, ctx)
        return super().convert(value, param, ctx)
