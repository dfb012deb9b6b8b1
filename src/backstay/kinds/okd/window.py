"""The hours in which a backup may read the disk of a control plane host: `01:00-05:00`."""

import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import Self

from backstay.errors import UsageError

_TIMES = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, slots=True)
class Window:
    """Part of each day, by the machine's own clock and time zone; it may cross midnight.

    Attributes:
        begin: the first minute of it.
        end: the first minute after it.
    """

    begin: time
    end: time

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `HH:MM-HH:MM`.

        Raises:
            UsageError: it is none, or has no minute in it.
        """
        match = _TIMES.fullmatch(text)
        if match is None:
            raise UsageError(f"{text[:40]!r} is no window", "write 01:00-05:00")
        hour, minute, to_hour, to_minute = map(int, match.groups())
        found = cls(time(hour, minute), time(to_hour, to_minute))
        if found.begin == found.end:
            raise UsageError(f"the window {text} has no minute in it", "leave --window out")
        return found

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M}"

    def __contains__(self, now: datetime) -> bool:
        """Whether a moment is in it, by that moment's own time zone."""
        clock = now.timetz().replace(tzinfo=None)
        if self.begin < self.end:
            return self.begin <= clock < self.end
        return clock >= self.begin or clock < self.end
