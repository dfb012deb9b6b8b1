"""Our WebSocket against a real server, and against sockets that say whatever a test wants."""

import base64
import contextlib
import hashlib
import logging
import socket
import ssl
import struct
import threading
import time

import pytest

from backstay.errors import KubeError, KubeForbiddenError, KubeNotFoundError, KubeStreamError
from backstay.kubeapi import websocket
from kit.certificates import Authority
from kit.kubestreams import Fault, Streams, serve

TOKEN = "sha256~a-very-secret-token"


@contextlib.contextmanager
def raw_server(handler):
    """A socket server; the handler gets each connection, in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work(connection):
        with connection, contextlib.suppress(OSError):
            handler(connection)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=work, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def read_head(connection):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise OSError
        head += byte
    return head


def agree(connection, protocol="v4.channel.k8s.io"):
    head = read_head(connection).decode()
    key = next(
        line.split(": ")[1]
        for line in head.split("\r\n")
        if line.lower().startswith("sec-websocket-key")
    )
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    accept = base64.b64encode(digest).decode()
    connection.sendall(
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n".encode()
    )


def frame(data, opcode=2, fin=True):
    head = bytes([(0x80 if fin else 0) | opcode])
    if len(data) < 126:
        return head + bytes([len(data)]) + data
    if len(data) < 65536:
        return head + b"\x7e" + struct.pack(">H", len(data)) + data
    return head + b"\x7f" + struct.pack(">Q", len(data)) + data


def open_raw(port, timeout=5.0, **more):
    return websocket.connect(
        f"ws://127.0.0.1:{port}/api/v1/x?command=sh",
        ssl=None,
        headers={"Authorization": f"Bearer {TOKEN}"},
        protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"),
        timeout=timeout,
        **more,
    )


def open_at(server, path, **more):
    options = {"timeout": 5.0, "ssl": server.context, **more}
    return websocket.connect(
        f"{server.url}{path}",
        headers={"Authorization": f"Bearer {server.token}"},
        protocols=("v4.channel.k8s.io",),
        **options,
    )


def says(*frames):
    """A server that agrees, sends frames and hangs up."""

    def handler(connection):
        agree(connection)
        connection.sendall(b"".join(frames))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass

    return handler


def test_messages_come_in_order_and_the_end_is_told_apart_from_a_cut():
    close = frame(struct.pack(">H", 1000), opcode=8)
    server = says(frame(b"one"), frame(b""), frame(b"x" * 70000), close)
    with raw_server(server) as port, open_raw(port) as stream:
        assert stream.protocol == "v4.channel.k8s.io"
        assert [stream.receive(5) for _ in range(3)] == [b"one", b"", b"x" * 70000]
        assert stream.receive(5) is None
        assert stream.receive(5) is None
    with raw_server(says(frame(b"one"))) as port, open_raw(port) as stream:
        assert stream.receive(5) == b"one"
        with pytest.raises(KubeStreamError, match="was cut"):
            stream.receive(5)


def test_pieces_are_joined_and_pings_are_answered():
    ponged = threading.Event()

    def handler(connection):
        agree(connection)
        connection.sendall(frame(b"ab", fin=False) + frame(b"hello", opcode=9))
        head = connection.recv(2)
        if head[0] & 0x0F == 10:
            ponged.set()
        connection.sendall(frame(b"cd", opcode=0))
        connection.recv(100)

    with raw_server(handler) as port, open_raw(port) as stream:
        assert stream.receive(5) == b"abcd"
        assert ponged.wait(5)


HOSTILE = {
    "text": ((frame(b"text", opcode=1),), "sends text"),
    "too long": (
        (frame(b"x" * (websocket.MAX_MESSAGE + 1)),),
        "broke: .*size|broke: .*big|exceeds",
    ),
    "too long in pieces": (
        (
            frame(b"x" * websocket.MAX_MESSAGE, fin=False),
            frame(b"y", opcode=0),
        ),
        "broke",
    ),
    "pieces without end": (
        (frame(b"", fin=False), *(frame(b"", opcode=0, fin=False) for _ in range(3000))),
        "too many pieces",
    ),
    "no frame": ((b"\xff" * 200,), "broke"),
    "masked": ((b"\x82\x81\0\0\0\0x",), "broke"),
    "a continuation of nothing": ((frame(b"x", opcode=0),), "broke"),
    "an error": ((frame(struct.pack(">H", 1011) + b"no\nway", opcode=8),), "code 1011: no way"),
    "cut in a frame": ((frame(b"x" * 1000)[:500],), "was cut"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_message_of_bytes_is_an_error(name):
    frames, words = HOSTILE[name]
    with raw_server(says(*frames)) as port, open_raw(port) as stream:
        with pytest.raises(KubeStreamError, match=words) as caught:
            while stream.receive(10) is not None:
                pass
        assert "\n" not in str(caught.value)
        with pytest.raises(KubeStreamError):
            stream.send(b"more")


def test_silence_has_an_end():
    with (
        raw_server(lambda c: (agree(c), c.recv(100))) as port,
        open_raw(port) as stream,
        pytest.raises(KubeStreamError, match=r"nothing came for 0\.2 s"),
    ):
        stream.receive(0.2)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, KubeForbiddenError),
        (403, KubeForbiddenError),
        (404, KubeNotFoundError),
        (500, KubeError),
    ],
)
def test_a_refusal_says_why(code, kind):
    streams = Streams()
    streams.pod("ns", "p")
    streams.fault = Fault(refuse=code)
    with serve(streams) as server:
        with pytest.raises(kind, match=f"{code}, refused by the test") as caught:
            open_at(server, "/api/v1/namespaces/ns/pods/p/exec?command=secret-word").__enter__()
        assert "secret-word" not in str(caught.value)


def drip(connection):
    read_head(connection)
    while True:
        connection.sendall(b"H")
        time.sleep(0.05)


NEVER = {
    "silent": lambda c: c.recv(100000) and c.recv(1),
    "drips": drip,
    "hangs up": read_head,
    "no HTTP": lambda c: (read_head(c), c.sendall(b"220 mail ready\r\n\r\n")),
    "no upgrade": lambda c: (
        read_head(c),
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ),
    "a body without end": lambda c: (
        read_head(c),
        c.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n"),
        [c.sendall(b"x" * 65536) for _ in range(1000)],
    ),
    "an unknown protocol": lambda c: agree(c, protocol="v9.channel.k8s.io"),
    "a redirect": lambda c: (
        read_head(c),
        c.sendall(
            b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
        ),
    ),
}


@pytest.mark.parametrize("name", NEVER)
def test_a_handshake_that_never_ends_well_ends_in_time(name):
    began = time.monotonic()
    with (
        raw_server(NEVER[name]) as port,
        pytest.raises(KubeError) as caught,
        open_raw(port, timeout=1.0),
    ):
        pytest.fail("it is no WebSocket")
    assert time.monotonic() - began < 10
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tls_is_verified_and_has_the_deadline_too():
    streams = Streams()
    streams.pod("ns", "p")
    path = "/api/v1/namespaces/ns/pods/p/exec?container=etcd&command=true&stdout=true"
    other = ssl.create_default_context(cadata=Authority.make().pem.decode())
    with serve(streams) as server:
        with open_at(server, path) as stream:
            assert stream.receive(5) == b"\x01"
        with pytest.raises(KubeError, match=r"no TLS with localhost: .*(certificate|issuer)"):
            open_at(server, path, ssl=other).__enter__()
        with pytest.raises(KubeError, match=r"no TLS with elsewhere\.example: .*mismatch"):
            open_at(server, path, server_name="elsewhere.example").__enter__()
    with raw_server(lambda c: c.recv(100000) and c.recv(100000)) as port:
        began = time.monotonic()
        with pytest.raises(KubeError, match="in time"):
            websocket.connect(
                f"wss://127.0.0.1:{port}/", ssl=other, headers={}, protocols=(), timeout=0.5
            ).__enter__()
        assert time.monotonic() - began < 10


def test_nobody_there_and_an_address_without_sense():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(KubeError, match="can't be reached"):
        open_raw(port).__enter__()
    for url in ("ftp://x/", "ws://:1/", "ws://x:port/"):
        with pytest.raises(KubeError, match="makes no sense"):
            websocket.connect(url, ssl=None, headers={}, protocols=(), timeout=1).__enter__()


def proxy(answer=b"HTTP/1.1 200 Connection established\r\n\r\n", heard=None):
    def handler(connection):
        head = read_head(connection).decode()
        if heard is not None:
            heard.append(head)
        connection.sendall(answer)
        if b" 200 " not in answer:
            return
        host, port = head.split()[1].rsplit(":", 1)
        with socket.create_connection((host, int(port))) as target:

            def back():
                with contextlib.suppress(OSError):
                    while data := target.recv(65536):
                        connection.sendall(data)

            threading.Thread(target=back, daemon=True).start()
            while data := connection.recv(65536):
                target.sendall(data)

    return handler


def test_a_proxy_is_gone_through():
    heard = []
    with raw_server(says(frame(b"hello"))) as port, raw_server(proxy(heard=heard)) as through:
        with open_raw(port, proxy=f"http://me:pass%20word@127.0.0.1:{through}") as stream:
            assert stream.receive(5) == b"hello"
        assert heard[0].startswith(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n")
        pair = base64.b64encode(b"me:pass word").decode()
        assert f"Proxy-Authorization: Basic {pair}" in heard[0]
        assert TOKEN not in heard[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Who are you\r\n\r\n", "answered 407"),
        (b"", "nothing"),
        (b"x" * 20000, "answered"),
        (b"HTTP/1.1 \r\n\r\n", "answered nothing"),
    ],
)
def test_a_proxy_that_refuses(answer, words):
    with raw_server(proxy(answer)) as through, pytest.raises(KubeError, match=words) as caught:
        open_raw(1, proxy=f"http://me:hidden@127.0.0.1:{through}", timeout=3).__enter__()
    assert "hidden" not in str(caught.value)
    with pytest.raises(KubeError, match="this proxy") as caught:
        open_raw(1, proxy="socks5://me:hidden@127.0.0.1:1").__enter__()
    assert "hidden" not in str(caught.value)


def test_a_slow_reader_slows_the_server_down():
    sent = 0
    stop = threading.Event()

    def handler(connection):
        nonlocal sent
        agree(connection)
        chunk = frame(b"x" * 32768)
        while not stop.is_set():
            connection.sendall(chunk)
            sent += len(chunk)

    with raw_server(handler) as port, open_raw(port) as stream:
        assert stream.receive(5)
        while True:
            before = sent
            time.sleep(0.3)
            if sent == before:
                break
        assert sent < 64 << 20
        for _ in range(2000):
            stream.receive(5)
        assert sent > 2000 * 32768
        stop.set()


def test_sending_waits_for_room_and_gives_up(monkeypatch):
    monkeypatch.setattr(websocket, "SEND_STALL", 0.5)
    with (
        raw_server(lambda c: (agree(c), time.sleep(30))) as port,
        open_raw(port) as stream,
        pytest.raises(KubeStreamError, match=r"took nothing from us for 0\.5 s"),
    ):
        for _ in range(1000):
            stream.send(b"x" * (1 << 20))


def test_both_ways_at_the_same_time_over_tls():
    """Gigabytes come while we send: neither direction may wait for the other."""
    streams = Streams()
    streams.pod("ns", "p")
    path = (
        "/api/v1/namespaces/ns/pods/p/exec?container=etcd&stdin=true&stdout=true"
        "&command=sh&command=-c&command=cat%20%26%20head%20-c%2030000000%20/dev/zero;wait"
    )
    with serve(streams) as server, open_at(server, path, timeout=20) as stream:
        failures = []

        def send():
            try:
                for _ in range(200):
                    stream.send(b"\0" + b"y" * 30000)
            except KubeStreamError as error:
                failures.append(error)

        sending = threading.Thread(target=send)
        sending.start()
        came = 0
        while came < 30_000_000:
            message = stream.receive(20)
            assert message is not None
            came += len(message) - 1
        sending.join()
        assert not failures


def test_hanging_up_wakes_who_waits():
    server = raw_server(lambda c: (agree(c), c.recv(100000), c.recv(10)))
    with server as port, open_raw(port) as stream:
        threading.Timer(0.2, stream.close).start()
        with pytest.raises(KubeStreamError, match="closed by us"):
            stream.receive(None)
        stream.close()


def test_promise_5_the_token_is_in_no_log(caplog):
    caplog.set_level(logging.DEBUG)
    with raw_server(says(frame(b"hello"))) as port, open_raw(port) as stream:
        stream.receive(5)
        assert TOKEN not in repr(stream)
    logging.getLogger("seen").debug("it is on")
    assert "it is on" in caplog.text
    assert TOKEN not in caplog.text
