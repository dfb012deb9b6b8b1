"""A snapshot file examined as a whole, in one pass: trailer, structure, content, status.

The SHA-256 is summed in a thread beside the rest: hashlib lets other threads run, and the file is
read from the disk once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Self

from backstay.bolt.check import Structure, check
from backstay.bolt.sweep import Run
from backstay.errors import DamagedError
from backstay.mvcc.checksum import extend, extend_ranges
from backstay.mvcc.content import Content, ContentCheck
from backstay.mvcc.elements import ElementReader
from backstay.mvcc.snapshot import Snapshot, Trailer
from backstay.mvcc.status import Status


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found; each part is judged by itself.

    Attributes:
        trailer: how the SHA-256 at the end compares.
        sha256: of the database.
        structure: what was counted, or what is damaged.
        content: what was counted, or what is wrong; None where the structure is too damaged to
            tell.
        status: None where the structure is damaged.
    """

    trailer: Trailer
    sha256: bytes
    structure: Structure | DamagedError
    content: Content | DamagedError | None
    status: Status | None


def work(snapshot: Snapshot) -> int:
    """How much `examine` reports as progress, about; in bytes."""
    return snapshot.size + snapshot.bolt.high_water * snapshot.bolt.page_size


def examine(snapshot: Snapshot, progress: Callable[[int], None] | None = None) -> Examination:
    """Examine a file.

    Args:
        snapshot: the file.
        progress: called with numbers of bytes that are done, from two threads; `work` gives
            their sum.
    """
    advance = progress or (lambda _: None)
    with _Sum(snapshot, advance) as digest:
        reader = _Reader(snapshot, advance)
        structure: Structure | DamagedError
        try:
            structure = check(snapshot.bolt, each=reader.take)
            status = reader.status(structure)
        except DamagedError as error:
            return Examination(*digest.result(), _bare(error), reader.problem, None)
        return Examination(*digest.result(), structure, reader.content(), status)


def _bare(error: DamagedError) -> DamagedError:
    """Cut off the frames that hold on to the mapped file."""
    return error.with_traceback(None)


class _Reader:
    """Takes what the walk gives: sums all of it, and examines bucket `key`."""

    def __init__(self, snapshot: Snapshot, progress: Callable[[int], None]) -> None:
        self._snapshot = snapshot
        self._progress = progress
        self._crc = 0
        self._elements = ElementReader(snapshot.bolt.image)
        self._check: ContentCheck | None = None
        self.problem: DamagedError | None = None
        self._try(self._begin)

    def _try(self, action: Callable[[], None]) -> None:
        """Note the first problem with the content; the walk goes on after it."""
        if self.problem is None:
            try:
                action()
            except DamagedError as error:
                self.problem = _bare(error)

    def _begin(self) -> None:
        self._check = ContentCheck(self._snapshot)

    def take(self, name: bytes, run: Run | None) -> None:
        """Take a bucket's name, or a run of its elements."""
        if run is None:
            self._crc = extend(self._crc, name)
            return
        with memoryview(self._snapshot.bolt.image.data) as view:
            self._crc = extend_ranges(self._crc, view, run.starts, run.ends)
        if name == b"key":
            self._try(lambda: self._take_elements(run))
        self._progress(run.pages)

    def _take_elements(self, run: Run) -> None:
        if self._check:
            self._check.take(self._elements.read(run))

    def status(self, structure: Structure) -> Status:
        """Give the status, when all has been taken."""
        bolt = self._snapshot.bolt
        return Status(
            self._crc,
            self._snapshot.last_element_revision,
            structure.elements,
            bolt.high_water * bolt.page_size,
        )

    def content(self) -> Content | DamagedError:
        """Give what was found in bucket `key`, when all has been taken."""
        if self.problem is None and self._check:
            try:
                return self._check.finish()
            except DamagedError as error:
                return _bare(error)
        assert self.problem
        return self.problem


class _StoppedError(Exception):
    """Nobody waits for the sum any more."""


class _Sum:
    """The SHA-256, summed in a thread while the block runs."""

    def __init__(self, snapshot: Snapshot, progress: Callable[[int], None]) -> None:
        self._snapshot = snapshot
        self._progress = progress
        self._stop = Event()
        self._digest = b""
        self._error: BaseException | None = None
        self._thread = Thread(target=self._sum, name="sha256", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sum(self) -> None:
        try:
            self._digest = self._snapshot.sha256(self._advance)
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            self._error = error

    def _advance(self, amount: int) -> None:
        if self._stop.is_set():
            raise _StoppedError
        self._progress(amount)

    def result(self) -> tuple[Trailer, bytes]:
        """Wait for the sum, and compare it with the trailer."""
        self._thread.join()
        if self._error:
            raise self._error
        trailer = self._snapshot.trailer
        if trailer is None:
            return Trailer.ABSENT, self._digest
        matches = trailer == self._digest
        return Trailer.MATCHES if matches else Trailer.MISMATCH, self._digest
