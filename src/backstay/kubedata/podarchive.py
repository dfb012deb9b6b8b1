"""The archive of static pod resources that `cluster-backup.sh` makes: looked into, never extracted.

    static-pod-resources/kube-apiserver-pod-7/secrets/encryption-config/encryption-config
    static-pod-resources/etcd-pod-3/etcd-pod.yaml

A gzipped tar of one folder for each of the four static pods. Who restores it unpacks it as root
over /etc/kubernetes, so an archive that would write anywhere else is refused as a whole. It is read
once, in bounded memory; what is kept are the folders, the encryption configuration and the dates of
the certificates.

Source: openshift/cluster-etcd-operator, bindata/etcd (cluster-backup.sh, cluster-restore.sh); POSIX
pax and GNU tar's headers.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from backstay.errors import DamagedError
from backstay.kubedata.document import SIZE_LIMIT
from backstay.kubedata.pemdates import Dates, read_dates

#: What each member of an archive lies in.
TOP = "static-pod-resources"
#: The pods whose resources belong into an archive.
STATIC_PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")

#: More than any host has: folders of static pods are a few megabytes with some hundred files.
MAX_MEMBERS = 50_000
MAX_UNPACKED = 2 << 30
#: Files up to this size are looked into for certificates; bundles of authorities have 300 KiB.
_MAX_FILE = 1 << 20
_MAX_CERTIFICATES = 20_000
_MAX_NAME = 16 << 10
_BLOCK = tarfile.BLOCKSIZE
_PIECE = 1 << 18

_FOLDER = re.compile(
    rf"{TOP}/({'|'.join(STATIC_PODS)})-pod-([0-9]{{1,18}})(/.*)?", re.ASCII | re.DOTALL
)
_CONFIGURATION = re.compile(
    rf"{TOP}/kube-apiserver-pod-[0-9]{{1,18}}/secrets/encryption-config/encryption-config", re.ASCII
)
_SECRETS = re.compile(rf"{TOP}/[^/]+/secrets/.+", re.DOTALL)
_PEM = b"-----BEGIN CERTIFICATE-----"
_REGULAR = {tarfile.REGTYPE, tarfile.AREGTYPE}
_LINKS = {tarfile.SYMTYPE, tarfile.LNKTYPE}
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_DO = "use another backup"


class Source(Protocol):
    """Where the bytes come from; an empty answer is the end."""

    def read(self, size: int, /) -> bytes:
        """Give up to `size` bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFile:
    """A file of an archive that has certificates.

    Attributes:
        path: where it lies in the archive.
        own: whether a component shows it as its own, and does not only trust what is in it.
        dates: of each certificate.
    """

    path: str
    own: bool
    dates: tuple[Dates, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodArchive:
    """What an archive holds, as far as it matters here.

    Attributes:
        static_pods: the revisions of each static pod that has a folder in it.
        members: how many there are.
        size: bytes, unpacked.
        configurations: kube-apiserver's EncryptionConfiguration, as many as there are; without
            encryption there is none.
        certificates: files with certificates.
    """

    static_pods: dict[str, tuple[int, ...]]
    members: int
    size: int
    configurations: tuple[bytes, ...] = field(default=(), repr=False)
    certificates: tuple[CertificateFile, ...] = ()

    @property
    def configuration(self) -> bytes | None:
        """The one EncryptionConfiguration; None where there is none, or not just one."""
        return self.configurations[0] if len(self.configurations) == 1 else None


def read_archive(source: Source, name: str) -> PodArchive:
    """Look into an archive, to its end.

    Args:
        source: its bytes, gzipped.
        name: what messages call it.

    Raises:
        DamagedError: it is no such archive, is cut short, would write elsewhere than into the
            folders of static pods, or has more than any host would put into it.
    """
    unpacked = _Unpacked(source, name)
    looked = _Looked(name)
    for member in _members(unpacked, name):
        looked.take(member, unpacked)
    unpacked.finish()
    if not looked.pods:
        raise DamagedError(f"{name} has no folder of a static pod", _DO)
    return PodArchive(
        static_pods={pod: tuple(sorted(found)) for pod, found in sorted(looked.pods.items())},
        members=looked.members,
        size=unpacked.size,
        configurations=tuple(looked.configurations),
        certificates=tuple(looked.certificates),
    )


@dataclass(slots=True)
class _Looked:
    """What was seen so far."""

    name: str
    pods: dict[str, set[int]] = field(default_factory=dict)
    members: int = 0
    configurations: list[bytes] = field(default_factory=list)
    certificates: list[CertificateFile] = field(default_factory=list)

    def take(self, member: "_Member", content: "_Unpacked") -> None:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise DamagedError(f"{self.name} has more than {MAX_MEMBERS} members", _DO)
        _check_place(member, self.name)
        match = _FOLDER.fullmatch(member.path)
        if match is None:
            # The folder above them can be there, or the file of a tool that adds one.
            if member.path != TOP:
                raise _elsewhere(member.path, self.name)
            return
        self.pods.setdefault(match[1], set()).add(int(match[2]))
        if not member.regular:
            return
        if _CONFIGURATION.fullmatch(member.path):
            self._configure(content.take(member.size, SIZE_LIMIT + 1))
        elif member.size <= _MAX_FILE:
            self._date(member.path, content.take(member.size, _MAX_FILE))

    def _configure(self, data: bytes) -> None:
        if len(data) > SIZE_LIMIT:
            raise DamagedError(f"{self.name} has an encryption-config that is none: too large", _DO)
        if data not in self.configurations:
            self.configurations.append(data)
        if len(self.configurations) > 8:
            raise DamagedError(f"{self.name} has too many encryption-configs", _DO)

    def _date(self, path: str, data: bytes) -> None:
        if _PEM not in data:
            return
        dates = read_dates(data)
        if dates:
            own = _SECRETS.fullmatch(path) is not None
            self.certificates.append(CertificateFile(path=path, own=own, dates=dates))
        if sum(len(file.dates) for file in self.certificates) > _MAX_CERTIFICATES:
            raise DamagedError(f"{self.name} has more certificates than any host", _DO)


@dataclass(frozen=True, slots=True)
class _Member:
    path: str
    size: int
    kind: bytes
    link: str

    @property
    def regular(self) -> bool:
        return self.kind in _REGULAR


def _check_place(member: _Member, name: str) -> None:
    """Hold a member to be a file, a folder, or a link, that stays below the top folder."""
    if not _stays(member.path):
        raise _elsewhere(member.path, name)
    if member.kind in _LINKS:
        # A hard link names a member; a symbolic one goes from the folder that it lies in.
        start = [] if member.kind == tarfile.LNKTYPE else member.path.split("/")[:-1]
        if not _lands_inside(start, member.link):
            raise _elsewhere(f"{member.path} -> {member.link}", name)
    elif not member.regular and member.kind != tarfile.DIRTYPE:
        raise DamagedError(f"{name} has a member that is no file: {_shown(member.path)}", _DO)


def _stays(path: str) -> bool:
    parts = path.split("/")
    return parts[0] == TOP and not any(part in {"", ".", ".."} for part in parts)


def _lands_inside(start: list[str], link: str) -> bool:
    if link.startswith("/") or "\0" in link or not link:
        return False
    parts = list(start)
    for part in link.split("/"):
        if part == "..":
            if not parts:
                return False
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
        if start and not parts:
            return False
    return bool(parts) and parts[0] == TOP


def _elsewhere(path: str, name: str) -> DamagedError:
    return DamagedError(
        f"{name} would write outside of the folders of static pods: {_shown(path)}",
        "do not unpack it; find out who made it",
    )


def _shown(path: str) -> str:
    return ascii(path[:200])


def _members(content: "_Unpacked", name: str) -> Iterator[_Member]:
    """Read headers; whoever takes a member may read its content before asking for the next."""
    more: dict[str, str] = {}
    while True:
        block = content.exactly(_BLOCK)
        if block == bytes(_BLOCK):
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise DamagedError(f"{name} is no tar: {error}", _DO) from error
        size = info.size
        if size < 0:
            raise DamagedError(f"{name} has a member of less than no bytes", _DO)
        if info.type in {tarfile.XHDTYPE, tarfile.XGLTYPE, *_LONG}:
            data = content.take(size, _MAX_NAME)
            if len(data) < size:
                raise DamagedError(f"{name} has a header of {size} bytes", _DO)
            content.skip(-size % _BLOCK)
            more |= _more(info.type, data, name)
            continue
        if size and info.type not in _REGULAR:
            raise DamagedError(f"{name} has a member that is no file and has content", _DO)
        path = more.get("path", info.name)
        link = more.get("linkpath", info.linkname)
        more = {}
        start = content.size
        has_content = info.type in _REGULAR
        yield _Member(_plain(path), size if has_content else 0, info.type, link)
        if has_content:
            content.skip(size - (content.size - start))
            content.skip(-size % _BLOCK)


def _plain(path: str) -> str:
    return path.removeprefix("./").removesuffix("/")


def _more(kind: bytes, data: bytes, name: str) -> dict[str, str]:
    """Read what a header says of the next one. Where it lies and what it is may be said there."""
    if kind in _LONG:
        return {_LONG[kind]: data.split(b"\0")[0].decode("utf-8", "surrogateescape")}
    found: dict[str, str] = {}
    rest = data
    while rest and rest != bytes(len(rest)):
        digits, space, _ = rest[:16].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = rest[len(digits) + 1 : length]
        word, sign, value = record.partition(b"=")
        if not sign or length > len(rest) or not value.endswith(b"\n"):
            raise DamagedError(f"{name} has a header that makes no sense", _DO)
        key = word.decode("utf-8", "backslashreplace")
        if key == "size" or key.startswith("GNU.sparse"):
            raise DamagedError(f"{name} has a member in a form that no host writes: {key}", _DO)
        if key in {"path", "linkpath"}:
            found[key] = value[:-1].decode("utf-8", "surrogateescape")
        rest = rest[length:]
    # What a global header says is for all: nobody writes a path into one.
    if kind == tarfile.XGLTYPE and found:
        raise DamagedError(f"{name} has one path for all members", _DO)
    return found


class _Unpacked:
    """The bytes of the tar, behind gzip; bounded."""

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self._name = name
        self._unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._packed = b""
        self._ready = b""
        self._ended = False
        self.size = 0

    def exactly(self, size: int) -> bytes:
        """Give so many bytes.

        Raises:
            DamagedError: there are fewer.
        """
        data = self._read(size)
        if len(data) < size:
            raise DamagedError(f"{self._name} is cut short", _DO)
        return data

    def take(self, size: int, limit: int) -> bytes:
        """Give the content of a member, up to a limit; the rest stays."""
        return self.exactly(min(size, limit))

    def skip(self, size: int) -> None:
        """Pass so many bytes over."""
        while size:
            size -= len(self.exactly(min(size, _PIECE)))

    def finish(self) -> None:
        """Read to the end: what follows a tar is padding, and gzip's checksum."""
        while data := self._read(_PIECE):
            if data.strip(b"\0"):
                raise DamagedError(f"{self._name} goes on after its end", _DO)

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            if not self._ready:
                self._ready = self._next()
                if not self._ready:
                    break
            part, self._ready = self._ready[:size], self._ready[size:]
            size -= len(part)
            parts.append(part)
        data = b"".join(parts)
        self.size += len(data)
        if self.size > MAX_UNPACKED:
            raise DamagedError(f"{self._name} unpacks to more than {MAX_UNPACKED} bytes", _DO)
        return data

    def _next(self) -> bytes:
        while not self._ended:
            if not self._packed:
                self._packed = self._source.read(_PIECE)
                if not self._packed:
                    raise DamagedError(f"{self._name} is cut short", _DO)
            try:
                data = self._unpacker.decompress(self._packed, _PIECE)
            except zlib.error as error:
                raise DamagedError(f"{self._name} can't be unpacked: {error}", _DO) from error
            self._packed = self._unpacker.unconsumed_tail
            if self._unpacker.eof:
                self._end()
            if data:
                return data
        return b""

    def _end(self) -> None:
        self._ended = True
        if self._unpacker.unused_data or self._source.read(1):
            raise DamagedError(f"{self._name} goes on after its end", _DO)
