"""The seam between what is asked of the Kubernetes API and how it gets there.

`http.HttpTransport` is the real one; a test that counts or breaks calls wraps it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

#: More than any answer has that we ask for: lists come in pages.
MAX_BODY = 64 << 20
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call.

    Attributes:
        method: GET, POST, PATCH, PUT or DELETE.
        path: from the root of the API, as `/api/v1/namespaces/x/secrets/y`.
        params: of the query; a name may come several times.
        body: JSON; None where there is none.
        content_type: of the body.
    """

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    body: bytes | None = field(default=None, repr=False)
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP.
        body: at most `MAX_BODY` bytes.
    """

    status: int
    body: bytes = field(repr=False)


class WebSocket(Protocol):
    """A connection that carries messages both ways; one thread may send while another receives."""

    @property
    def protocol(self) -> str:
        """The subprotocol that the server chose; empty where it chose none."""
        ...

    def send(self, data: bytes, /) -> None:
        """Send one message.

        Raises:
            KubeStreamError: the connection is gone.
        """
        ...

    def receive(self, timeout: float | None = None) -> bytes | None:
        """Wait for the next message; None where the other side has closed in good order.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            KubeStreamError: the connection broke, or nothing came in time.
        """
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class Transport(Protocol):
    """Carries calls to one API server. May be used by several threads at the same time."""

    @property
    def server(self) -> str:
        """URL of the API server, for messages."""
        ...

    def call(self, request: Request) -> Answer:
        """Ask, and wait for the whole answer; any status is an answer.

        Raises:
            KubeError: the server could not be reached, or did not answer in time.
        """
        ...

    def lines(self, request: Request) -> AbstractContextManager[Iterator[bytes]]:
        """Ask for what is no document: a log, line by line, as it grows.

        Raises:
            KubeError: the server could not be reached, or its status is not 200.
        """
        ...

    def websocket(
        self, request: Request, protocols: tuple[str, ...]
    ) -> AbstractContextManager[WebSocket]:
        """Upgrade to a WebSocket.

        Raises:
            KubeError: refused (the class tells why, as with `call`), or not in time.
        """
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...
