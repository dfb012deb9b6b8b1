"""Lineages: whether an etcd is the one that something is stored of, or has begun another life.

Cluster and member ids do not tell: they hash peer URLs and a token, so a restore in place has the
old ones, and so has a fresh etcd on the same URLs. A lineage is continued on proof alone. What is
stored of it goes by: its cluster id, its raft term and index, HashKV of its last revision, and a
fingerprint of the changes of that revision.

The decision is pure. What an etcd shows may come from a snapshot or from a watch.

Source: docs/formats.md.
"""

from dataclasses import dataclass
from enum import StrEnum

from backstay.repo.manifest import SnapshotEntry, Tip

#: HashKV of a history without any change: all that are empty have it, so it is no proof.
_HASH_OF_NOTHING = 0x40A4756D
_UNREAD = "what came is too damaged to compare it with what is stored"


class Proof(StrEnum):
    """What the comparison with what is stored came to."""

    FIRST = "first"  # nothing is stored
    CONTINUED = "continued"  # it is the same history
    UNPROVEN = "unproven"  # nothing speaks against it, and nothing proves it
    OTHER = "other"  # it is another history


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The end of a lineage, as far as it is stored.

    Attributes:
        lineage: its id.
        predecessor: id of the lineage that it came after; None where there was none.
        root: as in `Lineage`.
        revision: the last that is stored.
        compact_revision: where the stored history begins; -1: never compacted.
        cluster_id: of its etcd, hex.
        raft_term: of its etcd, then.
        raft_index: of its etcd, then.
        hash: HashKV at `revision`, as compacted at `compact_revision`; None where it is not known.
        tip: fingerprint of the changes of `revision`; None where there was nothing to know it by.
    """

    lineage: str
    predecessor: str | None
    root: str
    revision: int
    compact_revision: int
    cluster_id: str
    raft_term: int
    raft_index: int
    hash: int | None
    tip: Tip | None

    @classmethod
    def of(cls, entry: SnapshotEntry) -> "Stored":
        """Take the end of a lineage from a backup's snapshot."""
        whole = entry.hashkv.revision == entry.revision
        return cls(
            lineage=entry.lineage,
            predecessor=entry.predecessor,
            root=entry.root or entry.lineage,
            revision=entry.revision,
            compact_revision=entry.compact_revision,
            cluster_id=entry.cluster_id,
            raft_term=entry.raft_term,
            raft_index=entry.raft_index,
            hash=entry.hashkv.hash if whole else None,
            tip=entry.tip,
        )

    def goes_on(self, reason: str) -> "Lineage":
        """Give the lineage, where it was proven that it goes on, or more of the same is made."""
        return Lineage(self.lineage, self.predecessor, self.root, Proof.CONTINUED, reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What an etcd shows of itself now, and of the revision that is stored.

    Attributes:
        revision: at which it stands.
        compact_revision: where its history begins; -1: never compacted.
        cluster_id: hex.
        raft_term: its term.
        raft_index: its index.
        hash: its HashKV at the stored revision, as compacted where the stored one is; None where
            it can't be told.
        tip: fingerprint of what it has of the stored revision, with the stored salt; empty where
            it has nothing of it.
    """

    revision: int
    compact_revision: int
    cluster_id: str
    raft_term: int
    raft_index: int
    hash: int | None
    tip: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which lineage it is.

    Attributes:
        id: its id.
        predecessor: id of the lineage that was the newest when this one began; None where there
            was none.
        root: the first of a row of lineages that may be one life: each began only since nothing
            proved that it goes on with the one before, and nothing speaks against it. Its own
            id where it is alone.
        proof: whether it is continued, and why not.
        reason: one line.
    """

    id: str
    predecessor: str | None
    root: str
    proof: Proof
    reason: str

    @classmethod
    def first(cls, fresh: str, reason: str) -> "Lineage":
        """Begin one that comes after none."""
        return cls(fresh, None, fresh, Proof.FIRST, reason)

    def followed(self, fresh: str, proof: Proof, reason: str) -> "Lineage":
        """Begin the lineage that comes after it, under an id of its own."""
        root = self.root if proof is Proof.UNPROVEN else fresh
        return Lineage(fresh, self.id, root, proof, reason)


def continue_or_begin(stored: Stored | None, shown: Shown | None, fresh: str) -> Lineage:
    """Decide whether a lineage goes on.

    Args:
        stored: the end of the newest lineage; None where nothing is stored.
        shown: what the etcd shows now; None where that is too damaged to tell.
        fresh: the id of the lineage that begins where this one does not go on.
    """
    if stored is None:
        return Lineage.first(fresh, "nothing is stored of it yet")
    if shown is None:
        proof, reason = Proof.UNPROVEN, _UNREAD
    else:
        proof, reason = _compare(stored, shown)
    same = stored.goes_on(reason)
    return same if proof is Proof.CONTINUED else same.followed(fresh, proof, reason)


def _compare(stored: Stored, shown: Shown) -> tuple[Proof, str]:
    against = _against(stored, shown)
    if against:
        return Proof.OTHER, against
    at = stored.revision
    if shown.hash is not None and stored.hash not in {None, _HASH_OF_NOTHING}:
        return Proof.CONTINUED, f"HashKV {stored.hash} at revision {at}, as stored"
    if stored.tip is None:
        return Proof.UNPROVEN, f"what is stored of revision {at} has nothing to know it by"
    if shown.tip == stored.tip.digest:
        return Proof.CONTINUED, f"its changes at revision {at} are those that are stored"
    return Proof.UNPROVEN, (
        f"revision {at}, the last that is stored, is compacted away (at {shown.compact_revision})"
    )


def _against(stored: Stored, shown: Shown) -> str:
    """Say what shows that it is another history; empty where nothing does."""
    if shown.cluster_id != stored.cluster_id:
        return f"its cluster id is {shown.cluster_id}, {stored.cluster_id} is stored"
    for name, now, then in (
        ("revision", shown.revision, stored.revision),
        ("raft term", shown.raft_term, stored.raft_term),
        ("raft index", shown.raft_index, stored.raft_index),
    ):
        if now < then:
            return f"its {name} went back from {then} to {now}"
    at = stored.revision
    if shown.hash is not None and stored.hash is not None and shown.hash != stored.hash:
        return f"HashKV at revision {at} is {shown.hash}, {stored.hash} is stored"
    # A compaction at the stored revision itself may have taken deletes of it.
    there = shown.compact_revision < at
    if there and stored.tip is not None and shown.tip != stored.tip.digest:
        return f"its changes at revision {at} are others than those that are stored"
    return ""
