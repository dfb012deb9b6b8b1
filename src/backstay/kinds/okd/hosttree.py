"""A host's files, below the directory where its root is mounted; never anything beside them.

The program runs in a container, or on another root, so an absolute link means a place inside the
host's tree, and the system must not follow it. Each part of a path is opened by itself, without
following links; those are read, and gone along by hand. One that would lead out is an error.

Just regular files are read: a pipe or a device in a place of one never hangs a backup.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from backstay.closing import Closing
from backstay.errors import BackstayError, NotFoundError, UsageError

#: As many links as the system itself follows in one path.
_MAX_LINKS = 40
#: Far more than any directory of static pod resources has.
_MAX_DEPTH, _MAX_ITEMS = 32, 20_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WORDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


class ChangedError(BackstayError):
    """Something was changed, or went away, while it was read."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something in a directory; a symbolic link is itself, not what it points to.

    Attributes:
        path: from the host's root, absolute.
        facts: what the system says of it.
        target: of a symbolic link, as it stands there; else empty.
        folder: descriptor of the directory that it is in; good until the next item.
    """

    path: str
    facts: os.stat_result
    target: str
    folder: int

    @property
    def name(self) -> str:
        """Its name in its directory."""
        return self.path.rpartition("/")[2]


class HostTree(Closing):
    """The files of one host.

    Args:
        root: where the host's root is mounted; `/` on the host itself.

    Raises:
        UsageError: there is no such directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            # The user names it: a link there is the user's own.
            self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or "no path"
            raise UsageError(
                f"{root} can't be opened as a directory: {why}",
                "name the directory where the host's root is mounted with --host-root",
            ) from error

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def title(self, path: str) -> str:
        """Give a path of the host as it is called here."""
        return f"{str(self._root).rstrip('/')}{path}"

    def is_file(self, path: str) -> bool:
        """Whether a regular file is there, directly or by links.

        Raises:
            BackstayError: it can't be told, or a link leads out of the tree.
        """
        try:
            with self._find(path) as item:
                return stat.S_ISREG(item.facts.st_mode)
        except NotFoundError:
            return False

    def read(self, path: str, *, limit: int) -> bytes:
        """Read a regular file whole.

        Args:
            path: from the host's root, absolute.
            limit: bytes that it may have.

        Raises:
            NotFoundError: it is not there.
            ChangedError: it was changed meanwhile.
            BackstayError: it is no regular file, too large, unreadable, or out of the tree.
        """
        with self._find(path) as item:
            self._check_regular(item, path)
            if item.facts.st_size > limit:
                raise self._too_large(path, limit)
            data = b"".join(self.pieces(item, path))
        if len(data) > limit:
            raise self._too_large(path, limit)
        return data

    def _too_large(self, path: str, limit: int) -> BackstayError:
        return BackstayError(
            f"{self.title(path)} has more than {limit} bytes", "is it the right file"
        )

    def pieces(self, item: Item, path: str = "") -> Iterator[bytes]:
        """Read a regular file piece by piece: exactly as many bytes as its facts say.

        Args:
            item: the file, as `walk` gave it.
            path: what errors call it; default: its own path.

        Raises:
            ChangedError: it was changed meanwhile.
            BackstayError: it is no regular file, or can't be read.
        """
        path = path or item.path
        self._check_regular(item, path)
        with self._explained(path, seen=True):
            fd = os.open(item.name, _FILE, dir_fd=item.folder)
            try:
                self._check_same(os.fstat(fd), item.facts, path)
                left = item.facts.st_size
                while left and (piece := os.read(fd, min(left, 1 << 20))):
                    left -= len(piece)
                    yield piece
                if left:
                    raise self._changed(path)
                self._check_same(os.fstat(fd), item.facts, path)
            finally:
                os.close(fd)

    def _check_regular(self, item: Item, path: str) -> None:
        if not stat.S_ISREG(item.facts.st_mode):
            what = _WORDS.get(stat.S_IFMT(item.facts.st_mode), "something else")
            raise BackstayError(
                f"{self.title(path)} is {what}, and a regular file belongs there",
                "find out who put it there",
            )

    def _check_same(self, now: os.stat_result, before: os.stat_result, path: str) -> None:
        if _state(now) != _state(before):
            raise self._changed(path)

    def _changed(self, path: str) -> ChangedError:
        return ChangedError(
            f"{self.title(path)} was changed while it was read", "run it again when it is at rest"
        )

    def walk(self, path: str) -> Iterator[Item]:
        """Go through a directory and all below it, each before what it holds, by their names.

        Symbolic links are not followed, but for those that lead to the directory itself.

        Raises:
            NotFoundError: there is none.
            ChangedError: something came or went meanwhile.
            BackstayError: a directory can't be read, or there is too much in it.
        """
        with self._find(path) as item:
            if not stat.S_ISDIR(item.facts.st_mode):
                raise BackstayError(f"{self.title(path)} is no directory", "look at the host")
            top = Item(path.rstrip("/"), item.facts, "", item.folder)
            yield top
            with self._explained(path):
                fd = os.open(item.name or ".", _DIRECTORY, dir_fd=item.folder)
            count = 1
            try:
                for found in self._below(fd, top, 1):
                    count += 1
                    if count > _MAX_ITEMS:
                        raise BackstayError(
                            f"{self.title(path)} holds more than {_MAX_ITEMS} files",
                            "is it the right directory",
                        )
                    yield found
            finally:
                os.close(fd)

    def _below(self, fd: int, directory: Item, depth: int) -> Iterator[Item]:
        if depth > _MAX_DEPTH:
            raise BackstayError(f"{self.title(directory.path)} lies too deep", "look at the host")
        with self._explained(directory.path, seen=True):
            self._check_same(os.fstat(fd), directory.facts, directory.path)
            names = sorted(os.listdir(fd))
        for name in names:
            path = f"{directory.path}/{name}"
            item = self._item(fd, name, path)
            yield item
            if stat.S_ISDIR(item.facts.st_mode):
                with self._explained(path, seen=True):
                    inner = os.open(name, _DIRECTORY, dir_fd=fd)
                try:
                    yield from self._below(inner, item, depth + 1)
                finally:
                    os.close(inner)
        self._check_same(os.fstat(fd), directory.facts, directory.path)

    def _item(self, fd: int, name: str, path: str) -> Item:
        try:
            facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
            target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(facts.st_mode) else ""
        except OSError as error:
            raise self._failed(path, error, seen=True) from error
        return Item(path, facts, target, fd)

    @contextmanager
    def _find(self, path: str) -> Iterator[Item]:
        """Go along a path; gives what is at its end, which is no symbolic link."""
        search = _Search(self, self._fd, path)
        try:
            yield search.run()
        finally:
            search.close()

    @contextmanager
    def _explained(self, path: str, *, seen: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(path, error, seen=seen) from error

    def _failed(self, path: str, error: OSError, *, seen: bool = False) -> BackstayError:
        """Say what the system says; what was `seen` a moment ago, and is not there, was changed."""
        title = self.title(path)
        if seen and error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return ChangedError(
                f"{title} went away while its directory was read", "run it again when it is at rest"
            )
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return NotFoundError(f"{title} is not there", "is this a control plane host")
        return BackstayError(f"{title}: {error.strerror}", "is the host's root mounted, as root")


class _Search:
    """One path, gone along part by part."""

    def __init__(self, tree: HostTree, root: int, path: str) -> None:
        self._tree = tree
        self._path = path
        self._open = [os.dup(root)]
        self._names: list[str] = []
        self._parts = _parts(path, path)
        self._links = 0

    def close(self) -> None:
        self._back_to(0)

    def _back_to(self, depth: int) -> None:
        while len(self._open) > depth:
            with suppress(OSError):
                os.close(self._open.pop())

    def run(self) -> Item:
        if "\0" in self._path:
            raise BackstayError("a path of the host has a zero byte in it", "look at the host")
        found = self._here()
        while self._parts:
            part, origin = self._parts.pop()
            found = self._up(origin) if part == ".." else self._step(part)
        return found

    def _here(self) -> Item:
        return Item("", os.fstat(self._open[-1]), "", self._open[-1])

    def _up(self, origin: str) -> Item:
        if not self._names:
            raise BackstayError(
                f"{self._tree.title(origin)} is a symbolic link that leads out of the host's root",
                "find out who made it",
            )
        self._names.pop()
        self._back_to(len(self._names) + 1)
        return self._here()

    def _step(self, part: str) -> Item:
        here = "/".join(["", *self._names, part])
        with self._tree._explained(self._path):  # noqa: SLF001 - it is a part of that class
            facts = os.stat(part, dir_fd=self._open[-1], follow_symlinks=False)
            if stat.S_ISLNK(facts.st_mode):
                self._follow(here, os.readlink(part, dir_fd=self._open[-1]))
                return self._here()
            if stat.S_ISDIR(facts.st_mode):
                item = Item(here, facts, "", self._open[-1])
                if self._parts:
                    self._open.append(os.open(part, _DIRECTORY, dir_fd=self._open[-1]))
                    self._names.append(part)
                return item
            if self._parts:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return Item(here, facts, "", self._open[-1])

    def _follow(self, link: str, target: str) -> None:
        self._links += 1
        title = self._tree.title(link)
        if self._links > _MAX_LINKS:
            raise BackstayError(f"{title}: too many symbolic links", "look at the host")
        if target.startswith("/"):
            self._back_to(1)
            self._names.clear()
        self._parts += _parts(target, link)


def _parts(path: str, origin: str) -> list[tuple[str, str]]:
    """The parts of a path, the first one last; each with what says so: the path, or a link."""
    return [(part, origin) for part in reversed(path.split("/")) if part not in {"", "."}]


def _state(facts: os.stat_result) -> tuple[int, ...]:
    """What is another when a file or a directory has been changed."""
    return (facts.st_dev, facts.st_ino, facts.st_mode, facts.st_size, facts.st_mtime_ns)
