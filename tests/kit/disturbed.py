"""Whole commands while one operation of their stores goes wrong; cases made from a clean run.

    moments = run(cli, words).moments           # what a run asks that nobody disturbs
    for case in cases(moments):                 # every operation x every fault that it can have
        disturbed = run(cli, words, case)

A moment is known by its store, its operation and its place among those: threads ask at the same
time, and where two of them change places, each case still means what it did.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from backstay.repo import url
from backstay.repo.store import Presigner
from kit.cli import Cli, Done
from kit.faulty_signer import FaultySigner
from kit.faulty_store import FAULTS_OF, Fault, FaultyStore, Operation


@dataclass(frozen=True, order=True)
class Moment:
    """One operation of a command.

    Attributes:
        store: the last part of its store's URL.
        name: of the operation.
        number: of those with this name in this store, from 1.
    """

    store: str
    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.store} {self.name} {self.number}"


@dataclass(frozen=True)
class Case:
    """A moment, and what happens then."""

    moment: Moment
    fault: Fault

    def __str__(self) -> str:
        return f"{self.fault.name} at {self.moment}"


def cases(moments: Sequence[Moment]) -> list[Case]:
    """Everything that can happen to a run, in its order."""
    return [Case(moment, fault) for moment in moments for fault in FAULTS_OF[moment.name]]


def some(every: Sequence[Case], number: int) -> list[Case]:
    """So many of them: other operations first, then other faults, spread over the run."""
    found: list[Case] = []
    left = list(every)
    while left and len(found) < number:
        names = Counter(case.moment.name for case in found)
        faults = Counter(case.fault for case in found)
        # The middle of what is equally rare: first and last operations are much alike everywhere.
        rarest = min((names[one.moment.name], faults[one.fault]) for one in left)
        rare = [one for one in left if (names[one.moment.name], faults[one.fault]) == rarest]
        chosen = rare[len(rare) // 2]
        found.append(chosen)
        left.remove(chosen)
    return found


@dataclass
class Watch:
    """A plan for all stores of a command: one operation of them goes wrong."""

    case: Case | None = None
    moments: list[Moment] = field(default_factory=list)
    hit: Operation | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: Counter = field(default_factory=Counter)

    def of(self, store: str):
        """The plan of one store."""

        def plan(operation: Operation) -> Fault | None:
            with self._lock:
                self._seen[store, operation.name] += 1
                moment = Moment(store, operation.name, self._seen[store, operation.name])
                self.moments.append(moment)
                if self.case is None or moment != self.case.moment:
                    return None
                self.hit = operation
                return self.case.fault

        return plan


@dataclass(frozen=True)
class Disturbed:
    """How a run ended.

    Attributes:
        done: its exit code and what it said.
        moments: what it asked, in order.
        hit: what went wrong; None where it did not come so far.
    """

    done: Done
    moments: tuple[Moment, ...]
    hit: Operation | None

    @property
    def told(self) -> str:
        """All that it said."""
        return self.done.out + self.done.err


@contextlib.contextmanager
def watched(case: Case | None = None) -> Iterator[Watch]:
    """Stand between commands and all stores that they open."""
    watch, real = Watch(case), url.open_store

    def opened(text, *arguments, **more):
        store = real(text, *arguments, **more)
        kind = FaultySigner if isinstance(store, Presigner) else FaultyStore
        return kind(store, watch.of(text.rpartition("/")[2]))

    url.open_store = opened
    try:
        yield watch
    finally:
        url.open_store = real


def run(cli: Cli, words: Sequence[object], case: Case | None = None) -> Disturbed:
    """Run a command, and let one operation go wrong, or none."""
    with watched(case) as watch:
        done = cli(*words, expect=None)
    return Disturbed(done, tuple(watch.moments), watch.hit)
