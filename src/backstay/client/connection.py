"""One connection: to one endpoint, with its patience; gRPC's errors come out as ours."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from backstay.client.access import Access
from backstay.client.dial import Dialer
from backstay.client.endpoint import Endpoint
from backstay.client.failure import translate
from backstay.client.methods import Method
from backstay.client.secret import Secret
from backstay.client.text import one_line
from backstay.errors import ConnectionFailedError, EtcdError

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

_State = grpc.ChannelConnectivity
#: A server that gets this in a stream's metadata ends the stream when it loses its leader.
_WITH_LEADER = ("hasleader", "true")


class Connection:
    """A channel to one endpoint.

    Args:
        endpoint: whom to talk to.
        access: certificates and patience.
        dialer: makes the channel.
    """

    def __init__(self, endpoint: Endpoint, access: Access, dialer: Dialer) -> None:
        self.endpoint = endpoint
        self._access = access
        self._dialer = dialer
        self._channel = dialer.channel(endpoint, access)
        self._lock = threading.Lock()
        self._tried = self._stood = False

    def close(self) -> None:
        """Hang up; calls under way end with an error."""
        self._channel.close()

    def connect(self) -> None:
        """Wait until the connection stands; at once where it has stood before.

        Raises:
            ConnectionFailedError, AuthenticationError: it does not, for the reason that is said.
        """
        with self._lock:
            if self._stood:
                return
            if self._tried:
                # A channel that failed would first sit out its backoff.
                self._channel.close()
                self._channel = self._dialer.channel(self.endpoint, self._access)
            self._tried = True
            self._stood = _stands(self._channel, self._access.timeouts.dial)
        if not self._stood:
            raise self._explained(
                ConnectionFailedError(
                    f"{self.endpoint}: no connection within {self._access.timeouts.dial:g} s",
                    "look at the address, at certificates and firewalls",
                )
            )

    def call(
        self, method: Method[Q, A], question: Q, token: Secret | None, timeout: float | None = None
    ) -> A:
        """Ask, and wait for the one answer.

        Args:
            method: what to call.
            question: what to send.
            token: proof of the user.
            timeout: patience in seconds; default: the access's for commands.

        Raises:
            EtcdError: one of its kinds.
        """
        self.connect()
        ask: Callable[..., A] = self._channel.unary_unary(
            method.path,
            request_serializer=method.question.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        with self.translated(method, token):
            return ask(
                question,
                timeout=self._access.timeouts.command if timeout is None else timeout,
                metadata=_metadata(token),
            )

    def receive(self, method: Method[Q, A], question: Q, token: Secret | None) -> Any:
        """Ask for a stream of answers; gives gRPC's call, to be read inside `translated`."""
        self.connect()
        ask = self._channel.unary_stream(
            method.path,
            request_serializer=method.question.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        return ask(question, metadata=_metadata(token))

    def converse(self, method: Method[Q, A], questions: Iterator[Q], token: Secret | None) -> Any:
        """Open a stream in both directions; gives gRPC's call, to be read inside `translated`."""
        self.connect()
        ask = self._channel.stream_stream(
            method.path,
            request_serializer=method.question.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        return ask(questions, metadata=(*_metadata(token), _WITH_LEADER))

    @contextmanager
    def translated(self, method: Method[Q, A], token: Secret | None = None) -> Iterator[None]:
        """Turn gRPC's errors inside the block into ours, without our secrets."""
        try:
            yield
        except grpc.RpcError as error:
            raise self._failed(error, method.name, token) from error

    def _explained(self, error: EtcdError) -> EtcdError:
        return self._dialer.explain(self.endpoint, self._access) or error

    def _failed(self, error: grpc.RpcError, call: str, token: Secret | None) -> EtcdError:
        call_status: Any = error  # every RpcError that a call raises is a grpc.Call as well
        code: grpc.StatusCode = call_status.code()
        details: str = call_status.details() or ""
        words = one_line(details, (token, self._access.password))
        found = translate(code, words, self.endpoint, call)
        if isinstance(found, ConnectionFailedError):
            # The next call waits for a new connection, and says why there is none.
            self._stood = False
            return self._explained(found)
        return found


def _metadata(token: Secret | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else (("token", token.reveal()),)


def _stands(channel: grpc.Channel, patience: float) -> bool:
    states: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    channel.subscribe(states.put, try_to_connect=True)
    deadline = time.monotonic() + patience
    try:
        while (left := deadline - time.monotonic()) > 0:
            state = states.get(timeout=left)
            if state is _State.READY:
                return True
            if state in {_State.TRANSIENT_FAILURE, _State.SHUTDOWN}:
                return False
    except queue.Empty:
        pass
    finally:
        channel.unsubscribe(states.put)
    return False
