"""The catalogue: which backups a repository has, and which one is meant.

    backstay.json                                      the configuration, see `config`
    config/NNNNNN-RAND.json                            later generations of it, see `generation`
    clusters/CLUSTER/backups/NAME.json                 manifests, see `manifest`
    clusters/CLUSTER/objects/TIME-RAND/...             objects, named in a manifest
    clusters/CLUSTER/notes/NAME/TIME-ACTION-RAND.json  later verdicts, see `note`
    clusters/CLUSTER/pins/NAME/TIME-RAND.json          what keeps it from being pruned, see `pin`

A backup exists when its manifest does (promise 1). There are no locks: no two writers share a
name. What has no manifest is a matter of `leftovers`.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Self, TypeVar

from backstay.errors import (
    AlreadyExistsError,
    BackstayError,
    FormatError,
    NotFoundError,
    StoreError,
)
from backstay.repo import config as configuration
from backstay.repo import generation as generations
from backstay.repo import note as notes
from backstay.repo import pin as pinning
from backstay.repo.config import Config, check_pins, parse_config
from backstay.repo.document import MAX_SIZE, encode
from backstay.repo.entry import Entry, Listed, Unreadable, newest, order
from backstay.repo.lock import check_locking, locking
from backstay.repo.manifest import Manifest, parse_manifest
from backstay.repo.name import (
    LATEST,
    LATEST_VERIFIED,
    BackupId,
    check_cluster,
    manifests_of,
    notes_of,
    pins_of,
)
from backstay.repo.note import Note, parse_note
from backstay.repo.pin import read_pin
from backstay.repo.reseal import applied
from backstay.repo.store import ObjectInfo, Store

_READERS = 16
_COPIED = "use the repository that it was made in: what it names need not be here"

T = TypeVar("T")
U = TypeVar("U")


class Repository:
    """An open repository.

    Args:
        store: where it lies.
        config: what it says of itself: the newest generation.
        first: what it said when it was made; None: that is the newest.
    """

    def __init__(self, store: Store, config: Config, first: Config | None = None) -> None:
        self.store = store
        self.config = config
        self.first = first or config

    @classmethod
    def init(cls, store: Store, config: Config) -> Self:
        """Make a repository.

        Raises:
            AlreadyExistsError: there is one.
            StoreError: the store refuses.
        """
        try:
            store.read(configuration.PATH, MAX_SIZE)
        except NotFoundError:
            generations.check_none(store)
            store.put_new(configuration.PATH, encode(config))
            return cls(store, config)
        raise AlreadyExistsError(
            f"{store.url} is a repository already", "use it, or name another place"
        )

    @classmethod
    def open(cls, store: Store, pinned: Sequence[str] = ()) -> Self:
        """Open a repository.

        Args:
            store: where it lies.
            pinned: the recipients that the caller expects; empty expects nothing.

        Raises:
            NotFoundError: there is none.
            RefusedError: the newest generation is sealed to others than the pinned recipients.
            FormatError: its configuration can't be read.
            StoreError: the store refuses.
        """
        try:
            data = store.read(configuration.PATH, MAX_SIZE)
        except NotFoundError as error:
            raise NotFoundError(
                f"{store.url} is no repository", "make one with `backstay init`, or mend the URL"
            ) from error
        first = parse_config(data, f"{store.url}/{configuration.PATH}")
        config = generations.newest(store, first)
        check_pins(config, pinned, store.url)
        return cls(locking(store, config.lock), config, first)

    def publish(self, manifest: Manifest) -> str:
        """Make a backup exist: the last thing that is written of it, in one put.

        It is read back: a manifest that can't be read would be no backup, and would stop sweeps.

        Returns:
            The manifest's path.

        Raises:
            RefusedError: what is written is to be locked, and the store can't.
            StoreError: the store refuses, or did not keep what was written.
        """
        check_locking(self.store, self.config.lock)
        path = f"{manifests_of(manifest.cluster)}{manifest.name.name}.json"
        data = encode(manifest)
        parse_manifest(data, path)
        self.put(path, data, "so there is no backup")
        return path

    def put(self, path: str, data: bytes, so: str) -> None:
        """Write something, and take it away again where the store did not keep it.

        Args:
            path: that nobody has written to.
            data: small.
            so: what that means, for the error.

        Raises:
            StoreError: the store refuses, or did not keep what was written.
        """
        self.store.put_new(path, data)
        if self._read_back(path) != data:
            with suppress(BackstayError):
                self.store.delete(path)
            raise StoreError(
                f"{self.store.url}/{path} is not what was written to it, {so}",
                "find out why the store changes what it is given",
            )

    def _read_back(self, path: str) -> bytes:
        try:
            return self.store.read(path, MAX_SIZE)
        except (NotFoundError, FormatError):
            return b""

    def add(self, note: Note) -> None:
        """Say something of a backup, later.

        It is read back: a note that can't be read would take its backup along.

        Raises:
            StoreError: the store refuses, or did not keep what was written.
        """
        self.put(notes.path(note), encode(note), "so nothing was noted")

    def clusters(self) -> tuple[str, ...]:
        """Name the clusters that something was written of."""
        return tuple(sorted({info.path.split("/")[1] for info in self.store.list("clusters")}))

    def backups(self, cluster: str | None = None) -> tuple[Entry | Unreadable, ...]:
        """Read the manifests of one cluster, or of all, oldest first by the store's clock."""
        names = self.clusters() if cluster is None else (check_cluster(cluster),)
        found = [entry for name in names for entry in self._backups_of(name)]
        return tuple(sorted(found, key=order))

    def _backups_of(self, cluster: str) -> Iterable[Entry | Unreadable]:
        found = self.read_all(self.listed(cluster))
        return [entry for entry in found if entry is not None]

    def listed(self, cluster: str) -> tuple[Listed, ...]:
        """List what the store has of a cluster's backups, by their names; nothing is read.

        Raises:
            StoreError: the store refuses.
        """
        bare = self.bare(cluster)
        said = _by_backup(self.store.list(notes_of(cluster)))
        pins = _by_backup(self.store.list(pins_of(cluster)))
        return tuple(
            replace(one, notes=said.get(one.name, ()), pins=pins.get(one.name, ())) for one in bare
        )

    def bare(self, cluster: str) -> list[Listed]:
        """The same, without what lies beside the manifests.

        Raises:
            StoreError: the store refuses.
        """
        found = self.store.list(manifests_of(cluster))
        return [Listed(cluster, info) for info in found if info.path.endswith(".json")]

    def read(self, listed: Listed) -> Entry | Unreadable | None:
        """Read a backup that is listed.

        Returns:
            None where it was removed since.

        Raises:
            StoreError: the store refuses.
        """
        path, written = listed.manifest.path, listed.manifest.modified
        try:
            data = self.store.read(path, MAX_SIZE)
        except NotFoundError:
            return None
        except FormatError as error:
            return _unreadable(listed, error)
        try:
            manifest = parse_manifest(data, path)
            self._check_place(manifest, f"{listed.cluster}/{listed.name}", path)
            later = [self._note(note, manifest.id) for note in listed.notes]
            manifest = applied(manifest, later, path)
        except FormatError as error:
            return _unreadable(listed, error)
        except NotFoundError as error:  # of a note: they go after their manifest
            return _unreadable(listed, error) if self.is_there(path) else None
        pins = (read_pin(self.store, info) for info in listed.pins)
        said = tuple(sorted(later, key=lambda note: note.at))
        return Entry(manifest, said, written, tuple(one for one in pins if one is not None))

    def read_all(self, listed: Sequence[Listed]) -> list[Entry | Unreadable | None]:
        """Read many backups at the same time; see `read`."""
        return _together(self.read, listed)

    def is_there(self, path: str) -> bool:
        """Whether an object is there, by its name.

        Raises:
            StoreError: the store refuses.
        """
        try:
            self.store.stat(path)
        except NotFoundError:
            return False
        return True

    def _check_place(self, manifest: Manifest, expected: str, path: str) -> None:
        """Find manifests that were copied: what they name need not be there."""
        if manifest.id != expected:
            raise FormatError(f"{path} is the manifest of {manifest.id}", _COPIED)
        if manifest.repository != self.config.repository:
            raise FormatError(f"{path} was copied from another repository", _COPIED)

    def _note(self, info: ObjectInfo, backup: str) -> Note:
        note = parse_note(self.store.read(info.path, MAX_SIZE), info.path)
        if note.backup != backup:
            raise FormatError(f"{info.path} is a note on {note.backup}")
        return note

    def find(self, text: str) -> Entry:
        """Find the backup that an ID means.

        `latest` is the backup whose manifest came last to the store, by the store's clock, and
        where others have its lineage, the one of these with the highest revision. A backup
        with a failed check is never meant by it. What came later and can't be read is told in
        `passed_over`.

        Args:
            text: a full ID, `CLUSTER/latest` or `CLUSTER/latest-verified`.

        Raises:
            UsageError: it is no ID.
            NotFoundError: there is no such backup.
            FormatError: there is, but its manifest can't be read.
        """
        cluster, _, name = text.partition("/")
        if name in {LATEST, LATEST_VERIFIED}:
            return self._latest(check_cluster(cluster), verified=name == LATEST_VERIFIED)
        wanted = BackupId.parse(text)
        entry = self._named(wanted)
        if isinstance(entry, Entry):
            return entry
        if entry is not None:
            raise FormatError(entry.reason, entry.do)
        raise NotFoundError(f"{self.store.url} has no backup {text}", "see `backstay list`")

    def _named(self, wanted: BackupId) -> Entry | Unreadable | None:
        path = f"{manifests_of(wanted.cluster)}{wanted.name}.json"
        try:
            info = self.store.stat(path)
        except NotFoundError:
            return None
        said = tuple(self.store.list(notes.folder(wanted)))
        pins = tuple(self.store.list(pinning.folder(wanted)))
        return self.read(Listed(wanted.cluster, info, said, pins))

    def _latest(self, cluster: str, *, verified: bool) -> Entry:
        found = self.backups(cluster)
        whole = [entry for entry in found if isinstance(entry, Entry) and not entry.failed]
        fit = [entry for entry in whole if entry.verified] if verified else whole
        if fit:
            chosen = newest(fit)
            later = (one for one in found if isinstance(one, Unreadable))
            passed = tuple(one.reason for one in later if one.written > chosen.written)
            return replace(chosen, passed_over=passed)
        others = f", {len(found)} of other kinds" if found else ""
        kind = "verified backup" if verified else "backup"
        raise NotFoundError(
            f"{self.store.url} has no {kind} of {cluster}{others}", "see `backstay list`"
        )


def _by_backup(found: Iterable[ObjectInfo]) -> dict[str, tuple[ObjectInfo, ...]]:
    """Sort what lies beside manifests by the names of their backups."""
    by: dict[str, list[ObjectInfo]] = {}
    for info in found:
        by.setdefault(info.path.split("/")[3], []).append(info)
    return {name: tuple(infos) for name, infos in by.items()}


def _unreadable(listed: Listed, error: BackstayError) -> Unreadable:
    do = error.do or "update backstay, or use another backup"
    info = listed.manifest
    return Unreadable(listed.cluster, info.path, error.what, do, info.modified)


def _together(work: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """Do many small requests at the same time, in order; the first error ends it.

    Raises:
        StoreError: a request failed.
    """
    if not items:
        return []
    with ThreadPoolExecutor(max_workers=min(_READERS, len(items))) as pool:
        try:
            return list(pool.map(work, items))
        except BaseException:
            # Also where somebody wants us to stop: what has not begun never will.
            pool.shutdown(cancel_futures=True)
            raise
