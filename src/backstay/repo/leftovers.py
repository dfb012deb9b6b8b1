"""What dead runs left in a repository, and what is left of backups that were removed.

There are no locks: what has no manifest is left alone until it is older than a safe age by the
store's own clock.

Source: docs/formats.md.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry
from backstay.repo.lock import unlocked
from backstay.repo.name import manifests_of, notes_of, objects_of, pins_of, removals_of
from backstay.repo.probe import left_over
from backstay.repo.store import ObjectInfo

#: Objects without a manifest are left alone for this long: their backup may still be running.
SAFE_AGE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Swept:
    """What dead runs had left, and was deleted.

    Attributes:
        paths: names of objects, and of files that were never finished.
        size: bytes of the objects.
    """

    paths: tuple[str, ...]
    size: int


def sweep(repository: Repository, age: timedelta = SAFE_AGE) -> Swept:
    """Delete what dead runs left: objects that no manifest names, older than a safe age.

    Where a manifest can't be read nothing of its cluster is touched. Files that were never
    finished, and that nothing lists, go too, as far as the store can see them; and notes and
    pins whose backup was removed.

    What the store locks is left to a later sweep.

    Args:
        repository: where.
        age: how old, by the store's own clock, an object must be.

    Raises:
        StoreError: the store refuses.
    """
    before = repository.store.now() - age
    dead = [
        info
        for cluster in repository.clusters()
        for info in _without_manifest(repository, cluster, before)
    ]
    dead += [
        info for cluster in repository.clusters() for info in _beside(repository, cluster, before)
    ]
    dead = unlocked(repository.store, [*dead, *left_over(repository.store, before)])
    for info in dead:
        repository.store.delete(info.path)
    partial = repository.store.clear_partial(before)
    paths = (*(info.path for info in dead), *partial)
    return Swept(paths, sum(info.size for info in dead))


def _beside(repository: Repository, cluster: str, before: datetime) -> list[ObjectInfo]:
    """Find old notes and pins of backups that are gone."""
    old = [
        info
        for folder in (notes_of(cluster), pins_of(cluster))
        for info in repository.store.list(folder)
        if info.modified < before
    ]
    # A list may be late, and a pin is not to be lost for that: each is looked for by its name.
    gone = {
        name
        for name in {info.path.split("/")[3] for info in old} - _names(repository, cluster)
        if not repository.is_there(f"{manifests_of(cluster)}{name}.json")
    }
    return [info for info in old if info.path.split("/")[3] in gone]


def _names(repository: Repository, cluster: str) -> set[str]:
    return {one.name for one in repository.bare(cluster)}


def dead_runs(repository: Repository, age: timedelta = SAFE_AGE) -> frozenset[tuple[str, str]]:
    """Name the runs that left objects and no manifest: cluster, and TIME-RAND.

    Not those whose backup was removed: what belongs to that, a prune knows.

    Args:
        repository: where.
        age: how old, by the store's own clock, an object must be.

    Raises:
        StoreError: the store refuses.
    """
    before = repository.store.now() - age
    dead: set[tuple[str, str]] = set()
    for cluster in repository.clusters():
        left = {info.path.split("/")[3] for info in _without_manifest(repository, cluster, before)}
        removed = repository.store.list(removals_of(cluster)) if left else ()
        names = {"-".join(_run(info.path)) for info in removed}
        dead |= {(cluster, run) for run in left - names}
    return frozenset(dead)


def _without_manifest(repository: Repository, cluster: str, before: datetime) -> list[ObjectInfo]:
    """Find old objects of no backup: by their names first, which costs two LISTs."""
    old = [info for info in repository.store.list(objects_of(cluster)) if info.modified < before]
    # The objects were listed first: a manifest that comes meanwhile is seen here.
    runs = {_run(info.path) for info in repository.store.list(manifests_of(cluster))}
    strange = [info for info in old if _run(info.path) not in runs]
    kept = _objects_in_use(repository, cluster) if strange else None
    return [info for info in strange if kept is not None and info.path not in kept]


def _objects_in_use(repository: Repository, cluster: str) -> set[str] | None:
    found = repository.read_all(repository.listed(cluster))
    entries = [entry for entry in found if isinstance(entry, Entry)]
    # Whose manifest can't be read, or not any more, may have objects anywhere.
    if len(entries) < len(found):
        return None
    return {item.path for entry in entries for item in entry.manifest.objects}


def _run(path: str) -> tuple[str, str]:
    """Time and random part of the run that a manifest or an object belongs to."""
    words = path.split("/")[3].removesuffix(".json").split("-")
    return words[0], words[-1]
