"""Keyrings: the secrets that a restore needs, sealed, in a repository of their own.

    clusters/CLUSTER/keyrings/TIME-RAND.zst.age          the keyring, sealed
    clusters/CLUSTER/keyrings/TIME-RAND.tar.gz.zst.age   its archive, where it has one
    clusters/CLUSTER/keyrings/TIME-RAND.json             its header, in the clear; written last

TIME-RAND is the run that makes the backup, so the name of a backup leads to its keyring. A recorder
saves keyrings, too: under names of their own, with the lineage that needs them. The backup's
manifest has the SHA-256 of the header's bytes, and the header has size and SHA-256 of the sealed
objects: one digest binds all, and what is said of the keys in the clear can be believed before
anything is opened. The keyring has a nonce, so the SHA-256 of what is in it tells nobody
anything.

Of one that was sealed anew the parts lie in a folder of its name (see `keyring_reseal`).

A keyring lies only in a repository of role `keys` (promise 5). Nothing of another role's sweep
touches it: it is under a folder of its own, and an object without a header is left alone until it
is older than the safe age.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO

import msgspec

from backstay.errors import (
    BackstayError,
    DamagedError,
    FormatError,
    NotFoundError,
    RefusedError,
    StoreError,
)
from backstay.repo.archive import SUFFIX as _ARCHIVE
from backstay.repo.archive import seal_archive
from backstay.repo.catalogue import Repository
from backstay.repo.config import Encryption, Role
from backstay.repo.document import MAX_SIZE, encode
from backstay.repo.entry import Unreadable
from backstay.repo.identity import Identities
from backstay.repo.keyring_document import (
    NAME,
    KeyLabel,
    Keyring,
    KeyringHeader,
    Kms,
    SavedKey,
    parse_header,
    parse_keyring,
)
from backstay.repo.keyring_reseal import KeyringNote, applied, parse_note
from backstay.repo.leftovers import SAFE_AGE, Swept
from backstay.repo.lock import unlocked
from backstay.repo.manifest import KeyringEntry, ObjectEntry
from backstay.repo.name import BackupId, Run, check_cluster
from backstay.repo.packing import Readable
from backstay.repo.probe import left_over
from backstay.repo.reseal import superseded
from backstay.repo.sealing import seal, unseal
from backstay.repo.store import ObjectInfo, Store

__all__ = [
    "KeyLabel",
    "Keyring",
    "KeyringHeader",
    "Kms",
    "Saved",
    "SavedKey",
    "again",
    "check_meant",
    "check_place",
    "find",
    "headers",
    "load",
    "of_runs",
    "part_of",
    "publish_note",
    "remove",
    "save",
    "sweep",
]

#: The role of a sealed keyring among objects.
ROLE = "keyring"
_HEADER = ".json"
_SEALED = ".zst.age"
_NAME = re.compile(NAME.strip("^$"))
_READERS = 16
_MEND = "find out who changed it, and use another backup until then"


@dataclass(frozen=True, slots=True)
class Saved:
    """A keyring that lies in a repository; it was not opened.

    Attributes:
        header: what is said of it in the clear; of one that was sealed anew, where its parts lie
            now.
        digest: SHA-256 of the header's bytes, hex: what the manifest has.
        written: when the header came to the store, by the store's clock.
        notes: that it was sealed anew.
    """

    header: KeyringHeader
    digest: str
    written: datetime
    notes: tuple[KeyringNote, ...] = ()

    @property
    def entry(self) -> KeyringEntry:
        """What the manifest of its backup says of it."""
        return KeyringEntry(repository=self.header.repository, digest=self.digest)


def save(
    repository: Repository,
    keyring: Keyring,
    run: Run,
    *,
    data: str,
    archive: Readable | None = None,
    lineage: str = "",
) -> KeyringEntry:
    """Seal a keyring and put it away; it is listed when this function has returned.

    Args:
        repository: one of role `keys`.
        keyring: what to save, of the cluster of the run.
        run: that makes the backup.
        data: id of the repository that the backup goes to.
        archive: what is to lie beside it, sealed too, as a gzipped tar; read once to its end.
        lineage: whose recorded changes need it, where it is no backup's.

    Returns:
        What goes into the backup's manifest.

    Raises:
        RefusedError: the repository is not for keys, not encrypted, or the backup's own.
        FormatError: the keyring contradicts itself, or it or the archive is too large.
        SealError: it can't be sealed.
        StoreError: the store refuses, or did not keep what was written.
    """
    check_place(repository)
    if data == repository.config.repository:
        raise RefusedError(
            f"{repository.store.url} is where the backup goes", "keep keys in another place"
        )
    if keyring.cluster != run.cluster:
        raise FormatError(f"the keyring is of {keyring.cluster[:200]!r}, not of {run.cluster}")
    path = _path(run.cluster, run.name)
    header = KeyringHeader(
        repository=repository.config.repository,
        data=data,
        cluster=run.cluster,
        name=run.name,
        kind=keyring.kind,
        made_at=keyring.made_at,
        object=_seal(repository, keyring, path + _SEALED),
        recipients=repository.config.recipients,
        keys=keyring.labels,
        kms=keyring.kms,
        rotating=keyring.rotating,
        archive=seal_archive(repository, archive, path + _ARCHIVE) if archive is not None else None,
        lineage=lineage,
    )
    return _publish(repository.store, header, path + _HEADER)


def check_place(repository: Repository) -> None:
    """Hold a repository to be one for keys.

    Raises:
        RefusedError: it is for data, or not encrypted.
    """
    config, url = repository.config, repository.store.url
    if config.role is not Role.KEYS:
        raise RefusedError(
            f"{url} is a repository for {config.role}, and keys never lie there",
            "name one that was made with --role keys",
        )
    if config.encryption is not Encryption.AGE:
        raise RefusedError(f"{url} is not encrypted", "make a repository for keys anew")


def _seal(repository: Repository, keyring: Keyring, path: str) -> ObjectEntry:
    """Seal, store and read back. It can't be opened here: the writer can't read."""
    sealed = msgspec.structs.replace(keyring, nonce=secrets.token_hex(32))
    data = msgspec.json.encode(sealed)
    parse_keyring(data, "the keyring")
    store = repository.store
    found = seal(BytesIO(data), store, path, repository.config.recipients)
    kept = _read_back(store, path, found.stored_size)
    if hashlib.sha256(kept).hexdigest() != found.stored_sha256:
        raise _not_kept(store, path)
    return found.entry(path, ROLE)


def _publish(store: Store, header: KeyringHeader, path: str) -> KeyringEntry:
    data = encode(header)
    parse_header(data, path)
    _put(store, data, path)
    digest = hashlib.sha256(data).hexdigest()
    return KeyringEntry(repository=header.repository, digest=digest)


def _put(store: Store, data: bytes, path: str) -> None:
    """Write a document, and take it away again where the store did not keep it."""
    store.put_new(path, data)
    if _read_back(store, path, MAX_SIZE) != data:
        with suppress(BackstayError):
            store.delete(path)
        raise _not_kept(store, path)


def _read_back(store: Store, path: str, limit: int) -> bytes:
    try:
        return store.read(path, limit)
    except (NotFoundError, FormatError):
        return b""


def _not_kept(store: Store, path: str) -> StoreError:
    return StoreError(
        f"{store.url}/{path} is not what was written to it, so the keys are not saved",
        "find out why the store changes what it is given",
    )


def find(repository: Repository, entry: KeyringEntry, backup: BackupId) -> Saved:
    """Find the keyring of a backup, and prove that it is the one that its manifest means.

    Args:
        repository: where it should lie.
        entry: what the manifest says.
        backup: whose manifest that is.

    Raises:
        RefusedError: this is not the repository that the manifest means, or none for keys.
        NotFoundError: the keyring is gone.
        DamagedError: it is another one, or was changed.
        FormatError: it is of a later version.
        StoreError: the store refuses.
    """
    check_meant(repository, entry, backup)
    path = _path(backup.cluster, backup.run) + _HEADER
    try:
        info = repository.store.stat(path)
    except NotFoundError as error:
        raise NotFoundError(
            f"{repository.store.url} has no keys of {backup}",
            "without them what is encrypted in it can't be read: look for a copy",
        ) from error
    return _read(repository, info, entry.digest)


def check_meant(repository: Repository, entry: KeyringEntry, backup: BackupId) -> None:
    """Hold a repository to be the one that the manifest of a backup means.

    Raises:
        RefusedError: it is another, or none for keys.
    """
    check_place(repository)
    if entry.repository != repository.config.repository:
        raise RefusedError(
            f"the keys of {backup} lie in the repository {entry.repository[:40]}, and"
            f" {repository.store.url} is {repository.config.repository}",
            "name the one that they were saved to: --keys-repo",
        )


def headers(repository: Repository, cluster: str | None = None) -> tuple[Saved | Unreadable, ...]:
    """List the keyrings of one cluster, or of all, newest first by the store's clock.

    Raises:
        RefusedError: the repository is not for keys.
        StoreError: the store refuses.
    """
    check_place(repository)
    names = repository.clusters() if cluster is None else (check_cluster(cluster),)
    listed = [info for name in names for info in repository.store.list(_folder(name))]
    infos = [info for info in listed if _part(info.path, _HEADER)]
    if not infos:
        return ()
    beside: dict[str, list[str]] = {}
    for info in listed:
        if _is_note(info.path):
            beside.setdefault(info.path.rpartition("/")[0], []).append(info.path)

    def read(info: ObjectInfo) -> Saved | Unreadable:
        return _listed(repository, info, beside.get(info.path.removesuffix(_HEADER), ()))

    with ThreadPoolExecutor(max_workers=min(_READERS, len(infos))) as pool:
        try:
            found = list(pool.map(read, infos))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return tuple(sorted(found, key=lambda one: one.written, reverse=True))


def _listed(
    repository: Repository, info: ObjectInfo, notes: Iterable[str] | None = None
) -> Saved | Unreadable:
    try:
        return _read(repository, info, notes=notes)
    except (FormatError, NotFoundError, DamagedError) as error:
        cluster = info.path.split("/")[1]
        do = error.do or "update backstay, or use another backup"
        return Unreadable(cluster, info.path, error.what, do, info.modified)


def _read(
    repository: Repository,
    info: ObjectInfo,
    digest: str | None = None,
    notes: Iterable[str] | None = None,
) -> Saved:
    """Read a header, and hold it to its place; with a digest, to that before anything else.

    Args:
        repository: where it lies.
        info: the header.
        digest: which it must have; None: any.
        notes: paths of notes on it; None: they are looked for.
    """
    data = repository.store.read(info.path, MAX_SIZE)
    found = hashlib.sha256(data).hexdigest()
    if digest is not None and found != digest:
        raise DamagedError(
            f"{info.path} is not the keyring that the manifest means: it has SHA-256 {found},"
            f" not {digest}",
            _MEND,
        )
    header = parse_header(data, info.path)
    path = _path(header.cluster, header.name)
    sealed = [(header.object, _SEALED), (header.archive, _ARCHIVE)]
    if path + _HEADER != info.path or any(
        entry is not None and entry.path != path + suffix for entry, suffix in sealed
    ):
        raise FormatError(f"{info.path} is the keyring of {header.id}, or names what is not its")
    if header.repository != repository.config.repository:
        raise FormatError(f"{info.path} was copied from another repository")
    if notes is None:
        notes = [one.path for one in repository.store.list(path) if _is_note(one.path)]
    said = tuple(
        parse_note(repository.store.read(one, MAX_SIZE), one, header, found) for one in notes
    )
    return Saved(applied(header, said, info.path), found, info.modified, said)


def again(repository: Repository, saved: Saved) -> Saved:
    """Read what is said of a keyring once more.

    Raises:
        NotFoundError: it is gone.
        DamagedError: its header was changed.
        FormatError: something that is said of it can't be read.
        StoreError: the store refuses.
    """
    path = _path(saved.header.cluster, saved.header.name) + _HEADER
    return _read(repository, repository.store.stat(path), saved.digest)


def part_of(saved: Saved, part: ObjectEntry, run: Run) -> str:
    """Name the place of a part that is sealed anew."""
    suffix = _ARCHIVE if part == saved.header.archive else _SEALED
    return f"{_path(saved.header.cluster, saved.header.name)}/{run.name}{suffix}"


def publish_note(repository: Repository, saved: Saved, note: KeyringNote, run: Run) -> None:
    """Make parts count that were sealed anew, in one put, and read back what says so.

    Raises:
        FormatError: it names what is not the keyring's.
        StoreError: the store refuses, or did not keep what was written; then the old ones count.
    """
    path = f"{_path(saved.header.cluster, saved.header.name)}/{run.name}{_HEADER}"
    _put(repository.store, encode(note), path)


def load(repository: Repository, saved: Saved, identities: Identities | None) -> Keyring:
    """Open a keyring, and hold it to its header.

    Args:
        repository: where it lies.
        saved: which one, from `find` or `headers`.
        identities: private keys.

    Raises:
        SealError: none of the identities opens it.
        DamagedError: it is damaged, cut, or not what its header says.
        FormatError: it is of a later version, or contradicts itself.
        NotFoundError: it is gone.
        StoreError: the store refuses.
    """
    stored, sink = saved.header.object, BytesIO()
    unseal(repository.store, stored, sink, identities, Encryption.AGE)
    name = f"the keyring {saved.header.id}"
    keyring = parse_keyring(sink.getvalue(), name)
    _check_header(keyring, saved.header, name)
    return keyring


def _check_header(keyring: Keyring, header: KeyringHeader, name: str) -> None:
    """Hold what is said in the clear to what was sealed."""
    if keyring.labels != header.keys:
        raise DamagedError(f"{name} holds other keys than its header says", _MEND)
    for word in ("cluster", "kind", "made_at", "kms", "rotating"):
        if getattr(keyring, word) != getattr(header, word):
            raise DamagedError(f"{name} has another {word} than its header says", _MEND)


def of_runs(
    repository: Repository, data: str, runs: Iterable[tuple[str, str]]
) -> tuple[Saved, ...]:
    """Find the keyrings of runs that have died.

    That a backup is not listed is no reason to delete its keys: its manifest may have been lost,
    and may come back. Only what a run has left behind shows that there never was one.
    A keyring that can't be read, or that belongs to another repository's backup, is not found.

    Args:
        repository: where the keyrings lie.
        data: id of the repository that the runs were to write to.
        runs: cluster, and TIME-RAND; see `leftovers.dead_runs`.

    Raises:
        RefusedError: the repository is not for keys.
        StoreError: the store refuses.
    """
    check_place(repository)
    found = []
    for cluster, name in sorted(runs):
        path = _path(cluster, name) + _HEADER
        with suppress(NotFoundError):
            one = _listed(repository, repository.store.stat(path))
            if isinstance(one, Saved) and one.header.data == data:
                found.append(one)
    return tuple(found)


def remove(repository: Repository, saved: Saved) -> None:
    """Delete a keyring: the header first, since listed means complete.

    Raises:
        StoreError: the store refuses.
    """
    store, path = repository.store, _path(saved.header.cluster, saved.header.name)
    store.delete(path + _HEADER)
    parts = [part.path for part in saved.header.parts]
    # What a rewrap has left, too.
    for part in {*parts, *superseded(saved.notes), *(info.path for info in store.list(path))}:
        store.delete(part)


def sweep(repository: Repository, age: timedelta = SAFE_AGE) -> Swept:
    """Delete what dead runs left half-written: sealed keyrings and archives without a header.

    Args:
        repository: one for keys.
        age: how old, by the store's own clock, an object must be.

    Raises:
        RefusedError: the repository is not for keys.
        StoreError: the store refuses.
    """
    check_place(repository)
    store = repository.store
    before = store.now() - age
    dead = [info for name in repository.clusters() for info in _half(store, name, before)]
    dead = unlocked(store, [*dead, *left_over(store, before)])
    for info in dead:
        store.delete(info.path)
    partial = store.clear_partial(before)
    return Swept((*(info.path for info in dead), *partial), sum(info.size for info in dead))


def _half(store: Store, cluster: str, before: datetime) -> list[ObjectInfo]:
    found = store.list(_folder(cluster))
    old = [info for info in found if info.modified < before and _needs(info.path)]
    if not old:
        return []
    # Listed after the objects: a header that comes meanwhile is seen here.
    there = {info.path for info in store.list(_folder(cluster))}
    left = [info for info in old if not _needs(info.path) <= there]
    # What a list leaves out may be there all the same: without its keys a backup is worth nothing.
    return [info for info in left if not all(_is_there(store, one) for one in _needs(info.path))]


def _needs(path: str) -> set[str]:
    """Name what must be there so that an object is part of a keyring; empty: it needs nothing."""
    if name := _sealed(path):
        return {f"{path.rpartition('/')[0]}/{name}{_HEADER}"}
    folder, _, last = path.rpartition("/")
    if not _part(f"{folder}{_HEADER}", _HEADER):
        return set()
    # Sealed anew: it needs its note, and the note the header.
    name = last.partition(".")[0]
    ours = _NAME.fullmatch(name) and last.removeprefix(name) in {_SEALED, _ARCHIVE, _HEADER}
    return {f"{folder}{_HEADER}", f"{folder}/{name}{_HEADER}"} if ours else set()


def _is_note(path: str) -> bool:
    """Whether a path is that of a note that a keyring was sealed anew."""
    return path.endswith(_HEADER) and bool(_needs(path))


def _is_there(store: Store, path: str) -> bool:
    try:
        store.stat(path)
    except NotFoundError:
        return False
    return True


def _sealed(path: str) -> str:
    """TIME-RAND of a sealed keyring or archive; empty where it is neither."""
    return _part(path, _SEALED) or _part(path, _ARCHIVE)


def _part(path: str, suffix: str) -> str:
    """TIME-RAND of a path with that ending; empty where it is none of ours."""
    name = path.rpartition("/")[2]
    stem = name.removesuffix(suffix)
    ours = path.count("/") == 3 and name.endswith(suffix) and _NAME.fullmatch(stem)
    return stem if ours else ""


def _folder(cluster: str) -> str:
    return f"clusters/{cluster}/keyrings/"


def _path(cluster: str, name: str) -> str:
    return f"{_folder(cluster)}{name}"
