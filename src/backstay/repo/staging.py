"""A staging place: where plain snapshots lie for as long as a restore needs them.

A control plane that restores itself fetches one plain snapshot by one URL: no key, no header. So
it is the one thing that is stored unencrypted, asked for by name, under a name that says when
its time is over (promise 5).

The place is no part of a repository: by default `PREFIX.staging` beside `PREFIX`, so that neither
a list nor a sweep of the repository sees it.

What can't be deleted again must not be put there: `deletion` finds that out before each object.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from backstay.clock import Clock
from backstay.errors import BackstayError, StoreError, UsageError
from backstay.repo import bearer
from backstay.repo.deletion import delete, no_presigner, presigner_of, try_deletion
from backstay.repo.name import BackupId
from backstay.repo.staged import EDGE, Link, Staged, StagedName, StagedObject
from backstay.repo.store import Store, Writer
from backstay.repo.url import parse_url

_UNCERTAIN = (
    "the URL is signed with temporary credentials and ends with them; when that is, is not known"
    " here: sign with static keys, or set AWS_CREDENTIAL_EXPIRATION"
)


def default_place(repository: str) -> str:
    """Give the URL of the staging place beside a repository.

    Args:
        repository: its URL.

    Raises:
        RefusedError: its store can't presign.
        UsageError: it is no URL of a repository.
    """
    place = parse_url(repository)
    if place.scheme != "s3":
        raise no_presigner(repository)
    return f"s3://{place.bucket}/{place.path or 'backstay'}.staging"


class Staging:
    """A staging place.

    Args:
        store: where it is.
        clock: decides what is expired.

    Raises:
        RefusedError: the store can't presign.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._presigner = presigner_of(store)
        self._clock = clock

    @property
    def url(self) -> str:
        """Where it is. No secret."""
        return self._store.url

    @property
    def residue(self) -> str:
        """What killed uploads leave here that nobody can list, and what removes it."""
        return self._store.residue

    @property
    def authorities(self) -> bytes:
        """PEM certificates that are trusted here beside the system's."""
        return self._presigner.authorities

    def stage(
        self, backup: BackupId, fill: Callable[[Writer], object], *, expires: datetime
    ) -> Staged:
        """Write a restore object, in one pass; it appears whole, or not at all.

        Args:
            backup: what it is made from.
            fill: writes it, front to back.
            expires: when nobody needs it any more; aware.

        Raises:
            RefusedError: the place would keep it for longer than that; see `deletion.try_deletion`.
            StoreError: the store refuses, or did not keep what was written.
            SpaceError: it is full.
        """
        warnings = try_deletion(self._store, self._clock)
        name = StagedName.new(backup, expires)
        with self._store.writer(name.path) as writer, ThreadPoolExecutor(1) as pool:
            sink = _Sink(writer, pool)
            fill(sink)
        self._check_kept(name.path, sink.size)
        return Staged(
            name=name,
            size=sink.size,
            sha256=sink.digest.hexdigest(),
            head=sink.head,
            tail=sink.tail,
            warnings=warnings,
        )

    def _check_kept(self, path: str, size: int) -> None:
        kept = self._store.stat(path).size
        if kept != size:
            with suppress(BackstayError):
                self._store.delete(path)
            raise StoreError(
                f"{self.url}/{path} has {kept} bytes, {size} were written",
                "find out why the store changes what it is given",
            )

    def link(self, path: str, seconds: int, environment: Mapping[str, str] = os.environ) -> Link:
        """Make a URL that gives an object to whoever has it.

        It is good for no longer than the credentials that sign it; where the environment says when
        those end (AWS_CREDENTIAL_EXPIRATION), it is signed for no longer.

        Args:
            path: the object's.
            seconds: for how long.
            environment: may say when temporary credentials end.

        Raises:
            UsageError: no store signs for so long.
            StoreError: there are no credentials, or they have ended.
        """
        now = self._clock.now()
        url = self._presigner.presign(path, seconds)
        if "X-Amz-Security-Token=" not in bearer.split(url).query:
            return Link(url=url, expires=now + timedelta(seconds=seconds))
        end = _credentials_end(environment)
        if end is None:
            return Link(
                url=url,
                expires=now + timedelta(seconds=seconds),
                certain=False,
                warnings=(_UNCERTAIN,),
            )
        return self._bounded(path, seconds, now, end)

    def _bounded(self, path: str, seconds: int, now: datetime, end: datetime) -> Link:
        left = int((end - now).total_seconds())
        if left <= 0:
            raise StoreError(
                f"the credentials for {self.url} ended at {end.isoformat()}",
                "get new ones, and set AWS_CREDENTIAL_EXPIRATION to their end",
            )
        allowed = min(seconds, left)
        shorter = f"the URL is good until {end.isoformat()} only: its credentials end then"
        return Link(
            url=self._presigner.presign(path, allowed),
            expires=now + timedelta(seconds=allowed),
            warnings=(shorter,) if allowed < seconds else (),
        )

    def staged(self) -> tuple[StagedObject, ...]:
        """List the restore objects that are here, by the end of their time."""
        found = ((StagedName.parse(info.path), info) for info in self._store.list())
        objects = [StagedObject(name, info.size, info.modified) for name, info in found if name]
        return tuple(sorted(objects, key=lambda one: (one.name.expires, one.path)))

    def remove(self, path: str) -> None:
        """Delete a restore object; nothing happens where there is none.

        Raises:
            UsageError: it is no restore object's path: nothing else is ever deleted here.
            StoreError: the store refuses, or keeps it all the same.
        """
        if StagedName.parse(path) is None:
            raise UsageError(
                f"{path[:200]!r} is no restore object", "see `backstay list --staging`"
            )
        delete(self._store, path)


class _Sink:
    """Passes bytes on to a writer; sums them in a thread of its own, and keeps both ends."""

    def __init__(self, writer: Writer, pool: ThreadPoolExecutor) -> None:
        self._writer = writer
        self._pool = pool
        self.digest = hashlib.sha256()
        self.size = 0
        self.head = b""
        self.tail = b""

    def write(self, data: bytes, /) -> int:
        data = bytes(data)
        job = self._pool.submit(self.digest.update, data)
        self._writer.write(data)
        job.result()
        self.size += len(data)
        if len(self.head) < EDGE:
            self.head = (self.head + data)[:EDGE]
        self.tail = (self.tail + data[-EDGE:])[-EDGE:]
        return len(data)


def _credentials_end(environment: Mapping[str, str]) -> datetime | None:
    """Read when the environment's credentials end, as aws-cli writes it; None where unknown."""
    text = environment.get("AWS_CREDENTIAL_EXPIRATION", "")
    if not environment.get("AWS_SESSION_TOKEN") or not text:
        return None
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        return None
    return end if end.tzinfo else end.replace(tzinfo=UTC)
