"""A store in an S3 bucket with object lock: what counts is kept, whoever wants to delete it.

obstore has no word for locks, so boto3 does what needs one; it comes with `backstay[object-lock]`.
Small objects (manifests above all) are put and locked in one request. A large one is uploaded as
ever, and locked when it is whole: before the manifest that names it, so that what is listed is
locked.

A DELETE in such a bucket only hides an object behind a marker; the locked version stays, and shows
again when the marker is removed. Source: Amazon S3, "Object Lock", PutObject, PutObjectRetention.
"""

import os
import ssl
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backstay.errors import (
    AlreadyExistsError,
    BackstayError,
    NotFoundError,
    NotVerifiedError,
    RefusedError,
    StoreError,
)
from backstay.repo.lock import Lock, counts
from backstay.repo.store import Writer, check_path
from backstay.repo.stores.reasons import S3
from backstay.repo.stores.remote import Limits
from backstay.repo.stores.s3 import Bucket, S3Store

_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_GONE = frozenset({"NoSuchKey", "404", "NotFound"})
_RIGHTS = "allow s3:PutObjectRetention and s3:GetObjectRetention on the bucket's objects"


class LockingS3Store(S3Store):
    """A store in an S3 bucket that locks what counts.

    Args:
        bucket: where it is and how it is reached.
        limits: how long to wait.
        lock: how to lock.

    Raises:
        StoreError: the settings can't be used.
    """

    def __init__(self, bucket: Bucket, limits: Limits | None, lock: Lock) -> None:
        super().__init__(bucket, limits)
        self._lock = lock
        self._guard = threading.Lock()
        self._made: Any = None
        self._clock: tuple[datetime, float] | None = None

    def describe(self) -> str:
        """Say what it is."""
        return f"{super().describe()}, locking for {self._lock.days} days ({self._lock.mode})"

    def put_new(self, path: str, data: bytes) -> None:
        """Write a small object, locked, in one atomic step; see `Store`."""
        check_path(path)
        if not counts(path):
            super().put_new(path, data)
            return
        until = self._until()
        try:
            with self._told(path):
                self._client_of_boto.put_object(
                    **self._named(path),
                    Body=data,
                    IfNoneMatch="*",
                    ChecksumAlgorithm="SHA256",
                    ObjectLockMode=self._lock.mode.upper(),
                    ObjectLockRetainUntilDate=until,
                )
        except AlreadyExistsError:
            # A first answer that was lost, and its repetition: then it is our own.
            if self.read(path, max(len(data), 1)) != data:
                raise

    @contextmanager
    def writer(self, path: str) -> Iterator[Writer]:
        """Write an object that appears whole when the block ends, and lock it; see `Store`."""
        with super().writer(path) as sink:
            yield sink
        if counts(path):
            until = self._until()
            with self._told(path):
                self._client_of_boto.put_object_retention(
                    **self._named(path),
                    Retention={"Mode": self._lock.mode.upper(), "RetainUntilDate": until},
                )

    def locked_until(self, path: str) -> datetime | None:
        """Ask until when an object can't be deleted; see `Locker`."""
        check_path(path)
        try:
            with self._told(path):
                facts = self._client_of_boto.head_object(**self._named(path))
        except NotFoundError:
            return None
        until = facts.get("ObjectLockRetainUntilDate")
        if not isinstance(until, datetime) or until.astimezone(UTC) <= self._now():
            return None
        return until.astimezone(UTC)

    def check_bucket(self) -> str:
        """Look whether the bucket can lock, before anything is written to it.

        Returns:
            What is to know of it: a warning, or nothing.

        Raises:
            RefusedError: it can't, or boto3 is not installed.
            NotVerifiedError: it may not be asked.
            StoreError: it can't be reached.
        """
        client = self._client_of_boto
        name = self.bucket.name
        try:
            with self._told(""):
                answer = client.get_object_lock_configuration(Bucket=name)
        except NotFoundError:
            answer = {}
        except StoreError as error:
            raise NotVerifiedError(
                f"whether the bucket {name} locks objects can't be told: {error.what}",
                "allow s3:GetBucketObjectLockConfiguration for `init`",
            ) from error
        found = answer.get("ObjectLockConfiguration", {})
        if found.get("ObjectLockEnabled") != "Enabled":
            raise RefusedError(
                f"the bucket {name} has no object lock", "make a bucket with it, and name that"
            )
        if "Rule" in found:
            return (
                f"the bucket {name} locks all that is written to it: also what only a probe or a"
                " question for the time leaves; remove its default retention"
            )
        return ""

    @property
    def _client_of_boto(self) -> Any:
        with self._guard:
            if self._made is None:
                self._made = self._boto()
        return self._made

    def _boto(self) -> Any:
        try:
            import boto3  # noqa: PLC0415 - an extra, and slow to import
            from botocore.config import Config  # noqa: PLC0415
            from botocore.exceptions import BotoCoreError  # noqa: PLC0415
        except ImportError:
            raise RefusedError(
                f"{self.url} locks what is written, and boto3 is not installed",
                "install backstay[object-lock]",
            ) from None
        bucket = self.bucket
        plain = bucket.endpoint is not None and not bucket.virtual_hosted
        proxy = bucket.proxies.leading_to(bucket.address)
        try:
            # A session of its own: the shared one keeps the credentials that it found first.
            client = boto3.session.Session().client(
                "s3",
                endpoint_url=bucket.endpoint,
                region_name=bucket.region,
                verify=self._bundle(),
                config=Config(
                    connect_timeout=self._connect,
                    read_timeout=20,
                    retries={"total_max_attempts": 3, "mode": "standard"},
                    s3={"addressing_style": "path" if plain else "virtual"},
                    user_agent_appid="backstay",
                    proxies={urlsplit(bucket.address).scheme: proxy} if proxy else None,
                ),
            )
        except (BotoCoreError, OSError, ValueError):
            raise StoreError(
                f"{self.url}: these settings make no S3 client",
                "look at the CA bundle, the endpoint and the AWS_ variables",
            ) from None
        weakref.finalize(self, client.close)
        return client

    def _bundle(self) -> str | bool:
        """Give a file with the system's authorities and ours; it has no name, and ends with us."""
        if not self.bucket.authorities:
            return True
        system = ssl.get_default_verify_paths().cafile
        data = Path(system).read_bytes() if system else b""
        fd = os.memfd_create("authorities")
        weakref.finalize(self, os.close, fd)
        os.write(fd, data + b"\n" + self.bucket.authorities)
        return f"/proc/self/fd/{fd}"

    def _named(self, path: str) -> dict[str, str]:
        prefix = self.bucket.prefix
        return {"Bucket": self.bucket.name, "Key": f"{prefix}/{path}" if prefix else path}

    def _until(self) -> datetime:
        return self._now() + timedelta(days=self._lock.days)

    def _now(self) -> datetime:
        """Tell the store's time: a lock that goes by a wrong clock here might last for ever."""
        with self._guard:
            if self._clock is None:
                self._clock = (self.now(), time.monotonic())
            then, ticks = self._clock
        return then.astimezone(UTC) + timedelta(seconds=time.monotonic() - ticks)

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        self._client_of_boto  # noqa: B018 - boto3 is there after it
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        where = f"{self.url}/{path}" if path else self.url
        try:
            yield
        except ClientError as error:
            raise self._refusal(where, error.response.get("Error", {})) from None
        except (BotoCoreError, OSError) as error:
            raise StoreError(
                f"{where}: {type(error).__name__} while it was to be locked",
                "look at the endpoint, the credentials, the server and the network",
            ) from None

    def _refusal(self, where: str, error: dict[str, Any]) -> BackstayError:
        code = str(error.get("Code", ""))[:80]
        if code in _TAKEN:
            return AlreadyExistsError(f"{where} exists already", "nothing was overwritten")
        if code in _GONE or code == "ObjectLockConfigurationNotFoundError":
            return NotFoundError(f"{where} is not there")
        known = S3.codes.get(code)
        if code in {"AccessDenied", "403"}:
            return StoreError(f"{where}: access is denied", f"{S3.policy}; {_RIGHTS}")
        if known is not None:
            return StoreError(f"{where}: {known.what}", known.do)
        return StoreError(f"{where}: the server answered {code!r}", "look at the server's log")
