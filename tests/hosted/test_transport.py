"""The way to a hosted etcd: which one is taken, why, and that each gives a real snapshot."""

import hashlib
import os
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

from backstay.client.endpoint import Endpoint, Scheme
from backstay.client.etcd import Etcd
from backstay.clock import SystemClock
from backstay.errors import (
    ConnectionFailedError,
    EtcdError,
    FormatError,
    KubeError,
    KubeForbiddenError,
    KubeNotFoundError,
    UsageError,
)
from backstay.kinds.hosted.cluster import EtcdPod, Hosted, Shard, Unmanaged
from backstay.kinds.hosted.reach.transport import Network, Transport, choose, reach
from backstay.report import Report
from kit import needs
from kit.hosted import hosted_objects, hosted_tls, start_etcd
from kit.kubestreams import Fault, Streams, serve

CP = "clusters-blue"
SERVICE = f"etcd-client.{CP}.svc"


class Memory:
    """A sink that remembers all."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data):
        self.data += data

    def reset(self):
        self.data.clear()


class Names(Network):
    """A network in which some names are those of servers here."""

    def __init__(self, **ports):
        self._ports = {name.replace("_", "-"): port for name, port in ports.items()}

    def route(self, endpoint):
        port = self._ports.get(endpoint.host.split(".")[0])
        return endpoint if port is None else Endpoint(Scheme.HTTPS, "localhost", port)

    def problem(self, endpoint):
        return super().problem(self.route(endpoint))


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with start_etcd(tmp_path_factory.mktemp("etcd"), hosted_tls()) as etcd:
        with Etcd(etcd.access) as client:
            for number in range(4):
                client.put(b"k%d" % number, os.urandom(500_000))
        yield etcd


def hosted(*shards, pods=1, **more):
    made = tuple(
        Shard(
            name=name,
            service=name.replace("etcd", "etcd-client", 1),
            replicas=pods,
            pods=tuple(EtcdPod(name=f"{name}-{n}", ready=True) for n in range(pods)),
        )
        for name in shards
    )
    return Hosted(
        name="blue",
        namespace="clusters",
        control_plane_namespace=CP,
        hosted_cluster={},
        shards=made,
        **more,
    )


@contextmanager
def api_of(etcd, *pods, objects=None, folder=None):
    """An API whose pods are that etcd."""
    streams = Streams()
    rewrite = {}
    if folder is not None:
        tls = etcd.tls
        certificate, key = tls.client.write(folder)
        rewrite = {
            "/usr/bin/etcdctl": str(needs.binary("etcdctl")),
            "https://localhost:2379": etcd.endpoint,
            "/etc/etcd/tls/etcd-ca/ca.crt": str(tls.authority.write(folder)),
            "/etc/etcd/tls/client/etcd-client.crt": str(certificate),
            "/etc/etcd/tls/client/etcd-client.key": str(key),
            "/var/lib": str(folder),
        }
    for pod in pods:
        streams.pod(CP, pod, ports={2379: ("localhost", etcd.port)}, rewrite=rewrite)
    objects = objects if objects is not None else hosted_objects("blue", tls=etcd.tls)
    readable = {
        f"/api/v1/namespaces/{o['metadata']['namespace']}/{o['kind'].lower()}s/"
        f"{o['metadata']['name']}": o
        for o in objects
        if o["kind"] in ("Secret", "ConfigMap")
    }
    with serve(streams, readable) as server, server.api() as api:
        yield api, server


def take(shard):
    sink = Memory()
    assert shard.source.choose(Report()) > 2_000_000
    received = shard.source.fetch(sink, Report())
    assert hashlib.sha256(sink.data[:-32]).digest() == sink.data[-32:]
    assert received.size == len(sink.data)
    assert shard.source.kind == "hosted"
    return received


def reached(api, it, wanted="auto", **more):
    return reach(api, it, wanted, clock=SystemClock(), **more)


def test_direct_in_the_cluster(etcd):
    names = Names(etcd_client=etcd.port, etcd_0=etcd.port)
    with api_of(etcd) as (api, server), reached(api, hosted("etcd"), network=names) as found:
        assert found.way.transport is Transport.DIRECT
        assert f"https://{SERVICE}:2379 answers here" in found.way.reason
        (shard,) = found.shards
        # Each member by its own name, so that all are looked at.
        assert shard.etcd.endpoints[0].host == f"etcd-0.etcd-discovery.{CP}.svc"
        assert shard.name == "etcd"
        take(shard)
        assert not server.streams.opened


def test_direct_by_the_service_where_pods_have_no_names(etcd):
    names = Names(etcd_client=etcd.port)
    with api_of(etcd) as (api, _), reached(api, hosted("etcd"), network=names) as found:
        (shard,) = found.shards
        assert [e.host for e in shard.etcd.endpoints] == [SERVICE]
        take(shard)


def test_port_forward_from_elsewhere(etcd):
    pods = ("etcd-0", "etcd-1", "etcd-2")
    with api_of(etcd, *pods) as (api, server):
        with reached(api, hosted("etcd", pods=3)) as found:
            assert found.way.transport is Transport.PORT_FORWARD
            assert f"not direct: the name {SERVICE} is not known here" in found.way.reason
            assert "etcd-0 can be forwarded" in found.way.reason
            (shard,) = found.shards
            assert [e.host.split(".")[0] for e in shard.etcd.endpoints] == list(pods)
            take(shard)
            # The client is there for watching, and the dialer for one member alone.
            with shard.etcd.watch(b"seen") as watch:
                shard.etcd.put(b"seen", b"x")
                assert next(iter(watch))
            one = replace(shard.etcd.access, endpoints=shard.etcd.endpoints[1:2])
            with Etcd(one, shard.dialer) as client:
                assert client.range(b"seen").kvs[0].value == b"x"
        assert {pod for kind, _, pod, _ in server.streams.opened} == set(pods)
    assert not [t for t in threading.enumerate() if t.name.startswith("backstay-forward")]


def test_exec_where_nothing_else_works(etcd, tmp_path):
    with api_of(etcd, "etcd-0", folder=tmp_path) as (api, server):
        server.streams.fault = lambda kind, pod, number: (
            Fault(refuse=403) if kind == "portforward" else None
        )
        with reached(api, hosted("etcd")) as found:
            assert found.way.transport is Transport.EXEC
            assert "not direct: " in found.way.reason
            assert "not port-forward: " in found.way.reason
            assert "403" in found.way.reason
            (shard,) = found.shards
            assert (shard.etcd, shard.dialer) == (None, None)
            take(shard)


def test_exec_where_the_certificate_may_not_be_read(etcd):
    with api_of(etcd, "etcd-0", objects=[]) as (api, server):
        with server.api() as other:
            server.token = "another by now"
            way = choose(other, hosted("etcd"), clock=SystemClock())
        assert way.transport is Transport.EXEC
        assert "the client's certificate can't be had" in way.reason
        assert "401" in way.reason
        with pytest.raises(KubeForbiddenError):
            choose(api, hosted("etcd"), "port-forward", clock=SystemClock())


def test_exec_where_there_is_no_certificate(etcd):
    with api_of(etcd, "etcd-0", objects=[]) as (api, _):
        assert choose(api, hosted("etcd"), clock=SystemClock()).transport is Transport.EXEC


def test_exec_where_the_certificate_is_broken(etcd):
    objects = hosted_objects("blue", tls=etcd.tls)
    for o in objects:
        if o["metadata"]["name"] == "etcd-client-tls":
            del o["data"]["etcd-client.key"]
    with api_of(etcd, "etcd-0", objects=objects) as (api, _):
        way = choose(api, hosted("etcd"), clock=SystemClock())
        assert way.transport is Transport.EXEC
        assert "etcd-client-tls has no etcd-client.key" in way.reason
        with pytest.raises(FormatError):
            choose(api, hosted("etcd"), "direct", clock=SystemClock())


def test_what_was_asked_for_is_taken_or_fails(etcd, tmp_path):
    names = Names(etcd_client=etcd.port)
    with api_of(etcd, "etcd-0", folder=tmp_path) as (api, server):
        for wanted in ("direct", "port-forward", "exec"):
            with reached(api, hosted("etcd"), wanted, network=names) as found:
                assert found.way.transport == wanted
                assert found.way.reason == "asked for"
                take(found.shards[0])
        with pytest.raises(ConnectionFailedError, match="is not known here"):
            choose(api, hosted("etcd"), "direct", clock=SystemClock())
        server.streams.pods.clear()
        with pytest.raises(KubeNotFoundError):
            choose(api, hosted("etcd"), "port-forward", clock=SystemClock())
        server.streams.pod(CP, "etcd-0", ports={})
        # The forward is granted, and nothing listens there: gRPC only knows that it broke.
        refused = pytest.raises(EtcdError, match="error forwarding port 2379 to pod etcd-0")
        with reached(api, hosted("etcd"), "port-forward") as found, refused:
            found.shards[0].source.choose(Report())


def test_all_shards_are_reached(etcd, tmp_path_factory):
    ca = etcd.tls.authority
    # One authority signs for all shards.
    server = ca.issue("events", hosts=(f"*.etcd-discovery-events.{CP}.svc", "localhost"))
    with start_etcd(tmp_path_factory.mktemp("events"), replace(etcd.tls, server=server)) as events:
        with Etcd(events.access) as client:
            for number in range(5):
                client.put(b"event/%d" % number, os.urandom(500_000))
        with api_of(etcd, "etcd-0") as (api, host):
            host.streams.pod(CP, "etcd-events-0", ports={2379: ("localhost", events.port)})
            with reached(api, hosted("etcd", "etcd-events")) as found:
                assert [s.name for s in found.shards] == ["etcd", "etcd-events"]
                ids = [take(shard).source.endpoint.host for shard in found.shards]
                assert ids[1] == f"etcd-events-0.etcd-discovery-events.{CP}.svc"
                assert found.shards[1].etcd.range(b"event/0").count == 1
                assert found.shards[0].etcd.range(b"event/0").count == 0


def test_an_unmanaged_etcd(etcd):
    there = Unmanaged(endpoint=etcd.endpoint, client_secret="their-etcd-client")
    objects = hosted_objects("blue", tls=etcd.tls, unmanaged=etcd.endpoint)
    with api_of(etcd, objects=objects) as (api, _):
        with reached(api, hosted(unmanaged=there)) as found:
            assert found.way.transport is Transport.DIRECT
            assert found.way.reason == "its etcd is unmanaged"
            take(found.shards[0])
        for wanted in ("exec", "port-forward"):
            with pytest.raises(UsageError, match="someone else runs"):
                choose(api, hosted(unmanaged=there), wanted, clock=SystemClock())


def test_what_makes_no_sense(etcd):
    with api_of(etcd) as (api, _):
        with pytest.raises(UsageError, match="no transport 'magic'"):
            choose(api, hosted("etcd"), "magic", clock=SystemClock())
        with pytest.raises(EtcdError, match="has no etcd yet"):
            choose(api, hosted(), clock=SystemClock())
        with pytest.raises(KubeError, match="has no pods"):
            choose(api, hosted("etcd", pods=0), "port-forward", clock=SystemClock())


def test_promise_5_the_way_tells_no_key(etcd):
    with api_of(etcd, "etcd-0") as (api, _), reached(api, hosted("etcd")) as found:
        key = etcd.tls.client.key.decode().splitlines()[1]
        assert key in found.way.tls.key.decode()
        assert key not in repr(found)


def test_a_network_tells_what_is_wrong():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert Network().problem(Endpoint(Scheme.HTTPS, "localhost", port)) == ""
    problem = Network().problem(Endpoint(Scheme.HTTPS, "127.0.0.1", port))
    assert "refused" in problem
