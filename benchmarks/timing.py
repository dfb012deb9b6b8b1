"""Timing two things fairly: by turns, several times, and by their medians."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.programs import Run

Measured = Callable[[], Run]
_PIECE = 16 << 20


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, each time that it was done; seconds."""

    seconds: tuple[float, ...]
    cpu: tuple[float, ...]

    @classmethod
    def of(cls, runs: list[Run]) -> "Times":
        """Take the times out of some runs."""
        return cls(tuple(run.seconds for run in runs), tuple(run.cpu for run in runs))

    @property
    def median(self) -> float:
        """The one in the middle."""
        return median(self.seconds)

    @property
    def work(self) -> float:
        """Seconds of processor time, the one in the middle."""
        return median(self.cpu)

    @property
    def least(self) -> float:
        """The quickest."""
        return min(self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.3g} s ({self.least:.3g} s)"


def by_turns(ours: Measured, theirs: Measured, repetitions: int) -> tuple[Times, Times]:
    """Do both by turns, so that what else the machine does hits both.

    Each is done once before, and not counted: programs and files are in memory then.
    """
    first, second = in_turn((ours, theirs), repetitions)
    return first, second


def in_turn(ways: Sequence[Measured], repetitions: int) -> list[Times]:
    """Do several by turns; see `by_turns`."""
    runs: list[list[Run]] = [[] for _ in ways]
    for turn in range(repetitions + 1):
        for done, measured in zip(runs, ways, strict=True):
            # What an earlier run left to be written must not slow this one.
            os.sync()
            run = measured()
            if turn:
                done.append(run)
    return [Times.of(done) for done in runs]


def warm(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(_PIECE):
            pass
