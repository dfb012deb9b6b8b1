"""What a backup comes after: the newest good backup of its cluster, and whether it goes on with it.

What is stored is looked up before the snapshot comes. A backup is made all the same where that
can't be read: then a new lineage begins, and the check `change` says so.
"""

import secrets
from dataclasses import dataclass, replace

from backstay.checks import change
from backstay.checks.question import ask, unknown
from backstay.client.snapshot import Received
from backstay.clock import Clock
from backstay.errors import BackstayError, DamagedError
from backstay.mvcc.hashkv import compute_hashkv, live_size
from backstay.mvcc.live import count_live
from backstay.mvcc.snapshot import FIRST_REVISION, Snapshot
from backstay.mvcc.tip import SALT_SIZE, elements_at, fingerprint
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry, newest
from backstay.repo.lineage import Lineage, Proof, Shown, Stored, continue_or_begin
from backstay.repo.manifest import SnapshotEntry, Tip
from backstay.repo.pin import BY_BACKUP, pin
from backstay.repo.store import Store
from backstay.report import Check, Report, Verdict

#: Changes since the last compaction that are summed key by key, at 150 bytes of memory each.
_MOST_CHANGES = 200_000


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

    @property
    def worth_keeping(self) -> Entry | None:
        """What must not be pushed out by what comes after: a verified one where there is one."""
        if self.newest is not None and self.newest.verified:
            return self.newest
        return self.verified or self.newest

    def snapshot(self, name: str) -> SnapshotEntry | None:
        """Find the newest snapshot of an etcd, by its name in the cluster."""
        found = self.newest.manifest.snapshots if self.newest else ()
        return next((entry for entry in found if entry.name == name), None)


@dataclass(frozen=True, slots=True)
class Watched:
    """What a recorder knows better than the backups do: its watch has gone on without a break.

    Attributes:
        lineage: which one it records, and why that one.
        end: what its watch has seen of it last; the snapshot is compared with that.
    """

    lineage: Lineage
    end: Stored


def look_back(repository: Repository, cluster: str) -> Past:
    """Look up what a new backup of a cluster comes after; raises nothing of ours."""
    try:
        found = repository.backups(cluster)
    except BackstayError as error:
        return Past(trouble=error.what)
    entries = [entry for entry in found if isinstance(entry, Entry)]
    good = [entry for entry in entries if not entry.failed and not _is_bare(entry)]
    verified = [entry for entry in good if entry.verified]
    unread = [entry.reason for entry in found if not isinstance(entry, Entry)]
    return Past(
        newest(good) if good else None,
        newest(verified) if verified else None,
        "; ".join(unread),
    )


def _is_bare(entry: Entry) -> bool:
    """Whether it was imported: nobody knows the etcd of a bare file, so nothing goes on with it."""
    return all(set(snapshot.cluster_id) == {"0"} for snapshot in entry.manifest.snapshots)


def trace(
    stored: Stored | Watched | None,
    snapshot: Snapshot,
    received: Received,
    *,
    raft_index: int,
    sound: bool,
) -> Lineage:
    """Decide which lineage a snapshot is of, going by what is stored, or was seen.

    Args:
        stored: the end of the newest lineage of the same etcd; None where nothing is stored.
        snapshot: what came.
        received: from whom.
        raft_index: of the last entry that is in it.
        sound: whether its structure and content are whole.
    """
    watched = stored if isinstance(stored, Watched) else None
    end = stored.end if isinstance(stored, Watched) else stored
    shown = None
    if sound and end is not None:
        try:
            shown = _shown(end, snapshot, received, raft_index)
        except DamagedError:
            shown = None
    found = continue_or_begin(end, shown, secrets.token_hex(8))
    if watched is not None and found.proof is Proof.CONTINUED:
        return watched.lineage
    return found


def _shown(stored: Stored, snapshot: Snapshot, received: Received, raft_index: int) -> Shown:
    header, at = received.source.header, stored.revision
    compacted, salt = snapshot.compact_revision, stored.tip and stored.tip.salt
    reached = FIRST_REVISION <= at <= snapshot.revision
    comparable = stored.hash is not None and reached and compacted <= stored.compact_revision <= at
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


def compared(past: Past, now: SnapshotEntry, lineage: Lineage, clock: Clock) -> tuple[Check, ...]:
    """Ask whether a snapshot is still of what the newest good one was of; nothing at the first."""
    before = past.snapshot(now.name)
    if before is not None:
        return (ask(change.NAME, lambda: change.change(before, now, lineage), clock),)
    if past.trouble and past.newest is None:
        reason = f"what is stored could not be looked at: {past.trouble}"
        return (ask(change.NAME, lambda: unknown(reason), clock),)
    return ()


def keep_older(
    past: Past,
    checks: tuple[Check, ...],
    store: Store,
    clock: Clock,
    report: Report,
) -> tuple[Check, ...]:
    """Pin what was there before a change that nobody may have meant, and say so in its check.

    Args:
        past: what was there.
        checks: of the new backup.
        store: that of the repository.
        clock: for the pin's date.
        report: is warned.
    """
    return tuple(
        _pinned(past, check, store, clock, report)
        if check.name == change.NAME and check.verdict is not Verdict.PASS
        else check
        for check in checks
    )


def _pinned(past: Past, check: Check, store: Store, clock: Clock, report: Report) -> Check:
    kept = past.worth_keeping
    told = ""
    if kept is not None:
        backup = kept.manifest.name
        try:
            pin(store, backup, by=BY_BACKUP, reason=check.detail, clock=clock)
        except BackstayError as error:
            told = f"; {backup} could NOT be pinned: {error}"
        else:
            told = f"; {backup} is pinned until somebody runs `backstay unpin {backup}`"
    report.warn(f"this backup is not like the one before it: {check.detail}{told}")
    return replace(check, detail=f"{check.detail}{told}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What later backups are compared with; all None where a file is too damaged.

    Attributes:
        live_keys: keys that are there at the head.
        live_size: bytes of these and of their values; None also where it would take long to tell.
        tip: what the last revision is known by.
    """

    live_keys: int | None = None
    live_size: int | None = None
    tip: Tip | None = None

    @classmethod
    def of(cls, snapshot: Snapshot, salt: bytes | None = None) -> "Inside":
        """Count and sum what is in a whole snapshot.

        Args:
            snapshot: the file.
            salt: that of a tip which this one is to be compared with; None makes a new one.
        """
        salt = secrets.token_bytes(SALT_SIZE) if salt is None else salt
        try:
            digest = fingerprint(elements_at(snapshot, snapshot.revision), salt)
            return cls(
                live_keys=max(count_live(snapshot), 0),
                live_size=live_size(snapshot, _MOST_CHANGES),
                tip=Tip(salt=salt.hex(), digest=digest) if digest else None,
            )
        except DamagedError:
            return cls()
