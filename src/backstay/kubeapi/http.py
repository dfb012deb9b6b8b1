"""The real transport: HTTPS to an API server.

One client for all calls. A login that the server does not take any more (tokens expire, plugins
renew) is read anew once for each call. Redirects are not followed: they would carry the token
elsewhere. Only a GET is tried again: of anything else it is not known whether it was done.

stamina is not used here: it does not wait as long as the server says, sleeps by no clock of ours,
and writes its own lines to standard error.
"""

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx

from backstay.client.proxy import is_usable
from backstay.client.text import one_line
from backstay.clock import Clock, SystemClock
from backstay.closing import Closing
from backstay.errors import KubeError, KubeLoginError, KubeStreamError, UsageError
from backstay.kubeapi import websocket
from backstay.kubeapi.api import refusal
from backstay.kubeapi.credentials import Credentials, Login
from backstay.kubeapi.transport import MAX_BODY, Answer, Request, WebSocket

#: Bytes of a line of a log; a longer one comes in several parts.
MAX_LINE = 64 << 10
#: Bytes of an error that a log answers with.
_MAX_ERROR = 1 << 20
#: A log that is followed is silent for as long as its container is.
_LOG_SILENCE = 600.0
_OK = 200
_UNAUTHORIZED = 401
#: What a server answers that is busy, starting or stopping.
_BUSY = frozenset({429, 502, 503, 504})
_TRIES = 3
#: Seconds before the second and the third try, where the server names none; and the most it may.
_WAITS = (0.5, 1.5)
_MAX_WAIT = 5.0
_DOUBT = "look whether it was done all the same: the answer may have been lost"
_NETWORK = "look at the address in the kubeconfig, and at the network"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for, in seconds.

    Attributes:
        connect: until a connection stands.
        read: without a byte of an answer.
        whole: for all of an answer's body.
    """

    connect: float = 10.0
    read: float = 30.0
    whole: float = 300.0


@dataclass(frozen=True, slots=True)
class _Session:
    """Who we are, and the connections of that."""

    known: Credentials
    client: httpx.Client


class HttpTransport(Closing):
    """Carries calls to one API server; may be used by several threads at the same time.

    Args:
        login: says who we are.
        clock: for the waits between tries.
        patience: how long a server is waited for.

    Raises:
        UsageError: the login makes no sense.
        KubeError: a credential plugin failed.
    """

    def __init__(
        self, login: Login, *, clock: Clock | None = None, patience: Patience | None = None
    ) -> None:
        self._login = login
        self._clock = clock or SystemClock()
        self._patience = patience or Patience()
        self._lock = threading.Lock()
        known = login.read()
        self._session = _Session(known, self._client(known))
        self._former: list[httpx.Client] = []

    @property
    def server(self) -> str:
        """URL of the API server."""
        return self._session.known.server

    @property
    def credentials(self) -> Credentials:
        """Who we are at the moment."""
        return self._session.known

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in (self._session.client, *self._former):
                client.close()

    def call(self, request: Request) -> Answer:
        """Ask, and wait for the whole answer; a GET that finds nobody home is tried again.

        Raises:
            KubeError: the server could not be reached, did not answer in time, or too much.
            UsageError: the login had expired, and now makes no sense.
        """
        waits = _WAITS if request.method == "GET" else ()
        for wait in waits:
            try:
                answer, named = self._ask(request)
            except httpx.TransportError as error:
                if _distrusts(error):
                    raise self._failure(error, request) from error
                named = None
            else:
                if answer.status not in _BUSY:
                    return answer
            self._clock.sleep(wait if named is None else named)
        try:
            return self._ask(request)[0]
        except httpx.HTTPError as error:
            raise self._failure(error, request) from error

    @contextmanager
    def lines(self, request: Request) -> Iterator[Iterator[bytes]]:
        """Read a log, line by line, as it grows; lines come without their ends.

        Raises:
            KubeError: the server could not be reached, or its status is not 200.
            KubeStreamError: the log was cut, or silent for too long; while the lines are read.
        """
        timeout = httpx.Timeout(_LOG_SILENCE, connect=self._patience.connect)
        with ExitStack() as stack:
            response = self._log(stack, request, timeout)
            yield _lines(self._pieces(response))

    @contextmanager
    def websocket(self, request: Request, protocols: tuple[str, ...]) -> Iterator[WebSocket]:
        """Upgrade to a WebSocket.

        Raises:
            KubeError: refused (the class tells why, as with `call`), or not in time.
        """
        session = self._session
        with ExitStack() as stack:
            try:
                opened = stack.enter_context(self._dial(session.known, request, protocols))
            except KubeLoginError:
                session = self._renewed(session)
                opened = stack.enter_context(self._dial(session.known, request, protocols))
            yield opened

    def _ask(self, request: Request) -> tuple[Answer, float | None]:
        """Ask, once more where the login has expired; gives the wait that the server names too."""
        session = self._session
        found = self._send(session, request)
        if found[0].status != _UNAUTHORIZED:
            return found
        return self._send(self._renewed(session), request)

    def _send(self, session: _Session, request: Request) -> tuple[Answer, float | None]:
        with self._stream(session, request) as response:
            body = self._body(response, MAX_BODY)
            return Answer(response.status_code, body), _named_wait(response)

    @contextmanager
    def _stream(
        self, session: _Session, request: Request, timeout: httpx.Timeout | None = None
    ) -> Iterator[httpx.Response]:
        patience = self._patience
        with session.client.stream(
            request.method,
            session.known.server + request.path,
            params=list(request.params),
            content=request.body,
            headers=_headers(session.known, request),
            timeout=timeout or httpx.Timeout(patience.read, connect=patience.connect),
        ) as response:
            yield response

    def _body(self, response: httpx.Response, limit: int) -> bytes:
        """Read a whole answer, as long as it has a bound in bytes and in time."""
        deadline = self._clock.monotonic() + self._patience.whole
        found = bytearray()
        for piece in self._raw(response):
            found += piece
            if len(found) > limit:
                raise KubeError(f"{self.server} answered with more than {limit} bytes")
            if self._clock.monotonic() > deadline:
                raise KubeError(f"{self.server} does not come to the end of its answer")
        return bytes(found)

    def _raw(self, response: httpx.Response) -> Iterator[bytes]:
        """Give what comes, unpacked by nobody: a few packed bytes can stand for gigabytes."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise KubeError(f"{self.server} answered packed, which was not asked for")
        return response.iter_raw()

    def _renewed(self, expired: _Session) -> _Session:
        """Log in again, unless another thread has done it meanwhile."""
        with self._lock:
            if self._session is not expired:
                return self._session
            known = self._login.read()
            client = expired.client
            if known.connection != expired.known.connection:
                # Other threads may be in the midst of calls: it is closed at the end.
                self._former.append(client)
                client = self._client(known)
            self._session = _Session(known, client)
            return self._session

    def _log(self, stack: ExitStack, request: Request, timeout: httpx.Timeout) -> httpx.Response:
        session = self._session
        try:
            response = stack.enter_context(self._stream(session, request, timeout))
            if response.status_code == _UNAUTHORIZED:
                session = self._renewed(session)
                response = stack.enter_context(self._stream(session, request, timeout))
            if response.status_code == _OK:
                return response
            answer = Answer(response.status_code, self._body(response, _MAX_ERROR))
        except httpx.HTTPError as error:
            raise self._failure(error, request) from error
        raise refusal(answer, f"{request.method} {request.path}", self.server)

    def _pieces(self, response: httpx.Response) -> Iterator[bytes]:
        try:
            yield from self._raw(response)
        except httpx.HTTPError as error:
            raise KubeStreamError(
                f"{self.server}: the log was cut: {_words(error)}", "read it again"
            ) from error

    @contextmanager
    def _dial(
        self, known: Credentials, request: Request, protocols: tuple[str, ...]
    ) -> Iterator[WebSocket]:
        query = f"?{urlencode(request.params)}" if request.params else ""
        with websocket.connect(
            known.server + request.path + query,
            ssl=known.tls,
            headers=known.headers,
            protocols=protocols,
            timeout=self._patience.connect + self._patience.read,
            proxy=known.proxy,
            server_name=known.server_name,
        ) as opened:
            yield opened

    @staticmethod
    def _client(known: Credentials) -> httpx.Client:
        if known.proxy and not is_usable(known.proxy):
            # The URL may hold a password.
            raise UsageError(
                f"the proxy for {known.server} can't be used", "name one with an http:// URL"
            )
        return httpx.Client(
            verify=known.tls if known.tls is not None else False,
            proxy=known.proxy,
            # Proxies are found by kubectl's rules; .netrc would add a password of its own.
            trust_env=False,
            follow_redirects=False,
        )

    def _failure(self, error: httpx.HTTPError, request: Request) -> KubeError:
        do = _NETWORK if request.method == "GET" or _never_sent(error) else _DOUBT
        if _distrusts(error):
            do = "look at the certificate authority in the kubeconfig"
        return KubeError(f"{self.server} can't be reached: {_words(error)}", do)


def _headers(known: Credentials, request: Request) -> dict[str, str]:
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "backstay",
        **known.headers,
    }
    if request.body is not None:
        headers["Content-Type"] = request.content_type
    return headers


def _named_wait(response: httpx.Response) -> float | None:
    """Read after how many seconds the server wants to be asked again."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), _MAX_WAIT) if text.isascii() and text.isdigit() else None


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield from _parts(line)
        while len(rest) > MAX_LINE:
            yield rest[:MAX_LINE]
            rest = rest[MAX_LINE:]
    if rest:
        yield rest


def _parts(line: bytes) -> Iterator[bytes]:
    for start in range(0, max(len(line), 1), MAX_LINE):
        yield line[start : start + MAX_LINE]


def _never_sent(error: httpx.HTTPError) -> bool:
    return isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError))


def _distrusts(error: httpx.HTTPError) -> bool:
    return any(isinstance(one, ssl.SSLCertVerificationError) for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _words(error: httpx.HTTPError) -> str:
    """What went wrong, in words that hold nothing of what was sent."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return one_line(one.verify_message)
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.LocalProtocolError):  # it quotes our own headers
        return "the request can't be written"
    return one_line(str(error)) or type(error).__name__
