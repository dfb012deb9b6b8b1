"""When what is due: pure decisions over what a recorder knows, in seconds and bytes."""

from dataclasses import dataclass, field
from pathlib import Path

from backstay.repo.packing import Sealing

#: A delta without any change is sealed that often at most.
IDLE_EVERY = 60.0
#: The most bytes of changes that wait to be sealed.
MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an etcd is recorded.

    Attributes:
        cluster: the cluster's name.
        spool_dir: where full snapshots lie meanwhile.
        every: seconds after which changes are sealed.
        max_bytes: bytes of changes after which they are sealed at once.
        full_every: seconds between two full snapshots.
        prove_every: seconds between two questions for HashKV.
        patience: seconds without any word from a member, until another one is asked.
        sealing: how hard to compress.
    """

    cluster: str
    spool_dir: Path
    every: float = 10.0
    max_bytes: int = MAX_BYTES
    full_every: float = 86400.0
    prove_every: float = 3600.0
    patience: float = 15.0
    sealing: Sealing = field(default_factory=Sealing)

    @property
    def idle_every(self) -> float:
        """Seconds after which it is sealed that nothing happened."""
        return max(self.every, IDLE_EVERY)

    @property
    def ask_every(self) -> float:
        """Seconds of silence after which a member is asked how far it is."""
        return min(self.patience / 4, max(self.every / 2, 0.2))


@dataclass(frozen=True, slots=True)
class Open:
    """The delta that is open.

    Attributes:
        something: whether it covers anything, be it that a revision has come to its end.
        size: their bytes.
        age: seconds since its first change, or since it was begun where it has none.
        full: whether it takes no more.
        dated: whether it has, or can have, a time.
    """

    something: bool
    size: int
    age: float
    full: bool
    dated: bool


def seal_now(options: Options, delta: Open) -> str:
    """Say why the open delta is to be sealed now; empty where it is not."""
    if not delta.dated:
        return ""
    if delta.full:
        return "it takes no more"
    if delta.size >= options.max_bytes:
        return f"it has {delta.size} bytes"
    if delta.something and delta.age >= options.every:
        return f"it is {delta.age:.0f} s old"
    if not delta.something and delta.age >= options.idle_every:
        return "nothing has happened"
    return ""


def backoff(failures: int, most: float = 30.0) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(0.25 * (1 << min(failures, 20)), most)
