"""A store in a directory: private files that appear whole and survive a power cut.

obstore has one too, which does not fsync, writes files that all can read, and leaves parts of
killed writes that it can neither list nor delete. Hence our own.

Bytes go to an unnamed file (O_TMPFILE), which gets its name by link(2): that never replaces
anything, and a killed writer leaves nothing. Where the filesystem has no unnamed files (NFS,
SMB, FAT) they go to a hidden name in the same directory, which `clear_partial` finds again.

Each step below the root is opened relative to the one before, and no symbolic link is followed
there: what someone else put into the directory can't lead outside. The root itself may be one.
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backstay.errors import (
    AlreadyExistsError,
    BackstayError,
    FormatError,
    NotFoundError,
    SpaceError,
    StoreError,
)
from backstay.files import PRIVATE, PRIVATE_DIRECTORY, sync_directory
from backstay.repo.store import ObjectInfo, Writer, check_path, check_prefix, is_path

_CHUNK = 1 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.part")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_ADVICE = {
    errno.EACCES: "run as the user who may use it, or mend its permissions",
    errno.EPERM: "run as the user who may use it, or mend its permissions",
    errno.EROFS: "it is mounted read-only: mount it for writing, or name another place",
    errno.ENOTDIR: "name a directory",
    errno.ELOOP: "a symbolic link lies in the repository: find out who put it there",
    errno.ESTALE: "the network filesystem has lost it: mount it again",
    errno.EIO: "the disk is failing: look at the kernel's log",
}


class FileStore:
    """A store in a directory, which is made by the first write.

    Args:
        root: the directory.
        unnamed: use files without a name where the filesystem has them.
    """

    def __init__(self, root: Path, *, unnamed: bool = True) -> None:
        self._root = root
        self._unnamed = unnamed

    def __repr__(self) -> str:
        return f"FileStore({str(self._root)!r})"

    @property
    def url(self) -> str:
        """Where it is."""
        return self._root.as_uri()

    @property
    def residue(self) -> str:
        """Nothing stays that `clear_partial` does not find."""
        return ""

    def describe(self) -> str:
        """Say what it is."""
        return f"the directory {self._root}"

    def put_new(self, path: str, data: bytes) -> None:
        """Write a small object in one atomic step; see `Store`."""
        with self.writer(path) as file:
            file.write(data)

    @contextmanager
    def writer(self, path: str) -> Iterator[Writer]:
        """Write an object that appears whole when the block ends; see `Store`."""
        *folders, name = check_path(path).split("/")
        with self._folder(folders, path, create=True) as folder:
            with self._explained(path):
                if _exists(folder, name):
                    raise FileExistsError
                draft = _open_draft(folder, name, unnamed=self._unnamed)
            try:
                yield _FileWriter(self, path, draft.fd)
                with self._explained(path):
                    os.fsync(draft.fd)
                    _publish(folder, draft, name)
                    os.fsync(folder)
            finally:
                os.close(draft.fd)
                if draft.hidden:
                    with suppress(OSError):
                        os.unlink(draft.hidden, dir_fd=folder)

    def read(self, path: str, limit: int) -> bytes:
        """Read a small object whole; see `Store`."""
        with self._opened(path) as fd, self._explained(path):
            data = bytearray()
            while chunk := os.read(fd, min(_CHUNK, limit + 1 - len(data))):
                data += chunk
        if len(data) > limit:
            raise FormatError(
                f"{self.url}/{path} has more than {limit} bytes", "it is not what its name says"
            )
        return bytes(data)

    def stream(self, path: str, *, offset: int = 0) -> Iterator[bytes]:
        """Read an object in pieces; see `Store`."""
        with self._opened(path) as fd:
            while True:
                with self._explained(path):
                    chunk = os.pread(fd, _CHUNK, offset)
                if not chunk:
                    return
                offset += len(chunk)
                yield chunk

    def stat(self, path: str) -> ObjectInfo:
        """Look at an object; see `Store`."""
        with self._opened(path) as fd, self._explained(path):
            return _info(path, os.fstat(fd))

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        """Name all objects below a folder; see `Store`."""
        folder = check_prefix(prefix)
        found = (
            _info(path, facts)
            for path, _, facts in self._walk(folder)
            if path > after and is_path(path) and stat.S_ISREG(facts.st_mode)
        )
        return iter(sorted(found, key=lambda info: info.path))

    def delete(self, path: str) -> None:
        """Delete an object; see `Store`."""
        *folders, name = check_path(path).split("/")
        with (
            suppress(NotFoundError),
            self._folder(folders, path, create=False) as folder,
            self._explained(path),
        ):
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)

    def now(self) -> datetime:
        """Ask for the time by the clock of the filesystem; see `Store`."""
        with self._folder([], "", create=True) as folder, self._explained(""):
            draft = _open_draft(folder, "clock", unnamed=self._unnamed)
            try:
                # What a server's clock says comes with the first byte, not with the name.
                os.write(draft.fd, b"\n")
                os.fsync(draft.fd)
                return _time(os.fstat(draft.fd))
            finally:
                os.close(draft.fd)
                if draft.hidden:
                    os.unlink(draft.hidden, dir_fd=folder)

    def clear_partial(self, before: datetime) -> tuple[str, ...]:
        """Delete hidden files of killed writers; see `Store`."""
        cleared = []
        for path, folder, facts in self._walk(""):
            name = path.rpartition("/")[2]
            if _PARTIAL.fullmatch(name) and stat.S_ISREG(facts.st_mode) and _time(facts) < before:
                with self._explained(path), suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
                    cleared.append(path)
        return tuple(sorted(cleared))

    def _walk(self, folder: str) -> Iterator[tuple[str, int, os.stat_result]]:
        """Yield every entry that is no directory: path, its directory's descriptor, facts."""
        parts = folder.split("/") if folder else []
        with suppress(NotFoundError), self._folder(parts, folder, create=False) as top:
            for below, folders, names, fd in os.fwalk(".", dir_fd=top, onerror=self._refuse):
                # Hidden directories are not ours, and some servers keep old versions in one.
                folders[:] = [name for name in folders if not name.startswith(".")]
                parent = [*parts, *Path(below).parts]
                for name in names:
                    path = "/".join([*parent, name])
                    facts = self._facts(fd, name, path)
                    if facts is not None:
                        yield path, fd, facts

    def _facts(self, folder: int, name: str, path: str) -> os.stat_result | None:
        with self._explained(path):
            try:
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return None  # deleted since it was listed

    def _refuse(self, error: OSError) -> None:
        if error.errno != errno.ENOENT:
            raise self._error("", error) from error

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        *folders, name = check_path(path).split("/")
        with self._folder(folders, path, create=False) as folder:
            with self._explained(path):
                # Without O_NONBLOCK a pipe of that name would wait for a writer, for ever.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                fd = os.open(name, flags, dir_fd=folder)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise StoreError(f"{self.url}/{path} is no regular file")
                yield fd
            finally:
                os.close(fd)

    @contextmanager
    def _folder(self, names: Sequence[str], path: str, *, create: bool) -> Iterator[int]:
        """Open a directory below the root, step by step, without following a link."""
        with self._explained(path):
            if create and not self._root.is_dir():
                _make_root(self._root)
            fd = os.open(self._root, _FOLDER)
            try:
                for name in names:
                    if create:
                        _make_folder(fd, name)
                    below = _step(fd, name, create=create)
                    os.close(fd)
                    fd = below
            except BaseException:
                os.close(fd)
                raise
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(path, error) from error

    def _error(self, path: str, error: OSError) -> BackstayError:
        where = f"{self.url}/{path}" if path else self.url
        if isinstance(error, FileNotFoundError):
            return NotFoundError(f"{where} is not there")
        if isinstance(error, FileExistsError):
            return AlreadyExistsError(f"{where} exists already", "nothing was overwritten")
        reason = error.strerror or type(error).__name__
        if error.errno in _FULL:
            return SpaceError(f"{where}: {reason}", "free some space in the repository's disk")
        return StoreError(f"{where}: {reason}", _ADVICE.get(error.errno or 0, ""))


class _FileWriter:
    def __init__(self, store: FileStore, path: str, fd: int) -> None:
        self._store = store
        self._path = path
        self._fd = fd

    def write(self, data: bytes, /) -> int:
        view = memoryview(data)
        with self._store._explained(self._path):  # noqa: SLF001 - one module, one thing
            while view:
                view = view[os.write(self._fd, view) :]
        return len(data)


@dataclass(frozen=True, slots=True)
class _Draft:
    """An object that is being written: its descriptor, and its hidden name if it has one."""

    fd: int
    hidden: str


def _open_draft(folder: int, name: str, *, unnamed: bool) -> _Draft:
    if unnamed:
        try:
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            return _Draft(os.open(".", flags, PRIVATE, dir_fd=folder), "")
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
    hidden = f".{name}.{secrets.token_hex(4)}.part"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return _Draft(os.open(hidden, flags, PRIVATE, dir_fd=folder), hidden)


def _publish(folder: int, draft: _Draft, name: str) -> None:
    if not draft.hidden:
        os.link(f"/proc/self/fd/{draft.fd}", name, dst_dir_fd=folder, follow_symlinks=True)
        return
    try:
        os.link(draft.hidden, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links: a rename would replace; names are unique, and a look is what is left.
        if _exists(folder, name):
            raise FileExistsError from error
        os.rename(draft.hidden, name, src_dir_fd=folder, dst_dir_fd=folder)


def _step(folder: int, name: str, *, create: bool) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        if not create and stat.S_ISREG(mode):
            raise FileNotFoundError from None  # an object: nothing lies below it
        raise


def _make_root(root: Path) -> None:
    try:
        root.mkdir(PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
    sync_directory(root.parent)


def _make_folder(parent: int, name: str) -> None:
    try:
        os.mkdir(name, PRIVATE_DIRECTORY, dir_fd=parent)
    except FileExistsError:
        return
    os.fsync(parent)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _time(facts: os.stat_result) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=facts.st_mtime_ns // 1000)
    except OverflowError:  # a time that somebody made up
        return datetime.max.replace(tzinfo=UTC)


def _info(path: str, facts: os.stat_result) -> ObjectInfo:
    return ObjectInfo(path, facts.st_size, _time(facts))
