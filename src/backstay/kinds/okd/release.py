"""Back up after every upgrade: is there a restorable backup of the release that runs?

A restore takes a backup of the same z-stream release. So the first thing after an upgrade is a
backup; `--if-upgraded` makes one only then, and metrics say when it is missing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from backstay.checks.question import Answer, passed, unknown
from backstay.repo.entry import Entry, Unreadable


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a cluster stands.

    Attributes:
        backup: ID of the newest restorable backup of the running release; empty where there is
            none, or the release is not known.
        reason: one line that says why a backup is due, or why not.
    """

    backup: str
    reason: str

    @property
    def due(self) -> bool:
        """Whether a backup should be made now, whatever the schedule says."""
        return not self.backup


def standing(running: str, backups: Iterable[Entry | Unreadable]) -> Standing:
    """Say whether a restorable backup of the running release exists.

    Restorable is what is verified, so that both its halves were there, and what was not made past
    a guard that is about that.

    Args:
        running: the release, as `4.15.3`; empty where it is not known.
        backups: of this cluster, in any order.
    """
    if not running:
        return Standing("", "which release runs is not known, so a backup may be due")
    known = [(it, it.manifest.okd) for it in backups if isinstance(it, Entry) and it.verified]
    fit = [(it, okd) for it, okd in known if okd is not None and okd.safe]
    same = [it for it, okd in fit if okd.version == running]
    if same:
        newest = max(same, key=lambda it: it.written)
        return Standing(newest.manifest.id, f"{newest.manifest.id} restores release {running}")
    others = sorted({okd.version or "an unknown one" for _, okd in fit})
    there = f"; there are some of {', '.join(others[-3:])}" if others else ""
    return Standing("", f"no restorable backup of the running release {running} exists{there}")


def version(running: str, found: Standing | None, gap: str = "") -> Answer:
    """Is a restorable backup of the running release there already?

    Where none is, this is no FAIL: it would stand in the way of the backup that is due.

    Args:
        running: the release that runs; empty where it is not known.
        found: where the cluster stands; None where no repository could be asked.
        gap: why not.
    """
    if found is None:
        return unknown(f"whether release {running or 'that runs'} has a backup is not known: {gap}")
    if not running:
        return unknown(f"{found.reason}; reach the API with --kubeconfig")
    if found.due:
        return passed(f"{found.reason}: this backup is due")
    return passed(found.reason)
