"""Packing: the zstd half of a sealed object, as files to read from and to write to.

A frame is written with its checksum (RFC 8878, 3.1.1), so that `zstd -d` finds damage too. A
frame that is unpacked is bounded: in what it may ask for (its window), and in what may come out.
A cut frame ends silently: whether it ended is asked for.

Border: bytes. Where they come from, and that age lies around them, is `sealing`'s business.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import Protocol

from backstay.errors import DamagedError
from backstay.repo.manifest import ObjectEntry
from backstay.repo.store import Writer

try:
    from compression import zstd  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    from backports import zstd

PIECE = 1 << 20
#: Decrypted pieces are 8 KiB: gathered, so that unpacking is few calls.
_GATHER = 256 << 10
#: More threads would each hold megabytes; the upload is slower than four of them.
_MOST_THREADS = 4
#: Levels up to 19 need windows of 8 MiB. A frame that wants more than this is not ours.
_WINDOW_LOG = 25


class Readable(Protocol):
    """Where bytes come from; an empty answer is the end."""

    def read(self, size: int, /) -> bytes:
        """Give up to `size` bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Sealing:
    """How hard to compress.

    Attributes:
        level: zstd's, 1 to 19.
        threads: that compress; None is one for each core, four at most.
    """

    level: int = 3
    threads: int | None = None


class Packed:
    """A source, hashed and compressed: a file to read from."""

    def __init__(self, source: Readable, sealing: Sealing) -> None:
        threads = sealing.threads or min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        parameter = zstd.CompressionParameter
        self._packer = zstd.ZstdCompressor(
            options={
                parameter.compression_level: sealing.level,
                parameter.checksum_flag: 1,
                parameter.nb_workers: threads,
            }
        )
        self._source = source
        self._ready = memoryview(b"")
        self._ended = False
        self.size = 0
        self.digest = hashlib.sha256()
        self.error: BaseException | None = None

    def read(self, size: int, /) -> bytes:
        """Give up to `size` compressed bytes; nothing at the end."""
        try:
            while not self._ready and not self._ended:
                self._ready = memoryview(self._next())
        except BaseException as error:
            self.error = self.error or error
            raise
        piece = bytes(self._ready[:size])
        self._ready = self._ready[size:]
        return piece

    def _next(self) -> bytes:
        data = self._source.read(PIECE)
        if not data:
            self._ended = True
            return bytes(self._packer.flush())
        self.size += len(data)
        self.digest.update(data)
        return bytes(self._packer.compress(data))


class Unpacked:
    """A sink behind zstd, bounded by what the manifest says: a file to write to."""

    def __init__(self, sink: Writer, stored: ObjectEntry) -> None:
        options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
        self._unpacker = zstd.ZstdDecompressor(options=options)
        self._sink = sink
        self._stored = stored
        self._held = bytearray()
        self._size = 0
        # Of what no manifest speaks there is nothing to compare with.
        self._digest = hashlib.sha256() if stored.sha256 else None
        self.error: BaseException | None = None

    def write(self, data: bytes, /) -> int:
        """Take compressed bytes.

        Raises:
            DamagedError: they are no frame of ours, or unpack to too much.
        """
        try:
            self._held += data
            if len(self._held) >= _GATHER:
                self._unpack()
        except BaseException as error:
            self.error = self.error or error
            raise
        return len(data)

    def flush(self) -> None:
        """What is held back goes on with `finish`."""

    def _unpack(self) -> None:
        packed, self._held = bytes(self._held), bytearray()
        if packed and self._unpacker.eof:
            raise DamagedError(f"{self._stored.path} goes on after its end", "use another backup")
        while packed or not (self._unpacker.needs_input or self._unpacker.eof):
            try:
                data = self._unpacker.decompress(packed, max_length=PIECE)
            except zstd.ZstdError as error:
                raise DamagedError(
                    f"{self._stored.path} can't be unpacked: {error}", "use another backup"
                ) from error
            packed = b""
            self._give(data)
        if self._unpacker.eof and self._unpacker.unused_data:
            raise DamagedError(f"{self._stored.path} goes on after its end", "use another backup")

    def _give(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._stored.size:
            raise DamagedError(
                f"{self._stored.path} unpacks to more than the {self._stored.size} bytes that the"
                " manifest says",
                "use another backup",
            )
        if self._digest:
            self._digest.update(data)
        self._sink.write(data)

    def finish(self) -> None:
        """Unpack what is left, and hold all to what the manifest says."""
        self.end()
        found = self._digest.hexdigest() if self._digest else ""
        compare(self._stored.path, "unpacked", found, self._stored.sha256)

    def end(self) -> None:
        """Unpack what is left, and hold its size to what the manifest says."""
        self._unpack()
        if not self._unpacker.eof:
            raise DamagedError(f"{self._stored.path} is cut short", "use another backup")
        compare(self._stored.path, "unpacked", self._size, self._stored.size)


def compare(name: str, where: str, found: int | str, expected: int | str) -> None:
    """Hold a size or a digest to what the manifest says.

    Raises:
        DamagedError: they differ.
    """
    if found != expected:
        kind = "bytes" if isinstance(found, int) else "as SHA-256"
        raise DamagedError(
            f"{name} {where}: {found} {kind}, the manifest says {expected}", "use another backup"
        )
