"""What a backup comes after: the newest good backup of its cluster, and whether it goes on with it.

What is stored is looked up before the snapshot comes. A backup is made all the same where that
can't be read: then a new lineage begins, and the check `change` says so.
"""

import secrets
from dataclasses import dataclass

from backstay.client.snapshot import Received
from backstay.errors import BackstayError, DamagedError
from backstay.mvcc.hashkv import compute_hashkv
from backstay.mvcc.snapshot import FIRST_REVISION, Snapshot
from backstay.mvcc.tip import SALT_SIZE, elements_at, fingerprint
from backstay.repo.catalogue import Entry, Repository, newest
from backstay.repo.lineage import Lineage, Shown, Stored, continue_or_begin
from backstay.repo.manifest import SnapshotEntry, Tip


@dataclass(frozen=True, slots=True)
class Past:
    """The backups that a new one comes after.

    Attributes:
        newest: the newest that no check has failed of; None where there is none.
        verified: the newest verified one; None where there is none.
        trouble: why what is stored could not be looked at, or not all of it; empty where it could.
    """

    newest: Entry | None = None
    verified: Entry | None = None
    trouble: str = ""

    def snapshot(self, name: str) -> SnapshotEntry | None:
        """Find the newest snapshot of an etcd, by its name in the cluster."""
        found = self.newest.manifest.snapshots if self.newest else ()
        return next((entry for entry in found if entry.name == name), None)


def look_back(repository: Repository, cluster: str) -> Past:
    """Look up what a new backup of a cluster comes after; raises nothing of ours."""
    try:
        found = repository.backups(cluster)
    except BackstayError as error:
        return Past(trouble=error.what)
    entries = [entry for entry in found if isinstance(entry, Entry)]
    good = [entry for entry in entries if not entry.failed]
    verified = [entry for entry in good if entry.verified]
    unread = [entry.reason for entry in found if not isinstance(entry, Entry)]
    return Past(
        newest(good) if good else None,
        newest(verified) if verified else None,
        "; ".join(unread),
    )


def trace(
    stored: Stored | None,
    snapshot: Snapshot,
    received: Received,
    *,
    raft_index: int,
    sound: bool,
) -> Lineage:
    """Decide which lineage a snapshot is of, going by what is stored.

    Args:
        stored: the end of the newest lineage of the same etcd; None where nothing is stored.
        snapshot: what came.
        received: from whom.
        raft_index: of the last entry that is in it.
        sound: whether its structure and content are whole.
    """
    shown = None
    if sound and stored is not None:
        try:
            shown = _shown(stored, snapshot, received, raft_index)
        except DamagedError:
            shown = None
    return continue_or_begin(stored, shown, secrets.token_hex(8))


def _shown(stored: Stored, snapshot: Snapshot, received: Received, raft_index: int) -> Shown:
    header, at = received.source.header, stored.revision
    compacted, salt = snapshot.compact_revision, stored.tip and stored.tip.salt
    reached = FIRST_REVISION <= at <= snapshot.revision
    comparable = reached and compacted <= stored.compact_revision <= at
    return Shown(
        revision=snapshot.revision,
        compact_revision=compacted,
        cluster_id=f"{header.cluster_id:x}",
        raft_term=header.raft_term,
        raft_index=raft_index,
        hash=compute_hashkv(snapshot, revision=at, compact_revision=stored.compact_revision).hash
        if comparable
        else None,
        tip=fingerprint(elements_at(snapshot, at), bytes.fromhex(salt)) if salt and reached else "",
    )


def tip_of(snapshot: Snapshot) -> Tip | None:
    """Give what the last revision of a whole snapshot can be known by.

    Raises:
        DamagedError: the path to it is damaged.
    """
    salt = secrets.token_bytes(SALT_SIZE)
    digest = fingerprint(elements_at(snapshot, snapshot.revision), salt)
    return Tip(salt=salt.hex(), digest=digest) if digest else None
