"""Every usual reason why an etcd can't be entered is told by its name, against real servers."""

import socket
import ssl
import threading
from contextlib import closing, suppress
from dataclasses import replace

import pytest

from backstay.client import probe
from backstay.client.access import Access, Timeouts, Tls
from backstay.client.endpoint import parse_endpoints
from backstay.client.etcd import Etcd
from backstay.errors import AuthenticationError, ConnectionFailedError
from kit import needs
from kit.certificates import Authority, days
from kit.etcd import Etcd as Server
from kit.etcd import ServerTls, free_port


@pytest.fixture(scope="module")
def authority():
    return Authority.make("etcd's own CA")


@pytest.fixture(scope="module")
def client(authority):
    return authority.issue("client")


@pytest.fixture(scope="module", params=["3.5", "3.4"])
def server(request, tmp_path_factory, authority, client):
    """A server that wants client certificates."""
    binary = needs.binary("etcd") if request.param == "3.5" else needs.debian("etcd")
    tls = ServerTls(authority, authority.issue("etcd", hosts=("localhost", "127.0.0.1")), client)
    with Server.start(tmp_path_factory.mktemp("etcd"), tls=tls, binary=binary) as etcd:
        yield etcd


def refusal(access, kind=ConnectionFailedError):
    """Connect, fail, and give the error's words."""
    with Etcd(access) as etcd, pytest.raises(kind) as caught:
        etcd.range(b"k")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_right_certificates_let_us_in(server):
    with Etcd(server.access) as etcd:
        assert etcd.status(etcd.endpoints[0]).is_leader


def test_a_missing_client_certificate(server):
    access = replace(server.access, tls=replace(server.access.tls, certificate=None, key=None))
    assert "wants a client certificate: give --cert" in refusal(access, AuthenticationError)


def test_a_client_certificate_of_another_authority(server):
    other = Authority.make("foreign").issue("client")
    access = replace(
        server.access,
        tls=replace(server.access.tls, certificate=other.certificate, key=other.key),
    )
    assert "refuses our client certificate" in refusal(access, AuthenticationError)


def test_what_a_server_said_is_read_though_it_has_hung_up(authority, tmp_path):
    """A refusal comes after the handshake, and a reset may be right behind it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("etcd").write(tmp_path))
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse():
        raw = listener.accept()[0]
        with suppress(ssl.SSLError), context.wrap_socket(raw, server_side=True):
            pass

    listener.settimeout(30)
    server = threading.Thread(target=refuse)
    server.start()
    with closing(listener), closing(socket.create_connection(listener.getsockname())) as raw:
        session = probe._Session(raw, probe._context(Tls(ca=authority.pem)), "localhost")
        session.do(session.tls.do_handshake)
        server.join(30)
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
            session.do(lambda: session.tls.read(512))


def test_a_certificate_that_is_not_made_for_clients(server, authority):
    other = authority.issue("client", usages=("server",))
    access = replace(
        server.access,
        tls=replace(server.access.tls, certificate=other.certificate, key=other.key),
    )
    assert "it is not made for clients" in refusal(access, AuthenticationError)


def test_an_authority_that_did_not_sign_the_server(server):
    access = replace(
        server.access, tls=replace(server.access.tls, ca=Authority.make("foreign").pem)
    )
    words = refusal(access)
    assert "is signed by CN=etcd's own CA, which is not among the authorities" in words


def test_the_machines_own_authorities_do_not_trust_a_private_one(server):
    access = replace(server.access, tls=None)
    assert "is not among the authorities that are trusted" in refusal(access)


def test_a_name_that_the_certificate_does_not_have(server):
    access = replace(server.access, tls=replace(server.access.tls, server_name="etcd.example"))
    words = refusal(access)
    assert "is for localhost, 127.0.0.1, not for etcd.example" in words
    assert "--server-name" in words


def test_a_name_that_the_certificate_has_is_enough(server):
    access = replace(server.access, tls=replace(server.access.tls, server_name="localhost"))
    with Etcd(access) as etcd:
        assert etcd.members()


def test_an_address_of_ipv6(tmp_path):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = probe.getsockname()[1]
    flags = ("--listen-client-urls", f"https://[::1]:{port}")
    with Server.start(tmp_path, flags=flags) as etcd:
        endpoints = parse_endpoints(f"https://[::1]:{port}")
        with Etcd(replace(etcd.access, endpoints=endpoints)) as client:
            assert client.members()
        tls = replace(etcd.access.tls, server_name="other")
        words = refusal(replace(etcd.access, endpoints=endpoints, tls=tls))
        assert f"the certificate of https://[::1]:{port} is for localhost, 127.0.0.1, ::1" in words


def test_plain_http_to_a_server_with_tls(server):
    endpoints = parse_endpoints(f"http://127.0.0.1:{server.port}")
    assert "https://" in refusal(replace(server.access, endpoints=endpoints, tls=None))


def test_an_expired_server_certificate(tmp_path, authority, client):
    tls = ServerTls(authority, authority.issue("etcd", start=days(-9), end=days(-2)), client)
    with Server.start(tmp_path, tls=tls) as etcd:
        words = refusal(etcd.access)
    assert "the certificate of https://127.0.0.1:" in words
    assert "ran out on 2" in words


def test_an_expired_client_certificate_is_seen_before_anything_is_dialled(authority):
    mine = authority.issue("client", start=days(-9), end=days(-2))
    access = Access(
        endpoints=parse_endpoints(f"127.0.0.1:{free_port()}"),
        tls=Tls(ca=authority.pem, certificate=mine.certificate, key=mine.key),
    )
    with pytest.raises(
        ConnectionFailedError, match=r"our client certificate \(CN=client\) ran out"
    ):
        Etcd(access)


def test_tls_to_a_server_with_plain_http(tmp_path):
    with Server.start(tmp_path, tls=None) as etcd:
        endpoints = parse_endpoints(f"https://127.0.0.1:{etcd.port}")
        words = refusal(replace(etcd.access, endpoints=endpoints))
        assert "does not speak TLS: if plain http is meant, write http://" in words
        with Etcd(etcd.access) as client:
            assert client.members()


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_nobody_listens(scheme):
    access = Access(endpoints=parse_endpoints(f"{scheme}://127.0.0.1:{free_port()}"))
    assert "nobody listens there" in refusal(access)


def test_a_name_that_nobody_knows():
    assert "is not known" in refusal(Access(endpoints=parse_endpoints("http://etcd.invalid:1")))


def test_a_socket_that_is_not_there(tmp_path):
    assert "no such socket" in refusal(Access(endpoints=parse_endpoints("unix:///no/such")))


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_server_that_takes_connections_and_says_nothing(scheme):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        access = Access(
            endpoints=parse_endpoints(f"{scheme}://127.0.0.1:{mute.getsockname()[1]}"),
            timeouts=Timeouts(dial=0.4, command=0.4),
        )
        assert "says nothing" in refusal(access)


def test_a_server_of_another_kind(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()
        thread = threading.Thread(target=_answer_as_a_web_server, args=(server, stop))
        thread.start()
        try:
            port = server.getsockname()[1]
            access = Access(endpoints=parse_endpoints(f"http://127.0.0.1:{port}"))
            assert "does not answer in etcd's protocol" in refusal(access)
        finally:
            stop.set()
            thread.join()


def _answer_as_a_web_server(server, stop):
    server.settimeout(0.1)
    while not stop.is_set():
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


def test_all_endpoints_are_named_where_none_answers():
    ports = free_port(), free_port()
    access = Access(endpoints=parse_endpoints(",".join(f"http://127.0.0.1:{p}" for p in ports)))
    words = refusal(access)
    assert "none of 2 endpoints answers" in words
    assert all(str(port) in words for port in ports)
