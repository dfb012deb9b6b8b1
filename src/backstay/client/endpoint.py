"""Where an etcd listens, as etcdctl takes it: URLs, or host and port, separated by commas.

One difference on purpose: an address without a scheme means https. Plain http is spoken only
where the URL says `http://`, so that a forgotten scheme never sends a password in the clear.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

from backstay.errors import UsageError

DEFAULT_PORT = 2379
_HINT = "write it as https://HOST:2379, http://HOST:2379 or unix:///PATH"
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
#: sun_path has 108 bytes on Linux, one of them for the zero at the end.
MAX_SOCKET_PATH = 107


class Scheme(StrEnum):
    """How an endpoint is spoken to; `unix` is plain and `unixs` is TLS, both over a socket file."""

    HTTPS = "https"
    HTTP = "http"
    UNIX = "unix"
    UNIXS = "unixs"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of an etcd.

    Attributes:
        scheme: how it is spoken to.
        host: name or IP address, without brackets; for sockets the path.
        port: TCP port; 0 for sockets.
    """

    scheme: Scheme
    host: str
    port: int

    def __str__(self) -> str:
        if self.is_socket:
            return f"{self.scheme}://{self.host}"
        return f"{self.scheme}://{self.authority}"

    @property
    def is_tls(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme in {Scheme.HTTPS, Scheme.UNIXS}

    @property
    def is_socket(self) -> bool:
        """Whether it is a socket file."""
        return self.scheme in {Scheme.UNIX, Scheme.UNIXS}

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL; `localhost` for sockets."""
        if self.is_socket:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def server_name(self) -> str:
        """The name that the server's certificate must have, unless another one is asked for."""
        return "localhost" if self.is_socket else self.host


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Read a comma-separated list; what is named twice counts once.

    Raises:
        UsageError: there is none, or one makes no sense.
    """
    found = dict.fromkeys(parse_endpoint(part) for part in text.split(",") if part.strip())
    if not found:
        raise UsageError("no endpoint of etcd is given", _HINT)
    return tuple(found)


def parse_endpoint(text: str) -> Endpoint:
    """Read one address.

    Raises:
        UsageError: it makes no sense; the message never repeats a password out of a URL.
    """
    text = text.strip()
    if "@" in text:
        raise UsageError(
            "an endpoint has a user or a password in it", "use --user and --password-file"
        )
    try:
        url = urlsplit(text if "://" in text else f"https://{text}")
        scheme = Scheme(url.scheme)
    except ValueError as error:
        raise UsageError(f"{text!r} is no endpoint of etcd", _HINT) from error
    if url.query or url.fragment:
        raise UsageError(f"{text!r} has more than an address", _HINT)
    return _socket(text, scheme, url) if scheme.startswith("unix") else _tcp(text, scheme, url)


def _socket(text: str, scheme: Scheme, url: SplitResult) -> Endpoint:
    path = url.netloc + url.path
    if not path or "\0" in path:
        raise UsageError(f"{text!r} names no socket", "write it as unix:///PATH")
    if len(path.encode()) > MAX_SOCKET_PATH:
        raise UsageError(
            f"{text!r}: a socket's path has at most {MAX_SOCKET_PATH} bytes", "use a shorter one"
        )
    return Endpoint(scheme, path, 0)


def _tcp(text: str, scheme: Scheme, url: SplitResult) -> Endpoint:
    if url.path not in {"", "/"}:
        raise UsageError(f"{text!r} has a path", _HINT)
    try:
        host, port = url.hostname or "", url.port
    except ValueError as error:
        raise UsageError(f"{text!r} has no valid port", _HINT) from error
    if port is None and url.netloc.endswith(":"):
        raise UsageError(f"{text!r} has no valid port", _HINT)
    if port == 0 or not (":" in host or _HOST.fullmatch(host)):
        raise UsageError(f"{text!r} is no endpoint of etcd", _HINT)
    return Endpoint(scheme, host, DEFAULT_PORT if port is None else port)
