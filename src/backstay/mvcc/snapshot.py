"""A snapshot file of etcd: the bolt file, the SHA-256 after it, and what its buckets say.

Here is what is asked of a file as a whole: its trailer, its revisions, and the small buckets. The
history in bucket `key` is the business of other modules: `status`, `hashkv`, `content`.

Source: etcd 3.4 to 3.6: etcdutl/snapshot, server/storage/schema, server/storage/mvcc.
"""

import os
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

from backstay.bolt.file import BoltFile, Bucket, open_for_reading
from backstay.closing import Closing
from backstay.errors import DamagedError
from backstay.files import explained
from backstay.mvcc.alarm import Alarm, parse_alarm
from backstay.mvcc.lease import Lease, parse_lease
from backstay.mvcc.membership import Member, parse_member
from backstay.mvcc.revision import parse_revision
from backstay.mvcc.wire import MalformedError

TRAILER_SIZE = 32
#: A bolt file has whole pages, and the smallest page has this many bytes.
SECTOR = 512
#: What etcd says of a history that was never compacted.
NEVER_COMPACTED = -1
#: An etcd without any change stands at this revision.
FIRST_REVISION = 1
_CHUNK = 4 << 20

T = TypeVar("T")


class Trailer(StrEnum):
    """How the SHA-256 at the end compares with the bytes before it."""

    MATCHES = "matches"
    MISMATCH = "mismatch"
    ABSENT = "absent"


class Snapshot(Closing):
    """An open snapshot file; a context manager that unmaps it.

    Attributes:
        bolt: the bolt file in it.
        trailer: the 32 bytes after it; None where there are none (a copy of `member/snap/db`).
    """

    def __init__(self, bolt: BoltFile, trailer: bytes | None) -> None:
        self.bolt = bolt
        self.trailer = trailer

    @classmethod
    def open(cls, source: Path | int, *, name: str = "") -> Self:
        """Open a file for reading.

        Args:
            source: a path, or an open descriptor (which stays the caller's).
            name: what messages call it; default: its path.

        Raises:
            DamagedError: it is no bolt file, or is cut short, or both metas are broken.
            BackstayError: it can't be read.
        """
        if isinstance(source, int):
            return cls._open(source, name or "the spooled file")
        with explained(source):
            fd = open_for_reading(source)
            try:
                return cls._open(fd, name or str(source))
            finally:
                os.close(fd)

    @classmethod
    def _open(cls, fd: int, name: str) -> Self:
        total = os.fstat(fd).st_size
        has_trailer = total > TRAILER_SIZE and total % SECTOR == TRAILER_SIZE
        size = total - TRAILER_SIZE if has_trailer else total
        bolt = BoltFile.open(fd, size=size, name=name)
        if size % bolt.page_size:
            bolt.close()
            raise DamagedError(
                f"{name} is cut short or was added to: its {total} bytes are neither whole pages"
                " nor whole pages and a SHA-256",
                "fetch it again, or use another backup",
            )
        return cls(bolt, os.pread(fd, TRAILER_SIZE, size) if has_trailer else None)

    def close(self) -> None:
        """Unmap the file."""
        self.bolt.close()

    @property
    def name(self) -> str:
        """What messages call the file."""
        return self.bolt.name

    @property
    def size(self) -> int:
        """Bytes of the database, without the trailer."""
        return self.bolt.size

    def sha256(self, progress: Callable[[int], None] | None = None) -> bytes:
        """Sum the database, without the trailer.

        Args:
            progress: called with each number of bytes that is done.
        """
        # It takes 5 ms to import, and most commands do without.
        import hashlib  # noqa: PLC0415 - see above

        digest = hashlib.sha256()
        with memoryview(self.bolt.image.data) as view:
            for start in range(0, self.size, _CHUNK):
                with view[start : start + _CHUNK] as chunk:
                    digest.update(chunk)
                if progress:
                    progress(min(_CHUNK, self.size - start))
        return digest.digest()

    def check_trailer(self, progress: Callable[[int], None] | None = None) -> Trailer:
        """Compare the trailer with the database; reads all of it.

        Args:
            progress: called with each number of bytes that is done.
        """
        if self.trailer is None:
            return Trailer.ABSENT
        return Trailer.MATCHES if self.sha256(progress) == self.trailer else Trailer.MISMATCH

    def bucket(self, name: bytes) -> Bucket | None:
        """Find a bucket; None where the file has none of that name.

        Raises:
            DamagedError: the bucket of buckets is damaged.
        """
        return self.bolt.bucket(name)

    def _items(self, name: bytes) -> Iterator[tuple[bytes, bytes]]:
        bucket = self.bucket(name)
        return bucket.items() if bucket else iter(())

    def _value(self, bucket: bytes, key: bytes) -> bytes | None:
        found = self.bucket(bucket)
        return found.get(key) if found else None

    def damaged(self, what: str) -> DamagedError:
        """Make the error that says what is wrong in this file."""
        return self.bolt.image.damaged(what)

    @cached_property
    def last_element_revision(self) -> int:
        """Main revision of the last element of bucket `key`; 0 where there is none.

        Raises:
            DamagedError: the path to it is damaged, or its key is no revision.
        """
        bucket = self.bucket(b"key")
        last = bucket.last() if bucket else None
        if last is None:
            return 0
        revision = parse_revision(last[0])
        if revision is None:
            raise self.damaged(f"the last key of bucket key, {last[0][:32].hex()}, is no revision")
        return revision.main

    def _compaction(self, key: bytes) -> int:
        value = self._value(b"meta", key)
        if value is None:
            return NEVER_COMPACTED
        revision = parse_revision(value)
        if revision is None or revision.tombstone:
            raise self.damaged(f"{key.decode()} in bucket meta is no revision: {value[:32].hex()}")
        return revision.main

    @cached_property
    def finished_compaction(self) -> int:
        """Revision of the last compaction that ended; -1 where there was none.

        Raises:
            DamagedError: the entry is damaged.
        """
        return self._compaction(b"finishedCompactRev")

    @cached_property
    def scheduled_compaction(self) -> int:
        """Revision of the last compaction that was asked for; -1 where there was none.

        Raises:
            DamagedError: the entry is damaged.
        """
        return self._compaction(b"scheduledCompactRev")

    @property
    def compact_revision(self) -> int:
        """Where the history begins: no compaction has touched what is above it.

        It is -1 where there was no compaction.

        Raises:
            DamagedError: an entry is damaged.
        """
        return max(self.finished_compaction, self.scheduled_compaction)

    @property
    def revision(self) -> int:
        """The revision at which an etcd stands that has this file.

        Compaction can remove the last element, so that element alone does not tell.

        Raises:
            DamagedError: an entry is damaged.
        """
        return max(FIRST_REVISION, self.last_element_revision, self.compact_revision)

    def leases(self) -> Iterator[Lease]:
        """Read the leases.

        Raises:
            DamagedError: one is damaged.
        """
        return self._parsed(b"lease", parse_lease)

    def members(self) -> Iterator[Member]:
        """Read the members.

        Raises:
            DamagedError: one is damaged.
        """
        return self._parsed(b"members", parse_member)

    def alarms(self) -> Iterator[Alarm]:
        """Read the alarms that stand.

        Raises:
            DamagedError: one is damaged.
        """
        return self._parsed(b"alarm", lambda key, _: parse_alarm(key))

    def _parsed(self, bucket: bytes, parse: Callable[[bytes, bytes], T]) -> Iterator[T]:
        for key, value in self._items(bucket):
            try:
                yield parse(key, value)
            except MalformedError as error:
                raise self.damaged(f"bucket {bucket.decode()}: {error}") from error

    @property
    def auth_enabled(self) -> bool:
        """Whether etcd asks for users and passwords."""
        return self._value(b"auth", b"authEnabled") == b"\x01"

    @property
    def users(self) -> int:
        """Number of users."""
        return sum(1 for _ in self._items(b"authUsers"))

    def _number(self, key: bytes) -> int | None:
        value = self._value(b"meta", key)
        if value is None:
            return None
        if len(value) != 8:
            raise self.damaged(f"{key.decode()} in bucket meta has {len(value)} bytes, not 8")
        return int.from_bytes(value, "big")

    @property
    def consistent_index(self) -> int | None:
        """Raft index of the last entry that is in the file; None where etcd wrote none.

        Raises:
            DamagedError: the entry is damaged.
        """
        return self._number(b"consistent_index")

    @property
    def term(self) -> int | None:
        """Raft term of that entry; None where etcd wrote none (before 3.5).

        Raises:
            DamagedError: the entry is damaged.
        """
        return self._number(b"term")

    def _text(self, bucket: bytes, key: bytes) -> str:
        value = self._value(bucket, key) or b""
        try:
            return value.decode("ascii")
        except UnicodeDecodeError as error:
            raise self.damaged(f"{key.decode()} in bucket {bucket.decode()} is no text") from error

    @property
    def storage_version(self) -> str:
        """Version of the storage format (`3.6.0`); empty before 3.6.

        Raises:
            DamagedError: the entry is damaged.
        """
        return self._text(b"meta", b"storageVersion")

    @property
    def cluster_version(self) -> str:
        """Version that all members agreed on (`3.5.0`); empty where there is none.

        Raises:
            DamagedError: the entry is damaged.
        """
        return self._text(b"cluster", b"clusterVersion")
