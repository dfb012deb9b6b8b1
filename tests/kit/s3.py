"""A real S3 server for tests: `rclone serve s3`, plain or over TLS with a throw-away CA.

    with s3.plain(tmp_path / "s3") as server: ...
    with s3.over_tls(tmp_path / "s3") as server: ...

A repository's URL is `s3://backups/prefix`; `server.environment` has what a client needs in its
environment, `server.root / "backups"` the bucket's objects as plain files. rclone ignores
create-only puts; moto's server (`with s3.conditional() as server`) honours them, in memory.
"""

import datetime as dt
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from backstay.demo.s3 import S3Server, ServerCertificate, s3_server
from kit import needs
from kit.certificates import LOCAL, Authority, days

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
    folder: Path, *, hosts: Sequence[str] = LOCAL, end: dt.datetime | None = None
) -> ServerCertificate:
    """Make an authority and a server's certificate.

    Args:
        folder: where the files go.
        hosts: the names and addresses that the certificate is for.
        end: until when it is valid; a time in the past makes one that has run out.
    """
    authority = Authority.make(start=days(-9))
    certificate, key = authority.issue("s3", hosts=hosts, start=days(-8), end=end).write(folder)
    return ServerCertificate(certificate, key, authority.write(folder))


@contextmanager
def conditional(bucket: str = BUCKET, *, locking: bool = False) -> Iterator[S3Server]:
    """moto's S3 server in this process: honours create-only puts; checks no credentials.

    With `locking` the bucket has object lock.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    server._server.app = _one_at_a_time(server._server.app)
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
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=locking)
        client.close()
        yield running
    finally:
        server.stop()


def _one_at_a_time(app):
    """Let create-only puts in one by one: moto looks, and then writes, as S3 does in one step."""
    lock = threading.Lock()

    def guarded(environ, start_response):
        with lock if "HTTP_IF_NONE_MATCH" in environ else nullcontext():
            return app(environ, start_response)

    return guarded
