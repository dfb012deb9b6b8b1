"""A wire between a client and an HTTP server that can misbehave, and an HTTP proxy.

    with wire.to(server.endpoint, break_at) as between: ...  # the client is given between.url
    with wire.proxy() as proxy: ...                          # HTTP_PROXY, HTTPS_PROXY = proxy.url

Every request has a connection of its own, and is written down in `requests` (its first line).
`break_at` says what happens to a request: a function from its head (text) to a `Break`.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from urllib.parse import urlsplit


class Break(Enum):
    """What happens to a request."""

    NOTHING = auto()
    REFUSE = auto()  # the connection closes before the server hears of it
    LOSE_ANSWER = auto()  # the server does it, the client never hears
    STALL = auto()  # nobody answers
    HALF = auto()  # the answer breaks off
    UNKNOWN = auto()  # the server does not know such requests: 501


@dataclass
class Wire:
    """A running wire."""

    url: str
    requests: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


def to(upstream: str, break_at: Callable[[str], Break] = lambda head: Break.NOTHING):
    """A wire to one server, given by its URL (http)."""
    parts = urlsplit(upstream)
    return _running((parts.hostname, parts.port), break_at)


def proxy(break_at: Callable[[str], Break] = lambda head: Break.NOTHING):
    """A proxy: plain requests and CONNECT; where a name has no address it answers 404."""
    return _running(None, break_at)


@contextmanager
def _running(upstream, break_at) -> Iterator[Wire]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    wire = Wire(f"http://127.0.0.1:{listener.getsockname()[1]}")
    threads = []

    def accept():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=serve, args=(client,), daemon=True)
            thread.start()
            threads.append(thread)

    def serve(client):
        with contextlib.suppress(OSError), contextlib.closing(client):
            client.settimeout(60)
            head = _head(client)
            if head:
                text = head.decode("latin-1")
                wire.requests.append(text.partition("\r\n")[0])
                _serve(client, head, upstream, break_at(text), wire.ended)

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield wire
    finally:
        wire.ended.set()
        # A close alone does not wake the thread that waits in accept.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(5)
        for thread in threads:
            thread.join(0.5)


def _head(client) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(1 << 16)
        if not piece:
            return b""
        data += piece
    return data


def _serve(client, head, upstream, fault, ended):
    if fault is Break.REFUSE:
        return
    if fault is Break.STALL:
        ended.wait(60)
        return
    if fault is Break.UNKNOWN:
        client.sendall(_answer("501 Not Implemented"))
        return
    method, target, rest = head.split(b" ", 2)
    tunnel = method == b"CONNECT"
    if tunnel:
        host, _, port = target.rpartition(b":")
        address = (host.decode(), int(port))
    elif upstream is None:
        parts = urlsplit(target.decode())
        address = (parts.hostname, parts.port or 80)
        target = (parts.path + (f"?{parts.query}" if parts.query else "")).encode()
    else:
        address = upstream
    try:
        server = socket.create_connection(address, timeout=60)
    except OSError:
        client.sendall(_answer("404 Not Found"))
        return
    with contextlib.closing(server):
        if tunnel:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            head = b" ".join((method, target, rest))
            server.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        sending = threading.Thread(target=_pump, args=(client, server), daemon=True)
        sending.start()
        if fault is Break.LOSE_ANSWER:
            while server.recv(1 << 16):
                pass
        elif fault is Break.HALF:
            client.sendall(server.recv(1 << 12))
        else:
            _pump(server, client)
        for side in (client, server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        sending.join(5)


def _answer(status) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


def _pump(source, target):
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
