"""A store that fails on purpose: at the n-th operation, in a chosen way.

    store = FaultyStore(FileStore(...))            # writes down what is done: store.operations
    store = FaultyStore(FileStore(...), {7: Fault.CUT})        # the 7th operation (from 1) fails

Operations are counted over the whole life of the store, in all threads: each call, each piece
of a stream, and of a writer its opening (`writer`), each `write` and its end (`publish`). So a
test can run something once to learn how many there are, and then once for each. Which faults an
operation can have is in `FAULTS_OF`; kit/disturbed.py makes a case of each for a whole command.

What a server does looks like this from here: a refused connection and a 5xx are REFUSE, for nothing
was done; a connection that was reset is ERROR where all was done, and CUT where half was.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from backstay.errors import StoreError
from backstay.repo.store import ObjectInfo, Store, Writer


class Fault(Enum):
    """How an operation fails."""

    REFUSE = auto()  # nothing is done, and it is told
    ERROR = auto()  # it is done, but an error is told: the answer was lost
    CUT = auto()  # half is done, and an error is told
    STALL = auto()  # nothing happens for a while, then an error is told
    SHORT = auto()  # half is done, and nothing is told
    LOSE = auto()  # a part in the midst is lost, and nothing is told
    LIE = auto()  # it is done, but the size that is told is wrong
    LATE = auto()  # the newest objects are not listed yet


#: Faults that are told: whoever called knows that something went wrong.
TOLD = (Fault.REFUSE, Fault.ERROR, Fault.CUT, Fault.STALL)
_HALVES = (Fault.CUT, Fault.SHORT)
_NOTHING = (Fault.REFUSE, Fault.STALL)
#: What can happen to each operation. To lose the answer of a question is to refuse it.
FAULTS_OF: Mapping[str, tuple[Fault, ...]] = {
    "put_new": (*TOLD, Fault.SHORT),
    "writer": _NOTHING,
    "write": (*_NOTHING, *_HALVES, Fault.LOSE),
    "publish": TOLD,
    "read": (*_NOTHING, Fault.SHORT, Fault.LIE),
    "stream": _NOTHING,
    "piece": (*_NOTHING, *_HALVES, Fault.LOSE),
    "stat": (*_NOTHING, Fault.LIE),
    "list": (*_NOTHING, Fault.SHORT, Fault.LIE, Fault.LATE),
    "delete": (*_NOTHING, Fault.ERROR, Fault.SHORT),
    "now": _NOTHING,
    "clear_partial": (*_NOTHING, Fault.ERROR),
}
#: What is said of each fault that is told, and what to do about it.
ON_PURPOSE = "on purpose"
ADVICE = "take it out of the test"


@dataclass(frozen=True)
class Operation:
    """One thing that was asked of the store."""

    number: int
    name: str
    path: str


class FaultyStore:
    """A store around another.

    Args:
        store: the one that does the work.
        plan: which operation fails how, by number; or a function that decides.
        stall: what a stall does before it fails; a test that is in a hurry leaves it empty.
    """

    def __init__(
        self,
        store: Store,
        plan: Mapping[int, Fault] | Callable[[Operation], Fault | None] | None = None,
        stall: Callable[[], object] = lambda: None,
    ) -> None:
        self.store = store
        self.operations: list[Operation] = []
        self._plan = plan or {}
        self._stall = stall
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """What was done, in order."""
        return [operation.name for operation in self.operations]

    @property
    def url(self) -> str:
        return self.store.url

    @property
    def residue(self) -> str:
        return self.store.residue

    def describe(self) -> str:
        return self.store.describe()

    def put_new(self, path: str, data: bytes) -> None:
        fault = self._begin("put_new", path)
        # A put is atomic: half of it is nothing at all.
        if fault is not Fault.CUT:
            self.store.put_new(path, data[: len(data) // 2] if fault is Fault.SHORT else data)
        self._end(fault, path)

    @contextmanager
    def writer(self, path: str) -> Iterator[Writer]:
        fault = self._begin("writer", path)
        with self.store.writer(path) as sink:
            self._end(fault, path)
            yield _FaultyWriter(self, path, sink)
            fault = self._begin("publish", path)
            if fault is Fault.CUT:
                self._end(fault, path)
        self._end(fault, path)

    def read(self, path: str, limit: int) -> bytes:
        fault = self._begin("read", path)
        data = self.store.read(path, limit)
        self._end(fault, path)
        if fault is Fault.LIE:
            return data + b"\0"
        return data[: len(data) // 2] if fault is Fault.SHORT else data

    def stream(self, path: str, *, offset: int = 0) -> Iterator[bytes]:
        fault = self._begin("stream", path)
        pieces = self.store.stream(path, offset=offset)
        self._end(fault, path)
        for piece in pieces:
            fault = self._begin("piece", path)
            if fault in {Fault.SHORT, Fault.CUT}:
                yield piece[: max(len(piece) // 2, 1)]
                self._end(fault, path)
                return
            self._end(fault, path)
            if fault is not Fault.LOSE:
                yield piece

    def stat(self, path: str) -> ObjectInfo:
        fault = self._begin("stat", path)
        facts = self.store.stat(path)
        self._end(fault, path)
        return _lie(facts) if fault is Fault.LIE else facts

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        fault = self._begin("list", prefix)
        found = list(self.store.list(prefix, after=after))
        self._end(fault, prefix)
        if fault is Fault.SHORT:
            del found[len(found) // 2 :]
        elif fault is Fault.LIE:
            found = [_lie(info) for info in found]
        elif fault is Fault.LATE and found:
            newest = max(info.modified for info in found)
            found = [info for info in found if info.modified < newest]
        return iter(found)

    def delete(self, path: str) -> None:
        fault = self._begin("delete", path)
        if fault not in {Fault.CUT, Fault.SHORT}:
            self.store.delete(path)
        self._end(fault, path)

    def now(self) -> datetime:
        fault = self._begin("now", "")
        time = self.store.now()
        self._end(fault, "")
        return time

    def clear_partial(self, before: datetime) -> tuple[str, ...]:
        fault = self._begin("clear_partial", "")
        cleared = self.store.clear_partial(before)
        self._end(fault, "")
        return cleared

    def _begin(self, name: str, path: str) -> Fault | None:
        with self._lock:
            operation = Operation(len(self.operations) + 1, name, path)
            self.operations.append(operation)
            plan = self._plan
            fault = plan(operation) if callable(plan) else plan.get(operation.number)
        if fault is Fault.REFUSE:
            raise StoreError(f"{self.url}/{path}: refused {ON_PURPOSE}", ADVICE)
        if fault is Fault.STALL:
            self._stall()
            raise StoreError(f"{self.url}/{path}: no answer, {ON_PURPOSE}", ADVICE)
        return fault

    def _end(self, fault: Fault | None, path: str) -> None:
        if fault is Fault.ERROR:
            raise StoreError(f"{self.url}/{path}: the answer was lost, {ON_PURPOSE}", ADVICE)
        if fault is Fault.CUT:
            raise StoreError(f"{self.url}/{path}: cut off, {ON_PURPOSE}", ADVICE)


def _lie(info: ObjectInfo) -> ObjectInfo:
    return replace(info, size=info.size + 1)


class _FaultyWriter:
    def __init__(self, store: FaultyStore, path: str, sink: Writer) -> None:
        self._store = store
        self._path = path
        self._sink = sink

    def write(self, data: bytes, /) -> int:
        fault = self._store._begin("write", self._path)
        if fault is not Fault.LOSE:
            self._sink.write(data[: len(data) // 2] if fault in _HALVES else data)
        self._store._end(fault, self._path)
        return len(data)
