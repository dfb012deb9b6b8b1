"""Where a snapshot waits between its source and the store.

etcd holds a read transaction open for as long as its snapshot stream is read, and its file
grows meanwhile. So the stream goes to a local file at full speed, and compression,
encryption and the upload read behind it, in a thread of their own. The file has no name: it
is gone with the process, whatever ends it.
"""

import os
import threading
from pathlib import Path

from backstay.closing import Closing
from backstay.errors import BackstayError, SpaceError
from backstay.files import explained, free_space, unnamed_file

#: What is kept free beside the spool, so that a backup does not fill a disk that others use.
MARGIN = 64 << 20
_ELSEWHERE = "name a larger place with --spool-dir"


class Spool(Closing):
    """A private, nameless file that one thread fills while another reads behind it.

    Args:
        directory: where the file lies; with room for the whole snapshot.
        expected: bytes that will come, where that is known; looked at before anything comes.

    Raises:
        SpaceError: there is not enough room.
    """

    def __init__(self, directory: Path, *, expected: int = 0) -> None:
        self._directory = directory
        free = free_space(directory)
        if expected and free < expected + MARGIN:
            raise SpaceError(
                f"{directory} has {free} bytes free, {expected + MARGIN} are needed",
                _ELSEWHERE,
            )
        self._file = unnamed_file(directory)
        self._size = 0
        self._ended = False
        self._failed = False
        self._grown = threading.Condition()

    @property
    def fd(self) -> int:
        """The open file, for readers that map it."""
        return self._file.fileno()

    @property
    def size(self) -> int:
        """Bytes that have come so far."""
        return self._size

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append.

        Raises:
            SpaceError: the disk is full.
        """
        view = memoryview(data).cast("B")
        try:
            with explained(self._directory):
                written = 0
                while written < len(view):
                    written += os.pwrite(self.fd, view[written:], self._size + written)
        except SpaceError as error:
            came = f"{error.what}, after {self._size} bytes had come"
            raise SpaceError(came, _ELSEWHERE) from error
        with self._grown:
            self._size += written
            self._grown.notify_all()
        return written

    def finish(self) -> None:
        """Say that all has come."""
        with self._grown:
            self._ended = True
            self._grown.notify_all()

    def fail(self) -> None:
        """Say that the rest will never come; readers behind get an error."""
        with self._grown:
            self._failed = True
            self._grown.notify_all()

    def close(self) -> None:
        """Give the file back to the system; readers that still wait get an error."""
        self.fail()
        self._file.close()

    def follow(self) -> "Follower":
        """Read from the start, waiting for what has not come yet."""
        return Follower(self)

    @property
    def failed(self) -> bool:
        """Whether the rest will never come, or nobody wants it any more."""
        return self._failed

    def wait(self, position: int) -> int:
        """Wait for bytes after `position`.

        Returns:
            How many there are now; 0 at the end.

        Raises:
            CutShortError: the rest will never come.
        """
        with self._grown:
            self._grown.wait_for(lambda: self._failed or self._ended or self._size > position)
            if self._failed:
                raise CutShortError("the snapshot did not come whole")
            return self._size - position


class CutShortError(BackstayError):
    """What was read behind a spool ended before its end; the cause is the source's error."""


class Follower:
    """A file-like reader behind the writer of a spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes (1 MiB where that is left open); empty only at the end.

        Raises:
            CutShortError: the rest will never come.
        """
        available = self._spool.wait(self._position)
        wanted = min(available, size if size >= 0 else 1 << 20)
        data = os.pread(self._spool.fd, wanted, self._position)
        self._position += len(data)
        return data

    def check(self) -> None:
        """Look whether what was read is still wanted.

        Raises:
            CutShortError: it is not.
        """
        if self._spool.failed:
            raise CutShortError("the snapshot is not wanted any more")
