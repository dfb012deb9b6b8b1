"""A snapshot at another revision: rewound within its own window, or with recorded changes added.

Bucket `key` is a log in revision order, so a snapshot at revision R is the same file with the log
cut off after R, or gone on up to R; the page work is `bolt.patch`'s. All else stays as the
snapshot has it: users and roles, alarms, members, raft's index and term. Compactions are not
undone, and not made up for: the window begins where the snapshot's does.

One thing must be mended. A key that is there at R may hang on a lease that has no entry: it ran
out between R and the snapshot, or was granted after it. etcd starts with such a file, and never
lets the key expire; and one `put --ignore-lease` on it panics the member, and again at each start,
since the write is in its log by then (seen with 3.5.30). So each such lease gets an entry. Entries
of leases that were granted after R stay: nothing hangs on them, and they run out by themselves.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backstay.bolt.patch import Append, Replace
from backstay.bolt.tree import Element
from backstay.errors import UsageError
from backstay.mvcc.columns import Ints
from backstay.mvcc.elements import Elements, read_elements
from backstay.mvcc.keyset import KeyTable, fingerprint
from backstay.mvcc.lease import Lease, encode_lease
from backstay.mvcc.recorded import Recorded
from backstay.mvcc.revision import last_key
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.window import revision_in_window

#: What a lease gets whose granted TTL nobody knows: one hour, as Kubernetes gives to events.
LOST_LEASE_TTL = 3600


@dataclass(frozen=True, slots=True)
class Past:
    """A snapshot at another revision, as changes to make.

    Attributes:
        revision: at which an etcd stands that has the result.
        recorded: the changes that are added; None where none are.
        upto: the last key of bucket `key` that stays; None where all do.
        leases: entries that bucket `lease` gets.
    """

    revision: int
    recorded: Recorded | None
    upto: bytes | None
    leases: tuple[Lease, ...]

    @property
    def changes(self) -> int:
        """How many recorded changes are added."""
        return self.recorded.changes if self.recorded else 0

    @property
    def size(self) -> int:
        """Bytes of these."""
        return self.recorded.size if self.recorded else 0

    def log(self) -> Append | None:
        """Give what is to be done with bucket `key`; None where nothing is."""
        recorded = self.recorded
        if recorded is None:
            return None if self.upto is None else Append(tuple, self.upto)
        return Append(recorded.packed, self.upto)

    def lease_bucket(self, snapshot: Snapshot) -> Replace:
        """Give what bucket `lease` is to hold."""
        added = dict(map(encode_lease, self.leases))

        def elements() -> Iterator[Element]:
            found = snapshot.bucket(b"lease")
            return iter(sorted({**dict(found.items() if found else ()), **added}.items()))

        return Replace(elements)


def look_back(
    snapshot: Snapshot,
    revision: int,
    recorded: Recorded | None = None,
    *,
    lost_lease_ttl: int = LOST_LEASE_TTL,
) -> Past:
    """Find what makes a snapshot stand at another revision; nothing is written.

    Args:
        snapshot: the file.
        revision: at which the result is to stand.
        recorded: the changes between the snapshot and the revision, where that is later.
        lost_lease_ttl: seconds for leases whose granted TTL is not known.

    Raises:
        UsageError: the snapshot does not have that revision, and no changes are given.
        DamagedError: the file is damaged.
    """
    if recorded is None or revision <= snapshot.revision:
        recorded = None
        revision_in_window(snapshot, revision)
    elif recorded.revision != revision:
        raise UsageError(f"changes up to {recorded.revision} make no revision {revision}")
    rewound = revision < snapshot.last_element_revision
    upto = last_key(revision) if rewound else None
    ttls = recorded.leases if recorded else {}
    leases = tuple(
        Lease(number, ttls.get(number, lost_lease_ttl), 0)
        for number in sorted(_lost(snapshot, revision, upto, recorded))
    )
    return Past(revision, recorded, upto, leases)


def _lost(
    snapshot: Snapshot, revision: int, upto: bytes | None, recorded: Recorded | None
) -> set[int]:
    """Find the leases of keys that are there, and which have no entry."""
    named = set(recorded.lease_ids) if recorded else set()
    for _, elements in _log(snapshot, revision, upto, None):
        if elements.leases.any():
            named.update(np.unique(elements.leases).tolist())
    named.discard(0)
    # Of the revisions before the window one version of each key is there, so the first pass
    # rules out nearly all.
    lost = named - {lease.id for lease in snapshot.leases()}
    if not lost:
        return lost
    return _held(_log(snapshot, revision, upto, recorded), np.array(sorted(lost), np.int64))


def _log(
    snapshot: Snapshot, revision: int, upto: bytes | None, recorded: Recorded | None
) -> Iterator[tuple[mmap.mmap, Elements]]:
    """Read all changes up to a revision, each run with the bytes in which it lies."""
    data = snapshot.bolt.image.data
    for elements in read_elements(snapshot, upto):
        yield data, elements.part(0, elements.until(revision))
    if recorded:
        yield from recorded.elements()


def _held(log: Iterator[tuple[mmap.mmap, Elements]], leases: Ints) -> set[int]:
    """Find which of some leases hold a key at the end of a log.

    Memory: about 150 bytes for each key that hangs on one of them.
    """
    holding: dict[bytes, int] = {}
    table = KeyTable()
    for data, elements in log:
        holds = np.isin(elements.leases, leases)
        table.add(elements.tails[holds])
        for index in np.flatnonzero(table.may_have(elements.tails) & ~elements.bumps).tolist():
            key = fingerprint(elements.key(data, index))
            holding.pop(key, None)
            if holds[index]:
                holding[key] = int(elements.leases[index])
    return set(holding.values())
