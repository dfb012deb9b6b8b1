"""A real S3 server for tests: `rclone serve s3`, plain or over TLS with a throw-away CA.

    with s3.plain(tmp_path / "s3") as server: ...
    with s3.over_tls(tmp_path / "s3") as server: ...

A repository's URL is `s3://backups/prefix`; `server.environment` has what a client needs in its
environment, `server.root / "backups"` the bucket's objects as plain files. rclone ignores
create-only puts; moto's server (`with s3.conditional() as server`) honours them, in memory.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from backstay.demo.s3 import S3Server, ServerCertificate, s3_server
from kit import needs

BUCKET = "backups"


def plain(root: Path, **options) -> AbstractContextManager[S3Server]:
    """A server that speaks plain http, with the bucket `backups`."""
    return s3_server(root, buckets=(BUCKET,), rclone=needs.binary("rclone"), **options)


def over_tls(
    root: Path, certificate: ServerCertificate | None = None
) -> AbstractContextManager[S3Server]:
    """A server that speaks TLS under an authority that nobody trusts by default."""
    return plain(root, tls=certificate or throw_away_certificate(root / "tls"))


def throw_away_certificate(
    folder: Path, *, address: str = "127.0.0.1", valid: dt.timedelta = dt.timedelta(days=2)
) -> ServerCertificate:
    """Make an authority and a server's certificate for one IP address.

    Args:
        folder: where the files go.
        address: the address that the certificate names.
        valid: until when from now; a negative time makes one that has run out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start, end = sorted((_now() - dt.timedelta(days=3), _now() + valid))
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away authority")])
    authority = (
        _certificate(authority_name, authority_name, authority_key, start, _now() + abs(valid))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server = (
        _certificate(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3")]),
            authority_name,
            key,
            start,
            end,
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    files = ServerCertificate(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    files.certificate.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    files.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files.key.touch(0o600)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _certificate(subject, issuer, key, start, end) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


@contextmanager
def conditional(bucket: str = BUCKET) -> Iterator[S3Server]:
    """moto's S3 server in this process: honours create-only puts; checks no credentials."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        running = S3Server(f"http://{host}:{port}", "testing", "testing", Path("/nowhere"), None, 0)
        client = boto3.client(
            "s3",
            endpoint_url=running.endpoint,
            aws_access_key_id=running.access_key,
            aws_secret_access_key=running.secret_key,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=bucket)
        client.close()
        yield running
    finally:
        server.stop()
