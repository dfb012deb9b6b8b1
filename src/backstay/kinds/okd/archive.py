"""The tar of static pod resources, as cluster-backup.sh makes it and cluster-restore.sh takes it.

    tar -cpzf static_kuberesources_TIME.tar.gz -C /etc/kubernetes static-pod-resources/...-pod-N ...

Names are relative to `/etc/kubernetes`; modes, owners and times are the host's; symbolic links
are themselves. What never belongs there (a pipe, a device) is an error, not a part of it. It holds
encryption keys and certificates: whoever writes it keeps it private.

A directory that changes while it is read is read again: an installer may be at work. What a
rollout has moved on meanwhile is taken anew, from the start.
"""

import gzip
import hashlib
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from backstay.errors import BackstayError, FormatError
from backstay.files import explained
from backstay.kinds.okd.hosttree import ChangedError, HostTree, Item
from backstay.kinds.okd.static_pods import KUBERNETES, StaticPod, moved, running
from backstay.kubedata.podarchive import MAX_UNPACKED
from backstay.report import Report

#: How often it is begun while the host changes.
TRIES = 3
#: Below kube-apiserver's directory.
ENCRYPTION = "secrets/encryption-config/encryption-config"
_ENCRYPTION_LIMIT = 64 << 10
#: That of gzip itself.
_LEVEL = 6
#: Where the names of owners are: CoreOS has most of them in the second.
_PASSWD = ("/etc/passwd", "/usr/lib/passwd")
_GROUP = ("/etc/group", "/usr/lib/group")
_NAMES_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """A tar that was written whole.

    Attributes:
        pods: what is in it.
        size: bytes of the compressed file.
        sha256: of it, hex.
        encryption: kube-apiserver's EncryptionConfiguration that is in it; None where there is
            none, so that nothing is encrypted.
    """

    pods: tuple[StaticPod, ...]
    size: int
    sha256: str
    encryption: bytes | None = field(repr=False)

    @property
    def encryption_name(self) -> str:
        """Where in the tar the EncryptionConfiguration is, or would be."""
        return _encryption_of(self.pods)

    @property
    def revisions(self) -> dict[str, int]:
        """The revision of each static pod, by its name."""
        return {pod.name: pod.revision for pod in self.pods}


def write_archive(
    tree: HostTree, file: BinaryIO, path: Path, report: Report, *, tries: int = TRIES
) -> Archived:
    """Write the tar of what the host runs now.

    Args:
        tree: the host's files.
        file: takes it; unbuffered, empty, and private. It is emptied before each new try.
        path: what errors call the file.
        report: is told what was found, and why it is begun again.
        tries: how often it is begun, while the host changes.

    Raises:
        NotFoundError: the host lacks a manifest or a directory.
        BackstayError: something can't be read, or does not come to rest.
        SpaceError: there is no room for it.
    """
    attempt = 1
    while True:
        try:
            return _written(tree, file, path, report)
        except ChangedError as error:
            if attempt >= tries:
                raise
            attempt += 1
            report.warn(f"{error.what}: taken again, from the start")
            with explained(path):
                file.seek(0)
                file.truncate()


def _written(tree: HostTree, file: BinaryIO, path: Path, report: Report) -> Archived:
    pods = running(tree)
    for pod in pods:
        report.say(pod.found)
    sink = _Sink(file, path)
    with report.task("static pod resources") as advance:
        encryption = _Writer(tree, pods, advance).write(sink)
    changed = moved(pods, running(tree))
    if changed:
        raise ChangedError(
            f"a rollout went on while the static pod resources were read: {changed}",
            "run it again when the rollout is over",
        )
    return Archived(
        pods=pods, size=sink.size, sha256=sink.digest.hexdigest(), encryption=encryption
    )


def _encryption_of(pods: Sequence[StaticPod]) -> str:
    return f"{_name(pods[0].folder)}/{ENCRYPTION}"


def _name(path: str) -> str:
    return path.removeprefix(f"{KUBERNETES}/")


class _Sink:
    """Writes all of what it is given, and knows size and digest."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        with explained(self._path):
            while view:
                written = self._file.write(view)
                self.digest.update(view[:written])
                self.size += written
                view = view[written:]
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""


class _Writer:
    """One try at a tar."""

    def __init__(
        self, tree: HostTree, pods: Sequence[StaticPod], advance: Callable[[int], None]
    ) -> None:
        self._tree = tree
        self._pods = pods
        self._advance = advance
        self._users = _owners(tree, _PASSWD)
        self._groups = _owners(tree, _GROUP)
        self._linked: dict[tuple[int, int], str] = {}
        self._wanted = _encryption_of(pods)
        self._found: bytes | None = None
        self._left = MAX_UNPACKED

    def write(self, sink: _Sink) -> bytes | None:
        """Write it; gives the EncryptionConfiguration, where there is one."""
        with (
            gzip.GzipFile(
                filename="", mode="wb", compresslevel=_LEVEL, fileobj=cast("BinaryIO", sink)
            ) as packed,
            tarfile.open(
                fileobj=packed,
                mode="w|",
                format=tarfile.GNU_FORMAT,
                encoding="utf-8",
                errors="surrogateescape",
            ) as tar,
        ):
            for pod in self._pods:
                for item in self._tree.walk(pod.folder):
                    self._add(tar, item)
        return self._found

    def _add(self, tar: tarfile.TarFile, item: Item) -> None:
        info = self._describe(item)
        if not info.isreg():
            if info.name == self._wanted:
                raise FormatError(
                    f"{self._tree.title(item.path)} is no regular file", "look at the host"
                )
            tar.addfile(info)
            return
        self._left -= info.size
        if self._left < 0:
            raise BackstayError(
                f"{self._tree.title(item.path)}: with it the static pod resources have more than"
                f" {MAX_UNPACKED} bytes",
                "does a large file lie there that belongs elsewhere",
            )
        wanted = info.name == self._wanted
        if wanted and info.size > _ENCRYPTION_LIMIT:
            raise FormatError(
                f"{self._tree.title(item.path)} has more than {_ENCRYPTION_LIMIT} bytes",
                "is it an EncryptionConfiguration",
            )
        pieces = _Pieces(self._tree.pieces(item), keep=wanted)
        tar.addfile(info, cast("BinaryIO", pieces))
        pieces.end()
        if wanted:
            self._found = pieces.kept
        self._advance(info.size)

    def _describe(self, item: Item) -> tarfile.TarInfo:
        facts = item.facts
        info = tarfile.TarInfo(_name(item.path))
        info.mode = stat.S_IMODE(facts.st_mode)
        info.mtime = int(facts.st_mtime)
        info.uid, info.gid = facts.st_uid, facts.st_gid
        info.uname = self._users.get(facts.st_uid, "")
        info.gname = self._groups.get(facts.st_gid, "")
        if stat.S_ISDIR(facts.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(facts.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, item.target
        elif stat.S_ISREG(facts.st_mode):
            self._describe_file(info, facts.st_dev, facts.st_ino, facts.st_nlink, facts.st_size)
        else:
            raise BackstayError(
                f"{self._tree.title(item.path)} is neither a file, nor a directory, nor a link:"
                " nothing else belongs among static pod resources",
                "find out who made it",
            )
        return info

    def _describe_file(
        self, info: tarfile.TarInfo, device: int, inode: int, links: int, size: int
    ) -> None:
        """A file with several names is stored once, as GNU tar does."""
        first = self._linked.setdefault((device, inode), info.name) if links > 1 else info.name
        if first != info.name:
            info.type, info.linkname = tarfile.LNKTYPE, first
        else:
            info.type, info.size = tarfile.REGTYPE, size


class _Pieces:
    """The pieces of a file, as a file to read from."""

    def __init__(self, pieces: Iterator[bytes], *, keep: bool) -> None:
        self._pieces = pieces
        self._rest = b""
        self._keep = keep
        self.kept = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        if self._keep:
            self.kept += data
        return data

    def end(self) -> None:
        """Let the file be looked at after its last byte."""
        for _ in self._pieces:
            pass


def _owners(tree: HostTree, paths: Sequence[str]) -> dict[int, str]:
    """Read the names that the host has for ids; where it has none, a number says it all."""
    found: dict[int, str] = {0: "root"}
    for path in paths:
        try:
            text = tree.read(path, limit=_NAMES_LIMIT).decode("utf-8", "replace")
        except BackstayError:
            continue
        for line in text.splitlines():
            name, *rest = line.split(":")
            if len(rest) > 1 and rest[1].isascii() and rest[1].isdigit() and len(rest[1]) < 12:
                found.setdefault(int(rest[1]), name[:31])
    return found
