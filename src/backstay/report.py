"""What the flows tell while they work.

Flows emit events; progress bars, log lines and metrics consume them. Nothing under the
command line prints.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import count


class Verdict(StrEnum):
    """The answer of a check."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    COULD_NOT_VERIFY = "COULD NOT VERIFY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A question that was asked and its answer.

    Attributes:
        name: the question, one word (`transfer`, `stored`, `structure`, `content`).
        verdict: the answer.
        detail: one line that says what was compared, or what is wrong.
        seconds: how long the check took.
    """

    name: str
    verdict: Verdict
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Started:
    """A piece of work began; `total` is None where it is not known (unit: see `unit`)."""

    task: int
    name: str
    total: int | None
    unit: str


@dataclass(frozen=True, slots=True)
class Advanced:
    """A piece of work went on by `amount` units."""

    task: int
    amount: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A piece of work ended; `ok` is False where it ended by an error."""

    task: int
    ok: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """A check has its verdict."""

    check: Check


@dataclass(frozen=True, slots=True)
class Said:
    """A line for the reader: a choice that was made, or a warning."""

    text: str
    warning: bool = False


Event = Started | Advanced | Finished | Judged | Said


class Report:
    """Hands events to whoever listens.

    Args:
        listeners: called with each event, in order, in the thread that emits it. A listener
            must be thread-safe and must not raise.
    """

    def __init__(self, *listeners: Callable[[Event], None]) -> None:
        self._listeners = listeners
        self._ids = count(1)

    def emit(self, event: Event) -> None:
        """Hand one event to every listener."""
        for listener in self._listeners:
            listener(event)

    def say(self, text: str) -> None:
        """Tell of a choice that was made."""
        self.emit(Said(text))

    def warn(self, text: str) -> None:
        """Tell of something that the reader should act on."""
        self.emit(Said(text, warning=True))

    def judge(self, check: Check) -> None:
        """Tell a verdict."""
        self.emit(Judged(check))

    @contextmanager
    def task(
        self, name: str, total: int | None = None, unit: str = "bytes"
    ) -> Iterator[Callable[[int], None]]:
        """Frame a piece of work; call what is yielded with each amount that is done."""
        task = next(self._ids)
        self.emit(Started(task, name, total, unit))
        ok = False
        try:
            yield lambda amount: self.emit(Advanced(task, amount))
            ok = True
        finally:
            self.emit(Finished(task, ok))
