"""The seam at which a connection to etcd is made.

A `Dialer` gives a gRPC channel for an endpoint. `DirectDialer` dials the address itself; a
port-forward, or a test that puts faults in between, is another `Dialer`, often this one with
another `route`. The border: channels and their settings; what is said over them is not known here.
"""

import ssl
from collections.abc import Callable
from typing import Protocol

import grpc

from backstay.client import probe
from backstay.client.access import Access, Tls
from backstay.client.endpoint import Endpoint
from backstay.clock import Clock, SystemClock
from backstay.errors import EtcdError

#: The longest message that is taken. etcd's own requests end at 1.5 MiB unless it is told
#: otherwise, and ranges are asked for in pages.
MAX_MESSAGE = 64 << 20
#: What may be on its way on one stream. gRPC's own estimate let memory grow by 80 MB behind a slow
#: disk; this much keeps 200 MB/s going at a round trip of 20 ms.
WINDOW = 4 << 20


class Dialer(Protocol):
    """Makes connections."""

    def channel(self, endpoint: Endpoint, access: Access) -> grpc.Channel:
        """Make a channel; it connects later, when it is used."""
        ...

    def explain(self, endpoint: Endpoint, access: Access) -> EtcdError | None:
        """Say why a connection failed; None where no cause was found."""
        ...


class DirectDialer:
    """Dials TCP or a socket file.

    Args:
        route: gives the address to dial instead of an endpoint's own; the name that its
            certificate must have stays the endpoint's. Default: the endpoint itself.
        clock: for what is said of certificates' dates.
    """

    def __init__(
        self,
        route: Callable[[Endpoint], Endpoint] = lambda endpoint: endpoint,
        clock: Clock | None = None,
    ) -> None:
        self._route = route
        self._clock = clock or SystemClock()

    def channel(self, endpoint: Endpoint, access: Access) -> grpc.Channel:
        """Make a channel; plain only where the endpoint says `http://` or `unix://`."""
        target = _target(self._route(endpoint))
        options = _options(endpoint, access)
        if endpoint.is_tls:
            return grpc.secure_channel(target, _credentials(access.tls or Tls()), options)
        return grpc.insecure_channel(target, options)

    def explain(self, endpoint: Endpoint, access: Access) -> EtcdError | None:
        """Say why a connection failed; None where no cause was found."""
        return probe.explain(endpoint, self._route(endpoint), access, self._clock.now())


def _target(address: Endpoint) -> str:
    return f"unix:{address.host}" if address.is_socket else f"dns:///{address.authority}"


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_machine_authorities() if tls.ca is None else tls.ca,
        private_key=tls.key,
        certificate_chain=tls.certificate,
    )


def _machine_authorities() -> bytes | None:
    """The authorities of this machine, as etcdctl takes them; gRPC alone would bring its own."""
    known = ssl.create_default_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, known)).encode() or None


def _options(endpoint: Endpoint, access: Access) -> list[tuple[str, str | int]]:
    timeouts = access.timeouts
    options: list[tuple[str, str | int]] = [
        # etcdctl does not go through a proxy either; a snapshot never should by accident.
        ("grpc.enable_http_proxy", 0),
        # Channels of one process would share connections, and with them a failed one's backoff.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.keepalive_time_ms", round(timeouts.keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", round(timeouts.keepalive_answer * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW),
        # Snapshots come in blobs of 32 KiB: without a thread in between, a quarter of the CPU
        # time is saved. The name is that of grpc.experimental.ChannelOptions.
        ("SingleThreadedUnaryStream", 1),
        # A name with several addresses: the next is tried when this much time has gone.
        ("grpc.min_reconnect_backoff_ms", round(timeouts.dial * 1000)),
    ]
    if endpoint.is_tls:
        name = (access.tls and access.tls.server_name) or endpoint.server_name
        options.append(("grpc.ssl_target_name_override", name))
    options.append(("grpc.default_authority", endpoint.authority))
    return options
