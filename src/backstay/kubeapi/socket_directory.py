"""A directory for one socket file, that only we may enter, and what killed runs leave of such.

Nothing removes a socket file when its process is killed. So each directory is locked for as long as
its process lives, the system lifts that lock whatever ends it, and the next one to make a directory
removes those that nobody holds.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from backstay.closing import Closing
from backstay.files import explained

PREFIX = "backstay-forward-"
#: Seconds after which a directory must be locked: whoever made it does that at once.
_YOUNG = 60.0


class SocketDirectory(Closing):
    """A private directory; a context manager.

    Attributes:
        path: where it is.

    Args:
        parent: where it is made; default: the system's place for such.

    Raises:
        BackstayError: it can't be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        place = parent or Path(tempfile.gettempdir())
        with explained(place):
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
            try:
                self._fd = _open(self.path)
            except BaseException:
                self.path.rmdir()
                raise
        with suppress(OSError):  # a filesystem without locks: then none there is ever swept
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._closed = False
        self._sweep(place)

    def close(self) -> None:
        """Remove it, and what is in it."""
        if self._closed:
            return
        self._closed = True
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._fd)

    def _sweep(self, place: Path) -> None:
        """Remove what killed runs left."""
        now = os.fstat(self._fd).st_mtime
        with suppress(OSError):
            for other in list(place.glob(f"{PREFIX}*")):
                if other != self.path:
                    _remove_dead(other, now)


def _remove_dead(path: Path, now: float) -> None:
    """Remove a directory of ours that nobody holds; one that we can't look at stays."""
    with suppress(OSError):
        fd = _open(path)
        try:
            facts = os.fstat(fd)
            if facts.st_uid != os.geteuid() or now - facts.st_mtime < _YOUNG:
                return
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
