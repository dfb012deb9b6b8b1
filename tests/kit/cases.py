"""What can go wrong at a moment, and one such case after the other.

    for case in spread(every, 3): ...                       # a few of them
    hold_each(every, hold, record_property)                 # all, each named where it does not hold

A moment is the n-th of what has one name. The stores' cases, of `kit.disturbed`, are their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

C = TypeVar("C")
R = TypeVar("R")


@dataclass(frozen=True)
class Case:
    """A moment, and what happens then; where it lasts, to later ones, too."""

    name: str
    number: int
    harm: Enum
    lasts: bool = False

    def __str__(self) -> str:
        return f"{self.harm.name} at {self.name} {self.number}{' and after' * self.lasts}"


def spread(every: Sequence[C], number: int) -> Sequence[C]:
    """So many of them at most, as far from each other as there are."""
    return every[:: len(every) // number + 1]


def hold_each(
    chosen: Sequence[C], hold: Callable[[C], R], record_property: Callable[[str, object], None]
) -> list[R]:
    """Hold what comes of each; where that fails, the case is named.

    Args:
        chosen: the cases.
        hold: lets one happen, and looks at what comes of it.
        record_property: pytest's.
    """
    record_property("cases", len(chosen))
    found = []
    for case in chosen:
        try:
            found.append(hold(case))
        except BaseException as error:
            error.add_note(str(case))
            raise
    return found
