"""Connections to all endpoints of one cluster: the user's token, and who is asked when one fails.

The border: how to ask. What is asked, and what answers mean, is etcd.py's.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from backstay.client.access import Access
from backstay.client.certificates import check_tls
from backstay.client.connection import Connection
from backstay.client.dial import Dialer, DirectDialer
from backstay.client.endpoint import Endpoint
from backstay.client.failure import AuthOffError, DeniedError, TokenRefusedError
from backstay.client.methods import AUTHENTICATE, Method
from backstay.client.proto import rpc_pb2 as pb
from backstay.client.secret import Secret
from backstay.clock import Clock, SystemClock
from backstay.closing import Closing
from backstay.errors import ConnectionFailedError, EtcdError, EtcdUnavailableError

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
T = TypeVar("T")


class Session(Closing):
    """Connections to the endpoints of one cluster; safe to use from several threads.

    Args:
        access: addresses, certificates, user and patience.
        dialer: makes the connections; default: straight.
        clock: for the dates of certificates.

    Raises:
        UsageError: our certificate or key is unusable.
        ConnectionFailedError: a certificate of ours has run out, or is not valid yet.
    """

    def __init__(
        self, access: Access, dialer: Dialer | None = None, clock: Clock | None = None
    ) -> None:
        clock = clock or SystemClock()
        if access.tls is not None:
            check_tls(access.tls, clock.now())
        self.access = access
        self._dialer = dialer or DirectDialer(clock=clock)
        self._lock = threading.Lock()
        self._connections: dict[Endpoint, Connection] = {}
        self._preferred = access.endpoints[0]
        self._token: Secret | None = None
        self._no_users = False

    def close(self) -> None:
        """Hang up everywhere."""
        with self._lock:
            connections, self._connections = list(self._connections.values()), {}
        for connection in connections:
            connection.close()

    def call(
        self,
        endpoint: Endpoint,
        method: Method[Q, A],
        question: Q,
        *,
        timeout: float | None = None,
        log_in: bool = True,
    ) -> A:
        """Ask one member.

        Args:
            endpoint: whom.
            method: what to call.
            question: what to send.
            timeout: patience in seconds; default: the access's for commands.
            log_in: whether to log in before; else only if etcd insists, so that a member
                without a leader, where nobody can log in, still answers what it tells anyone.

        Raises:
            EtcdError: one of its kinds.
        """
        return self.with_token(
            endpoint,
            lambda connection, token: connection.call(method, question, token, timeout),
            log_in=log_in,
        )

    def with_token(
        self,
        endpoint: Endpoint,
        work: Callable[[Connection, Secret | None], T],
        *,
        log_in: bool = True,
    ) -> T:
        """Do something with a connection and a token; once more where the token has run out."""
        connection = self._connection(endpoint)
        token = self._log_in(connection) if log_in else self._token
        try:
            return work(connection, token)
        except (TokenRefusedError, DeniedError):
            if self.access.user is None:
                raise
            self._forget(token)
        return work(connection, self._log_in(connection))

    def any(self, work: Callable[[Endpoint], T]) -> T:
        """Ask one member after another until one answers; for what may be asked twice.

        Raises:
            EtcdError: the first refusal, or what all endpoints suffer from.
        """
        failures: list[EtcdError] = []
        for endpoint in self._order():
            try:
                answer = work(endpoint)
            except (ConnectionFailedError, EtcdUnavailableError) as error:
                failures.append(error)
                continue
            self._preferred = endpoint
            return answer
        raise _none_answers(failures)

    def once(self, work: Callable[[Endpoint], T]) -> T:
        """Ask the first member that can be reached; for what must not be done twice.

        Raises:
            EtcdError: no endpoint can be reached, or what the one that was asked says.
        """

        def reach(endpoint: Endpoint) -> Endpoint:
            self._connection(endpoint).connect()
            return endpoint

        return work(self.any(reach))

    def _order(self) -> list[Endpoint]:
        first = self._preferred
        return [first, *(e for e in self.access.endpoints if e != first)]

    def _connection(self, endpoint: Endpoint) -> Connection:
        with self._lock:
            if endpoint not in self._connections:
                self._connections[endpoint] = Connection(endpoint, self.access, self._dialer)
            return self._connections[endpoint]

    def _log_in(self, connection: Connection) -> Secret | None:
        user, password = self.access.user, self.access.password
        with self._lock:
            token, no_users = self._token, self._no_users
        if token is not None or no_users or user is None or password is None:
            return token
        question = pb.AuthenticateRequest(name=user, password=password.reveal())
        try:
            token = Secret(connection.call(AUTHENTICATE, question, None).token)
        except AuthOffError:
            # etcdctl goes on without a token too: etcd asks for none.
            token = None
        with self._lock:
            self._token, self._no_users = token, token is None
        return token

    def _forget(self, token: Secret | None) -> None:
        with self._lock:
            self._no_users = False
            if self._token == token:
                self._token = None


def _none_answers(failures: list[EtcdError]) -> EtcdError:
    if len(failures) == 1:
        return failures[0]
    kind = (
        ConnectionFailedError
        if all(isinstance(f, ConnectionFailedError) for f in failures)
        else EtcdUnavailableError
    )
    hints = list(dict.fromkeys(f.do for f in failures if f.do))
    return kind(
        f"none of {len(failures)} endpoints answers: {'; '.join(f.what for f in failures)}",
        hints[0] if hints else "",
    )
