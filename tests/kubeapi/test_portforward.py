"""Ports of pods as socket files: real servers behind them, and streams that break."""

import os
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from backstay.client import health, snapshot
from backstay.client.dial import DirectDialer
from backstay.client.endpoint import parse_endpoints
from backstay.client.etcd import Etcd
from backstay.errors import BackstayError, EtcdError, KubeError, KubeForbiddenError, KubeStreamError
from backstay.kubeapi.portforward import MAX_CONNECTIONS, PortForward
from backstay.report import Report
from kit.hosted import hosted_tls, start_etcd
from kit.kubestreams import Fault, Streams, serve
from kit.sink import Memory

NAMESPACE = "clusters-blue"
MEMBER = parse_endpoints("https://etcd-0.etcd-discovery.clusters-blue.svc:2379")
SIZE = 6_000_000


@contextmanager
def tcp_server(handler):
    """A server in a thread; the handler gets each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work(connection):
        with connection, suppress(OSError):
            handler(connection)

    def accept():
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=work, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


@pytest.fixture(scope="module")
def server():
    with serve(Streams()) as server:
        yield server


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with start_etcd(tmp_path_factory.mktemp("etcd"), hosted_tls("blue")) as etcd:
        with Etcd(etcd.access) as client:
            for number in range(SIZE // 500_000):
                client.put(b"k%d" % number, os.urandom(500_000))
        yield etcd


@pytest.fixture
def pod(etcd, streams):
    streams.pod(NAMESPACE, "etcd-0", ports={2379: ("localhost", etcd.port)})


def connect(forward):
    local = socket.socket(socket.AF_UNIX)
    local.settimeout(20)
    local.connect(forward.endpoint.host)
    return closing(local)


def read_all(local):
    data = bytearray()
    with suppress(ConnectionError):
        while chunk := local.recv(65536):
            data += chunk
    return bytes(data)


def client(etcd, forward, **more):
    access = replace(etcd.access, endpoints=MEMBER, **more)
    return Etcd(access, DirectDialer(lambda _: forward.endpoint))


def test_a_snapshot_of_a_real_etcd_over_mutual_tls(api, etcd, pod):
    """The certificate has the name of the pod, and no address: nothing is overridden."""
    sink = Memory()
    with PortForward(api, "etcd-0", NAMESPACE, 2379) as forward:
        forward.check()
        with client(etcd, forward) as through:
            choice = health.choose(health.survey(through).members)
            received = snapshot.fetch(through, choice, sink, Report())
            assert forward.error is None
    assert received.size == len(sink.data) > SIZE
    assert bytes.fromhex(received.db_sha256) == sink.data[-32:]


def test_several_connections_at_once(api, etcd, pod, streams):
    begun = len(streams.opened)
    with PortForward(api, "etcd-0", NAMESPACE, 2379) as forward:

        def take(number):
            with client(etcd, forward) as through:
                through.put(b"from/%d" % number, b"x" * 100_000)
                return len(through.range(b"k%d" % number).kvs[0].value)

        with ThreadPoolExecutor(5) as pool:
            assert list(pool.map(take, range(10))) == [500_000] * 10
    assert len(streams.opened) - begun == 10


def test_promise_5_no_other_user_can_connect_and_nothing_stays(api, pod, tmp_path, monkeypatch):
    with PortForward(api, "etcd-0", NAMESPACE, 2379, folder=tmp_path) as forward:
        path = Path(forward.endpoint.host)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert path.parent.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    forward.close()
    with (
        pytest.raises(ZeroDivisionError),
        PortForward(api, "etcd-0", NAMESPACE, 2379, folder=tmp_path),
    ):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with pytest.raises(BackstayError, match="too long for a socket"):
        PortForward(api, "etcd-0", NAMESPACE, 2379, folder=long)
    assert list(long.iterdir()) == []
    with pytest.raises(BackstayError):
        PortForward(api, "etcd-0", NAMESPACE, 2379, folder=tmp_path / "missing")


def test_what_is_sent_comes_as_it_was_sent(api, streams):
    data = os.urandom(5_000_000)
    with tcp_server(echo) as address:
        streams.pod("ns", "p", ports={7: address})
        with PortForward(api, "p", "ns", 7) as forward, connect(forward) as local:
            sending = threading.Thread(target=local.sendall, args=(data,))
            sending.start()
            came = bytearray()
            while len(came) < len(data):
                came += local.recv(65536)
            sending.join()
            assert came == data


def test_half_closed_here_it_still_hears_the_other_side(api, streams):
    def handler(connection):
        connection.recv(4)
        time.sleep(0.3)
        connection.sendall(b"the rest")

    with tcp_server(handler) as address:
        streams.pod("ns", "p", ports={7: address})
        with PortForward(api, "p", "ns", 7) as forward, connect(forward) as local:
            local.sendall(b"ask?")
            local.shutdown(socket.SHUT_WR)
            assert read_all(local) == b"the rest"


def test_hanging_up_here_hangs_up_there(api, streams):
    gone = threading.Event()

    def handler(connection):
        echo(connection)
        gone.set()

    with tcp_server(handler) as address:
        streams.pod("ns", "p", ports={7: address})
        with PortForward(api, "p", "ns", 7) as forward:
            with connect(forward) as local:
                local.sendall(b"x")
                assert local.recv(1) == b"x"
            assert gone.wait(20)


def test_who_does_not_read_slows_the_pod_down(api, streams):
    sent = 0

    def handler(connection):
        nonlocal sent
        while True:
            sent += connection.send(b"x" * 65536)

    with tcp_server(handler) as address:
        streams.pod("ns", "p", ports={7: address})
        with PortForward(api, "p", "ns", 7) as forward, connect(forward) as local:
            assert local.recv(10)
            assert settled(lambda: sent) < 64 << 20


def test_a_pod_that_does_not_read_slows_us_down(api, streams):
    stop = threading.Event()
    with tcp_server(lambda connection: stop.wait(60)) as address:
        streams.pod("ns", "p", ports={7: address})
        with PortForward(api, "p", "ns", 7) as forward, connect(forward) as local:
            local.settimeout(1.0)
            sent = 0
            with suppress(TimeoutError):
                while sent < 200 << 20:
                    sent += local.send(b"x" * 65536)
            assert 0 < sent < 64 << 20
            stop.set()


def settled(value):
    """Wait until a value stands still."""
    while True:
        before = value()
        time.sleep(0.4)
        if value() == before:
            return before


def test_closing_breaks_what_is_open(api, streams):
    with tcp_server(echo) as address:
        streams.pod("ns", "p", ports={7: address})
        forward = PortForward(api, "p", "ns", 7)
        with forward, connect(forward) as local:
            local.sendall(b"x")
            assert local.recv(1) == b"x"
            forward.close()
            assert read_all(local) == b""
    assert not [t for t in threading.enumerate() if t.name.startswith("backstay-forward")]
    assert forward.error is None


def test_too_many_connections_are_turned_away(api, streams):
    with tcp_server(echo) as address:
        streams.pod("ns", "p", ports={7: address})
        with PortForward(api, "p", "ns", 7) as forward:
            held = [connect(forward).thing for _ in range(MAX_CONNECTIONS)]
            for local in held:
                local.sendall(b"x")
                assert local.recv(1) == b"x"
            with connect(forward) as local:
                assert read_all(local) == b""
            for local in held:
                local.close()


BROKEN = {
    "refused": (Fault(refuse=403), KubeForbiddenError, "403"),
    "hung up": (Fault(drop=True), KubeError, ""),
    "an error": (Fault(error="no route\nto pod"), KubeStreamError, "no route to pod"),
    "another port": (Fault(port=80), KubeStreamError, "for another port"),
    "a channel that there is not": (Fault(messages=(b"\x05x",)), KubeStreamError, "channel"),
    "an empty message": (Fault(messages=(b"",)), KubeStreamError, "channel"),
    "text": (Fault(text=True), KubeStreamError, "sends text"),
    "no protocol": (Fault(protocol=False), KubeStreamError, "no protocol"),
    "cut": (Fault(cut_after=2), KubeStreamError, "was cut"),
    "ends with an error": (Fault(end_after=2, close_code=1011), KubeStreamError, "code 1011"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_broke_is_kept(api, streams, name):
    streams.fault, kind, words = BROKEN[name]
    with tcp_server(echo) as address:
        streams.pod("ns", "p", ports={7: address})
        with PortForward(api, "p", "ns", 7) as forward, connect(forward) as local:
            with suppress(ConnectionError):
                local.sendall(b"hello")
            assert len(read_all(local)) <= 2
            deadline = time.monotonic() + 20
            while forward.error is None and time.monotonic() < deadline:
                time.sleep(0.01)
            assert isinstance(forward.error, kind)
            assert words in str(forward.error)
            assert "\n" not in str(forward.error)


def test_nobody_listens_in_the_pod(api, streams):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    streams.pod("ns", "p", ports={7: address})
    with PortForward(api, "p", "ns", 7) as forward, connect(forward) as local:
        assert read_all(local) == b""
        deadline = time.monotonic() + 20
        while forward.error is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "connection refused" in str(forward.error)


def test_a_cut_in_a_snapshot_is_an_error_and_never_a_snapshot(api, etcd, pod, streams):
    streams.fault = lambda kind, name, number: Fault(cut_after=3_000_000)
    with PortForward(api, "etcd-0", NAMESPACE, 2379) as forward:
        with client(etcd, forward) as through, pytest.raises(EtcdError):
            (endpoint,) = through.endpoints
            snapshot.receive(through, through.status(endpoint), Memory(), Report())
        assert "was cut" in str(forward.error)


def test_a_stall_in_a_snapshot_ends(api, etcd, pod, streams):
    streams.fault = lambda kind, name, number: Fault(stall_after=3_000_000)
    with PortForward(api, "etcd-0", NAMESPACE, 2379) as forward:
        patient = replace(etcd.access.timeouts, stall=1.0)
        with (
            client(etcd, forward, timeouts=patient) as through,
            pytest.raises(EtcdError, match="stalled"),
        ):
            (endpoint,) = through.endpoints
            snapshot.receive(through, through.status(endpoint), Memory(), Report())
