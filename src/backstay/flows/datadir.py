"""A data directory in the making: built in private, published by one rename.

What stands where the directory is to appear stays as it is (promise 6). An empty directory
that is there already, as a mount point is, is filled by renaming `member` into it.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from backstay.errors import AlreadyExistsError, BackstayError, SpaceError
from backstay.files import (
    explained,
    free_space,
    is_there,
    rename_new,
    sync_directory,
    sync_tree,
)

#: A new filesystem has this directory; it makes a mount point no less empty.
_NOT_COUNTED = "lost+found"
#: What etcd keeps in its data directory.
MEMBER = "member"
#: The first part of etcd's log, which is allocated whole; the next, which is allocated beside it at
#: once (and takes the room of what is written, where there is none); and some change.
LOG_SIZE = (64 + 64 + 2) << 20


@dataclass(frozen=True, slots=True)
class Target:
    """Where a data directory is to appear.

    Attributes:
        path: the data directory.
        exists: an empty directory stands there already.
        workplace: the directory in which the private one is made, on the same filesystem.
    """

    path: Path
    exists: bool

    @property
    def workplace(self) -> Path:
        """Where the building goes on: beside the target, or inside where that exists."""
        return self.path if self.exists else self.path.parent

    @property
    def prefix(self) -> str:
        """How names of the private directories begin; never too long for a name."""
        return f".{self.path.name[:50]}.backstay-"


def look_at(path: Path) -> Target:
    """Find out whether a data directory can appear at `path`.

    Raises:
        AlreadyExistsError: something is there that is no empty directory.
        BackstayError: its parent is missing.
    """
    path = path.absolute()
    if not is_there(path):
        if not path.parent.is_dir():
            raise BackstayError(f"{path.parent} is no directory", "make it first")
        return Target(path, exists=False)
    target = Target(path, exists=True)
    with explained(path):
        names = {p.name for p in path.iterdir()} if path.is_dir() else {path.name}
    others = {n for n in names if n != _NOT_COUNTED and not n.startswith(target.prefix)}
    if others:
        raise AlreadyExistsError(
            f"{path} is not empty", "name a directory that is new or empty; nothing was changed"
        )
    return target


def check_room(target: Target, size: int) -> None:
    """Look whether there is room to build: the snapshot, what the tool makes of it, and its log.

    Args:
        target: where the data directory is to appear.
        size: bytes of the snapshot.

    Raises:
        SpaceError: there is not.
    """
    free, needed = free_space(target.workplace), 2 * size + LOG_SIZE
    if free < needed:
        raise SpaceError(
            f"{target.workplace} has {free} bytes free, {needed} are needed to build {target.path}",
            "free some space there, or name another --data-dir; nothing was changed",
        )


@contextmanager
def building(target: Target) -> Iterator[Path]:
    """Give a private directory to build in; whatever is left in it goes at the end.

    A directory that an earlier run left when it was killed is removed too: one that still
    works holds a lock on its own.
    """
    _sweep(target)
    with explained(target.workplace):
        private, lock = _make_private(target)
    try:
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)
        os.close(lock)


def _make_private(target: Target) -> tuple[Path, int]:
    while True:
        private = Path(tempfile.mkdtemp(prefix=target.prefix, dir=target.workplace))
        with suppress(FileNotFoundError):
            lock = os.open(private, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if private.is_dir():
                return private, lock
            # Another run took it for a left-over before the lock was on it.
            os.close(lock)


def _sweep(target: Target) -> None:
    left_over = []
    with suppress(OSError):
        # Not by a pattern: the target's own name may hold what means something in one.
        left_over = [p for p in target.workplace.iterdir() if p.name.startswith(target.prefix)]
    for left in left_over:
        with suppress(OSError):
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def publish(built: Path, target: Target) -> None:
    """Let a built data directory appear at its place, on the disk and owned as its parent is.

    Args:
        built: the finished data directory, inside the private one.
        target: where it is to appear.

    Raises:
        AlreadyExistsError: something came to stand there meanwhile; it stays.
    """
    with explained(built):
        _keep_private(built)
        _hand_over(built, target.workplace)
        sync_tree(built)
    if target.exists:
        rename_new(built / MEMBER, target.path / MEMBER)
    else:
        rename_new(built, target.path)


def publish_whole(built: Path, target: Target) -> None:
    """Let a built directory appear at its place in one step, also where an empty one stands.

    Args:
        built: the finished directory, inside the private one, which lies beside the target.
        target: where it is to appear.

    Raises:
        AlreadyExistsError: something came to stand there meanwhile; it stays.
        BackstayError: the target is a mount point, which can't be replaced.
    """
    with explained(built):
        _keep_private(built)
        _hand_over(built, target.path.parent)
        sync_tree(built)
    if not target.exists:
        rename_new(built, target.path)
        return
    try:
        # Of directories, rename(2) replaces an empty one only.
        built.rename(target.path)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise AlreadyExistsError(
                f"{target.path} is not empty", "nothing was changed"
            ) from error
        raise BackstayError(
            f"{target.path}: {error.strerror}", "name a directory that does not exist yet"
        ) from error
    with explained(target.path):
        sync_directory(target.path.parent)


def _keep_private(built: Path) -> None:
    """Take from others what etcd's tool left them: it goes by the umask for some files."""
    for folder, _, names in os.walk(built):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            path.chmod(path.stat().st_mode & 0o700)


def _hand_over(built: Path, like: Path) -> None:
    facts = like.stat()
    if os.geteuid() != 0 or (facts.st_uid, facts.st_gid) == (0, os.getegid()):
        return
    for folder, _, names in os.walk(built):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            os.chown(path, facts.st_uid, facts.st_gid, follow_symlinks=False)
