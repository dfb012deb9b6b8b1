"""A WebSocket to the Kubernetes API, with back-pressure both ways and a deadline for everything.

The protocol itself is that of the websockets library, in its form without I/O. The I/O is here,
and not the library's, for three reasons: its reading thread would hold the lock that our sending
needs; it would call one TLS session from two threads at the same time, which OpenSSL does not
allow; and each message would go through one more thread. Here the socket is never waited for under
the lock, and what nobody asks for is not read, so that a slow disk slows down the server.

The border: messages of bytes. What they mean is known to `exec` and `portforward`.
"""

import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ssl import SSLContext, SSLError, SSLWantReadError, SSLWantWriteError
from urllib.parse import SplitResult, urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN, Protocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from backstay.client.text import one_line
from backstay.closing import Closing
from backstay.errors import KubeError, KubeStreamError
from backstay.kubeapi.api import refusal
from backstay.kubeapi.transport import Answer
from backstay.kubeapi.tunnel import dial, secured

#: Bytes of the longest message that is taken. The kubelet sends 32 KiB at once.
MAX_MESSAGE = 2 << 20
#: Frames of which one message may be made.
_MAX_FRAGMENTS = 1024
#: Seconds that the server may leave our own bytes unread.
SEND_STALL = 60.0
#: Bytes that may wait to be sent: a server that asks (pings) and never reads is not served.
_MAX_UNSENT = 8 << 20
_READ = 256 << 10
#: A close without a code, or with one of these, was meant.
_IN_ORDER = {1000, 1001, 1005}
#: The library would write headers, and with them our token, to the log of whoever turns it on.
_SILENT = logging.Logger("backstay", logging.CRITICAL + 1)  # noqa: LOG001 - nobody turns it on


@contextmanager
def connect(
    url: str,
    *,
    ssl: SSLContext | None,
    headers: Mapping[str, str],
    protocols: Sequence[str],
    timeout: float,
    proxy: str | None = None,
    server_name: str | None = None,
) -> Iterator["Connection"]:
    """Open a WebSocket; it is closed when the block ends.

    Args:
        url: https:// or wss:// (http:// and ws:// without TLS), path and query.
        ssl: whom we trust and who we are; needed for https.
        headers: more of them, such as `Authorization`.
        protocols: subprotocols, the best first.
        timeout: seconds for all of it, until the server has agreed.
        proxy: URL of an HTTP proxy; None goes straight.
        server_name: that the server's certificate must have; None: the URL's host.

    Raises:
        KubeForbiddenError: the server knows us, and refuses.
        KubeNotFoundError: there is no such thing to connect to.
        KubeError: refused otherwise, out of reach, or not in time.
    """
    deadline = time.monotonic() + timeout
    parts = urlsplit(url)
    address = _address(parts)
    sock = dial(address, proxy, deadline)
    try:
        if ssl is not None:
            sock = secured(sock, ssl, server_name or address[0], deadline)
        sock.setblocking(False)
        connection = Connection(sock, _protocol(parts, protocols), _server(parts))
        connection.shake_hands(parts.path, headers, deadline)
        with connection:
            yield connection
    finally:
        sock.close()


def _address(url: SplitResult) -> tuple[str, int]:
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if not host or url.scheme not in {"https", "wss", "http", "ws"}:
        raise KubeError("the address of the Kubernetes API makes no sense", "look at --kubeconfig")
    return host, port or (443 if url.scheme in {"https", "wss"} else 80)


def _protocol(url: SplitResult, protocols: Sequence[str]) -> ClientProtocol:
    scheme = {"https": "wss", "http": "ws"}.get(url.scheme, url.scheme)
    # A user in the URL would become a header: the caller's headers say who we are.
    authority = url.netloc.rpartition("@")[2]
    return ClientProtocol(
        parse_uri(url._replace(scheme=scheme, netloc=authority).geturl()),
        subprotocols=[Subprotocol(name) for name in protocols] or None,
        max_size=MAX_MESSAGE,
        logger=_SILENT,
    )


def _server(url: SplitResult) -> str:
    scheme = {"wss": "https", "ws": "http"}.get(url.scheme, url.scheme)
    return f"{scheme}://{url.netloc.rpartition('@')[2]}"


class Connection(Closing):
    """An open WebSocket; see `transport.WebSocket`.

    Args:
        sock: connected, with its TLS, not blocking; stays the caller's, who closes it when no
            thread uses it any more.
        protocol: of this connection.
        server: for messages.
    """

    def __init__(self, sock: socket.socket, protocol: ClientProtocol, server: str) -> None:
        self._sock = sock
        self._protocol = protocol
        self._server = server
        self._lock = threading.Lock()
        self._messages: deque[bytes] = deque()
        self._fragments: list[bytes] = []
        self._unsent: deque[memoryview] = deque()
        self._answered = False
        self._broken = ""
        self._over = False
        self._mute = False

    def shake_hands(self, path: str, headers: Mapping[str, str], deadline: float) -> None:
        """Ask for the upgrade, and wait for the answer.

        Raises:
            KubeError: refused, or not in time.
        """
        request = self._protocol.connect()
        request.headers.update(headers)
        with self._lock:
            self._protocol.send_request(request)
            self._flush()
        while not (self._answered or self._protocol.handshake_exc):
            blocked = self._step()
            if not (self._answered or self._protocol.handshake_exc) and (
                self._over or not self._wait(deadline, blocked=blocked)
            ):
                raise KubeError(
                    f"{self._server}: GET {path}: "
                    f"{self._broken or 'no answer in time to the request for a WebSocket'}",
                    "look at the server, and at proxies on the way",
                )
        problem = self._protocol.handshake_exc
        if isinstance(problem, InvalidStatus):
            answer = Answer(problem.response.status_code, bytes(problem.response.body or b""))
            raise refusal(answer, f"GET {path}", self._server)
        if problem is not None:
            raise KubeError(
                f"{self._server}: GET {path}: no WebSocket: {one_line(str(problem))}",
                "look at proxies on the way: they must let WebSockets through",
            ) from problem

    @property
    def protocol(self) -> str:
        """The subprotocol that the server chose; empty where it chose none."""
        return self._protocol.subprotocol or ""

    def send(self, data: bytes, /) -> None:
        """Send one message; comes back when the system has taken all of it.

        Raises:
            KubeStreamError: the connection is gone, or the server reads nothing.
        """
        with self._lock:
            self._check_open()
            self._protocol.send_binary(data)
            before = self._flush()
            self._check_open()
        deadline = time.monotonic() + SEND_STALL
        while before:
            if not self._wait(deadline, blocked=True, events=select.POLLOUT):
                self._fail(f"took nothing from us for {SEND_STALL:g} s")
            with self._lock:
                left = self._flush()
                self._check_open()
            if left < before:
                deadline = time.monotonic() + SEND_STALL
            before = left

    def receive(self, timeout: float | None = None) -> bytes | None:
        """Wait for the next message; None where the other side has closed in good order.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            KubeStreamError: the connection broke, sends what is no message of bytes, or nothing
                came in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if self._messages:
                    return self._messages.popleft()
                if self._over:
                    if self._broken:
                        raise self._error(self._broken)
                    return None
            blocked = self._step()
            if not self._messages and not self._wait(deadline, blocked=blocked):
                raise self._error(f"stalled: nothing came for {timeout:g} s")

    def close(self) -> None:
        """Hang up; whoever sends or receives is told. May be called by any thread."""
        with self._lock:
            if not self._over:
                if self._protocol.state is OPEN:
                    self._protocol.send_close(1000)
                    self._flush()
                self._end("was closed by us")
            # Once the handshake stands, the other end may still write: nobody reads it.
            self._messages.clear()

    def _check_open(self) -> None:
        if self._over or self._mute or self._protocol.state is not OPEN:
            raise self._error(self._broken or "takes nothing any more")

    def _step(self) -> bool:
        """Read what has come; gives whether there was nothing."""
        with self._lock:
            if self._over:
                return False
            try:
                data = self._sock.recv(_READ)
            except (BlockingIOError, InterruptedError, SSLWantReadError, SSLWantWriteError):
                self._flush()
                return True
            except (OSError, ValueError) as error:
                self._end(f"broke: {_reason(error)}")
                return False
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            for event in self._protocol.events_received():
                self._take(event)
            self._flush()
            if not self._over:
                self._judge()
            return False

    def _take(self, event: object) -> None:
        if isinstance(event, Response):
            self._answered = True
        elif isinstance(event, Frame):
            if event.opcode is Opcode.TEXT:
                self._end("sends text where bytes were to come")
            elif event.opcode in {Opcode.BINARY, Opcode.CONT} and not self._over:
                self._fragments.append(bytes(event.data))
                if event.fin:
                    self._messages.append(b"".join(self._fragments))
                    self._fragments.clear()
                elif len(self._fragments) > _MAX_FRAGMENTS:
                    self._end("sends a message in too many pieces")

    def _judge(self) -> None:
        """Find out whether the connection has ended, and how."""
        protocol: Protocol = self._protocol
        if protocol.parser_exc is not None:
            gone = isinstance(protocol.parser_exc, EOFError)
            self._end("was cut" if gone else f"broke: {one_line(str(protocol.parser_exc))}")
        elif protocol.close_rcvd is not None:
            close = protocol.close_rcvd
            why = "" if close.code in _IN_ORDER else f"was ended by the server, code {close.code}"
            self._end(f"{why}: {one_line(close.reason)}" if why and close.reason else why)
        elif protocol.eof_sent:
            self._end("was cut")

    def _flush(self) -> int:
        """Send what can be sent now; gives the bytes that are left."""
        self._unsent.extend(memoryview(data) for data in self._protocol.data_to_send() if data)
        try:
            while self._unsent:
                done = self._sock.send(self._unsent[0])
                if done < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][done:]
                else:
                    self._unsent.popleft()
        except (BlockingIOError, InterruptedError, SSLWantReadError, SSLWantWriteError):
            pass
        except (OSError, ValueError):
            # What the server said before it went is still worth reading; reading finds the end.
            self._unsent.clear()
            self._mute = True
        left = sum(map(len, self._unsent))
        if left > _MAX_UNSENT:
            self._end("asks for more than it reads")
        return left

    def _wait(self, deadline: float | None, *, blocked: bool, events: int = select.POLLIN) -> bool:
        """Wait until the socket is ready; False where the deadline has passed."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        if not blocked or self._over:
            return True
        poll = select.poll()
        poll.register(self._sock, events | (select.POLLOUT if self._unsent else 0))
        return bool(poll.poll(None if left is None else left * 1000)) or deadline is None

    def _fail(self, how: str) -> None:
        with self._lock:
            self._end(how)
        raise self._error(how)

    def _end(self, how: str) -> None:
        """Note the end, the first reason for it, and wake up who waits for the socket."""
        if self._over:
            return
        self._over, self._broken = True, how
        try:
            # Not SSLSocket's own: it would forget its TLS while another thread may read.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            return

    def _error(self, how: str) -> KubeStreamError:
        return KubeStreamError(f"the stream from {self._server} {how}", "try it again")


def _reason(error: Exception) -> str:
    if isinstance(error, SSLError):
        return one_line(error.reason or "TLS failed")
    return getattr(error, "strerror", None) or type(error).__name__
