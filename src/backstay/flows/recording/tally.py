"""What a recorder counts: for its summary, its metrics and its health."""

import threading
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What there was so far; times are seconds since 1970, 0 where there was none.

    Attributes:
        began: when the recorder was started.
        lineage: which one it records; empty before it knows.
        head: the newest revision of the etcd that was heard of.
        recorded: the last revision that came whole.
        sealed: the last revision that is stored whole.
        sealed_at: when a delta was stored last.
        known_at: until when it is stored what happened.
        heard_at: when a member was heard last.
        deltas: how many were stored.
        changes: how many are in them.
        bytes: of these changes, in the clear.
        stored_bytes: that the deltas take in the store.
        fulls: full backups that were made.
        full_at: when the last was made.
        proofs: answers to HashKV that were recorded.
        rolls: that were made.
        lineages: that were begun.
        keyrings: that were saved for deltas.
        gaps: windows that were lost.
        lost: revisions in these windows.
        restarts: watches that were begun after the first.
        store_errors: times that the store failed.
        etcd_errors: times that etcd failed.
        waiting: bytes of changes that are not stored yet.
    """

    began: float = 0.0
    lineage: str = ""
    head: int = 0
    recorded: int = 0
    sealed: int = 0
    sealed_at: float = 0.0
    known_at: float = 0.0
    heard_at: float = 0.0
    deltas: int = 0
    changes: int = 0
    bytes: int = 0
    stored_bytes: int = 0
    fulls: int = 0
    full_at: float = 0.0
    proofs: int = 0
    rolls: int = 0
    lineages: int = 0
    keyrings: int = 0
    gaps: int = 0
    lost: int = 0
    restarts: int = 0
    store_errors: int = 0
    etcd_errors: int = 0
    waiting: int = 0

    def lag(self, now: float) -> float:
        """Seconds of history that would be lost with this machine now."""
        return max(now - (self.known_at or self.began), 0.0)


class Tally:
    """Figures that several threads change."""

    def __init__(self, figures: Figures) -> None:
        self._lock = threading.Lock()
        self._figures = figures

    @property
    def figures(self) -> Figures:
        """As they are now."""
        with self._lock:
            return self._figures

    def add(self, **more: int) -> None:
        """Count up."""
        with self._lock:
            old = {name: getattr(self._figures, name) + n for name, n in more.items()}
            self._figures = replace(self._figures, **old)

    def set(self, **values: Any) -> None:
        """Say what is so now."""
        with self._lock:
            self._figures = replace(self._figures, **values)
