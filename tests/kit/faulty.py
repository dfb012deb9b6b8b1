"""A network that damages snapshots: a gRPC server between our client and a real etcd.

    with faulty(etcd, cut(after=100_000)) as dialer:
        Etcd(etcd.access, dialer)

Every call goes through to the real member; the messages of a snapshot pass a fault on their way.
A fault is a function from messages, and an event that is set when the client has gone, to
messages. Several members: `faulty(m1, ..., then=dialer)` damages what comes from m1 and leaves
the rest to another dialer.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from backstay.client.dial import Dialer, DirectDialer
from backstay.client.endpoint import Endpoint, Scheme
from backstay.client.methods import SNAPSHOT, WATCH
from backstay.client.proto import rpc_pb2 as pb
from kit.etcd import Etcd

Messages = Iterator[pb.SnapshotResponse]
Fault = Callable[[Messages, threading.Event], Messages]
#: A call with one answer: its path, what asks the member, and an event as above.
Call = Callable[[str, Callable[[], bytes], threading.Event], bytes]


class CutError(Exception):
    """The fault wants the stream to end with an error."""


class CallError(Exception):
    """The connection is to break at a call."""


# Faults. `after` counts the bytes that go through whole messages before the fault.


def none(messages: Messages, ended) -> Messages:
    """Everything as it is."""
    return messages


def cut(after: int) -> Fault:
    """The connection breaks."""

    def fault(messages, ended):
        yield from _head(messages, after)
        raise CutError("the network went away")

    return fault


def end(after: int) -> Fault:
    """The stream ends early, as if all had come."""
    return lambda messages, ended: _head(messages, after)


def stall(after: int) -> Fault:
    """Nothing comes any more, and nobody hangs up."""

    def fault(messages, ended):
        yield from _head(messages, after)
        ended.wait(60)

    return fault


def flip(after: int) -> Fault:
    """One bit is wrong."""

    def fault(messages, ended):
        came = 0
        for message in messages:
            if came <= after < came + len(message.blob):
                blob = bytearray(message.blob)
                blob[after - came] ^= 0x10
                message.blob = bytes(blob)
            came += len(message.blob)
            yield message

    return fault


def flip_trailer(messages: Messages, ended) -> Messages:
    """One bit of the digest at the end is wrong."""
    for message in messages:
        if not message.remaining_bytes and len(message.blob) == 32:
            message.blob = bytes([message.blob[0] ^ 1]) + message.blob[1:]
        yield message


def overfill(messages: Messages, ended) -> Messages:
    """More comes than was promised, without end."""
    yield from messages
    while not ended.is_set():
        yield pb.SnapshotResponse(remaining_bytes=0, blob=b"x" * 32768)


def lie(by: int) -> Fault:
    """The number of bytes that remain is wrong, the bytes are right."""

    def fault(messages, ended):
        for message in messages:
            message.remaining_bytes = max(0, message.remaining_bytes + by)
            yield message

    return fault


def promise(size: int) -> Fault:
    """The first message promises so many bytes."""

    def fault(messages, ended):
        first = next(messages)
        first.remaining_bytes = size
        yield first
        yield from messages

    return fault


def no_trailer(messages: Messages, ended) -> Messages:
    """The digest at the end is left out."""
    return (message for message in messages if message.remaining_bytes or len(message.blob) != 32)


def empty(messages: Messages, ended) -> Messages:
    """Nothing comes, and the stream ends well."""
    return iter(())


def _head(messages: Messages, size: int) -> Messages:
    came = 0
    for message in messages:
        if came + len(message.blob) > size:
            return
        came += len(message.blob)
        yield message


# The server.


@contextmanager
def faulty(
    etcd: Etcd, fault: Fault, then: Dialer | None = None, calls: Call | None = None
) -> Iterator[Dialer]:
    """Stand between the client and one member; gives the dialer that goes this way.

    All other calls than that for a snapshot go through as they are, unless `calls` is given.
    """
    (real,) = etcd.access.endpoints
    with serving(etcd, fault, calls or _as_it_is) as port:
        here = Endpoint(Scheme.HTTPS, "127.0.0.1", port)
        yield DetourDialer(real, here, then or DirectDialer())


@contextmanager
def serving(etcd: Etcd, fault: Fault, calls: Call) -> Iterator[int]:
    """Stand in front of a member; gives the port where."""
    (real,) = etcd.access.endpoints
    channel = DirectDialer().channel(real, etcd.access)
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool, handlers=[_Forwarder(channel, fault, calls)])
    mine = etcd.tls.server
    credentials = grpc.ssl_server_credentials([(mine.key, mine.certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()
        channel.close()
        pool.shutdown()


class DetourDialer:
    """Dials one endpoint elsewhere, and all others as another dialer does."""

    def __init__(self, endpoint: Endpoint, address: Endpoint, other: Dialer) -> None:
        self._endpoint = endpoint
        self._detour = DirectDialer(lambda _: address)
        self._other = other

    def channel(self, endpoint, access):
        return self._for(endpoint).channel(endpoint, access)

    def explain(self, endpoint, access):
        return self._for(endpoint).explain(endpoint, access)

    def _for(self, endpoint: Endpoint) -> Dialer:
        return self._detour if endpoint == self._endpoint else self._other


class _Forwarder(grpc.GenericRpcHandler):
    def __init__(self, channel: grpc.Channel, fault: Fault, calls: Call) -> None:
        self._channel = channel
        self._fault = fault
        self._calls = calls

    def service(self, handler_call_details):
        path = handler_call_details.method
        if path == SNAPSHOT.path:
            return grpc.unary_stream_rpc_method_handler(
                self._snapshot,
                request_deserializer=pb.SnapshotRequest.FromString,
                response_serializer=pb.SnapshotResponse.SerializeToString,
            )
        if path == WATCH.path:
            return None
        ask = self._channel.unary_unary(path)

        def forward(request, context):
            ended = threading.Event()
            context.add_callback(ended.set)
            try:
                return self._calls(
                    path,
                    lambda: ask(request, timeout=30, metadata=_passed_on(context)),
                    ended,
                )
            except CallError as error:
                context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        return grpc.unary_unary_rpc_method_handler(forward)

    def _snapshot(self, request, context):
        ask = self._channel.unary_stream(
            SNAPSHOT.path,
            request_serializer=pb.SnapshotRequest.SerializeToString,
            response_deserializer=pb.SnapshotResponse.FromString,
        )
        call = ask(request, metadata=_passed_on(context))
        ended = threading.Event()
        context.add_callback(ended.set)
        try:
            yield from self._fault(call, ended)
        except CutError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        finally:
            call.cancel()


def _as_it_is(path, ask, ended):
    return ask()


def _passed_on(context):
    return tuple((k, v) for k, v in context.invocation_metadata() if k == "token")
