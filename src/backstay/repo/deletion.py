"""Whether what is deleted from a bucket is gone: looked at before a secret is put into it.

Object lock and versions keep what was deleted, for years if need be. A bucket's settings can't be
asked for through obstore; what they do shows in the answer to a HEAD of a small object that was
just written, and in what comes of deleting it. Nothing is guessed from a provider's name.

Source: Amazon S3 API, HeadObject (x-amz-object-lock-*, x-amz-version-id), PutObject (a bucket that
locks by default takes nothing without a checksum).
"""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from backstay.clock import Clock
from backstay.errors import BackstayError, NotFoundError, RefusedError, StoreError
from backstay.repo import bearer
from backstay.repo.store import Presigner, Store

_FOLDER = "probe"
_PROBE = b"written to see whether what is deleted here is gone\n"
_SECONDS = 600
_OLD = timedelta(hours=1)
_OTHER = "name another place with --staging s3://bucket/prefix"
_RETENTION = ("x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date")
_HOLD = "x-amz-object-lock-legal-hold"
_VERSION = "x-amz-version-id"
_FOUND = 200
#: What a bucket without versions, or one that has suspended them, says of an object.
_NO_VERSION = "null"

VERSIONED = (
    "the bucket keeps versions: the plain snapshot stays in it as an old version after it is"
    " deleted, until a lifecycle rule with NoncurrentVersionExpiration removes it; whether the"
    " bucket also locks versions shows only to who has s3:GetObjectRetention"
)


def delete(store: Store, path: str) -> None:
    """Delete an object, and look that it is gone.

    Raises:
        StoreError: the store refuses, or keeps it all the same.
    """
    store.delete(path)
    with suppress(NotFoundError):
        store.stat(path)
        raise StoreError(
            f"{store.url}/{path} was deleted and is still there", "delete it by other means"
        )


def try_deletion(store: Store, clock: Clock) -> tuple[str, ...]:
    """Find out whether what is deleted is gone, with a small object.

    Args:
        store: the store; it can presign.
        clock: this machine's.

    Returns:
        What is to know of the place: warnings.

    Raises:
        RefusedError: the store can't presign, its bucket locks what is written, or lets nothing
            be deleted.
        StoreError: it can't be written to, or can't be reached.
    """
    presigner = presigner_of(store)
    _sweep(store, clock)
    path = f"{_FOLDER}/{secrets.token_hex(4)}"
    try:
        store.put_new(path, _PROBE)
    except StoreError as error:
        # Such a bucket takes nothing without a checksum, and names its lock in the refusal.
        if "object lock" in str(error).casefold():
            raise _locked(store, "it takes no object without a checksum") from None
        raise
    try:
        headers = _headers(presigner, path, store.url)
    finally:
        kept = _attempt(store, path)
    locks = _locks(headers)
    if locks:
        raise _locked(store, locks)
    if kept is not None:
        raise RefusedError(
            f"{store.url} lets nothing be deleted, and would keep the plain snapshot: {kept.what}",
            f"allow s3:DeleteObject there, or {_OTHER}",
        )
    return (VERSIONED,) if headers.get(_VERSION, _NO_VERSION) != _NO_VERSION else ()


def presigner_of(store: Store) -> Presigner:
    """Give the part of a store that presigns.

    Raises:
        RefusedError: it has none.
    """
    if isinstance(store, Presigner):
        return store
    raise no_presigner(store.url)


def no_presigner(url: str) -> RefusedError:
    """Word that a place can't hand out URLs."""
    return RefusedError(
        f"{url} can't presign: a restore needs a staging place that gives out a URL",
        "name one with --staging s3://bucket/prefix",
    )


def _sweep(store: Store, clock: Clock) -> None:
    """Delete what killed probes left; that it can't be, the next probe finds out."""
    before = clock.now() - _OLD
    for info in store.list(_FOLDER):
        if info.modified < before:
            with suppress(StoreError):
                store.delete(info.path)


def _headers(presigner: Presigner, path: str, place: str) -> Mapping[str, str]:
    url = presigner.presign(path, _SECONDS, "HEAD")
    with bearer.request("HEAD", url, bearer.trust(presigner.authorities)) as answer:
        if answer.status != _FOUND:
            raise StoreError(
                f"{place}: a presigned request was answered {answer.status}",
                "set this machine's clock by NTP, allow s3:GetObject, and look at the endpoint",
            )
        return {name.lower(): value for name, value in answer.headers.items()}


def _attempt(store: Store, path: str) -> BackstayError | None:
    try:
        delete(store, path)
    except BackstayError as error:
        return error
    return None


def _locks(headers: Mapping[str, str]) -> str:
    """Say how an object is locked; empty where nothing says that it is."""
    found = [name for name in _RETENTION if headers.get(name)]
    if headers.get(_HOLD, "OFF") != "OFF":
        found.append(_HOLD)
    return ", ".join(f"{name.removeprefix('x-amz-')} {headers[name][:40]}" for name in found)


def _locked(store: Store, why: str) -> RefusedError:
    return RefusedError(
        f"{store.url} is in a bucket with object lock ({why}): it would keep a plain snapshot for"
        " as long as it locks",
        _OTHER,
    )
