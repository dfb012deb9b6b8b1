"""What comes out of a pod by exec: a line with its status, a line with a size, and a snapshot.

The stream has no checksum of its own. What tells a whole one is the SHA-256 that etcd puts at the
end of each snapshot, and the size that the pod told before.
"""

import hashlib
import re
from collections.abc import Callable

from backstay.client.answer import Status
from backstay.client.snapshot import TRAILER, Sink
from backstay.errors import StreamError
from backstay.kinds.hosted.reach.member import parse_status

#: Bytes of the two lines.
_MAX_HEAD = 64 << 10
#: What is handed on at once.
_CHUNK = 1 << 20


class Coming:
    """Compares what comes with what was promised, and hands it on.

    Args:
        pod: for messages.
        source: the member that was chosen, by what it said of itself.
        sink: where the snapshot goes.
        begin: called with its size, once that is known; gives what is to be told of each advance.
        max_size: bytes that it may have.

    Attributes:
        source: what the member said of itself just before the snapshot.
        size: bytes of the snapshot file, trailer included.
        db: the digest of the bolt file.
        whole: the digest of the file.
    """

    def __init__(
        self,
        pod: str,
        source: Status,
        sink: Sink,
        begin: Callable[[int], Callable[[int], None]],
        max_size: int,
    ) -> None:
        self._pod = pod
        self._sink = sink
        self._begin = begin
        self._max_size = max_size
        self._head = b""
        self._parts: list[bytes] = []
        self._waiting = 0
        self._came = 0
        self._trailer = b""
        self._advance: Callable[[int], None] | None = None
        self.source = source
        self.size = 0
        self.db = hashlib.sha256()
        self.whole = hashlib.sha256()

    def take(self, data: bytes) -> None:
        """Take what comes next.

        Raises:
            StreamError: it is not what was promised.
        """
        if self._advance is None:
            self._head += data
            lines = self._head.split(b"\n", 2)
            if len(lines) < 3:
                if len(self._head) > _MAX_HEAD:
                    raise self._broken("begins with something else")
                return
            self._promise(lines[0], lines[1])
            data, self._head = lines[2], b""
        self._came += len(data)
        if self._came > self.size:
            raise self._broken(f"has more than the {self.size} bytes that were promised")
        self._parts.append(data)
        self._waiting += len(data)
        if self._waiting >= _CHUNK:
            self._hand_on()

    def finish(self) -> None:
        """Judge the end.

        Raises:
            StreamError: it is not the end, or not what the member read.
        """
        self._hand_on()
        if self._advance is None or self._came != self.size:
            raise self._broken(f"ended after {self._came} of {self.size} bytes")
        if self._trailer != self.db.digest():
            raise self._broken("does not match the SHA-256 at its end")

    def _promise(self, status: bytes, size: bytes) -> None:
        text = status.decode(errors="replace")
        before, self.source = self.source, parse_status(text, self.source.endpoint)
        if self.source.header.member_id != before.header.member_id:
            raise self._broken("is of another member than the one that was chosen")
        if not re.fullmatch(rb"[0-9]{1,15}", size):
            raise self._broken("comes without its size")
        self.size = int(size)
        if self.size <= TRAILER:
            raise self._broken(f"has just {self.size} bytes")
        if self.size > self._max_size:
            raise self._broken(f"has {self.size} bytes, more than the {self._max_size} allowed")
        self._advance = self._begin(self.size)

    def _hand_on(self) -> None:
        if self._advance is None or not self._waiting:
            return
        data = b"".join(self._parts)
        of_db = max(self.size - TRAILER - (self._came - len(data)), 0)
        self.db.update(data[:of_db])
        self._trailer += data[of_db:]
        self.whole.update(data)
        self._sink.write(data)
        self._advance(len(data))
        self._parts, self._waiting = [], 0

    def _broken(self, how: str) -> StreamError:
        return StreamError(f"the snapshot from pod {self._pod} {how}", "take it again")
