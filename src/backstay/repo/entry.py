"""A backup as a repository has it: listed, read, or not to be read.

Source: docs/formats.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from backstay.repo.manifest import CheckEntry, Manifest
from backstay.repo.name import manifests_of
from backstay.repo.note import Note
from backstay.repo.pin import Pin
from backstay.repo.store import ObjectInfo
from backstay.report import Verdict

#: The checks that make a backup a verified one.
PROOF = frozenset({"transfer", "stored", "structure", "content"})
#: One more, of kinds whose backups have a partner in the repository for keys without which they
#: restore nothing.
PARTNER = "partner"
_WITH_PARTNER = frozenset({"okd"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A backup that can be read.

    Attributes:
        manifest: what it is; of one that was sealed anew, where its objects lie now.
        notes: what was said of it later, oldest first.
        written: when its manifest came to the store, by the store's clock.
        pins: what keeps it from being pruned.
        passed_over: of one that `latest` meant, why what came later was not read.
    """

    manifest: Manifest
    notes: tuple[Note, ...]
    written: datetime
    pins: tuple[Pin, ...] = ()
    passed_over: tuple[str, ...] = ()

    @property
    def checks(self) -> tuple[CheckEntry, ...]:
        """All verdicts, then and later."""
        later = (check for note in self.notes for check in note.checks)
        return (*self.manifest.checks, *later)

    @property
    def failed(self) -> bool:
        """Whether a check ever failed."""
        return any(check.verdict is Verdict.FAIL for check in self.checks)

    @property
    def verified(self) -> bool:
        """Whether the checks of `PROOF` passed, then or later, and none ever failed.

        Where a kind's backups have a partner, that was there, too.
        """
        passed = {check.name for check in self.checks if check.verdict is Verdict.PASS}
        needed = PROOF | {PARTNER} if self.manifest.kind in _WITH_PARTNER else PROOF
        return passed >= needed and not self.failed


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A manifest that can't be read: damaged, or of a later version.

    Attributes:
        cluster: whose backup it is.
        path: where it lies.
        reason: one line, that names it.
        do: what the reader can do about it.
        written: when it came to the store, by the store's clock.
    """

    cluster: str
    path: str
    reason: str
    do: str
    written: datetime


@dataclass(frozen=True, slots=True)
class Listed:
    """What the store lists of a backup; nothing of it has been read.

    Since nothing is ever replaced, what is listed alike is alike.

    Attributes:
        cluster: whose backup it is.
        manifest: of the manifest.
        notes: of what was said later.
        pins: of what keeps it from being pruned.
    """

    cluster: str
    manifest: ObjectInfo
    notes: tuple[ObjectInfo, ...] = ()
    pins: tuple[ObjectInfo, ...] = ()

    @property
    def name(self) -> str:
        """What the backup is called in its cluster."""
        return self.manifest.path.removeprefix(manifests_of(self.cluster)).removesuffix(".json")


def order(entry: Entry | Unreadable) -> tuple[datetime, int]:
    """Give the key by which backups are sorted: when they came to the store, by its clock."""
    return entry.written, entry.manifest.revision if isinstance(entry, Entry) else 0


def newest(entries: Sequence[Entry]) -> Entry:
    """Choose the newest of some backups; clocks don't decide inside a lineage.

    Args:
        entries: at least one.
    """
    last = max(entries, key=order)
    lineage = last.manifest.snapshots[0].lineage
    same = [entry for entry in entries if entry.manifest.snapshots[0].lineage == lineage]
    return max(same, key=lambda entry: (entry.manifest.revision, entry.written))
