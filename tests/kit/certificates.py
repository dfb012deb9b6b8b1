"""Certificates for tests: an authority, and what it issues, in memory or as files.

authority = Authority.make()
server = authority.issue("etcd", hosts=("localhost", "127.0.0.1"))
expired = authority.issue("old", start=days(-9), end=days(-2))
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOCAL = ("localhost", "127.0.0.1", "::1")


def days(number: float) -> dt.datetime:
    """The time in so many days from now, or before now."""
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=number)


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key, PEM."""

    name: str
    certificate: bytes
    key: bytes

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write NAME.crt and NAME.key (0600); gives both paths."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = folder / f"{self.name}.crt", folder / f"{self.name}.key"
        certificate.write_bytes(self.certificate)
        key.touch(0o600)
        key.write_bytes(self.key)
        return certificate, key


@dataclass(frozen=True)
class Authority:
    """Someone who signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, name: str = "test authority", *, start=None, end=None) -> "Authority":
        """Make one that signs itself; valid for two days unless told otherwise."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(name)
        certificate = (
            _builder(subject, subject, key, start, end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @property
    def pem(self) -> bytes:
        """The certificate to trust."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, folder: Path) -> Path:
        """Write ca.crt."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "ca.crt"
        path.write_bytes(self.pem)
        return path

    def issue(
        self,
        name: str,
        *,
        hosts: Sequence[str] = LOCAL,
        start: dt.datetime | None = None,
        end: dt.datetime | None = None,
        usages: Sequence[str] = ("server", "client"),
    ) -> Identity:
        """Issue a certificate; `name` is its common name."""
        key = ec.generate_private_key(ec.SECP256R1())
        known = {
            "server": ExtendedKeyUsageOID.SERVER_AUTH,
            "client": ExtendedKeyUsageOID.CLIENT_AUTH,
        }
        builder = _builder(_named(name), self.certificate.subject, key, start, end).add_extension(
            x509.ExtendedKeyUsage([known[usage] for usage in usages]), critical=False
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return Identity(
            name,
            builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject, issuer, key, start, end) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start or days(-1))
        .not_valid_after(end or days(2))
    )
