"""Deltas in a repository: put there, listed, fetched. Whole or not at all, as every object.

A delta needs no manifest: its name says what a plan must know, and its content proves itself (see
`mvcc.delta`). A copy under another name is found when it is read, since the name has its size and
its digest. Deltas of one lineage lie in one folder, in the order of the history; since a delta
spans at most `MAX_REVISIONS`, whoever looks for a revision lists from a little before it.

A delta that was sealed anew lies there in several copies for a while, or for as long as a lock
holds: the same bytes in the clear, sealed to other recipients. They are listed as one, with that
of the latest recipients in front; each proves itself, and whoever reads takes the first that does.

Whoever deletes a delta deletes the rolls that name it first (see `roll`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from backstay.errors import DamagedError, UsageError
from backstay.mvcc.delta import MAX_REVISIONS, Delta, Position
from backstay.mvcc.deltawriter import Written
from backstay.repo.catalogue import Repository
from backstay.repo.deltaname import (
    DIGEST_DIGITS,
    LINEAGE,
    PLAIN,
    SEALED,
    DeltaName,
    Resealed,
    deltas_of,
    parse_file,
    position,
)
from backstay.repo.identity import Identities
from backstay.repo.manifest import ObjectEntry
from backstay.repo.name import check_cluster
from backstay.repo.packing import Readable
from backstay.repo.sealing import Sealing, seal, unseal_unlisted
from backstay.repo.store import ObjectInfo, Writer


@dataclass(frozen=True, slots=True)
class StoredDelta:
    """A delta as the store lists it.

    Attributes:
        cluster: whose it is.
        lineage: of which life.
        name: what its name says.
        path: where it lies.
        stored_size: bytes that it takes there.
        modified: when it came to the store, by the store's clock.
        resealed: what it was sealed to anew; None of one that is as it was recorded.
        others: other copies of it, the best of them first.
    """

    cluster: str
    lineage: str
    name: DeltaName
    path: str
    stored_size: int
    modified: datetime
    resealed: Resealed | None = None
    others: tuple["StoredDelta", ...] = ()

    @property
    def copies(self) -> tuple["StoredDelta", ...]:
        """Itself and the others, the best first."""
        return self, *self.others

    @property
    def rank(self) -> tuple[int, datetime, str]:
        """Orders copies: the better one has the later recipients, then came later."""
        return self.resealed.generation if self.resealed else 0, self.modified, self.path

    @property
    def begin(self) -> Position:
        """The position of the first change that it may have."""
        return self.name.begin

    @property
    def end(self) -> Position:
        """The position after the last."""
        return self.name.end


def put_delta(
    repository: Repository, written: Written, sealing: Sealing | None = None
) -> StoredDelta:
    """Seal and store a delta; it is there when this function has returned.

    Args:
        repository: where to; its recipients are sealed to.
        written: the delta.
        sealing: how hard to compress.

    Raises:
        StoreError: the store refuses.
        SpaceError: it is full.
    """
    config, store = repository.config, repository.store
    name = DeltaName.of(written)
    folder = deltas_of(written.header.cluster, written.header.lineage)
    path = f"{folder}{name}{SEALED if config.recipients else PLAIN}"
    seal(written.open(), store, path, config.recipients, sealing)
    info = store.stat(path)
    cluster, lineage = written.header.cluster, written.header.lineage
    return StoredDelta(cluster, lineage, name, path, info.size, info.modified)


def put_copy(
    repository: Repository,
    stored: StoredDelta,
    source: Readable,
    sealing: Sealing | None = None,
) -> ObjectEntry:
    """Seal a delta anew, to the recipients of now, and store that beside what is there.

    Args:
        repository: an encrypted one.
        stored: which.
        source: its bytes in the clear, which were proven.
        sealing: how hard to compress.

    Returns:
        The object that it became; what the store has is not looked at yet.

    Raises:
        StoreError: the store refuses.
        SpaceError: it is full.
    """
    config = repository.config
    mark = Resealed.mint(config.generation, config.recipients)
    path = f"{deltas_of(stored.cluster, stored.lineage)}{stored.name}{mark}{SEALED}"
    return seal(source, repository.store, path, config.recipients, sealing).entry(path, "delta")


def list_deltas(
    repository: Repository, cluster: str, lineage: str, *, since: int = 0
) -> Iterator[StoredDelta]:
    """List the deltas of a lineage, in the order of where they begin.

    Args:
        repository: where they lie.
        cluster: whose.
        lineage: of which life.
        since: only those that may have changes of this revision, or later ones; the others are
            not asked for.

    Raises:
        StoreError: the store refuses.
    """
    first = Position(max(since - MAX_REVISIONS, 0))
    for found in list_from(repository, cluster, lineage, first):
        if found.end.main >= since:
            yield found


def list_from(
    repository: Repository, cluster: str, lineage: str, begin: Position
) -> Iterator[StoredDelta]:
    """List the deltas of a lineage that begin at a position or after it.

    Raises:
        StoreError: the store refuses.
    """
    folder = deltas_of(cluster, lineage)
    listed = repository.store.list(folder, after=f"{folder}{position(begin)}")
    yield from _together(_stored(info, cluster) for info in listed)


def listed_now(repository: Repository, delta: StoredDelta) -> StoredDelta | None:
    """List a delta again; None where it is gone.

    Raises:
        StoreError: the store refuses.
    """
    for found in list_from(repository, delta.cluster, delta.lineage, delta.begin):
        if found.name == delta.name:
            return found
        if found.begin > delta.begin:
            break
    return None


def list_all(repository: Repository, cluster: str | None = None) -> Iterator[StoredDelta]:
    """List all deltas of a cluster, or of all clusters; one LIST for a thousand.

    Raises:
        StoreError: the store refuses.
    """
    prefix = "deltas/" if cluster is None else deltas_of(cluster)
    yield from _together(map(_anywhere, repository.store.list(prefix)))


def _together(found: Iterable[StoredDelta | None]) -> Iterator[StoredDelta]:
    """Give copies of a delta as one; their names follow each other."""
    ours = (one for one in found if one is not None)
    for _, group in groupby(ours, key=lambda one: (one.cluster, one.lineage, one.name)):
        best, *others = sorted(group, key=lambda one: one.rank, reverse=True)
        yield replace(best, others=tuple(others)) if others else best


def _anywhere(info: ObjectInfo) -> StoredDelta | None:
    """Read the path of a delta of any cluster; None where it is none of ours."""
    with suppress(UsageError):
        found = _stored(info, check_cluster(info.path.split("/")[1]))
        if found is not None and info.path.startswith(deltas_of(found.cluster, found.lineage)):
            return found
    return None


def _stored(info: ObjectInfo, cluster: str) -> StoredDelta | None:
    """Read a name; None where it is none of ours."""
    *_, lineage, last = info.path.split("/")
    found = parse_file(last)
    if found is None or not LINEAGE.fullmatch(lineage):
        return None
    name, resealed = found
    return StoredDelta(cluster, lineage, name, info.path, info.size, info.modified, resealed)


def fetch_delta(
    repository: Repository,
    stored: StoredDelta,
    sink: Writer,
    identities: Identities | None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Fetch, decrypt and unpack one copy: `stored.name.size` bytes come, or an error.

    What came is proven by `mvcc.delta.read_delta` and `check_fetched`, not here.

    Args:
        repository: where it lies.
        stored: which.
        sink: gets the bytes in the clear.
        identities: private keys; not needed where nothing is encrypted.
        progress: called with each number of stored bytes that came.

    Raises:
        DamagedError: it is cut, or is not of the size that its name says.
        SealError: the identity does not open it.
        NotFoundError: it is gone.
    """
    unseal_unlisted(
        repository.store,
        stored.path,
        sink,
        identities=identities,
        encryption=repository.config.encryption,
        size=stored.name.size,
        stored_size=stored.stored_size,
        progress=progress,
    )


def check_fetched(stored: StoredDelta, delta: Delta) -> None:
    """Hold a delta to its name and its place.

    Raises:
        DamagedError: it was put under another name, or below another cluster or lineage.
    """
    header, name = delta.header, stored.name
    found = (header.cluster, header.lineage, delta.begin, delta.end, delta.digest[:DIGEST_DIGITS])
    if found != (stored.cluster, stored.lineage, name.begin, name.end, name.digest):
        raise DamagedError(
            f"{stored.path} is not what its name says", "find out who has changed the repository"
        )
