"""Requests by a URL that is itself a secret: whoever has a presigned URL has the object.

The request goes straight to httpx's transport: its client writes each URL to the log. Messages
name the host and no more of the URL, and hand on nothing of what a library says, nor of a body.

Border: one request, no redirect, no retry, no decompression: what curl does without options.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from backstay.client.secret import Secret
from backstay.clock import Clock
from backstay.errors import StoreError, UsageError

#: Seconds: for a connection, and for the next bytes.
CONNECT, SILENCE = 10.0, 60.0
_NETWORK = "look at the endpoint, the server and the network"


class UntrustedError(StoreError):
    """The server's TLS certificate is not one that is trusted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came; its body is read by `pieces`.

    Attributes:
        status: of HTTP.
        headers: by their names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    _host: str
    _body: httpx.Response = field(repr=False)

    def pieces(self) -> Iterator[bytes]:
        """Read the body as it comes.

        Raises:
            StoreError: it broke off.
        """
        with _explained(self._host):
            yield from self._body.iter_raw()

    def read(self, limit: int, clock: Clock, patience: float = SILENCE) -> bytes:
        """Read the first bytes of the body.

        Args:
            limit: how many at most.
            clock: measures the patience.
            patience: seconds for all of them.

        Raises:
            StoreError: it broke off, or took too long.
        """
        data = bytearray()
        deadline = clock.monotonic() + patience
        for piece in self.pieces():
            data += piece[: limit - len(data)]
            if len(data) >= limit:
                break
            if clock.monotonic() > deadline:
                raise StoreError(f"{self._host} is too slow: {len(data)} bytes came", _NETWORK)
        return bytes(data)


def split(url: Secret) -> SplitResult:
    """Take a URL apart.

    Raises:
        UsageError: it is none. Nothing of it is shown.
    """
    try:
        parts = urlsplit(url.reveal())
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError("the presigned URL is no URL", "look at the endpoint")
    return parts


def host_of(url: Secret) -> str:
    """Give what messages call a URL: its host and port.

    Raises:
        UsageError: it is none.
    """
    return split(url).netloc.rpartition("@")[2]


def trust(authorities: bytes = b"") -> ssl.SSLContext:
    """Trust the system's authorities, and some more.

    Args:
        authorities: PEM certificates; empty is none.

    Raises:
        UsageError: they are no certificates.
    """
    context = ssl.create_default_context()
    if authorities:
        try:
            context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError):
            raise UsageError("the CA bundle can't be read", "name a file of PEM") from None
    return context


@contextmanager
def request(
    method: Literal["GET", "HEAD"],
    url: Secret,
    context: ssl.SSLContext,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Answer]:
    """Make one request; the body ends with the block.

    Args:
        method: the one that the URL is signed for.
        url: the secret.
        context: who is trusted.
        headers: further ones.

    Raises:
        UsageError: the URL is none.
        UntrustedError: the server's certificate is not trusted.
        StoreError: no connection, no answer, or one that is no HTTP.
    """
    parts = split(url)
    host = host_of(url)
    wanted = {"Accept-Encoding": "identity", "User-Agent": "backstay", **(headers or {})}
    with _explained(host):
        asked = httpx.Request(
            method,
            url.reveal(),
            headers=wanted,
            extensions={"timeout": httpx.Timeout(SILENCE, connect=CONNECT).as_dict()},
        )
        proxy = _proxy(parts)
        transport = httpx.HTTPTransport(verify=context, trust_env=False, proxy=proxy)
    with transport:
        with _explained(host):
            answer = transport.handle_request(asked)
        try:
            yield Answer(answer.status_code, answer.headers, host, answer)
        finally:
            answer.close()


def _proxy(parts: SplitResult) -> str | None:
    """Find the way out that the environment names, as curl does."""
    host = parts.hostname or ""
    return None if proxy_bypass(host) else getproxies().get(parts.scheme)


@contextmanager
def _explained(host: str) -> Iterator[None]:
    """Word what goes wrong; `from None`, since what a library says may hold the URL."""
    try:
        yield
    except ImportError:
        raise StoreError(
            "HTTPS_PROXY names a SOCKS proxy, which can't be used here", "name an HTTP proxy"
        ) from None
    except httpx.TimeoutException:
        raise StoreError(f"{host} gives no answer in time", _NETWORK) from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
        bad = _bad_certificate(error)
        if bad is not None:
            raise UntrustedError(
                f"{host} shows a TLS certificate that is not trusted ({bad.verify_message})",
                "use an endpoint with a certificate of a public authority",
            ) from None
        kind = type(error).__name__
        raise StoreError(f"{host} can't be reached, or broke off ({kind})", _NETWORK) from None


def _bad_certificate(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None
