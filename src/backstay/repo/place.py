"""Are two repositories one place? Keys never lie with the data (promise 5).

URLs don't tell: a directory has many paths, an endpoint many spellings, and a bucket can be
served from a directory. So names are compared as far as names go, directories by what the kernel
says of them, and then each repository is looked for through the other's store, by the random id
in its `backstay.json`. Nothing is written for that: it works with rights to read, and leaves
nothing behind.

A bucket is one place, whatever prefix: who may read one prefix can often read the other. A copy
of a bucket counts as that bucket: keys beside a copy of the data lie with the data too.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from backstay.errors import BackstayError, FormatError, NotFoundError, NotVerifiedError
from backstay.files import explained
from backstay.repo.config import PATH, Config, parse_config
from backstay.repo.document import MAX_SIZE
from backstay.repo.store import Store
from backstay.repo.url import Location, parse_url

if TYPE_CHECKING:
    from backstay.repo.stores.remote import RemoteStore

_AMAZON = "amazonaws.com"
_WEB = {80, 443}


def same_place(one: Store, one_config: Config, other: Store, other_config: Config) -> str:
    """Tell whether two repositories lie in one place.

    Args:
        one: where the first lies.
        one_config: what it says of itself.
        other: where the second lies.
        other_config: what it says of itself.

    Returns:
        Why they are one place, in one line; empty where they are not.

    Raises:
        NotVerifiedError: it can't be told.
        StoreError: a store refuses.
    """
    if one_config.repository == other_config.repository:
        return f"{one.url} and {other.url} are one repository, {one_config.repository}"
    first, second = parse_url(one.url), parse_url(other.url)
    if first.bucket and second.bucket and (why := _buckets(one, one_config, other, other_config)):
        return why
    if first.scheme == second.scheme == "file" and (why := _directories(first, second)):
        return why
    return _seen(one, other, other_config) or _seen(other, one, one_config)


def _directories(one: Location, other: Location) -> str:
    """Compare directories: neither may be in the other, by whatever path."""
    for inner, outer in ((one.path, other.path), (other.path, one.path)):
        top = _identity(Path(outer))
        # The real path's parents: those of a link are not where the files lie.
        real = Path(os.path.realpath(inner))
        if top in map(_identity, (real, *real.parents)):
            return (
                f"{inner} and {outer} are one directory"
                if _identity(real) == top
                else f"{inner} lies in {outer}"
            )
    return ""


def _identity(path: Path) -> tuple[int, int]:
    with explained(path):
        facts = path.stat()
    return facts.st_dev, facts.st_ino


def _buckets(one: Store, one_config: Config, other: Store, other_config: Config) -> str:
    # obstore takes 30 ms to import: not where both are directories.
    from backstay.repo.stores.remote import RemoteStore  # noqa: PLC0415

    name, same_name = parse_url(one.url).bucket, _bucket(one) == _bucket(other)
    if not isinstance(one, RemoteStore) or not isinstance(other, RemoteStore):
        return f"both are in the bucket {name}" if same_name else ""
    if same_name and _server(one, name) == _server(other, name):
        return f"both are in the bucket {name}: another prefix is no other place"
    if type(one) is not type(other):
        return ""
    try:
        for mine, theirs, config in ((one, other, one_config), (other, one, other_config)):
            beside = type(one)(replace(theirs.bucket, prefix=mine.bucket.prefix))
            if _is_at(beside, PATH, config):
                return f"the bucket of {mine.url} is that of {theirs.url} under another name"
    except BackstayError as error:
        # A right to look there is not a thing to ask for; two names tell enough.
        if same_name:
            raise NotVerifiedError(
                f"whether the buckets {name} at {one.bucket.server or 'Amazon'} and at"
                f" {other.bucket.server or 'Amazon'} are one can't be told: {error.what}",
                "write both endpoints alike, or name another bucket",
            ) from error
    return ""


def _bucket(store: Store) -> str:
    return parse_url(store.url).bucket


def _server(store: "RemoteStore[Any]", bucket: str) -> tuple[str, int, str]:
    """Name a server, however its URL is spelt; Amazon's bucket names are those of all regions."""
    parts = urlsplit(store.bucket.server or f"https://s3.{_AMAZON}")
    host = (parts.hostname or "").lower().rstrip(".").removeprefix(f"{bucket}.")
    if host.removesuffix(".cn").endswith(_AMAZON):
        return _AMAZON, 443, ""
    port = parts.port or 443
    # Azure's emulator has the account there.
    return host, 443 if port in _WEB else port, parts.path.strip("/")


def _seen(through: Store, sought: Store, config: Config) -> str:
    """Look for a repository through the store of another."""
    for path in _configurations(through):
        if _is_at(through, path, config):
            where = f"as {path}" if path == PATH else f"in {path.removesuffix(PATH).rstrip('/')}"
            return f"{sought.url} lies in {through.url}: what it says of itself is there, {where}"
    return ""


def _configurations(store: Store) -> Iterator[str]:
    yield PATH
    for info in store.list():
        if info.path.endswith(f"/{PATH}"):
            yield info.path


def _is_at(store: Store, path: str, config: Config) -> bool:
    try:
        found = parse_config(store.read(path, MAX_SIZE), path)
    except (NotFoundError, FormatError):
        return False
    return found.repository == config.repository
