"""A snapshot as a stream: from one member, verified on the way, whole or not at all.

Source: etcd, server/etcdserver/api/v3rpc/maintenance.go. The server sends the bolt file in
blobs, each with the number of bytes that remain, and then 32 bytes: the file's SHA-256. What
comes is written down as it comes, trailer included, so that the result is a stock snapshot file.

A stream that broke is never mended. `fetch` starts again, with an empty sink, at the next member.
"""

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from backstay.client.answer import Status
from backstay.client.connection import Connection
from backstay.client.endpoint import Endpoint
from backstay.client.etcd import Etcd
from backstay.client.health import Choice
from backstay.client.methods import SNAPSHOT
from backstay.client.proto import rpc_pb2 as pb
from backstay.client.secret import Secret
from backstay.errors import AuthenticationError, ConnectionFailedError, EtcdError, StreamError
from backstay.report import Report

TRAILER = hashlib.sha256().digest_size
#: Larger than any file that etcd can have; a server that promises more is not believed.
MAX_SIZE = 1 << 40
#: How often all members are tried.
ROUNDS = 2
#: What is written, and told to the report, at once.
_CHUNK = 1 << 20


class Sink(Protocol):
    """Where a snapshot goes."""

    def write(self, data: bytes, /) -> object:
        """Take what comes next, all of it."""
        ...

    def reset(self) -> object:
        """Forget everything: another stream begins."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A snapshot that came whole.

    Attributes:
        source: what the member said of itself just before; its revision is one that the
            snapshot has, or an earlier one.
        size: bytes of the snapshot file, trailer included.
        db_sha256: SHA-256 of the bolt file, which is what the trailer says too; hex.
        sha256: SHA-256 of the snapshot file; hex.
        storage_version: of the file, as etcd 3.6 tells it; else empty.
        seconds: how long the stream took.
        attempts: how many streams it took.
    """

    source: Status
    size: int
    db_sha256: str
    sha256: str
    storage_version: str
    seconds: float
    attempts: int = 1


def fetch(
    etcd: Etcd, choice: Choice, sink: Sink, report: Report, *, max_size: int = MAX_SIZE
) -> Received:
    """Take a snapshot from the best member that gives one whole.

    Args:
        etcd: the cluster.
        choice: the members, in the order to try them.
        sink: where it goes; emptied before each new try.
        report: is told of each try, and of why one failed.
        max_size: bytes that a snapshot may have.

    Raises:
        StreamError: no member gave a whole one.
        AuthenticationError: a member does not let us, as none would.
        EtcdError: none is fit or can be reached.
        BackstayError: whatever the sink raises; it is not tried again then.
    """
    best = choice.best
    failures: list[EtcdError] = []
    for attempt, source in enumerate(choice.order * ROUNDS, start=1):
        if failures:
            report.warn(f"{failures[-1].what}: taken again, whole, from {source.endpoint}")
            sink.reset()
        elif source is best:
            report.say(f"taking a snapshot from {source.endpoint}")
        try:
            return receive(etcd, source, sink, report, max_size=max_size, attempt=attempt)
        except AuthenticationError:
            raise
        except EtcdError as error:
            failures.append(error)
    told = "; ".join(dict.fromkeys(f.what for f in failures))
    kind = type(failures[0]) if len({type(f) for f in failures}) == 1 else StreamError
    raise kind(f"no snapshot after {len(failures)} tries: {told}", failures[-1].do) from failures[
        -1
    ]


def receive(
    etcd: Etcd,
    source: Status,
    sink: Sink,
    report: Report,
    *,
    max_size: int = MAX_SIZE,
    attempt: int = 1,
) -> Received:
    """Take a snapshot from one member, in one try.

    Args:
        etcd: the cluster.
        source: the member, by what it said of itself.
        sink: where it goes; what it holds after an error is worth nothing.
        report: is told how far it is.
        max_size: bytes that it may have.
        attempt: for what is returned.

    Raises:
        StreamError: the stream was cut, stalled, over-long or damaged.
        EtcdError: the member refuses or can't be reached.
        BackstayError: whatever the sink raises.
    """
    began = time.monotonic()
    stall = etcd.access.timeouts.stall

    def open_stream(connection: Connection, token: Secret | None) -> "_Stream":
        stream = _Stream(connection, token, stall)
        try:
            stream.first()
        except BaseException:
            stream.close()
            raise
        return stream

    with _closing(etcd.session.with_token(source.endpoint, open_stream)) as stream:
        ledger = _Ledger(source.endpoint, stream.first(), max_size)
        with report.task(f"snapshot from {source.endpoint}", ledger.expected) as advance:
            for chunk in _chunks(ledger.checked(stream)):
                sink.write(chunk)
                advance(len(chunk))
            ledger.finish()
    return Received(
        source=source,
        size=ledger.expected,
        db_sha256=ledger.db.hexdigest(),
        sha256=ledger.whole.hexdigest(),
        storage_version=ledger.storage_version,
        seconds=time.monotonic() - began,
        attempts=attempt,
    )


class _Ledger:
    """Compares what comes with what was promised."""

    def __init__(self, endpoint: Endpoint, first: pb.SnapshotResponse, max_size: int) -> None:
        self._endpoint = endpoint
        self._db_size = first.remaining_bytes + len(first.blob)
        self._came = 0
        self._trailer = b""
        self.db = hashlib.sha256()
        self.storage_version = first.version
        if self._db_size > max_size:
            raise self._broken(f"promises {self._db_size} bytes, more than the {max_size} allowed")

    @property
    def expected(self) -> int:
        """Bytes of the snapshot file."""
        return self._db_size + TRAILER

    @property
    def whole(self) -> "hashlib._Hash":
        """The digest of all that came."""
        digest = self.db.copy()
        digest.update(self._trailer)
        return digest

    def checked(self, answers: Iterable[pb.SnapshotResponse]) -> Iterator[bytes]:
        """Hand on what comes, as long as it is what was promised."""
        for answer in answers:
            blob = answer.blob
            end = self._came + len(blob)
            if end > self.expected:
                raise self._broken(f"sends more than the {self.expected} bytes that it promised")
            if answer.remaining_bytes != max(self._db_size - end, 0):
                raise self._broken(
                    f"contradicts itself: {answer.remaining_bytes} bytes are to remain"
                    f" after {end} of {self._db_size}"
                )
            if end <= self._db_size:
                self.db.update(blob)
            else:
                of_db = max(self._db_size - self._came, 0)
                self.db.update(blob[:of_db])
                self._trailer += blob[of_db:]
            self._came = end
            yield blob

    def finish(self) -> None:
        """Judge the end.

        Raises:
            StreamError: it is not the end, or not what the member read.
        """
        if self._came != self.expected:
            raise self._broken(f"ended after {self._came} of {self.expected} bytes")
        if self._trailer != self.db.digest():
            raise self._broken("does not match the SHA-256 at its end")

    def _broken(self, how: str) -> StreamError:
        return StreamError(f"the snapshot from {self._endpoint} {how}", "take it again")


class _Stream:
    """The messages of one call; cancelled when nothing comes for too long."""

    def __init__(self, connection: Connection, token: Secret | None, stall: float) -> None:
        self._connection = connection
        self._token = token
        self._stall = stall
        self._stalled = False
        self._first: pb.SnapshotResponse | None = None
        self._waiting_since: float | None = None
        self._closed = threading.Event()
        self._call: Any = connection.receive(SNAPSHOT, pb.SnapshotRequest(), token)
        self._watchdog = threading.Thread(target=self._watch, name="backstay-stall", daemon=True)
        self._watchdog.start()

    def first(self) -> pb.SnapshotResponse:
        """Wait for the first message; iterating gives it too.

        Raises:
            EtcdError: the member refuses.
        """
        if self._first is None:
            self._first = self._next()
            if self._first is None:
                raise StreamError(
                    f"the snapshot from {self._connection.endpoint} is empty", "take it again"
                )
        return self._first

    def __iter__(self) -> Iterator[pb.SnapshotResponse]:
        yield self.first()
        while (answer := self._next()) is not None:
            yield answer

    def close(self) -> None:
        """Tell the member that we are done; it gives its read transaction back."""
        self._closed.set()
        self._call.cancel()
        self._watchdog.join()

    def _next(self) -> pb.SnapshotResponse | None:
        # Only waiting counts: while a slow disk takes what came, the member is not to blame.
        self._waiting_since = time.monotonic()
        endpoint = self._connection.endpoint
        try:
            with self._connection.translated(SNAPSHOT, self._token):
                answer: pb.SnapshotResponse | None = next(self._call, None)
                return answer
        except EtcdError as error:
            if self._stalled:
                raise StreamError(
                    f"the snapshot from {endpoint} stalled: nothing came for {self._stall:g} s",
                    "look at the member and at the network",
                ) from error
            if self._first is None and not isinstance(error, ConnectionFailedError):
                raise
            # A member that dies ends its stream with one of several codes.
            raise StreamError(f"the snapshot was cut: {error.what}", error.do) from error
        finally:
            self._waiting_since = None

    def _watch(self) -> None:
        while not self._closed.wait(min(self._stall / 4, 1.0)):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._stall:
                self._stalled = True
                self._call.cancel()
                return


@contextmanager
def _closing(stream: _Stream) -> Iterator[_Stream]:
    try:
        yield stream
    finally:
        stream.close()


def _chunks(blobs: Iterator[bytes]) -> Iterator[bytes]:
    """Join small blobs, so that a write and an event are worth their cost."""
    parts: list[bytes] = []
    size = 0
    for blob in blobs:
        parts.append(blob)
        size += len(blob)
        if size >= _CHUNK:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)
