"""Writing a delta: changes are added as they come, and the whole comes out at its end.

It is held in memory until then, since its header, which stands first, says where it ends. So a
writer looks at `size` and `full` after each change. Source: `mvcc.delta`, docs/formats.md.
"""

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from sys import byteorder

import msgspec

from backstay import __version__
from backstay.errors import DamagedError
from backstay.mvcc.checksum import extend
from backstay.mvcc.delta import (
    BLOCK,
    CHANGES,
    CHECKED,
    DONE,
    HEAD,
    LEASES,
    MAGIC,
    MAX_BLOCK,
    MAX_MARKS,
    MAX_REVISIONS,
    PAIR,
    PROOF,
    PROOFS,
    TIMES,
    Header,
    Mark,
    Position,
    Proof,
)
from backstay.mvcc.keyvalue import encode_key
from backstay.mvcc.revision import element_key

#: A block of changes is closed when it has so many bytes.
_BLOCK = 1 << 20
_DELETE = 1 << 31


@dataclass(frozen=True, slots=True)
class Origin:
    """Who writes deltas of what.

    Attributes:
        cluster: the cluster's name.
        lineage: 16 hex digits.
        writer: random, of this run of the program.
    """

    cluster: str
    lineage: str
    writer: str


@dataclass(frozen=True, slots=True)
class Written:
    """A whole delta, in the clear.

    Attributes:
        header: what it is.
        digest: SHA-256, hex; what the next delta calls its predecessor.
        first: the earliest of its times, in milliseconds since 1970.
        last: the latest.
        parts: its bytes.
    """

    header: Header
    digest: str
    first: int
    last: int
    parts: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Bytes in the clear."""
        return sum(map(len, self.parts))

    def open(self) -> BytesIO:
        """Give its bytes as a file to read from."""
        return BytesIO(b"".join(self.parts))


class DeltaWriter:
    """One delta that grows.

    Args:
        origin: who writes it.
        begin: where it begins: where the one before it ended.
        number: how many deltas this run wrote before, in this lineage.
        previous: digest of the one before; empty for the first.

    Attributes:
        begin: where it begins.
        end: where it ends, as far as it has come.
        size: bytes of its changes.
        changes: how many there are.
    """

    def __init__(
        self, origin: Origin, begin: Position, *, number: int = 0, previous: str = ""
    ) -> None:
        self._origin = origin
        self._number = number
        self._previous = previous
        self.begin = self.end = begin
        self.size = self.changes = 0
        self._sizes = array("I")
        self._open: list[bytes] = []
        self._open_size = 0
        self._blocks: list[bytes] = []
        self._times: list[Mark] = []
        self._leases: dict[int, int] = {}
        self._proofs: list[Proof] = []

    @property
    def full(self) -> bool:
        """Whether it should end here, whatever its size: a delta has only so many revisions."""
        spanned = self.end.main - self.begin.main
        marks = max(len(self._times), len(self._leases), len(self._proofs))
        return spanned >= MAX_REVISIONS // 2 or marks >= MAX_MARKS // 2

    @property
    def dated(self) -> bool:
        """Whether it has a time, without which it can't end."""
        return bool(self._times)

    def put(self, main: int, sub: int, value: bytes) -> None:
        """Add the next change, a put.

        Args:
            main: its revision.
            sub: its place in the transaction, from 0.
            value: the KeyValue, as the watch gave it: the very bytes that etcd stores.

        Raises:
            DamagedError: it is not the one after the last: what a watch gives has no holes.
        """
        self._add(element_key(main, sub), value, Position(main, sub), 0)

    def delete(self, main: int, sub: int, key: bytes) -> None:
        """Add the next change, a delete.

        Args:
            main: its revision.
            sub: its place in the transaction, from 0.
            key: what is deleted.

        Raises:
            DamagedError: it is not the one after the last.
        """
        name = element_key(main, sub, tombstone=True)
        self._add(name, encode_key(key), Position(main, sub), _DELETE)

    def _add(self, key: bytes, value: bytes, at: Position, flag: int) -> None:
        main, sub = at
        if (main, sub) not in {(self.end.main, self.end.sub), (self.end.main + 1, 0)} or (
            main > self.end.main and not self.end.sub
        ):
            raise DamagedError(
                f"{self.end} was to come, and {at} came",
                "begin again where the store ends",
            )
        if main - self.begin.main >= MAX_REVISIONS:
            raise DamagedError(f"a delta has at most {MAX_REVISIONS} revisions", "begin another")
        self._open += (key, value)
        self._sizes.append(len(value) | flag)
        self._open_size += len(key) + len(value)
        self.size += len(key) + len(value)
        self.changes += 1
        self.end = Position(main, sub + 1)
        if self._open_size >= _BLOCK:
            self._close()

    def mark(self, revision: int, at: int) -> None:
        """Note a time: everything up to a revision has come, and nothing after it.

        Also where nothing happened: of an idle etcd, progress notifications say so. It makes the
        last revision whole: what is added next is of the one after it.

        Args:
            revision: the last one that has come whole, or the one before `begin`.
            at: milliseconds since 1970.

        Raises:
            DamagedError: that revision has not come.
        """
        if not self.begin.main - 1 <= revision <= self.end.main - (not self.end.sub):
            raise DamagedError(
                f"revision {revision} can't be dated where {self.end} comes next",
                "begin again where the store ends",
            )
        if revision == self.end.main:
            self.end = Position(revision + 1)
        if [mark.revision for mark in self._times[-2:]] == [revision, revision]:
            # Of many times at which nothing had happened the first and the last tell all.
            self._times.pop()
        self._times.append(Mark(revision, at))

    def lease(self, number: int, ttl: int) -> None:
        """Note the granted TTL of a lease, in seconds."""
        self._leases[number] = ttl

    def prove(self, proof: Proof) -> None:
        """Note what a member answered to HashKV."""
        self._proofs.append(proof)

    def finish(self) -> Written:
        """End it.

        Raises:
            DamagedError: it has no time.
        """
        if not self._times:
            raise DamagedError("a delta needs a time", "mark the last whole revision")
        if self._open:
            self._close()
        header = Header(
            cluster=self._origin.cluster,
            lineage=self._origin.lineage,
            begin=(self.begin.main, self.begin.sub),
            end=(self.end.main, self.end.sub),
            changes=self.changes,
            writer=self._origin.writer,
            number=self._number,
            previous=self._previous,
            backstay_version=__version__,
        )
        parts = [MAGIC, *_block(HEAD, 1, [msgspec.json.encode(header)]), *self._blocks]
        for kind, form, marks in (
            (TIMES, PAIR, self._times),
            (LEASES, PAIR, list(self._leases.items())),
            (PROOFS, PROOF, self._proofs),
        ):
            at_once = MAX_BLOCK // form.size
            for first in range(0, len(marks), at_once):
                some = marks[first : first + at_once]
                parts += _block(kind, len(some), [form.pack(*mark) for mark in some])
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        parts += _block(DONE, 1, [digest.digest()])
        times = [mark.at for mark in self._times]
        return Written(header, digest.hexdigest(), min(times), max(times), tuple(parts))

    def _close(self) -> None:
        if byteorder == "big":  # pragma: no cover - etcd runs on s390x, too
            self._sizes.byteswap()
        count = len(self._sizes)
        self._blocks += _block(CHANGES, count, [self._sizes.tobytes(), *self._open])
        self._sizes = array("I")
        self._open = []
        self._open_size = 0


def _block(kind: bytes, count: int, pieces: Iterable[bytes]) -> tuple[bytes, bytes]:
    body = b"".join(pieces)
    checked = CHECKED.pack(kind, count, len(body))
    return BLOCK.pack(kind, count, len(body), extend(extend(0, checked), body)), body
