"""A store in an S3 bucket, by obstore: Amazon's, and the many that speak its protocol.

Three clients, since one set of time limits does not fit all: small requests answer at once or
not at all; a part of an upload takes as long as a slow line needs; a download takes hours, but
never stops for long. obstore retries what can be retried; the limits below bound the sum.

What obstore would read from the environment by itself is given to it explicitly where it
matters: AWS_ALLOW_INVALID_CERTIFICATES, AWS_ALLOW_HTTP and AWS_ENDPOINT_URL_S3 would else decide
over the heads of the caller. Credentials are its business: AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, web identity, container and instance roles.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import obstore
import obstore.store
from obstore.exceptions import AlreadyExistsError as ObstoreAlreadyExistsError
from obstore.exceptions import BaseError

from backstay.client.secret import Secret
from backstay.errors import (
    AlreadyExistsError,
    BackstayError,
    FormatError,
    NotFoundError,
    SpaceError,
    StoreError,
    UsageError,
)
from backstay.repo.store import CHUNK_SIZE, ObjectInfo, Writer, check_path, check_prefix, is_path
from backstay.repo.stores.reasons import VAGUE, is_unknown_request, reason_of

if TYPE_CHECKING:
    from obstore import WritableFile
    from obstore.store import ClientConfig, RetryConfig, S3Config

#: Ten thousand parts are allowed: objects of up to 78 GiB.
PART_SIZE = 8 << 20
_PARTS_AT_ONCE = 4
_PIECE = 1 << 20
_CLOCK = "clock"
_CLOCK_TRIES = 5
_DAY = 24 * 3600.0
_RETRIES = 8
_FAILURES = (BaseError, OSError, ValueError)
#: A week: what signature version 4 allows.
MAX_PRESIGNED = 7 * 24 * 3600

RESIDUE = (
    "uploads that were killed half-way stay hidden in the bucket and are paid for; only a rule of"
    " the bucket removes them: a lifecycle rule with AbortIncompleteMultipartUpload,"
    " DaysAfterInitiation 1"
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a store is, and how it is reached. Holds no secret.

    Attributes:
        name: the bucket's.
        prefix: what all paths begin with, without slashes at its ends; may be empty.
        endpoint: the server's URL; None is Amazon's own.
        region: the bucket's region.
        virtual_hosted: put the bucket's name into the host instead of the path.
        allow_http: let the endpoint be plain http.
        authorities: PEM certificates to trust beside the system's; empty is none.
    """

    name: str
    prefix: str = ""
    endpoint: str | None = None
    region: str = "us-east-1"
    virtual_hosted: bool = False
    allow_http: bool = False
    authorities: bytes = b""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait, in seconds.

    Attributes:
        connect: for a connection.
        answer: for the whole of a small request.
        part: for the whole of a part of an upload, 8 MiB; four are under way at a time, so a
            line of 2.2 Mbit/s is enough.
        silence: for the next bytes of a download.
        patience: no small request is begun again after this; a dead endpoint costs up to
            `patience + connect`, a silent one `answer` or `patience`, whichever is more.
        perseverance: no part, and no download, is begun again after this.
    """

    connect: float = 5
    answer: float = 20
    part: float = 120
    silence: float = 60
    patience: float = 15
    perseverance: float = 60


class S3Store:
    """A store in an S3 bucket.

    Args:
        bucket: where it is and how it is reached.
        limits: how long to wait.

    Raises:
        StoreError: the settings can't be used.
    """

    def __init__(self, bucket: Bucket, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._bucket = bucket
        self._connect = limits.connect
        self._small = self._client(timeout=limits.answer, patience=limits.patience)
        self._upload = self._client(timeout=limits.part, patience=limits.perseverance)
        self._download = self._client(
            timeout=_DAY, patience=limits.perseverance, silence=limits.silence
        )

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    @property
    def bucket(self) -> Bucket:
        """Where it is and how it is reached."""
        return self._bucket

    @property
    def url(self) -> str:
        """Where it is."""
        return "/".join(filter(None, (f"s3://{self._bucket.name}", self._bucket.prefix)))

    @property
    def residue(self) -> str:
        """What killed uploads leave; neither we nor obstore can list them."""
        return RESIDUE

    def describe(self) -> str:
        """Say what it is."""
        return f"the S3 bucket {self._bucket.name} at {self._bucket.endpoint or 'Amazon'}"

    def put_new(self, path: str, data: bytes) -> None:
        """Write a small object in one atomic step; see `Store`."""
        check_path(path)
        try:
            with self._explained(path):
                try:
                    obstore.put(self._small, path, data, mode="create")
                except BaseError as error:
                    if not is_unknown_request(error):
                        raise
                    self._put_where_nothing_is(path, data)
        except AlreadyExistsError:
            # A first answer that was lost, and its repetition: then it is our own.
            if self.read(path, max(len(data), 1)) != data:
                raise

    def _put_where_nothing_is(self, path: str, data: bytes) -> None:
        with suppress(FileNotFoundError):
            obstore.head(self._small, path)
            raise ObstoreAlreadyExistsError(path)
        obstore.put(self._small, path, data, use_multipart=False)

    @contextmanager
    def writer(self, path: str) -> Iterator[Writer]:
        """Write an object that appears whole when the block ends; see `Store`."""
        check_path(path)
        with self._explained(path):
            file = obstore.open_writer(
                self._upload, path, buffer_size=PART_SIZE, max_concurrency=_PARTS_AT_ONCE
            )
        writer = _S3Writer(self, path, file)
        try:
            yield writer
        except BaseException as error:
            # Leaving by an exception aborts the upload; that it can't must not hide why.
            with suppress(*_FAILURES):
                file.__exit__(type(error), error, error.__traceback__)
            raise
        self._complete(path, writer)

    def _complete(self, path: str, writer: "_S3Writer") -> None:
        try:
            writer.file.close()
        except _FAILURES as error:
            # The answer may be what was lost, not the object: names are unique, so an object
            # of that size can only be ours, and an upload appears whole or not at all.
            if self._is_there(path, writer.size, vague=reason_of(error) is VAGUE):
                return
            told = self._error(path, error)
            if isinstance(told, NotFoundError):
                where = f"{self.url}/{path}"
                told = StoreError(
                    f"{where}: the server lost the upload before its end", "try again"
                )
            raise told from None

    def _is_there(self, path: str, size: int, *, vague: bool) -> bool:
        try:
            return self.stat(path).size == size
        except NotFoundError:
            return False
        except StoreError:
            # obstore did not say why it failed; the server's state now says more.
            if vague:
                raise
            return False

    def read(self, path: str, limit: int) -> bytes:
        """Read a small object whole; see `Store`."""
        check_path(path)
        with self._explained(path):
            answer = obstore.get(self._small, path)
            data = answer.bytes().to_bytes() if answer.meta["size"] <= limit else None
        if data is None:
            raise FormatError(
                f"{self.url}/{path} has more than {limit} bytes", "it is not what its name says"
            )
        return data

    def stream(self, path: str, *, offset: int = 0) -> Iterator[bytes]:
        """Read an object in pieces; see `Store`."""
        check_path(path)
        with self._explained(path):
            pieces = iter(obstore.get(self._download, path).stream(min_chunk_size=_PIECE))
        skip = offset
        while True:
            with self._explained(path):
                piece = next(pieces, None)
            if piece is None:
                return
            # Not a ranged request: some servers answer those wrongly, and few callers skip.
            view = memoryview(piece)[skip:]
            skip -= len(piece) - len(view)
            for start in range(0, len(view), CHUNK_SIZE):
                yield bytes(view[start : start + CHUNK_SIZE])

    def stat(self, path: str) -> ObjectInfo:
        """Look at an object; see `Store`."""
        check_path(path)
        with self._explained(path):
            facts = obstore.head(self._small, path)
        return ObjectInfo(path, facts["size"], facts["last_modified"])

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Name all objects below a folder; see `Store`."""
        folder = check_prefix(prefix)
        with self._explained(folder):
            found = [
                ObjectInfo(facts["path"], facts["size"], facts["last_modified"])
                for batch in obstore.list(self._small, folder or None)
                for facts in batch
                if is_path(facts["path"])
            ]
        return iter(sorted(found, key=lambda info: info.path))

    def delete(self, path: str) -> None:
        """Delete an object; see `Store`."""
        check_path(path)
        with suppress(NotFoundError), self._explained(path):
            obstore.delete(self._small, path)

    def now(self) -> datetime:
        """Ask for the time by writing a small object, always the same; see `Store`."""
        for _ in range(_CLOCK_TRIES):
            with self._explained(_CLOCK):
                obstore.put(self._small, _CLOCK, b"written to see the time\n", use_multipart=False)
            # Where two ask at once some servers have neither's for a moment.
            with suppress(NotFoundError):
                return self.stat(_CLOCK).modified
        return self.stat(_CLOCK).modified

    def clear_partial(self, before: datetime) -> tuple[str, ...]:  # noqa: ARG002 - see `residue`
        """Nothing: what killed uploads leave can't be listed; see `Store`."""
        return ()

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

    def _client(
        self, *, timeout: float, patience: float, silence: float | None = None
    ) -> obstore.store.S3Store:
        bucket = self._bucket
        client: ClientConfig = {
            "allow_http": bucket.allow_http,
            "allow_invalid_certificates": False,
            "connect_timeout": timedelta(seconds=self._connect),
            "timeout": timedelta(seconds=timeout),
            "user_agent": "backstay",
        }
        if silence is not None:
            client["read_timeout"] = timedelta(seconds=silence)
        if bucket.authorities:
            client["root_certificate"] = bucket.authorities
        retry: RetryConfig = {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=patience),
            "backoff": {
                "init_backoff": timedelta(milliseconds=200),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        }
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
        try:
            return obstore.store.S3Store(
                bucket.name,
                prefix=bucket.prefix or None,
                config=config,
                client_options=client,
                retry_config=retry,
            )
        except _FAILURES:
            # What it says of a setting may repeat the setting.
            raise StoreError(
                f"{self.url}: these settings make no S3 client",
                "look at the CA bundle, the endpoint and the AWS_ variables",
            ) from None

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            # Its text may hold signed requests and tokens: a traceback must not show it.
            raise self._error(path, error) from None

    def _error(self, path: str, error: Exception) -> BackstayError:
        where = f"{self.url}/{path}" if path else self.url
        if isinstance(error, ObstoreAlreadyExistsError):
            return AlreadyExistsError(f"{where} exists already", "nothing was overwritten")
        if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
            return NotFoundError(f"{where} is not there")
        reason = reason_of(error)
        at = f" (at {self._bucket.endpoint})" if self._bucket.endpoint else ""
        kind = SpaceError if reason.full else StoreError
        return kind(f"{where}: {reason.what}{at}", reason.do)


class _S3Writer:
    def __init__(self, store: S3Store, path: str, file: "WritableFile") -> None:
        self.file = file
        self.size = 0
        self._store = store
        self._path = path

    def write(self, data: bytes, /) -> int:
        with self._store._explained(self._path):  # noqa: SLF001 - one module, one thing
            # obstore keeps the buffer, not a copy: it must be one that never changes.
            self.file.write(bytes(data))
        self.size += len(data)
        return len(data)


def _endpoint(bucket: Bucket) -> str | None:
    """Give obstore the endpoint as it wants it: with the bucket in the host, if asked for."""
    if bucket.endpoint is None or not bucket.virtual_hosted:
        return bucket.endpoint
    parts = urlsplit(bucket.endpoint)
    return f"{parts.scheme}://{bucket.name}.{parts.netloc}{parts.path.rstrip('/')}"
