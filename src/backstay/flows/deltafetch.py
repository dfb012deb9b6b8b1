"""Deltas fetched, several at a time, each into its place in one nameless file, and proven there."""

import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backstay.closing import Closing
from backstay.errors import SpaceError
from backstay.files import explained, free_space, unnamed_file
from backstay.flows.fetch import BackupSubject
from backstay.flows.spool import MARGIN
from backstay.mvcc.delta import Delta, read_delta
from backstay.repo.delta import StoredDelta, check_fetched, fetch_delta
from backstay.report import Report

#: Deltas that are fetched at the same time; each holds a few pieces in memory.
_FETCHERS = 4


class Fetched(Closing):
    """Deltas side by side in a nameless file; a context manager that gives it back.

    Args:
        subject: names the repository, the identity and where files lie meanwhile.
        deltas: which.

    Attributes:
        data: the mapped file.

    Raises:
        SpaceError: there is not enough room.
    """

    def __init__(self, subject: BackupSubject, deltas: Sequence[StoredDelta]) -> None:
        self._subject = subject
        self._deltas = deltas
        self._size = sum(delta.name.size for delta in deltas)
        self._directory = subject.spool_dir
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
                subject = self._subject
                sink = _Slot(self._file.fileno(), start, self._directory)
                fetch_delta(subject.repository, delta, sink, subject.identities, progress)
                found = read_delta(self.data, start, delta.name.size, delta.path)
                check_fetched(delta, found)
                return found

            try:
                yield from pool.map(fetch, self._deltas, starts)
            except BaseException:
                # Also where somebody wants us to stop: what has not begun never will.
                pool.shutdown(cancel_futures=True)
                raise


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
