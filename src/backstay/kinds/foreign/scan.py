"""Looking for backups in a directory, and in the directories in it. Links are not followed.

What makes a file a candidate is its name; whether it is what the name says is found out when it is
opened. Nobody is told of an error for a file that is something else: it is listed as passed over.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from backstay.errors import BackstayError, FormatError
from backstay.files import explained
from backstay.kinds.foreign.names import CLUSTER_BACKUP, Named, moment_of, read_name

#: More files than anybody keeps backups in one place.
MOST = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file that looks like a backup.

    Attributes:
        path: of the snapshot.
        named: what its name says.
        partner: the archive of static pod resources that belongs to it; None where there is none.
        taken_at: when it was taken, as far as that is known; aware.
        assumed: what that goes by.
    """

    path: Path
    named: Named
    partner: Path | None
    taken_at: datetime
    assumed: str


@dataclass(frozen=True, slots=True)
class Passed:
    """A file that is left alone.

    Attributes:
        path: which.
        reason: why, in one line.
    """

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found in a directory.

    Attributes:
        candidates: the oldest first, so that the newest is imported last.
        passed: what is no backup, by name.
    """

    candidates: tuple[Candidate, ...]
    passed: tuple[Passed, ...]


def scan(directory: Path) -> Scan:
    """Look through a directory, and one level below it.

    Args:
        directory: where.

    Raises:
        BackstayError: it can't be read.
        FormatError: it has more files than anybody keeps backups.
    """
    candidates: list[Candidate] = []
    passed: list[Passed] = []
    seen = 0
    for folder in _folders(directory, passed):
        files: list[tuple[Path, Named, float]] = []
        for entry in _entries(folder):
            seen += 1
            if seen > MOST:
                raise FormatError(
                    f"{directory} has more than {MOST} files", "name the one with the backups"
                )
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                if folder != directory:
                    passed.append(Passed(path, "a directory, two levels down"))
            elif entry.is_symlink():
                passed.append(Passed(path, "a symbolic link, which is not followed"))
            elif not entry.is_file(follow_symlinks=False):
                passed.append(Passed(path, "no file"))
            elif (named := read_name(entry.name)) is None:
                passed.append(Passed(path, "looks like no backup"))
            else:
                files.append((path, named, entry.stat(follow_symlinks=False).st_mtime))
        candidates += _paired(files, passed)
    candidates.sort(key=lambda one: (one.taken_at, str(one.path)))
    passed.sort(key=lambda one: str(one.path))
    return Scan(tuple(candidates), tuple(passed))


def _folders(directory: Path, passed: list[Passed]) -> Iterator[Path]:
    yield directory
    for entry in _entries(directory):
        if not entry.is_dir(follow_symlinks=False):
            continue
        path = directory / entry.name
        if os.access(path, os.R_OK | os.X_OK):
            yield path
        else:
            passed.append(Passed(path, "may not be looked into"))


def _entries(folder: Path) -> Sequence[os.DirEntry[str]]:
    with explained(folder), os.scandir(folder) as found:
        return sorted(found, key=lambda entry: entry.name)


def _paired(
    files: Sequence[tuple[Path, Named, float]], passed: list[Passed]
) -> Iterator[Candidate]:
    """Put snapshots and archives of one run together."""
    archives = {named.pair: path for path, named, _ in files if named.archive}
    snapshots = {named.pair for _, named, _ in files if not named.archive}
    for path, named, changed in files:
        if named.archive:
            if named.pair not in snapshots:
                passed.append(Passed(path, "its snapshot is missing"))
            continue
        yield Candidate(
            path=path,
            named=named,
            partner=archives.get(named.pair) if named.pair else None,
            taken_at=named.taken_at or moment_of(changed),
            assumed=_assumed(named),
        )


def _assumed(named: Named) -> str:
    if named.taken_at is None:
        return "the file was changed last then"
    if named.tool == CLUSTER_BACKUP:
        return "its name says so, taken for UTC"
    return "its name says so"


def open_inside(path: Path, directory: Path) -> BinaryIO:
    """Open a file that a scan has found, and hold it to lie in the directory still.

    Args:
        path: the file.
        directory: that was looked through.

    Raises:
        BackstayError: it can't be read, is no file any more, or lies elsewhere now.
    """
    with explained(path):
        # A pipe that came there meanwhile must not be waited for.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.fdopen(os.open(path, flags), "rb", buffering=0)
        try:
            real = Path(f"/proc/self/fd/{file.fileno()}").readlink()
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            inside = real.is_relative_to(directory.resolve())
        except BaseException:
            file.close()
            raise
    if not regular or not inside:
        file.close()
        raise BackstayError(f"{path} is not the file any more that was found", "run it again")
    return file
