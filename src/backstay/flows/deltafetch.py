"""Deltas fetched, several at a time, each into its place in one nameless file, and proven there."""

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from backstay.closing import Closing
from backstay.errors import BackstayError, DamagedError, NotFoundError, SealError, SpaceError
from backstay.files import explained, free_space, unnamed_file
from backstay.flows.spool import MARGIN
from backstay.mvcc.delta import Delta, read_delta
from backstay.repo.catalogue import Repository
from backstay.repo.delta import StoredDelta, check_fetched, fetch_delta, listed_now
from backstay.repo.identity import Identities
from backstay.report import Report

#: Deltas that are fetched at the same time; each holds a few pieces in memory.
_FETCHERS = 4
#: What can be wrong with one copy of a delta, so that another will do.
_UNFIT = (DamagedError, NotFoundError, SealError)


class Source(Protocol):
    """Where deltas come from."""

    @property
    def repository(self) -> Repository:
        """Where they lie."""
        ...

    @property
    def identities(self) -> Identities | None:
        """What opens them; None for repositories without encryption."""
        ...

    @property
    def spool_dir(self) -> Path:
        """Where they lie meanwhile."""
        ...


class Fetched(Closing):
    """Deltas side by side in a nameless file; a context manager that gives it back.

    Args:
        source: names the repository, the identity and where files lie meanwhile.
        deltas: which.
        best: whether only the best copy of each will do, though another may be whole.

    Attributes:
        data: the mapped file.

    Raises:
        SpaceError: there is not enough room.
    """

    def __init__(
        self, source: Source, deltas: Sequence[StoredDelta], *, best: bool = False
    ) -> None:
        self._source = source
        self._best = best
        self._deltas = deltas
        self._size = sum(delta.name.size for delta in deltas)
        self._directory = source.spool_dir
        free = free_space(self._directory)
        if free < self._size + MARGIN:
            raise SpaceError(
                f"{self._directory} has {free} bytes free, {self._size + MARGIN} are needed",
                "name a larger place with --spool-dir",
            )
        self._file = unnamed_file(self._directory)
        with explained(self._directory):
            os.ftruncate(self._file.fileno(), max(self._size, 1))
            self.data = mmap.mmap(self._file.fileno(), max(self._size, 1), access=mmap.ACCESS_READ)

    def close(self) -> None:
        """Give the file back to the system; the map goes with the last view of it."""
        self._file.close()

    def read(self, report: Report) -> Iterator[Delta]:
        """Fetch all, and prove each; they come in order, while later ones are fetched.

        Raises:
            DamagedError: one is not what was put there.
            SealError: the identity does not open them.
        """
        starts = [0]
        for delta in self._deltas:
            starts.append(starts[-1] + delta.name.size)
        total = sum(delta.stored_size for delta in self._deltas)
        with (
            report.task(f"fetching {len(self._deltas)} deltas", total) as progress,
            ThreadPoolExecutor(_FETCHERS) as pool,
        ):

            def fetch(delta: StoredDelta, start: int) -> Delta:
                return self._fetch(delta, start, progress)

            try:
                yield from pool.map(fetch, self._deltas, starts)
            except BaseException:
                # Also where somebody wants us to stop: what has not begun never will.
                pool.shutdown(cancel_futures=True)
                raise

    def _fetch(self, delta: StoredDelta, start: int, progress: Callable[[int], None]) -> Delta:
        """Take the first copy that proves itself; what is wrong with the best is told otherwise."""
        first: BackstayError | None = None
        try:
            for copy in self._copies(delta):
                try:
                    return self._fetch_copy(copy, start, progress)
                except _UNFIT as error:
                    first = first or error
            assert first is not None
            raise first
        finally:
            # Its traceback has this frame, and with it the file: a cycle, which would keep that.
            first = None

    def _copies(self, delta: StoredDelta) -> Iterator[StoredDelta]:
        """Give its copies; last those that a rewrap has made since it was listed."""
        yield delta
        if self._best:
            return
        yield from delta.others
        known = {copy.path for copy in delta.copies}
        now = listed_now(self._source.repository, delta)
        yield from (copy for copy in (now.copies if now else ()) if copy.path not in known)

    def _fetch_copy(self, copy: StoredDelta, start: int, progress: Callable[[int], None]) -> Delta:
        source = self._source
        sink = _Slot(self._file.fileno(), start, self._directory)
        fetch_delta(source.repository, copy, sink, source.identities, progress)
        found = read_delta(self.data, start, copy.name.size, copy.path)
        check_fetched(copy, found)
        return found


class _Slot:
    """A place in a file, as a sink."""

    def __init__(self, fd: int, start: int, directory: Path) -> None:
        self._fd = fd
        self._at = start
        self._directory = directory

    def write(self, data: bytes, /) -> int:
        with explained(self._directory):
            rest = memoryview(data)
            while rest:
                done = os.pwrite(self._fd, rest, self._at)
                self._at += done
                rest = rest[done:]
        return len(data)
