"""What a recorder counts: for its summary, its metrics and its health."""

import threading
from dataclasses import asdict, dataclass
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
    """Figures that several threads change, some of them with each message of a watch."""

    def __init__(self, figures: Figures) -> None:
        self._lock = threading.Lock()
        self._values = asdict(figures)

    @property
    def figures(self) -> Figures:
        """As they are now."""
        with self._lock:
            return Figures(**self._values)

    def add(self, **more: int) -> None:
        """Count up."""
        with self._lock:
            for name, number in more.items():
                self._values[name] += number

    def set(self, **values: Any) -> None:
        """Say what is so now."""
        with self._lock:
            self._values.update(values)

    def heard(self, *, at: float, head: int, recorded: int) -> None:
        """A member has said something.

        Args:
            at: seconds since 1970.
            head: the revision at which it stands.
            recorded: the last revision that has come whole.
        """
        with self._lock:
            values = self._values
            values["heard_at"], values["recorded"] = at, recorded
            values["head"] = max(values["head"], head)
