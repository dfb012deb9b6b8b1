"""Where a snapshot comes in: spooled at full speed, and kept by a thread behind that.

One try, one spool, one object: when the source starts again, what was there is dropped, and its
object is never completed. When all has come, whoever took it in can look into it while the
thread still stores it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from backstay.closing import Closing
from backstay.flows.beside import Beside
from backstay.flows.spool import Follower, Spool
from backstay.report import Report

T = TypeVar("T")


class Intake(Closing, Generic[T]):
    """A sink for a snapshot.

    Args:
        spool_dir: where the snapshot lies meanwhile.
        expected: bytes that will come at most, where that is known.
        keep: called in a thread of its own, once for each try, with the number of the try;
            stores what the follower reads.

    Raises:
        SpaceError: there is not enough room.
    """

    def __init__(self, spool_dir: Path, expected: int, keep: Callable[[Follower, int], T]) -> None:
        self._spool_dir = spool_dir
        self._expected = expected
        self._keep = keep
        self._tries = 0
        self._begin()

    def close(self) -> None:
        """Drop what is there, wherever it has come to."""
        self._spool.fail()
        self._keeping.stopped()
        self._spool.close()

    def _begin(self) -> None:
        number, spool = self._tries, Spool(self._spool_dir, expected=self._expected)
        self._tries += 1
        self._spool = spool

        def work() -> T:
            # A stream that never begins leaves nothing at the store.
            spool.wait(0)
            return self._keep(spool.follow(), number)

        self._keeping = Beside(work)

    @property
    def fd(self) -> int:
        """The file with all that came, for readers that map it."""
        return self._spool.fd

    def write(self, data: bytes, /) -> int:
        """Take what comes next.

        Raises:
            SpaceError: the disk is full.
            BackstayError: what the store said to the thread that keeps it.
        """
        if self._keeping.error is not None:
            # Nobody can store it: the stream is not worth going on with.
            raise self._keeping.error
        return self._spool.write(data)

    def reset(self) -> None:
        """Forget everything: another stream begins."""
        self.close()
        self._begin()

    def finish(self) -> None:
        """Say that all has come."""
        self._spool.finish()

    def kept(self, report: Report) -> T:
        """Wait until all is kept.

        Raises:
            BackstayError: what the store said.
        """
        with report.task("storing the rest"):
            return self._keeping.result()
