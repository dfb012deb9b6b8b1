"""The removal of one backup, in steps that may end anywhere.

    clusters/CLUSTER/removals/NAME/TIME-RAND.json       written first, deleted last

The manifest goes first (promise 1): what is listed is whole. Before that the removal is announced
by a small object, so that a pin that comes meanwhile is not missed (see `pin`), and so that what
was begun can be finished by another run: objects, notes, pins, and the keyring in its own
repository. An announcement whose manifest is still there has removed nothing, and means nothing
once it is old.
"""

import secrets
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from backstay import __version__
from backstay.errors import FormatError, NotFoundError, UsageError
from backstay.repo import note as notes
from backstay.repo import pin as pins
from backstay.repo.deletion import delete
from backstay.repo.document import FORMAT, MAX_SIZE, decode, encode
from backstay.repo.manifest import KeyringEntry, Short, Text
from backstay.repo.name import BackupId, manifests_of, objects_of, removals_of
from backstay.repo.store import Store


class RemovalDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A removal as it is announced.

    Attributes:
        backup: the ID of what goes.
        at: when, by the clock of whoever removes it.
        by: who does.
        keyring: what the manifest said of the backup's keys.
    """

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: tuple[Short, ...] = ()
    backup: Text
    at: datetime
    by: Short
    keyring: KeyringEntry | None = None
    backstay_version: Short = __version__


@dataclass(frozen=True, slots=True)
class Announced:
    """A removal that somebody has announced.

    Attributes:
        backup: what goes.
        keyring: what its manifest said of its keys.
        paths: of the announcements.
        newest: when the last of them was written, by the store's clock.
    """

    backup: BackupId
    keyring: KeyringEntry | None
    paths: tuple[str, ...]
    newest: datetime


def announce(
    store: Store, backup: BackupId, keyring: KeyringEntry | None, *, by: str, at: datetime
) -> str:
    """Announce a removal.

    Returns:
        The path of the announcement.

    Raises:
        StoreError: the store refuses; then an announcement may be there all the same.
    """
    document = RemovalDocument(backup=str(backup), at=at, by=by[:256], keyring=keyring)
    when = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = f"{_folder(backup)}{when}-{secrets.token_hex(4)}.json"
    store.put_new(path, encode(document))
    return path


def announced(store: Store, cluster: str) -> tuple[Announced, ...]:
    """List the removals of a cluster's backups that were announced and are not over.

    What can't be read is left to the version that wrote it.

    Raises:
        StoreError: the store refuses.
    """
    found: dict[str, list[tuple[RemovalDocument, str, datetime]]] = {}
    for info in store.list(removals_of(cluster)):
        name = info.path.split("/")[3]
        with suppress(FormatError, NotFoundError):
            document = decode(store.read(info.path, MAX_SIZE), RemovalDocument, info.path)
            if document.backup == f"{cluster}/{name}":
                found.setdefault(name, []).append((document, info.path, info.modified))
    removals = []
    for name, said in sorted(found.items()):
        with suppress(UsageError):
            backup = BackupId.parse(f"{cluster}/{name}")
            keyring = next((one.keyring for one, _, _ in said if one.keyring is not None), None)
            paths = tuple(path for _, path, _ in said)
            newest = max(modified for _, _, modified in said)
            removals.append(Announced(backup, keyring, paths, newest))
    return tuple(removals)


def is_listed(store: Store, backup: BackupId) -> bool:
    """Look whether a backup's manifest is there.

    Raises:
        StoreError: the store refuses.
    """
    try:
        store.stat(manifest_of(backup))
    except NotFoundError:
        return False
    return True


def unlist(store: Store, backup: BackupId) -> None:
    """Delete the manifest, and look that it is gone: from here on there is no such backup.

    Raises:
        StoreError: the store refuses, or keeps it all the same; then nothing else may go.
    """
    delete(store, manifest_of(backup))


def clear(store: Store, backup: BackupId, in_use: Collection[str], before: datetime) -> None:
    """Delete what lay beside a manifest that has gone.

    Args:
        store: that of the repository.
        backup: whose manifest has gone.
        in_use: paths of objects that other manifests name.
        before: objects that are younger, by the store's clock, are left to a sweep.

    Raises:
        StoreError: the store refuses; what is left is swept later.
    """
    for info in list(store.list(f"{objects_of(backup.cluster)}{backup.run}")):
        if info.path not in in_use and info.modified < before:
            store.delete(info.path)
    for folder in (notes.folder(backup), pins.folder(backup)):
        for info in list(store.list(folder)):
            store.delete(info.path)


def forget(store: Store, backup: BackupId) -> None:
    """Delete all announcements of a removal that is over.

    Raises:
        StoreError: the store refuses.
    """
    for info in list(store.list(_folder(backup))):
        store.delete(info.path)


def manifest_of(backup: BackupId) -> str:
    """Where the manifest of a backup lies."""
    return f"{manifests_of(backup.cluster)}{backup.name}.json"


def _folder(backup: BackupId) -> str:
    return f"{removals_of(backup.cluster)}{backup.name}/"
