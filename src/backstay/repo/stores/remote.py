"""What the stores of object storage services have in common, by obstore.

Three clients, since one set of time limits does not fit all: small requests answer at once or
not at all; a part of an upload takes as long as a slow line needs; a download takes hours, but
never stops for long. obstore retries what can be retried; the limits below bound the sum.

Border: what differs between services (their names, how they are reached, how they say no) is in
the module of each.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import obstore
import obstore.store
from obstore.exceptions import AlreadyExistsError as ObstoreAlreadyExistsError
from obstore.exceptions import BaseError

from backstay.client.proxy import Proxies
from backstay.errors import (
    AlreadyExistsError,
    BackstayError,
    FormatError,
    NotFoundError,
    SpaceError,
    StoreError,
)
from backstay.repo.store import CHUNK_SIZE, ObjectInfo, Writer, check_path, check_prefix, is_path
from backstay.repo.stores.reasons import VAGUE, Service, is_unknown_request, reason_of

if TYPE_CHECKING:
    from obstore import WritableFile
    from obstore.store import ClientConfig, RetryConfig

#: Ten thousand parts are allowed: objects of up to 78 GiB.
PART_SIZE = 8 << 20
_PARTS_AT_ONCE = 4
_PIECE = 1 << 20
_CLOCK = "clock"
_CLOCK_TRIES = 5
_DAY = 24 * 3600.0
_RETRIES = 8
FAILURES = (BaseError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is, and how it is reached. Holds no secret.

    Attributes:
        name: the bucket's, or the container's.
        prefix: what all paths begin with, without slashes at its ends; may be empty.
        endpoint: the server's URL; None is the service's own.
        allow_http: let the endpoint be plain http.
        authorities: PEM certificates to trust beside the system's; empty is none.
        proxies: that lead to it; without any those of the environment.
    """

    name: str
    prefix: str = ""
    endpoint: str | None = None
    allow_http: bool = False
    authorities: bytes = b""
    proxies: Proxies = field(default_factory=Proxies)

    @property
    def server(self) -> str:
        """The URL of the server; empty where the service has many."""
        return self.endpoint or ""

    @property
    def address(self) -> str:
        """The URL that requests go to."""
        return self.server


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


P = TypeVar("P", bound=Place)


class RemoteStore(ABC, Generic[P]):
    """A store in a bucket or container of some service.

    Args:
        bucket: where it is and how it is reached.
        limits: how long to wait.

    Raises:
        StoreError: the settings can't be used.
    """

    scheme: ClassVar[str]
    service: ClassVar[Service]

    def __init__(self, bucket: P, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._bucket = bucket
        self._connect = limits.connect
        self._small = self._client(timeout=limits.answer, patience=limits.patience)
        self._upload = self._client(timeout=limits.part, patience=limits.perseverance)
        self._download = self._client(
            timeout=_DAY, patience=limits.perseverance, silence=limits.silence
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @property
    def bucket(self) -> P:
        """Where it is and how it is reached."""
        return self._bucket

    @property
    def url(self) -> str:
        """Where it is."""
        return "/".join(filter(None, (f"{self.scheme}://{self._bucket.name}", self._bucket.prefix)))

    @property
    def residue(self) -> str:
        """What killed uploads leave; neither we nor obstore can list them."""
        return self.service.residue

    def describe(self) -> str:
        """Say what it is."""
        service, where = self.service, self._bucket.endpoint or self.service.owner
        return f"the {service.name} {service.container} {self._bucket.name} at {where}"

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
        writer = _Writer(self, path, file)
        try:
            yield writer
        except BaseException as error:
            # Leaving by an exception aborts the upload; that it can't must not hide why.
            with suppress(*FAILURES):
                file.__exit__(type(error), error, error.__traceback__)
            raise
        self._complete(path, writer)

    def _complete(self, path: str, writer: "_Writer") -> None:
        try:
            writer.file.close()
        except FAILURES as error:
            # The answer may be what was lost, not the object: names are unique, so an object
            # of that size can only be ours, and an upload appears whole or not at all.
            if self._is_there(path, writer.size, vague=reason_of(error, self.service) is VAGUE):
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

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        """Name all objects below a folder; see `Store`."""
        folder = check_prefix(prefix)
        with self._explained(folder):
            found = [
                ObjectInfo(facts["path"], facts["size"], facts["last_modified"])
                for batch in obstore.list(self._small, folder or None, offset=after or None)
                for facts in batch
                if facts["path"] > after and is_path(facts["path"])
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

    @abstractmethod
    def _make(self, options: "ClientConfig", retry: "RetryConfig") -> Any:
        """Make a client of obstore's."""

    def _client(self, *, timeout: float, patience: float, silence: float | None = None) -> Any:
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
        proxy = bucket.proxies.leading_to(bucket.address)
        if proxy is not None:
            client["proxy_url"] = proxy
            # Credentials may come from an address of the cloud's own. Names are left out: obstore
            # takes `.a.test` to mean `a.test`, too, and whether it does is decided here.
            client["proxy_excludes"] = ",".join(bucket.proxies.networks)
        retry: RetryConfig = {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=patience),
            "backoff": {
                "init_backoff": timedelta(milliseconds=200),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        }
        try:
            return self._make(client, retry)
        except FAILURES:
            # What it says of a setting may repeat the setting.
            raise StoreError(
                f"{self.url}: these settings make no {self.service.name} client",
                f"look at the CA bundle, the endpoint and the {self.service.variables} variables",
            ) from None

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            # Its text may hold signed requests and tokens: a traceback must not show it.
            raise self._error(path, error) from None

    def _error(self, path: str, error: Exception) -> BackstayError:
        where = f"{self.url}/{path}" if path else self.url
        if isinstance(error, ObstoreAlreadyExistsError):
            return AlreadyExistsError(f"{where} exists already", "nothing was overwritten")
        if isinstance(error, FileNotFoundError) and self.service.no_bucket not in str(error):
            return NotFoundError(f"{where} is not there")
        reason = reason_of(error, self.service)
        at = f" (at {self._bucket.endpoint})" if self._bucket.endpoint else ""
        kind = SpaceError if reason.full else StoreError
        return kind(f"{where}: {reason.what}{at}", reason.do)


class _Writer:
    def __init__(self, store: RemoteStore[Any], path: str, file: "WritableFile") -> None:
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
