"""A bolt file opened for reading: which meta counts, whether the file is whole, its buckets.

The file is mapped and never written. No number in it is believed: what the bytes can do at worst
is a `DamagedError`. Pages are `bolt.image`'s business, trees `bolt.bucket`'s. The one thing that
no reader of mapped files survives is another program that shortens the file meanwhile.
"""

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from backstay.bolt.bucket import Bucket, open_bucket
from backstay.bolt.image import FIRST_PAGE, Element, Image
from backstay.bolt.meta import Meta, newest, read_metas
from backstay.bolt.page import BUCKET_FLAG, MAGIC
from backstay.bolt.visited import Visited
from backstay.closing import Closing
from backstay.errors import BackstayError, DamagedError
from backstay.files import explained

__all__ = ["BoltFile", "Bucket", "Visited", "open_for_reading"]


class BoltFile(Closing):
    """A mapped bolt file; a context manager that unmaps it.

    Attributes:
        name: what messages call it.
        size: bytes of the file.
        metas: both meta pages, each parsed, or as the reason why it is broken.
        meta: the one that counts.
        warnings: what is wrong and does not matter for reading.
        image: its pages.
    """

    def __init__(self, data: mmap.mmap, name: str, size: int) -> None:
        self._map = data
        self.name = name
        self.size = size
        self.metas = read_metas(data)
        self.meta = self._choose()
        self.warnings = tuple(
            f"{name}: meta page {page} {meta}; the other one is used"
            for page, meta in enumerate(self.metas)
            if isinstance(meta, str)
        )
        self.image = Image(data, name, self.meta.page_size, self.meta.high_water)

    @classmethod
    def open(cls, source: Path | int, *, size: int | None = None, name: str = "") -> Self:
        """Map a file.

        Args:
            source: a path, or an open descriptor (which stays the caller's).
            size: bytes of the bolt file proper; default: all.
            name: what messages call it; default: its path.

        Raises:
            DamagedError: it is no bolt file, it is cut short, or both metas are broken.
            BackstayError: it can't be read.
        """
        path = source if isinstance(source, Path) else Path(f"/proc/self/fd/{source}")
        label = name or (str(source) if isinstance(source, Path) else "the spooled file")
        with explained(path):
            fd = open_for_reading(source) if isinstance(source, Path) else source
            try:
                data, length = _map(fd, label, size)
            finally:
                if isinstance(source, Path):
                    os.close(fd)
        try:
            return cls(data, label, length)
        except BaseException:
            data.close()
            raise

    def close(self) -> None:
        """Unmap the file; nothing of it can be read afterwards."""
        # An error on its way up may still hold a view of the map; then it goes with that.
        with suppress(BufferError):
            self._map.close()

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return self.meta.page_size

    @property
    def high_water(self) -> int:
        """Number of pages in use; those that nothing reaches any more count too."""
        return self.meta.high_water

    def _choose(self) -> Meta:
        meta = newest(self.metas)
        if meta is None:
            if MAGIC.to_bytes(4, "little") not in self._map[: 2 * mmap.PAGESIZE]:
                raise DamagedError(
                    f"{self.name} is no bolt file: it has no meta page",
                    "name a file that etcd's snapshot save has written",
                )
            raise DamagedError(
                f"{self.name} is damaged: meta page 0 {self.metas[0]}, and meta page 1"
                f" {self.metas[1]}",
                "use another backup",
            )
        if meta.high_water * meta.page_size > self.size:
            raise DamagedError(
                f"{self.name} is cut short: it has {self.size} bytes, and pages in use reach to"
                f" byte {meta.high_water * meta.page_size}",
                "fetch it again, or use another backup",
            )
        if not FIRST_PAGE <= meta.root < meta.high_water:
            raise DamagedError(
                f"{self.name} is damaged: its root page is {meta.root}, and pages in use are"
                f" {FIRST_PAGE} to {meta.high_water - 1}",
                "use another backup",
            )
        return meta

    @property
    def root(self) -> Bucket:
        """The bucket of buckets."""
        return Bucket(self.image, b"", self.meta.root, self.meta.sequence)

    def buckets(self, visited: Visited | None = None) -> Iterator[tuple[bytes, Bucket]]:
        """Give the buckets in the order of their names.

        Raises:
            DamagedError: the bucket of buckets is damaged, or holds something else.
        """
        for name, element in self.root.entries(visited):
            yield name, self._open(name, element)

    def bucket(self, name: bytes) -> Bucket | None:
        """Find a bucket; None where there is none of that name.

        Raises:
            DamagedError: the way to it in the bucket of buckets is damaged.
        """
        element = self.root.find(name)
        return self._open(name, element) if element else None

    def _open(self, name: bytes, element: Element) -> Bucket:
        if element.flags != BUCKET_FLAG:
            raise self.image.damaged(f"{name[:64]!r} at the top is no bucket")
        return open_bucket(self.image, name, element)


def open_for_reading(path: Path) -> int:
    """Open a file; what is no file, like a pipe, does not make it wait.

    Raises:
        OSError: it can't be read.
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def _map(fd: int, name: str, size: int | None) -> tuple[mmap.mmap, int]:
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode):
        raise BackstayError(f"{name} is no regular file", "name a file")
    length = facts.st_size if size is None else size
    if length == 0:
        raise DamagedError(f"{name} is empty", "use another backup")
    if length > facts.st_size:
        raise DamagedError(f"{name} has {facts.st_size} bytes, not {length}", "fetch it again")
    return mmap.mmap(fd, length, access=mmap.ACCESS_READ), length
