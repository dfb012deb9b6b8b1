"""A store in an S3 bucket, by obstore: Amazon's, and the many that speak its protocol.

What obstore would read from the environment by itself is given to it explicitly where it
matters: AWS_ALLOW_INVALID_CERTIFICATES, AWS_ALLOW_HTTP and AWS_ENDPOINT_URL_S3 would else decide
over the heads of the caller. Credentials are its business: AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, web identity, container and instance roles.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import obstore
import obstore.store

from backstay.client.secret import Secret
from backstay.errors import UsageError
from backstay.repo.lock import Lock
from backstay.repo.store import check_path
from backstay.repo.stores.reasons import S3
from backstay.repo.stores.remote import PART_SIZE, Limits, Place, RemoteStore

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

__all__ = ["MAX_PRESIGNED", "PART_SIZE", "Bucket", "Limits", "S3Store"]

#: A week: what signature version 4 allows.
MAX_PRESIGNED = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Bucket(Place):
    """Where a store is, and how it is reached. Holds no secret.

    Attributes:
        region: the bucket's region.
        virtual_hosted: put the bucket's name into the host instead of the path.
    """

    region: str = "us-east-1"
    virtual_hosted: bool = False

    @property
    def address(self) -> str:
        """The URL that requests go to, Amazon's where no other is named."""
        if self.endpoint is not None:
            return _endpoint(self) or self.endpoint
        bucket = f"{self.name}." if self.virtual_hosted else ""
        return f"https://{bucket}s3.{self.region}.amazonaws.com"


class S3Store(RemoteStore[Bucket]):
    """A store in an S3 bucket.

    Args:
        bucket: where it is and how it is reached.
        limits: how long to wait.

    Raises:
        StoreError: the settings can't be used.
    """

    scheme = "s3"
    service = S3

    def __init__(self, bucket: Bucket, limits: Limits | None = None) -> None:
        super().__init__(bucket, limits)
        self._limits = limits

    def locking(self, lock: Lock) -> "S3Store":
        """Give a store in the same place that locks what counts; see `Lockable`."""
        from backstay.repo.stores.s3_lock import LockingS3Store  # noqa: PLC0415 - knows this one

        return LockingS3Store(self.bucket, self._limits, lock)

    @property
    def authorities(self) -> bytes:
        """PEM certificates that are trusted beside the system's; see `Presigner`."""
        return self._bucket.authorities

    def presign(self, path: str, seconds: int, method: Literal["GET", "HEAD"] = "GET") -> Secret:
        """Sign a request for an object; see `Presigner`."""
        check_path(path)
        if not 0 < seconds <= MAX_PRESIGNED:
            raise UsageError(
                f"a URL can't be signed for {seconds} s", f"1 s to {MAX_PRESIGNED} s (a week) can"
            )
        with self._explained(path):
            url = obstore.sign(self._small, method, path, timedelta(seconds=seconds))
        return Secret(url)

    def _make(self, options: "ClientConfig", retry: "RetryConfig") -> Any:
        bucket = self.bucket
        config: S3Config = {
            "region": bucket.region,
            "virtual_hosted_style_request": bucket.virtual_hosted,
            # Not every server knows the request that deletes many at once.
            "disable_bulk_delete": True,
            "conditional_put": "etag",
        }
        endpoint = _endpoint(bucket)
        if endpoint:
            config["endpoint"] = config["aws_endpoint_url_s3"] = endpoint
        return obstore.store.S3Store(
            bucket.name,
            prefix=bucket.prefix or None,
            config=config,
            client_options=options,
            retry_config=retry,
        )


def _endpoint(bucket: Bucket) -> str | None:
    """Give obstore the endpoint as it wants it: with the bucket in the host, if asked for."""
    if bucket.endpoint is None or not bucket.virtual_hosted:
        return bucket.endpoint
    parts = urlsplit(bucket.endpoint)
    return f"{parts.scheme}://{bucket.name}.{parts.netloc}{parts.path.rstrip('/')}"
