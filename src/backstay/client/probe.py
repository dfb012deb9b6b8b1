"""Why no connection to an etcd stands, found out by looking with other eyes.

gRPC says "failed to connect to all addresses" whatever the cause. This module dials once more
with the ssl module, without sending a password, and says which of the usual causes it is. It
runs only after a failure, and decides nothing: what it can't explain stays gRPC's words.
"""

import errno
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from datetime import datetime

from backstay.client import certificates
from backstay.client.access import Access, Tls
from backstay.client.endpoint import Endpoint
from backstay.client.text import one_line
from backstay.errors import AuthenticationError, ConnectionFailedError, EtcdError

#: What an HTTP/2 client says first: the preface, and an empty SETTINGS frame.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = 4
_TLS_ALERT = b"\x15\x03"
#: X509_V_ERR_... of OpenSSL.
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_HOST = {62, 64}


def explain(
    endpoint: Endpoint, address: Endpoint, access: Access, now: datetime
) -> EtcdError | None:
    """Find out why an endpoint can't be reached.

    Args:
        endpoint: as it was named; its name is what the certificate must have.
        address: where it is dialled, the same unless something forwards.
        access: certificates and patience.
        now: the time of day.

    Returns:
        The cause, as an error to raise; None where a connection does stand now.
    """
    # gRPC has been patient already: who says nothing now will not say it later.
    patience = min(access.timeouts.dial, 2.0)
    try:
        with closing(_dial(address, patience)) as raw:
            if endpoint.is_tls:
                return _over_tls(endpoint, address, raw, access.tls or Tls(), now)
            return _greet(endpoint, raw)
    except OSError as error:
        return _unreachable(endpoint, error)


def _dial(address: Endpoint, patience: float) -> socket.socket:
    if not address.is_socket:
        return socket.create_connection((address.host, address.port), timeout=patience)
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        raw.settimeout(patience)
        raw.connect(address.host)
    except OSError:
        raw.close()
        raise
    return raw


def _unreachable(endpoint: Endpoint, error: OSError) -> EtcdError:
    if isinstance(error, socket.gaierror):
        return ConnectionFailedError(
            f"{endpoint}: the name {endpoint.host} is not known", "look at --endpoints and at DNS"
        )
    if isinstance(error, TimeoutError):
        return ConnectionFailedError(
            f"{endpoint}: no answer in time", "look at the address, and at firewalls"
        )
    if isinstance(error, ConnectionRefusedError):
        return ConnectionFailedError(
            f"{endpoint}: nobody listens there", "look at the address, and whether etcd runs"
        )
    if isinstance(error, FileNotFoundError):
        return ConnectionFailedError(
            f"{endpoint}: there is no such socket", "look at the path, and whether etcd runs"
        )
    reason = error.strerror or (errno.errorcode.get(error.errno) if error.errno else None)
    return ConnectionFailedError(f"{endpoint}: {reason or type(error).__name__}")


def _greet(endpoint: Endpoint, raw: socket.socket) -> EtcdError | None:
    """Speak plain HTTP/2, and look at what answers."""
    try:
        raw.sendall(_HELLO)
        answer = raw.recv(512)
    except TimeoutError:
        return _silent(endpoint)
    except ConnectionError:
        answer = b""
    if len(answer) > 3 and answer[3] == _SETTINGS and not answer.startswith(b"HTTP/"):
        return None
    if answer.startswith(_TLS_ALERT) or b"HTTPS" in answer:
        return ConnectionFailedError(
            f"{endpoint} speaks TLS, not plain http", "write https:// and give --cacert"
        )
    return ConnectionFailedError(
        f"{endpoint} does not answer in etcd's protocol over plain http",
        "if etcd speaks TLS there, write https:// and give --cacert",
    )


def _silent(endpoint: Endpoint) -> EtcdError:
    return ConnectionFailedError(
        f"{endpoint} takes connections but says nothing", "look whether etcd hangs there"
    )


def _over_tls(
    endpoint: Endpoint, address: Endpoint, raw: socket.socket, tls: Tls, now: datetime
) -> EtcdError | None:
    name = tls.server_name or endpoint.server_name
    try:
        session = _Session(raw, _context(tls), name)
        session.do(session.tls.do_handshake)
        # From TLS 1.3 on, a server tells only after the handshake that it does not like
        # our certificate. One that does begins with its SETTINGS.
        session.do(lambda: session.tls.read(512))
        if session.tls.selected_alpn_protocol() == "h2":
            return None
        return ConnectionFailedError(
            f"{endpoint} speaks TLS, but not HTTP/2", "is it an etcd's client port"
        )
    except TimeoutError:
        return _silent(endpoint)
    except ssl.SSLCertVerificationError as error:
        return _distrusted(endpoint, name, error, _shown(address, tls), now)
    except (ssl.SSLError, ConnectionError) as error:
        reason = (getattr(error, "reason", None) or "it hung up").replace("_", " ").lower()
        if "alert" in reason:
            return _alerted(endpoint, reason, tls)
        return _no_tls(endpoint, address, reason)


def _no_tls(endpoint: Endpoint, address: Endpoint, reason: str) -> EtcdError:
    if _speaks_plain(address):
        return ConnectionFailedError(
            f"{endpoint} does not speak TLS", "if plain http is meant, write http://"
        )
    return ConnectionFailedError(
        f"{endpoint} does not speak TLS as etcd does ({reason})", "is it an etcd's client port"
    )


class _Session:
    """TLS over a socket that stays ours: ssl's own wrapper leaks it where the peer resets."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, name: str | None) -> None:
        self._raw = raw
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    def do(self, step: Callable[[], object]) -> None:
        """Take a step, with as many exchanges as it needs."""
        done = False
        while not done:
            try:
                step()
                done = True
            except ssl.SSLWantReadError:
                pass
            outgoing = self._outgoing.read()
            # Sending nothing would fail too where the peer has gone, with its last word unread.
            if outgoing:
                self._raw.sendall(outgoing)
            if not done:
                data = self._raw.recv(1 << 14)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()


def _speaks_plain(address: Endpoint) -> bool:
    try:
        with closing(_dial(address, 2.0)) as raw:
            return _greet(address, raw) is None
    except OSError:
        return False


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(
        cadata=None if tls.ca is None else tls.ca.decode("ascii", "ignore")
    )
    context.set_alpn_protocols(["h2"])
    if tls.certificate is not None and tls.key is not None:
        _load(context, tls.certificate, tls.key)
    return context


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Give a context our identity; it takes paths alone, so the key goes through memory files."""
    files = [os.memfd_create("backstay", os.MFD_CLOEXEC) for _ in range(2)]
    try:
        for fd, content in zip(files, (certificate, key), strict=True):
            os.write(fd, content)
        context.load_cert_chain(*(f"/proc/self/fd/{fd}" for fd in files))
    finally:
        for fd in files:
            os.close(fd)


def _shown(address: Endpoint, tls: Tls) -> bytes:
    """Fetch the certificate that is not trusted, to say what it is; nothing is sent after it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls.certificate is not None and tls.key is not None:
        # Up to TLS 1.2, a server that wants one ends the handshake before we could look.
        _load(context, tls.certificate, tls.key)
    try:
        with closing(_dial(address, 2.0)) as raw:
            session = _Session(raw, context, None)
            session.do(session.tls.do_handshake)
            return session.tls.getpeercert(binary_form=True) or b""
    except OSError:
        return b""


def _distrusted(
    endpoint: Endpoint, name: str, error: ssl.SSLCertVerificationError, shown: bytes, now: datetime
) -> EtcdError:
    code = error.verify_code
    if code in _WRONG_HOST:
        return ConnectionFailedError(
            f"the certificate of {endpoint} is for {certificates.hosts(shown)}, not for {name}",
            "use an address that it names, or give --server-name",
        )
    if code in {_EXPIRED, _NOT_YET_VALID}:
        problem = certificates.out_of_time(shown, now) or "is out of its time"
        return ConnectionFailedError(
            f"the certificate of {endpoint} {problem}", "renew it, or look at this machine's clock"
        )
    return ConnectionFailedError(
        f"the certificate of {endpoint} is signed by {certificates.issuer(shown)},"
        f" which is not among the authorities that are trusted"
        f" ({one_line(error.verify_message)})",
        "give etcd's own CA with --cacert",
    )


def _alerted(endpoint: Endpoint, reason: str, tls: Tls) -> EtcdError:
    if tls.certificate is None:
        return AuthenticationError(
            f"{endpoint} wants a client certificate", "give --cert and --key"
        )
    if not certificates.for_clients(tls.certificate):
        return AuthenticationError(
            f"{endpoint} refuses our certificate: it is not made for clients",
            "give one with the extended key usage clientAuth",
        )
    return AuthenticationError(
        f"{endpoint} refuses our client certificate ({reason})",
        "give one that is signed by the CA which etcd trusts for clients",
    )
