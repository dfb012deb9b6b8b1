"""The two files that cluster-backup.sh leaves: both are there, or neither is.

cluster-restore.sh takes the newest snapshot and the newest tar of a directory, each by its name:
one without the other would be paired with one of another time. Two names can't be made in one
step, but what they stand for can. Both files are written into a private directory; both names are
made as symbolic links into that directory's later name, where nothing is yet; then one rename
gives it that name, and from that moment on both files are there. At last each takes the place of
its link.

    .backstay-pair-RAND.part/    being written; nothing but dead links leads here
    .backstay-pair-RAND/         whole; its links are good

A killed run leaves one of these two. The next one deletes the first kind, with its dead links, and
brings the second kind to its end. It knows that nobody is at work on them by a lock on the
directory, which ends with its process; where a filesystem has none, by their age.
"""

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from backstay.errors import AlreadyExistsError, BackstayError, RefusedError
from backstay.files import PRIVATE_DIRECTORY, explained, is_there, sync_directory
from backstay.report import Report

#: What upstream adds to both names where a rule was skipped.
DIRTY = "__POSSIBLY_DIRTY__"
_PREFIX, _PART = ".backstay-pair-", ".part"
#: Seconds; where nothing tells whether a run lives, a younger one may.
_SAFE_AGE = 24 * 3600.0
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True, slots=True)
class PairNames:
    """What the two files are called.

    Attributes:
        snapshot: `snapshot_2021-06-25_190035.db`.
        archive: `static_kuberesources_2021-06-25_190035.tar.gz`.
    """

    snapshot: str
    archive: str

    @classmethod
    def of(cls, moment: datetime, *, dirty: bool) -> Self:
        """Name a pair.

        Args:
            moment: when it is made; aware. In the name it is in UTC, which CoreOS hosts have.
            dirty: whether a rule was skipped.
        """
        stem = f"{moment.astimezone(UTC):%Y-%m-%d_%H%M%S}{DIRTY if dirty else ''}"
        return cls(f"snapshot_{stem}.db", f"static_kuberesources_{stem}.tar.gz")

    @property
    def both(self) -> tuple[str, str]:
        """The two names."""
        return self.archive, self.snapshot


@contextmanager
def new_pair(directory: Path, names: PairNames, report: Report) -> Iterator[Path]:
    """Let both files be written, and publish them when the block ends well.

    Args:
        directory: where they are to appear; made where it is not there.
        names: theirs; nothing may stand there.
        report: is told what an earlier run had left.

    Yields:
        A private directory to write both into, under their names, closed and on the disk.

    Raises:
        AlreadyExistsError: a name is taken.
        RefusedError: another run writes to the directory.
        SpaceError: the disk is full.
        BackstayError: the directory can't be written, or has no symbolic links.
    """
    with explained(directory):
        directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    with _alone(directory) as alone:
        settle(directory, report, age=0.0 if alone else _SAFE_AGE)
        for name in names.both:
            if is_there(directory / name):
                raise AlreadyExistsError(
                    f"{directory / name} exists already", "nothing was overwritten; run it again"
                )
        whole = directory / f"{_PREFIX}{secrets.token_hex(4)}"
        part = whole.with_name(whole.name + _PART)
        with explained(directory):
            part.mkdir(mode=PRIVATE_DIRECTORY)
        try:
            yield part
            with explained(directory):
                _publish(directory, part, whole, names)
        except BaseException:
            _drop(directory, part, whole)
            raise


@contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    """Keep other runs out, until the block or the process ends; False where that can't be."""
    with explained(directory):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(
                f"another backup is being written to {directory}", "wait until it is done"
            ) from error
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def _publish(directory: Path, part: Path, whole: Path, names: PairNames) -> None:
    for name in names.both:
        try:
            (directory / name).symlink_to(f"{whole.name}/{name}")
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise BackstayError(
                    f"{directory}: no symbolic links can be made there, and without them two files"
                    " can't appear at once",
                    "name a directory on another filesystem",
                ) from error
            raise
    # The links must be on the disk before what makes them good, and both before they go.
    sync_directory(part)
    sync_directory(directory)
    part.rename(whole)
    sync_directory(directory)
    _end(directory, whole)


def _end(directory: Path, whole: Path) -> None:
    """Put both files in the places of their links."""
    for file in sorted(whole.iterdir()):
        if _link_into(directory / file.name, whole):
            file.rename(directory / file.name)
        elif not is_there(directory / file.name):
            # Somebody has deleted the name of a file that was published: it is not wanted.
            file.unlink()
    sync_directory(directory)
    with suppress(OSError):
        whole.rmdir()
        sync_directory(directory)


def _link_into(path: Path, whole: Path) -> bool:
    """Whether a name is one of our links."""
    try:
        return str(path.readlink()) == f"{whole.name}/{path.name}"
    except OSError:
        return False


def _drop(directory: Path, part: Path, whole: Path) -> None:
    """Delete what is not published: its dead links first, for they lead to it."""
    with suppress(OSError):
        if part.is_dir():
            for path in directory.iterdir():
                if _link_into(path, whole):
                    path.unlink()
            shutil.rmtree(part)
            sync_directory(directory)


def settle(directory: Path, report: Report, *, age: float = 0.0) -> None:
    """Delete what killed runs left half-made, and end what they had published.

    Args:
        directory: where they wrote to.
        report: is told of each.
        age: seconds that what they left must be old.

    Raises:
        BackstayError: it can't be done.
    """
    with explained(directory):
        for path in sorted(directory.iterdir()):
            name = path.name
            if not name.startswith(_PREFIX) or path.is_symlink() or not path.is_dir():
                continue
            if age and time.time() - path.stat().st_mtime < age:
                continue
            if name.endswith(_PART):
                _drop(directory, path, path.with_name(name.removesuffix(_PART)))
                report.say(f"{path}: deleted, a killed run had left it half-made")
            else:
                _end(directory, path)
                report.say(f"{path}: a killed run had published it; brought to its end")
