"""Reading fields of objects from outside: whatever they hold, nothing is raised."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar

T = TypeVar("T")

#: No time that Kubernetes writes is longer.
_TIME_LIMIT = 64


def at(document: object, path: str, default: T) -> T:
    """Read a field of an object from outside, if it is there and of the default's type.

    Args:
        document: an object of the API; whatever it holds, this raises nothing.
        path: names with dots between them.
        default: what to give where there is no such field, or one of another type.
    """
    for name in path.split("."):
        if not isinstance(document, Mapping):
            return default
        document = document.get(name)
    return document if isinstance(document, type(default)) else default


def time_at(document: object, path: str) -> datetime | None:
    """Read a time (RFC 3339) of an object from outside; None where there is none, or no such.

    Args:
        document: an object of the API; whatever it holds, this raises nothing.
        path: names with dots between them.
    """
    return parse_time(at(document, path, ""))


def parse_time(text: str) -> datetime | None:
    """Read a time in RFC 3339, as Kubernetes writes it; None where it is none. Aware, in UTC."""
    if len(text) > _TIME_LIMIT:
        return None
    try:
        found = datetime.fromisoformat(text)
        # Without an offset it is no RFC 3339; near the ends of the calendar there is no UTC.
        return None if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
