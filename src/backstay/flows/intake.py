"""Where a snapshot comes in: spooled at full speed, and sealed into the store behind that.

One try, one spool, one object: when the source starts again, what was there is dropped, and its
object is never completed.
"""

from collections.abc import Callable
from pathlib import Path

from backstay.closing import Closing
from backstay.flows.beside import Beside
from backstay.flows.spool import Follower, Spool
from backstay.repo.manifest import ObjectEntry
from backstay.report import Report

#: Seals what a follower reads into the object of the given number.
Seal = Callable[[Follower, int], ObjectEntry]


class Intake(Closing):
    """A sink for a snapshot.

    Args:
        spool_dir: where the snapshot lies meanwhile.
        expected: bytes that will come at most, where that is known.
        seal: called in a thread of its own, once for each try.

    Raises:
        SpaceError: there is not enough room.
    """

    def __init__(self, spool_dir: Path, expected: int, seal: Seal) -> None:
        self._spool_dir = spool_dir
        self._expected = expected
        self._seal = seal
        self._tries = 0
        self._begin()

    def close(self) -> None:
        """Drop what is there, wherever it has come to."""
        self._spool.fail()
        self._sealing.stopped()
        self._spool.close()

    def _begin(self) -> None:
        number, spool = self._tries, Spool(self._spool_dir, expected=self._expected)
        self._tries += 1
        self._spool = spool
        self._sealing = Beside(lambda: self._seal(spool.follow(), number))

    @property
    def fd(self) -> int:
        """The file with all that came, for readers that map it."""
        return self._spool.fd

    def write(self, data: bytes, /) -> int:
        """Take what comes next.

        Raises:
            SpaceError: the disk is full.
            BackstayError: what the store said to the thread that seals.
        """
        if self._sealing.error is not None:
            # Nobody can store it: the stream is not worth going on with.
            raise self._sealing.error
        return self._spool.write(data)

    def reset(self) -> None:
        """Forget everything: another stream begins."""
        self.close()
        self._begin()

    def finish(self, report: Report) -> ObjectEntry:
        """Say that all has come, and wait until it is in the store.

        Raises:
            BackstayError: what the store said.
        """
        self._spool.finish()
        with report.task("sealing the rest"):
            return self._sealing.result()
