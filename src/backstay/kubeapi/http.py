"""The real transport: HTTPS to an API server.

One client for all calls; a login that the server does not take any more is renewed once for
each call. Redirects are not followed: they would carry the token elsewhere.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from urllib.parse import urlencode

import httpx
import stamina

from backstay.closing import Closing
from backstay.errors import KubeError, KubeForbiddenError
from backstay.kubeapi import websocket
from backstay.kubeapi.api import refusal
from backstay.kubeapi.credentials import Credentials, Login
from backstay.kubeapi.transport import MAX_BODY, Answer, Request, WebSocket

#: Seconds: until a connection stands, and without a byte of an answer.
_CONNECT, _READ = 10.0, 30.0
#: A log that is followed is silent for as long as its container is.
_LOG_SILENCE = 600.0
#: A longer line of a log is cut into several.
_MAX_LINE = 64 << 10
_UNAUTHORIZED = 401
#: What a server that is busy, starting or stopping answers.
_BUSY = {429, 502, 503, 504}
_TRIES, _WAIT = 3, 5.0


class _BusyError(Exception):
    """An answer that may be another one in a moment."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class HttpTransport(Closing):
    """Carries calls to one API server.

    Args:
        login: says who we are.

    Raises:
        UsageError: it makes no sense.
        KubeError: a credential plugin failed.
    """

    def __init__(self, login: Login) -> None:
        self._login = login
        self._lock = threading.Lock()
        self._credentials = login.read()
        self._client = _client(self._credentials)
        self._old: list[httpx.Client] = []

    @property
    def server(self) -> str:
        """URL of the API server."""
        return self._credentials.server

    @property
    def credentials(self) -> Credentials:
        """Who we are at the moment."""
        return self._credentials

    def close(self) -> None:
        """Close all connections."""
        for client in (self._client, *self._old):
            client.close()

    def call(self, request: Request) -> Answer:
        """Ask, and wait for the whole answer; a GET that finds nobody home is tried again.

        Raises:
            KubeError: the server could not be reached, or did not answer in time.
        """
        if request.method != "GET":
            return self._call(request)
        try:
            for attempt in stamina.retry_context(
                on=(_BusyError, httpx.TransportError), attempts=_TRIES, wait_max=_WAIT
            ):
                with attempt:
                    return self._ask_ready(request)
        except _BusyError as busy:
            return busy.answer
        except httpx.TransportError as error:
            raise self._out_of_reach(error) from error
        raise AssertionError("stamina gives up by raising")

    def _ask_ready(self, request: Request) -> Answer:
        answer = self._ask(request)
        if answer.status in _BUSY:
            raise _BusyError(answer)
        return answer

    def _call(self, request: Request) -> Answer:
        try:
            return self._ask(request)
        except httpx.TransportError as error:
            raise self._out_of_reach(error) from error

    def _ask(self, request: Request) -> Answer:
        """Ask; once more where the login has expired."""
        known = self._credentials
        answer = self._send(self._client, known, request)
        if answer.status != _UNAUTHORIZED:
            return answer
        self._renew(known)
        return self._send(self._client, self._credentials, request)

    def _renew(self, known: Credentials) -> None:
        with self._lock:
            if self._credentials is not known:
                return
            self._credentials = self._login.read()
            # Another thread may still use it.
            self._old.append(self._client)
            self._client = _client(self._credentials)

    def _send(self, client: httpx.Client, known: Credentials, request: Request) -> Answer:
        with client.stream(
            request.method,
            known.server + request.path,
            params=list(request.params),
            content=request.body,
            headers=_headers(request),
            extensions=_extensions(known),
        ) as response:
            return Answer(response.status_code, self._body(response, MAX_BODY))

    def _body(self, response: httpx.Response, limit: int) -> bytes:
        found = bytearray()
        for piece in response.iter_bytes():
            found += piece
            if len(found) > limit:
                raise KubeError(f"{self.server} answered with more than {limit} bytes")
        return bytes(found)

    @contextmanager
    def lines(self, request: Request) -> Iterator[Iterator[bytes]]:
        """Read a log, line by line, as it grows.

        Raises:
            KubeError: the server could not be reached, or its status is not 200.
        """
        known = self._credentials
        timeout = httpx.Timeout(_LOG_SILENCE, connect=_CONNECT)
        try:
            with self._client.stream(
                request.method,
                known.server + request.path,
                params=list(request.params),
                headers=_headers(request),
                extensions=_extensions(known),
                timeout=timeout,
            ) as response:
                if response.status_code != 200:
                    answer = Answer(response.status_code, self._body(response, 1 << 20))
                    raise refusal(answer, f"{request.method} {request.path}", self.server)
                yield _lines(response.iter_bytes())
        except httpx.TransportError as error:
            raise self._out_of_reach(error) from error

    @contextmanager
    def websocket(self, request: Request, protocols: tuple[str, ...]) -> Iterator[WebSocket]:
        """Upgrade to a WebSocket.

        Raises:
            KubeError: refused, or not in time.
        """
        known = self._credentials
        with self._opened(request, protocols, known) as opened:
            yield opened

    @contextmanager
    def _opened(
        self, request: Request, protocols: tuple[str, ...], known: Credentials
    ) -> Iterator[WebSocket]:
        entered = False
        try:
            with self._dial(request, protocols, known) as opened:
                entered = True
                yield opened
                return
        except KubeForbiddenError:
            if entered or not self._expired(known):
                raise
        with self._dial(request, protocols, self._credentials) as opened:
            yield opened

    def _expired(self, known: Credentials) -> bool:
        """Whether a login is refused because it is old: then there is a new one."""
        if not known.headers:
            return False
        with suppress(KubeError):
            self._renew(known)
        return self._credentials.headers != known.headers

    def _dial(
        self, request: Request, protocols: tuple[str, ...], known: Credentials
    ) -> AbstractContextManager[WebSocket]:
        query = f"?{urlencode(request.params)}" if request.params else ""
        return websocket.connect(
            known.server + request.path + query,
            ssl=known.tls,
            headers=known.headers,
            protocols=protocols,
            timeout=_CONNECT + _READ,
            proxy=known.proxy,
            server_name=known.server_name,
        )

    def _out_of_reach(self, error: httpx.TransportError) -> KubeError:
        return KubeError(
            f"{self.server} can't be reached: {_words(error)}",
            f"look at {self._credentials.origin}, and at the network",
        )


def _client(known: Credentials) -> httpx.Client:
    return httpx.Client(
        verify=known.tls if known.tls is not None else False,
        headers=dict(known.headers),
        timeout=httpx.Timeout(_READ, connect=_CONNECT),
        proxy=known.proxy,
        # Proxies are looked for by kubectl's rules; netrc would add a password of its own.
        trust_env=False,
        follow_redirects=False,
    )


def _headers(request: Request) -> dict[str, str]:
    headers = {"Accept": "application/json", "User-Agent": "backstay"}
    if request.body is not None:
        headers["Content-Type"] = request.content_type
    return headers


def _extensions(known: Credentials) -> dict[str, str]:
    return {"sni_hostname": known.server_name} if known.server_name else {}


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Cut into lines; an endless one comes in parts."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
        while len(rest) > _MAX_LINE:
            yield rest[:_MAX_LINE]
            rest = rest[_MAX_LINE:]
    if rest:
        yield rest


def _words(error: Exception) -> str:
    """What went wrong, in words that hold nothing of what was sent."""
    text = str(error) or type(error).__name__
    return " ".join(text.split())[:200]
