"""The revisions that a file holds in full: after its last compaction, up to its head."""

from backstay.errors import UsageError
from backstay.mvcc.snapshot import FIRST_REVISION, Snapshot


def revision_in_window(snapshot: Snapshot, revision: int | None, since: int | None = None) -> int:
    """Give `revision`, or the head where it is None.

    The window begins at the compact revision itself: its keys and values are there, its events
    are not.

    Args:
        snapshot: the file.
        revision: which one.
        since: where the window begins, where a bump has marked more as compacted; default: the
            file's compact revision.

    Raises:
        UsageError: the file does not have that revision.
        DamagedError: the file does not say which it has.
    """
    head = snapshot.revision
    own = snapshot.compact_revision if since is None else since
    first = max(own, FIRST_REVISION)
    if revision is None:
        return head
    if not first <= revision <= head:
        raise UsageError(
            f"{snapshot.name} has revisions {first} to {head}, not {revision}",
            "name one of those",
        )
    return revision


def compaction_in_window(
    snapshot: Snapshot, compact_revision: int | None, revision: int, since: int | None = None
) -> int:
    """Give `compact_revision`, or the file's own where it is None; -1 stands for no compaction.

    Args:
        snapshot: the file.
        compact_revision: which one.
        revision: that must not lie before it.
        since: as for `revision_in_window`.

    Raises:
        UsageError: it lies before the file's own, or after `revision`.
        DamagedError: the file does not say what its own is.
    """
    own = snapshot.compact_revision if since is None else since
    if compact_revision is None:
        return own
    if not own <= compact_revision <= revision:
        raise UsageError(
            f"what is compacted at revision {own} can't be looked at as if compacted at"
            f" {compact_revision}",
            f"name a compact revision from {own} to {revision}",
        )
    return compact_revision
