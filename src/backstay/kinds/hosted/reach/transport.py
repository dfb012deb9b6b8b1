"""The way to a hosted etcd: straight, through a port-forward, or by exec in its pods.

`direct` is for a process in the cluster: the Service's name resolves there. `port-forward` is for
everyone else who may read the client's certificate. `exec` needs neither, but room in the pod.
What is chosen is said, and why not the others.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import grpc

from backstay.client.access import Access, Timeouts, Tls
from backstay.client.dial import Dialer, DirectDialer
from backstay.client.endpoint import DEFAULT_PORT, Endpoint, parse_endpoints
from backstay.client.etcd import Etcd
from backstay.client.hashing import EtcdMembers, Members
from backstay.clock import Clock
from backstay.errors import (
    BackstayError,
    ConnectionFailedError,
    EtcdError,
    FormatError,
    KubeError,
    KubeForbiddenError,
    KubeNotFoundError,
    UsageError,
)
from backstay.kinds.etcd import EtcdSource
from backstay.kinds.hosted.cluster import MAIN, Hosted, Shard
from backstay.kinds.hosted.reach.exec_hashing import PodMembers
from backstay.kinds.hosted.reach.exec_snapshot import ExecSource
from backstay.kinds.hosted.reach.member import pod_endpoint, service_endpoint
from backstay.kinds.hosted.reach.pod_script import PodPaths
from backstay.kinds.hosted.reach.tls import client_tls
from backstay.kubeapi.api import Api
from backstay.kubeapi.portforward import PortForward

#: Seconds that a name may take to resolve, and a port to answer.
_PROBE = 3.0
#: A connection through the API takes two handshakes more.
_FORWARDED = Timeouts(dial=20.0, command=20.0)


class Transport(StrEnum):
    """How an etcd is reached."""

    AUTO = "auto"
    DIRECT = "direct"
    PORT_FORWARD = "port-forward"
    EXEC = "exec"


class Network:
    """The network as this process sees it; a test puts another in its place."""

    def problem(self, endpoint: Endpoint) -> str:
        """Say why there is no TCP connection; empty where there is."""
        try:
            with socket.create_connection((endpoint.host, endpoint.port), timeout=_PROBE):
                return ""
        except socket.gaierror:
            return f"the name {endpoint.host} is not known here"
        except TimeoutError:
            return f"{endpoint} does not answer"
        except OSError as error:
            return f"{endpoint}: {error.strerror or type(error).__name__}"

    def route(self, endpoint: Endpoint) -> Endpoint:
        """Give the address to dial for an endpoint."""
        return endpoint


@dataclass(frozen=True, slots=True)
class Way:
    """How the etcds will be reached.

    Attributes:
        transport: never `auto`.
        reason: why this one, and why not those that were tried before.
        tls: what etcd wants from its clients; None for exec.
    """

    transport: Transport
    reason: str
    tls: Tls | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ReachedShard:
    """One etcd within reach.

    Attributes:
        name: of the shard; `etcd` is the one that every control plane has.
        source: what a snapshot is taken from; it can be asked how its members are.
        etcd: a client of it, with one endpoint for each member where they have names; None where
            it is reached by exec.
        dialer: of that client, for others with fewer endpoints.
        members: its members, that can be asked for their HashKV.
    """

    name: str
    source: "HostedSource | ExecSource"
    members: Members
    etcd: Etcd | None = None
    dialer: Dialer | None = None


@dataclass(frozen=True, slots=True)
class Reached:
    """All etcds of a hosted control plane, within reach.

    Attributes:
        way: how.
        shards: one each, the main one first.
    """

    way: Way
    shards: tuple[ReachedShard, ...]


class HostedSource(EtcdSource):
    """An etcd of a hosted control plane, reached by its clients' port."""

    kind = "hosted"


def choose(
    api: Api,
    hosted: Hosted,
    wanted: str = Transport.AUTO,
    *,
    clock: Clock,
    network: Network | None = None,
) -> Way:
    """Find the way to the etcds; what was not asked for is not tried.

    Args:
        api: of the management cluster.
        hosted: the control plane.
        wanted: `auto`, `direct`, `port-forward` or `exec`.
        clock: certificates are held against it.
        network: of this process.

    Raises:
        UsageError: there is no such transport, or not to an unmanaged etcd.
        KubeError: what was asked for does not work.
        ConnectionFailedError: likewise, or a certificate has run out.
        FormatError: the client's certificate is not what it should be.
    """
    transport, network = _named(wanted), network or Network()
    if hosted.unmanaged is not None and transport not in {Transport.AUTO, Transport.DIRECT}:
        raise UsageError(
            f"{hosted.title} has an etcd that someone else runs: it has no pods to reach by"
            f" {transport}",
            "use --transport direct",
        )
    if hosted.unmanaged is not None:
        return Way(Transport.DIRECT, "its etcd is unmanaged", client_tls(api, hosted, clock.now()))
    if not hosted.shards:
        raise EtcdError(f"{hosted.title} has no etcd yet", "wait until its control plane is there")
    if transport is Transport.EXEC:
        return Way(Transport.EXEC, "asked for")
    if transport is not Transport.AUTO:
        tls = client_tls(api, hosted, clock.now())
        _check(api, hosted, transport, network)
        return Way(transport, "asked for", tls)
    return _automatic(api, hosted, clock, network)


def _named(wanted: str) -> Transport:
    try:
        return Transport(wanted)
    except ValueError as error:
        names = ", ".join(Transport)
        raise UsageError(f"there is no transport {wanted!r}", f"use one of {names}") from error


def _automatic(api: Api, hosted: Hosted, clock: Clock, network: Network) -> Way:
    try:
        tls = client_tls(api, hosted, clock.now())
    except (KubeForbiddenError, KubeNotFoundError, FormatError) as error:
        return Way(Transport.EXEC, f"the client's certificate can't be had: {error.what}")
    reasons = []
    for transport in (Transport.DIRECT, Transport.PORT_FORWARD):
        try:
            good = _check(api, hosted, transport, network)
        except (EtcdError, KubeError) as error:
            reasons.append(f"not {transport}: {error.what}")
        else:
            return Way(transport, "; ".join([good, *reasons]), tls)
    return Way(Transport.EXEC, "; ".join(reasons))


def _check(api: Api, hosted: Hosted, transport: Transport, network: Network) -> str:
    """Try a transport; gives what was found good.

    Raises:
        ConnectionFailedError: no connection.
        KubeError: the API does not let us, or the pods don't answer.
    """
    if transport is Transport.DIRECT:
        for shard in hosted.shards:
            endpoint = service_endpoint(hosted, shard)
            problem = network.problem(endpoint)
            if problem:
                raise ConnectionFailedError(
                    f"{problem}", "use --transport port-forward, or run it in the cluster"
                )
        return f"{service_endpoint(hosted, hosted.shards[0])} answers here"
    pods = sorted(hosted.shards[0].pods, key=lambda pod: not pod.ready)
    failure = KubeError(f"{hosted.shards[0].name} has no pods", "look at its StatefulSet")
    for pod in pods:
        try:
            with PortForward(
                api, pod.name, hosted.control_plane_namespace, DEFAULT_PORT
            ) as forward:
                forward.check()
        except KubeForbiddenError:
            raise
        except KubeError as error:
            failure = error
        else:
            return f"a port of pod {pod.name} can be forwarded"
    raise failure


@contextmanager
def reach(
    api: Api,
    hosted: Hosted,
    wanted: str = Transport.AUTO,
    *,
    clock: Clock,
    network: Network | None = None,
    paths: PodPaths | None = None,
) -> Iterator[Reached]:
    """Reach all etcds of a hosted control plane for as long as the block lasts.

    Args:
        api: of the management cluster.
        hosted: the control plane.
        wanted: `auto`, `direct`, `port-forward` or `exec`.
        clock: certificates are held against it.
        network: of this process.
        paths: where things are in the containers, for exec.

    Raises:
        BackstayError: as `choose` does.
    """
    network = network or Network()
    way = choose(api, hosted, wanted, clock=clock, network=network)
    with ExitStack() as stack:
        if way.transport is Transport.EXEC:
            shards = [_executed(api, hosted, shard, paths, clock) for shard in hosted.shards]
        else:
            shards = _Opener(stack, api, hosted, way, network, clock).opened()
        yield Reached(way, tuple(shards))


def _executed(
    api: Api, hosted: Hosted, shard: Shard, paths: PodPaths | None, clock: Clock
) -> ReachedShard:
    source = ExecSource(api, hosted, shard, paths=paths)
    return ReachedShard(shard.name, source, PodMembers(source, shard.replicas, paths, clock))


@dataclass(frozen=True, slots=True)
class _Opener:
    """Opens clients, which are closed with its stack."""

    stack: ExitStack
    api: Api
    hosted: Hosted
    way: Way
    network: Network
    clock: Clock

    def opened(self) -> list[ReachedShard]:
        if self.hosted.unmanaged is not None:
            named = ((MAIN, self.hosted.unmanaged.endpoint), *self.hosted.unmanaged.shards)
            return [self._straight(name, parse_endpoints(urls)) for name, urls in named]
        if self.way.transport is Transport.DIRECT:
            return [self._straight(s.name, self._members(s)) for s in self.hosted.shards]
        return [self._forwarded(shard) for shard in self.hosted.shards]

    def _straight(self, name: str, endpoints: tuple[Endpoint, ...]) -> ReachedShard:
        return self._client(name, endpoints, DirectDialer(self.network.route, self.clock))

    def _members(self, shard: Shard) -> tuple[Endpoint, ...]:
        """The members by name, so that each is looked at; else the Service, where one answers."""
        found = [pod_endpoint(self.hosted, shard, pod.name) for pod in shard.pods]
        if any(not self.network.problem(endpoint) for endpoint in found):
            return tuple(found)
        return (service_endpoint(self.hosted, shard),)

    def _forwarded(self, shard: Shard) -> ReachedShard:
        """Reach an etcd through a port-forward to each of its pods."""
        forwards: dict[Endpoint, PortForward] = {}
        for pod in shard.pods:
            forward = PortForward(
                self.api, pod.name, self.hosted.control_plane_namespace, DEFAULT_PORT
            )
            endpoint = pod_endpoint(self.hosted, shard, pod.name)
            forwards[endpoint] = self.stack.enter_context(forward)
        if not forwards:
            raise EtcdError(f"{shard.name} has no pods", "look at its StatefulSet")
        return self._client(
            shard.name, tuple(forwards), ForwardDialer(forwards, self.clock), _FORWARDED
        )

    def _client(
        self,
        name: str,
        endpoints: tuple[Endpoint, ...],
        dialer: Dialer,
        timeouts: Timeouts | None = None,
    ) -> ReachedShard:
        access = Access(endpoints=endpoints, tls=self.way.tls, timeouts=timeouts or Timeouts())
        etcd = self.stack.enter_context(Etcd(access, dialer, self.clock))
        members = EtcdMembers(etcd, self.clock)
        return ReachedShard(name, HostedSource(etcd), members, etcd, dialer)


class ForwardDialer:
    """Dials endpoints through port-forwards, and says what those were told when one breaks.

    Args:
        forwards: each endpoint's.
        clock: for what is said of certificates' dates.
    """

    def __init__(self, forwards: Mapping[Endpoint, PortForward], clock: Clock) -> None:
        self._forwards = forwards
        self._dialer = DirectDialer(lambda endpoint: forwards[endpoint].endpoint, clock)

    def channel(self, endpoint: Endpoint, access: Access) -> grpc.Channel:
        """Make a channel; it connects later, when it is used."""
        return self._dialer.channel(endpoint, access)

    def explain(self, endpoint: Endpoint, access: Access) -> EtcdError | None:
        """Say why a connection failed; None where no cause was found."""
        told: BackstayError | None = self._forwards[endpoint].error
        if told is not None:
            return ConnectionFailedError(f"{endpoint}: {told.what}", told.do)
        return self._dialer.explain(endpoint, access)
