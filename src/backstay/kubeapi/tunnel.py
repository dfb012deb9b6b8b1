"""TCP, a proxy's CONNECT and TLS, all before one deadline.

The standard library gives each single read its own timeout, so that a proxy that sends a byte now
and then would keep us for ever.
"""

import base64
import select
import socket
import ssl
import time
from urllib.parse import unquote, urlsplit

from backstay.errors import KubeError

#: Bytes of a proxy's whole answer.
_MAX_ANSWER = 16 << 10


def dial(address: tuple[str, int], proxy: str | None, deadline: float) -> socket.socket:
    """Connect to a host and port, through a proxy where there is one.

    Args:
        address: of the server.
        proxy: URL of an HTTP proxy (`http://`, with a user and a password where it wants them).
        deadline: as time.monotonic() tells it.

    Raises:
        KubeError: out of reach, or not in time.
    """
    if not proxy:
        return _connect(address, deadline)
    host, port, headers = _proxy(proxy)
    sock = _connect((host, port), deadline)
    try:
        _tunnel(sock, address, headers, deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def secured(
    sock: socket.socket, context: ssl.SSLContext, server_name: str, deadline: float
) -> ssl.SSLSocket:
    """Put TLS on a connection; closes it where that fails.

    Raises:
        KubeError: the server's certificate is not trusted, or TLS fails, or takes too long.
    """
    try:
        sock.setblocking(False)
        wrapped = context.wrap_socket(
            sock, server_hostname=server_name, do_handshake_on_connect=False
        )
    except (OSError, ValueError) as error:
        sock.close()
        raise KubeError(f"no TLS with {server_name}: {_words(error)}") from error
    try:
        while True:
            try:
                wrapped.do_handshake()
            except ssl.SSLWantReadError:
                _wait(wrapped, select.POLLIN, deadline, server_name)
            except ssl.SSLWantWriteError:
                _wait(wrapped, select.POLLOUT, deadline, server_name)
            else:
                return wrapped
    except OSError as error:
        wrapped.close()
        raise KubeError(
            f"no TLS with {server_name}: {_words(error)}",
            "look at the certificates in the kubeconfig",
        ) from error
    except BaseException:
        wrapped.close()
        raise


def _connect(address: tuple[str, int], deadline: float) -> socket.socket:
    host, port = address
    left = deadline - time.monotonic()
    try:
        if left <= 0:
            raise TimeoutError
        sock = socket.create_connection(address, timeout=left)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that is gone without a word is found within a minute and a half.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except (OSError, UnicodeError) as error:
        raise KubeError(
            f"{host}:{port} can't be reached: {_words(error)}",
            "look at the address in the kubeconfig, and at the network",
        ) from error
    return sock


def _proxy(url: str) -> tuple[str, int, list[str]]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        parts, host, port = urlsplit(""), None, 0
    if parts.scheme != "http" or not host:
        # The URL may hold a password: it is not repeated.
        raise KubeError(
            "streams can't go through this proxy", "name one with an http:// URL, or none"
        )
    headers = []
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers.append(f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}")
    return host, port, headers


def _tunnel(
    sock: socket.socket, address: tuple[str, int], headers: list[str], deadline: float
) -> None:
    host, port = address
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *headers, "", ""]
    answer = b""
    try:
        sock.sendall("\r\n".join(lines).encode())
        while not answer.endswith(b"\r\n\r\n") and len(answer) < _MAX_ANSWER:
            _wait(sock, select.POLLIN, deadline, "the proxy")
            # Byte by byte: what comes after the empty line is the server's.
            byte = sock.recv(1)
            if not byte:
                break
            answer += byte
    except OSError as error:
        raise KubeError(f"the proxy failed: {_words(error)}") from error
    status = answer.split(b"\r\n", 1)[0].split(b" ", 2)[1:2]
    if not answer.endswith(b"\r\n\r\n") or status != [b"200"]:
        code = status[0].decode("ascii", "replace") if status and status[0].isdigit() else "nothing"
        raise KubeError(
            f"the proxy answered {code[:8]} when asked for {authority}", "look at the proxy"
        )


def _wait(sock: socket.socket, events: int, deadline: float, whom: str) -> None:
    poll = select.poll()
    poll.register(sock, events)
    if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
        raise KubeError(f"no answer in time from {whom}", "look at the network, and at proxies")


def _words(error: Exception) -> str:
    """What went wrong, in words that hold nothing of what was sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS failed"
    return getattr(error, "strerror", None) or type(error).__name__
