"""Where the store ends: what a recorder that starts goes on from."""

from dataclasses import dataclass
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
    """

    stored: Stored
    end: Position
    full_at: datetime

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
    reach = reached(entry, recorded(repository, cluster, [entry.lineage])[entry.lineage])
    stored = Stored.of(entry)
    if reach > Position(entry.revision + 1):
        note = find_tip(repository.store, cluster, entry.lineage, reach)
        if note is None:
            main = reach.main if reach.sub else reach.main - 1
            stored = _unknown(stored, main)
        else:
            stored = note.stored
    return Ending(stored, reach, past.newest.manifest.taken_at)


def reached(entry: SnapshotEntry, stretches: tuple[Stretch, ...]) -> Position:
    """Say how far the recorded changes go on from a snapshot, without a hole."""
    after = Position(entry.revision + 1)
    return max(
        (one.end for one in stretches if one.begin <= after <= one.end),
        default=after,
    )


def _unknown(stored: Stored, revision: int) -> Stored:
    return Stored(
        lineage=stored.lineage,
        predecessor=stored.predecessor,
        revision=revision,
        compact_revision=stored.compact_revision,
        cluster_id=stored.cluster_id,
        raft_term=stored.raft_term,
        raft_index=stored.raft_index,
        hash=None,
        tip=None,
    )
