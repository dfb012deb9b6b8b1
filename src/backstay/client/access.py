"""What it takes to enter an etcd: addresses, certificates, a user, patience.

Certificates and keys are held in memory as PEM, since they may come from a Kubernetes secret
as well as from files. Nothing here talks to a server, or prints a secret.
"""

from dataclasses import dataclass, field
from pathlib import Path

from backstay.client.endpoint import Endpoint
from backstay.client.secret import Secret
from backstay.errors import UsageError
from backstay.files import read_private

#: More than any bundle of authorities has.
_PEM_LIMIT = 4 << 20
#: etcd hangs up on who asks more often (its --grpc-keepalive-min-time).
MIN_KEEPALIVE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What we trust, and who we are. Servers are always verified.

    Attributes:
        ca: the authorities that we trust, PEM; None: those of this machine.
        certificate: our own, PEM, with its chain; None where etcd wants none.
        key: its private key, PEM, not encrypted.
        server_name: the name that the server's certificate must have; None: the endpoint's host.
    """

    ca: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            missing = "certificate" if self.certificate is None else "key"
            raise UsageError(f"the client {missing} is missing", "give both --cert and --key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Patience, in seconds.

    Attributes:
        dial: until a connection stands.
        command: until a short call is answered.
        stall: without any message while a snapshot is streamed.
        keepalive: of silence, until the other side is asked whether it still lives.
        keepalive_answer: until its answer.
    """

    dial: float = 5.0
    command: float = 10.0
    stall: float = 60.0
    keepalive: float = 30.0
    keepalive_answer: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise UsageError(f"the {name} timeout is not above zero")
        if self.keepalive < MIN_KEEPALIVE:
            raise UsageError(
                f"a keepalive of {self.keepalive:g} s is too often for etcd",
                f"use {MIN_KEEPALIVE:g} s or more",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to enter one cluster.

    Attributes:
        endpoints: its members' addresses, at least one; tried in this order.
        tls: for those with https; None trusts this machine's authorities and shows no certificate.
        user: etcd's user, where its auth is enabled.
        password: of that user.
        timeouts: patience.

    Raises:
        UsageError: the parts contradict each other.
    """

    endpoints: tuple[Endpoint, ...]
    tls: Tls | None = None
    user: str | None = None
    password: Secret | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise UsageError("no endpoint of etcd is given", "name one with --endpoints")
        if (self.user is None) != (self.password is None):
            missing = "user" if self.user is None else "password"
            raise UsageError(f"etcd's {missing} is missing", "give both --user and --password-file")
        plain = [e for e in self.endpoints if not e.is_tls and not e.is_socket]
        if self.tls is not None and plain:
            raise UsageError(
                f"certificates are given, but {plain[0]} speaks plain http", "write https://"
            )


def read_tls(
    *,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    server_name: str | None = None,
) -> Tls | None:
    """Read certificates from files; None where nothing is given.

    Raises:
        UsageError: a certificate without a key, or the other way round.
        BackstayError: a file can't be read.
    """
    if not (ca or certificate or key or server_name):
        return None
    ca_pem, certificate_pem, key_pem = (
        None if path is None else read_private(path, limit=_PEM_LIMIT)
        for path in (ca, certificate, key)
    )
    return Tls(ca=ca_pem, certificate=certificate_pem, key=key_pem, server_name=server_name)
