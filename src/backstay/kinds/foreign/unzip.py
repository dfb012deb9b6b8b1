"""The snapshot in a zip file, as k3s compresses it: the one member, unpacked to a spool.

Source: k3s-io/k3s, pkg/etcd/snapshot.go (compressSnapshot: one file, deflated); PKWARE's APPNOTE.
"""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from backstay.errors import DamagedError
from backstay.flows.spool import Spool

#: Far more than etcd can have; what a zip file says of its size is not believed either.
MAX_SIZE = 64 << 30
_PIECE = 1 << 20
_END = struct.Struct("<4s4H2LH")
_MAGIC = b"PK\5\6"
#: The number of members in a file whose numbers stand elsewhere, since they are large.
_ELSEWHERE = 0xFFFF
_WAYS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 1
_DO = "unpack it yourself, and import what comes out"
#: What a broken archive raises; the library does not say so in one way.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    UnicodeDecodeError,
    ValueError,
    struct.error,
)


def unzip(file: BinaryIO, path: Path, spool_dir: Path) -> Spool:
    """Unpack a zip file that has one member.

    Args:
        file: the zip file.
        path: what messages call it.
        spool_dir: where the spool lies.

    Returns:
        A spool with all of it; the caller closes it.

    Raises:
        DamagedError: it is no zip file with one member, or that does not come whole.
        SpaceError: there is no room.
    """
    member, archive = _only(file, path)
    with archive:
        spool = Spool(spool_dir, expected=member.file_size)
        try:
            _copy(archive, member, spool, path)
        except BaseException:
            spool.close()
            raise
    spool.finish()
    return spool


def _only(file: BinaryIO, path: Path) -> tuple[zipfile.ZipInfo, zipfile.ZipFile]:
    try:
        _check_end(file, path)
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
    except _BROKEN as error:
        raise DamagedError(f"{path} is no zip file: {type(error).__name__}", _DO) from error
    if len(members) != 1 or members[0].is_dir():
        raise DamagedError(f"{path} has {len(members)} members, and k3s puts one snapshot in", _DO)
    member = members[0]
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _WAYS:
        raise DamagedError(f"{path} is packed in a way that k3s does not", _DO)
    if member.file_size > MAX_SIZE:
        raise DamagedError(f"{path} would unpack to {member.file_size} bytes", _DO)
    return member, archive


def _check_end(file: BinaryIO, path: Path) -> None:
    """Look at the number of members before a library reads all of their names."""
    size = file.seek(0, 2)
    file.seek(max(size - _END.size, 0))
    end = file.read(_END.size)
    file.seek(0)
    magic, *numbers = _END.unpack(end)
    if magic != _MAGIC:
        raise zipfile.BadZipFile
    if numbers[3] not in {1, _ELSEWHERE}:
        raise DamagedError(f"{path} has {numbers[3]} members, and k3s puts one snapshot in", _DO)


def _copy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, spool: Spool, path: Path) -> None:
    try:
        with archive.open(member) as content:
            # At its end the library compares the CRC-32, and that it is as long as it says.
            while piece := content.read(_PIECE):
                if spool.size + len(piece) > member.file_size:
                    raise DamagedError(f"{path} unpacks to more than it says", _DO)
                spool.write(piece)
    except _BROKEN as error:
        raise DamagedError(f"{path} can't be unpacked: {type(error).__name__}", _DO) from error
    if spool.size != member.file_size:
        raise DamagedError(f"{path} is cut short", _DO)
