"""A store that fails on purpose: at the n-th operation, in a chosen way.

    store = FaultyStore(FileStore(...))            # writes down what is done: store.operations
    store = FaultyStore(FileStore(...), {7: Fault.CUT})        # the 7th operation (from 1) fails

Operations are counted over the whole life of the store, in all threads: each call, each piece
of a stream, and of a writer its opening (`writer`), each `write` and its end (`publish`). So a
test can run something once to learn how many there are, and then once for each.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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


#: Faults that are told: whoever called knows that something went wrong.
TOLD = (Fault.REFUSE, Fault.ERROR, Fault.CUT, Fault.STALL)


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
            yield piece

    def stat(self, path: str) -> ObjectInfo:
        fault = self._begin("stat", path)
        facts = self.store.stat(path)
        self._end(fault, path)
        return facts

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        fault = self._begin("list", prefix)
        found = list(self.store.list(prefix, after=after))
        self._end(fault, prefix)
        return iter(found[: len(found) // 2] if fault is Fault.SHORT else found)

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
            raise StoreError(f"{self.url}/{path}: refused on purpose")
        if fault is Fault.STALL:
            self._stall()
            raise StoreError(f"{self.url}/{path}: no answer, on purpose")
        return fault

    def _end(self, fault: Fault | None, path: str) -> None:
        if fault is Fault.ERROR:
            raise StoreError(f"{self.url}/{path}: the answer was lost, on purpose")
        if fault is Fault.CUT:
            raise StoreError(f"{self.url}/{path}: cut off, on purpose")


class _FaultyWriter:
    def __init__(self, store: FaultyStore, path: str, sink: Writer) -> None:
        self._store = store
        self._path = path
        self._sink = sink

    def write(self, data: bytes, /) -> int:
        fault = self._store._begin("write", self._path)
        half = fault in {Fault.CUT, Fault.SHORT}
        self._sink.write(data[: len(data) // 2] if half else data)
        self._store._end(fault, self._path)
        return len(data)
