"""Where the store ends: what a recorder that starts goes on from."""

from dataclasses import dataclass, replace
from datetime import datetime

from backstay.errors import StoreError
from backstay.flows.ancestry import look_back
from backstay.flows.recording.tape import Anchor
from backstay.mvcc.delta import Position
from backstay.repo.catalogue import Repository
from backstay.repo.lineage import Stored
from backstay.repo.manifest import SnapshotEntry
from backstay.repo.roll import Stretch, recorded
from backstay.repo.tipnote import find_tip


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of the newest lineage of a cluster, as it is stored.

    Attributes:
        stored: what it is known by.
        end: the position after the last change that is stored.
        full_at: when its newest full backup was made.
        hole: what is missing between that and the end; empty where nothing is.
    """

    stored: Stored
    end: Position
    full_at: datetime
    hole: str = ""

    @property
    def anchor(self) -> Anchor | None:
        """What a watch that goes on is held to; None where there is nothing to know it by."""
        if self.stored.tip is None:
            return None
        count = self.end.sub or None
        return Anchor(self.stored.revision, count, self.stored.tip)


def find_ending(repository: Repository, cluster: str, name: str) -> Ending | None:
    """Find where the store ends; None where no good backup of the cluster is there.

    It takes a few requests, however much is recorded: see `repo.roll`.

    Args:
        repository: where it lies.
        cluster: whose.
        name: of the etcd in its backups.

    Raises:
        StoreError: what is stored can't be looked up.
    """
    past = look_back(repository, cluster)
    entry = past.snapshot(name)
    if past.newest is None or entry is None:
        if past.trouble:
            raise StoreError(f"what is stored of {cluster} can't be looked at: {past.trouble}")
        return None
    stretches = recorded(repository, cluster, [entry.lineage])[entry.lineage]
    made = past.newest.manifest.taken_at
    reach = reached(entry, stretches)
    last = max((one.end for one in stretches), default=reach)
    if last > reach and (note := find_tip(repository.store, cluster, entry.lineage, last)):
        following = min(one.begin for one in stretches if one.begin > reach)
        hole = f"what is recorded from {reach} to {following} is not there any more"
        return Ending(note.stored, last, made, hole)
    return Ending(_known(repository, cluster, entry, reach), reach, made)


def _known(repository: Repository, cluster: str, entry: SnapshotEntry, reach: Position) -> Stored:
    """Say by what is known what is recorded up to a position after a snapshot."""
    stored = Stored.of(entry)
    if reach == Position(entry.revision + 1):
        return stored
    note = find_tip(repository.store, cluster, entry.lineage, reach)
    if note is not None:
        return note.stored
    main = reach.main if reach.sub else reach.main - 1
    return replace(stored, revision=main, compact_revision=-1, hash=None, tip=None)


def reached(entry: SnapshotEntry, stretches: tuple[Stretch, ...]) -> Position:
    """Say how far the recorded changes go on from a snapshot, without a hole."""
    after = Position(entry.revision + 1)
    return max(
        (one.end for one in stretches if one.begin <= after <= one.end),
        default=after,
    )
