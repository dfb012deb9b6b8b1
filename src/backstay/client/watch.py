"""A watch: events in revision order, read with patience, cancelled from any thread.

gRPC's own iterator can't be told to give up after a second. So a thread reads ahead a few
messages; a slow reader holds it, and through it the server, back.
"""

import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from backstay.client.answer import Change
from backstay.client.connection import Connection
from backstay.client.endpoint import Endpoint
from backstay.client.failure import Code, translate
from backstay.client.methods import WATCH
from backstay.client.proto import rpc_pb2 as pb
from backstay.client.secret import Secret
from backstay.client.session import Session
from backstay.client.text import one_line
from backstay.errors import CompactedError, EtcdError, EtcdUnavailableError

#: Messages that are read ahead, and bytes: one more is taken while there are fewer.
AHEAD = 8
_AHEAD_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Changes:
    """One message of a watch.

    Attributes:
        revision: the member's revision when it was sent; with no changes, all up to it has come.
        changes: in revision order; those of one revision in the order of their transaction.
        more: whether this message was cut, and the rest of its revision follows in the next.
    """

    revision: int
    changes: tuple[Change, ...]
    more: bool


class Place(NamedTuple):
    """Where a change stands, and what it hangs on.

    Attributes:
        revision: its main revision.
        lease: id of its lease; 0: none.
        key: the key.
    """

    revision: int
    lease: int
    key: bytes


def place(change: Change) -> Place:
    """Read of a change what a recorder must know.

    Raises:
        EtcdError: it is no KeyValue.
    """
    try:
        pair = pb.KeyValue.FromString(change.keyvalue)
    except DecodeError as error:
        raise EtcdError("a watch gave a change that makes no sense", "begin another one") from error
    return Place(pair.mod_revision, pair.lease, pair.key)


class Watch:
    """One watch on one member. Made by `Etcd.watch`.

    Iterating ends when it is cancelled by us, and raises when etcd ends it.
    """

    def __init__(
        self, connection: Connection, question: pb.WatchCreateRequest, token: Secret | None
    ) -> None:
        self.endpoint = connection.endpoint
        self._connection = connection
        self._token = token
        self._questions: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        self._questions.put(pb.WatchRequest(create_request=question))
        self._call: Any = connection.converse(WATCH, iter(self._questions.get, None), token)
        self._changed = threading.Condition()
        self._ready: deque[pb.WatchResponse] = deque()
        self._held = 0
        self._error: EtcdError | None = None
        self._cancelled = False
        self._reader = threading.Thread(target=self._read, name="backstay-watch", daemon=True)
        self._reader.start()

    def __iter__(self) -> Iterator[Changes]:
        while (found := self.next()) is not None:
            yield found

    def next(self, timeout: float | None = None) -> Changes | None:
        """Wait for the next message.

        Args:
            timeout: patience in seconds; None waits for as long as it takes.

        Returns:
            None where the time is over, or the watch was cancelled by us.

        Raises:
            CompactedError: the revisions that were asked for are gone.
            EtcdError: the watch ended otherwise; begin another one.
        """
        with self._changed:
            self._changed.wait_for(self._told, timeout)
            if self._ready:
                answer = self._ready.popleft()
                self._held -= answer.ByteSize()
                self._changed.notify_all()
            elif self._error is not None and not self._cancelled:
                raise self._error
            else:
                return None
        changes = tuple(Change(e.type == pb.Event.DELETE, e.kv, e.prev_kv) for e in answer.events)
        return Changes(answer.header.revision, changes, answer.fragment)

    def ask_progress(self) -> None:
        """Have etcd say how far it is; it answers when all events before have been sent."""
        self._questions.put(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    def cancel(self) -> None:
        """End it; may be called twice, and from another thread."""
        with self._changed:
            self._cancelled = True
            self._ready.clear()
            self._changed.notify_all()
        self._questions.put(None)
        self._call.cancel()
        self._reader.join(timeout=5)

    def created(self, patience: float) -> None:
        """Wait until etcd has taken the watch, or says why not."""
        with self._changed:
            if not self._changed.wait_for(self._told, patience):
                raise EtcdUnavailableError(
                    f"{self.endpoint} did not answer Watch in time", "look at its load"
                )
            if self._ready:
                self._held -= self._ready.popleft().ByteSize()
            elif self._error is not None and not isinstance(self._error, CompactedError):
                # A compacted watch was taken; its reader is told.
                raise self._error

    def _told(self) -> bool:
        return bool(self._ready) or self._error is not None or self._cancelled

    def _read(self) -> None:
        error: EtcdError = EtcdUnavailableError(
            f"{self.endpoint} ended the watch", "begin another one"
        )
        try:
            with self._connection.translated(WATCH, self._token):
                for answer in self._call:
                    ended = self._ended(answer)
                    if ended is not None:
                        error = ended
                        break
                    if not self._keep(answer):
                        break
                    # It may have many megabytes, and the next one may be long in coming.
                    del answer
        except EtcdError as caught:
            error = caught
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def _keep(self, answer: pb.WatchResponse) -> bool:
        with self._changed:
            self._changed.wait_for(self._wants_more)
            if not self._cancelled:
                self._ready.append(answer)
                self._held += answer.ByteSize()
                self._changed.notify_all()
            return not self._cancelled

    def _wants_more(self) -> bool:
        room = len(self._ready) < AHEAD and self._held < _AHEAD_BYTES
        return room or self._cancelled

    def _ended(self, answer: pb.WatchResponse) -> EtcdError | None:
        """Say why etcd ended the watch, where this message does."""
        if answer.compact_revision:
            return CompactedError(
                f"{self.endpoint} has compacted away what is before revision"
                f" {answer.compact_revision}",
                "read everything again, and watch from there",
                answer.compact_revision,
            )
        if answer.canceled:
            reason = one_line(answer.cancel_reason, (self._token,))
            return translate(_code(reason), reason, self.endpoint, WATCH.name)
        return None


def _code(reason: str) -> Code:
    return Code.PERMISSION_DENIED if "permission denied" in reason else Code.UNKNOWN


def watching(session: Session, endpoint: Endpoint, question: pb.WatchCreateRequest) -> Watch:
    """Begin a watch on one member; comes back when etcd has taken it.

    Raises:
        EtcdError: etcd does not take it.
    """

    def begin(connection: Connection, token: Secret | None) -> Watch:
        watch = Watch(connection, question, token)
        try:
            watch.created(session.access.timeouts.command)
        except BaseException:
            watch.cancel()
            raise
        return watch

    return session.with_token(endpoint, begin)
