"""Files that appear whole or not at all, are private, and never replace what stood there."""

import ctypes
import errno
import os
import secrets
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from backstay.errors import AlreadyExistsError, BackstayError, SpaceError

PRIVATE = 0o600
PRIVATE_DIRECTORY = 0o700
#: Seconds that the writer of a pipe may be silent: someone may be typing a passphrase.
PATIENCE = 60.0
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


@contextmanager
def new_file(path: Path, *, mode: int = PRIVATE) -> Iterator[BinaryIO]:
    """Write a file that appears under its name only when it is complete and on the disk.

    The bytes go to an unnamed file (O_TMPFILE), so that nothing stays when the process is
    killed; where the filesystem has none, to a hidden name beside it.

    Args:
        path: where the file is to appear; nothing may stand there.
        mode: its permissions; the umask does not touch them.

    Raises:
        AlreadyExistsError: something has that name, before or after the writing.
        SpaceError: the disk is full.
        BackstayError: the directory can't be written.
    """
    if is_there(path):
        raise AlreadyExistsError(f"{path} exists already", "name a file that does not")
    with explained(path):
        fd, hidden = _open_unnamed(path)
        try:
            os.fchmod(fd, mode)
            with os.fdopen(fd, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _link(hidden or Path(f"/proc/self/fd/{file.fileno()}"), path)
        finally:
            if hidden:
                with suppress(FileNotFoundError):
                    hidden.unlink()
        sync_directory(path.parent)


def is_there(path: Path) -> bool:
    """Whether anything has that name, a link to nowhere included.

    Raises:
        BackstayError: it can't be told: the name is too long, or its directory is closed to us.
    """
    with explained(path):
        try:
            path.lstat()
        except FileNotFoundError:
            return False
        return True


def _link(source: Path, path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Python calls linkat(2), which follows /proc/self/fd, only with a descriptor.
        os.link(source, path.name, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def _open_unnamed(path: Path) -> tuple[int, Path | None]:
    try:
        return os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, PRIVATE), None
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}:
            raise
        if not path.parent.is_dir():
            raise
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    return os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE), hidden


def unnamed_file(directory: Path) -> BinaryIO:
    """Open a private file that has no name and is gone when it is closed.

    Raises:
        SpaceError: the disk is full.
        BackstayError: the directory can't be written.
    """
    with explained(directory):
        fd, hidden = _open_unnamed(directory / "spool")
        if hidden:
            hidden.unlink()
        return os.fdopen(fd, "w+b", buffering=0)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says of `path` into errors of this program."""
    try:
        yield
    except FileExistsError as error:
        raise AlreadyExistsError(f"{path} exists already", "nothing was overwritten") from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise SpaceError(
                f"{path}: {error.strerror}", "free some space, or name another directory"
            ) from error
        reason = error.strerror or type(error).__name__
        raise BackstayError(f"{error.filename or path}: {reason}") from error


def sync_directory(directory: Path) -> None:
    """Bring a directory's names to the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(directory: Path) -> None:
    """Bring all files and names below a directory to the disk."""
    for folder, _, names in os.walk(directory):
        for name in names:
            fd = os.open(Path(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        sync_directory(Path(folder))


def rename_new(source: Path, target: Path) -> None:
    """Rename so that an existing target is never replaced.

    Raises:
        AlreadyExistsError: the target exists.
        BackstayError: the rename failed otherwise.
    """
    with explained(target):
        _rename_noreplace(source, target)
        sync_directory(target.parent)


def _rename_noreplace(source: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        result = libc.renameat2(
            _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
        )
        if result == 0:
            return
        code = ctypes.get_errno()
        if code not in {errno.EINVAL, errno.ENOSYS}:
            raise OSError(code, os.strerror(code), str(target))
    # The filesystem has no such rename: a check just before is the best that is left.
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def free_space(directory: Path) -> int:
    """Bytes that an unprivileged writer still has in the filesystem of `directory`."""
    with explained(directory):
        facts = os.statvfs(directory)
    return facts.f_bavail * facts.f_frsize


def read_private(path: Path, *, limit: int) -> bytes:
    """Read a small file whole, or a pipe to its end: a shell's `<(...)` is one.

    Raises:
        BackstayError: it can't be read, is a directory, has more than `limit` bytes, or is a pipe
            that nobody writes to.
    """
    with explained(path):
        # Without O_NONBLOCK a pipe that nobody writes to would be waited for, for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = _read(fd, path, limit)
        finally:
            os.close(fd)
    if len(data) > limit:
        raise BackstayError(f"{path} has more than {limit} bytes", "is it the right file")
    return data


def _read(fd: int, path: Path, limit: int) -> bytes:
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        raise BackstayError(f"{path} is a directory", "name a file")
    ready = select.poll()
    ready.register(fd, select.POLLIN)
    data = bytearray()
    while len(data) <= limit:
        if not ready.poll(PATIENCE * 1000):
            raise BackstayError(f"{path}: nothing came for {PATIENCE:g} s", "does anyone write it")
        chunk = os.read(fd, limit + 1 - len(data))
        if not chunk:
            break
        data += chunk
    return bytes(data)
