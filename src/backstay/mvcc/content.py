"""What bucket `key` says: could etcd have written this history?

Revisions rise, values parse, and what a value says of itself agrees with where it stands. After
the compact revision the history is whole: each revision follows the one before it, and its changes
count from 0. The one exception is the empty element that a restore with a bump leaves behind: it
stands far above what comes before, and stays for ever.

Source: etcd, server/mvcc (kvstore_txn.go) for what is written, etcdutl/snapshot for the bump.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backstay.mvcc.columns import Bools
from backstay.mvcc.elements import Elements
from backstay.mvcc.keyvalue import KeyValue
from backstay.mvcc.snapshot import FIRST_REVISION, Snapshot


@dataclass(frozen=True, slots=True)
class Content:
    """What was counted.

    Attributes:
        elements: elements of bucket `key`.
        tombstones: how many of them are deletes.
        bumps: how many are the empty ones of restores.
        revision: at which an etcd with this file stands.
        compact_revision: where its history begins; -1: never compacted.
    """

    elements: int
    tombstones: int
    bumps: int
    revision: int
    compact_revision: int


class ContentCheck:
    """Examines the elements of a file, run by run.

    Args:
        snapshot: the file.

    Raises:
        DamagedError: bucket `meta` is damaged.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._compacted = snapshot.compact_revision
        # Nothing came before revision 2: an etcd without any change stands at 1.
        self._main = max(self._compacted, FIRST_REVISION)
        self._sub = 0
        self._last = (-1, -1)
        self._elements = self._tombstones = self._bumps = 0

    def take(self, elements: Elements) -> None:
        """Examine a run.

        Raises:
            DamagedError: an element can't be right.
        """
        bumps = elements.bumps & ~elements.tombstones
        self._check_order(elements)
        self._check_sequence(elements, bumps)
        self._check_values(elements)
        self._elements += len(elements)
        self._tombstones += int(elements.tombstones.sum())
        self._bumps += int(bumps.sum())

    def finish(self) -> Content:
        """Give what was counted, when all runs have been examined.

        Raises:
            DamagedError: small buckets that etcd reads when it starts are damaged.
        """
        snapshot = self._snapshot
        for _ in snapshot.leases():
            pass
        for _ in snapshot.members():
            pass
        for _ in snapshot.alarms():
            pass
        _ = snapshot.consistent_index, snapshot.term, snapshot.users
        _ = snapshot.storage_version, snapshot.cluster_version
        return Content(
            self._elements, self._tombstones, self._bumps, snapshot.revision, self._compacted
        )

    def _fail(self, elements: Elements, wrong: Bools, what: str) -> None:
        """Raise for the first element that is wrong, if there is one."""
        found = np.flatnonzero(wrong)
        if len(found):
            index = int(found[0])
            main, sub = int(elements.mains[index]), int(elements.subs[index])
            raise self._snapshot.damaged(f"bucket key, revision {main}, change {sub}: {what}")

    def _check_order(self, elements: Elements) -> None:
        mains = np.concatenate([[self._last[0]], elements.mains])
        subs = np.concatenate([[self._last[1]], elements.subs])
        rises = (mains[1:] > mains[:-1]) | ((mains[1:] == mains[:-1]) & (subs[1:] > subs[:-1]))
        self._fail(elements, ~rises, "it does not come after the change before it")
        self._last = (int(mains[-1]), int(subs[-1]))

    def _check_sequence(self, elements: Elements, bumps: Bools) -> None:
        """Prove that nothing is missing after the compact revision."""
        first = elements.until(self._compacted)
        mains = np.concatenate([[self._main], elements.mains[first:]])
        subs = np.concatenate([[self._sub], elements.subs[first:]])
        steps = np.diff(mains)
        same = (steps == 0) & (np.diff(subs) == 1)
        following = (steps == 1) & (subs[1:] == 0)
        wrong = np.zeros(len(elements), np.bool_)
        wrong[first:] = ~(same | following | bumps[first:])
        self._fail(elements, wrong, "there are changes missing between it and the change before it")
        self._main, self._sub = int(mains[-1]), int(subs[-1])

    def _check_values(self, elements: Elements) -> None:
        for wrong, what in faults_of_values(elements):
            self._fail(elements, wrong, what)


def faults_of_values(elements: Elements) -> Iterator[tuple[Bools, str]]:
    """Say of which elements the values can't be right, and why."""
    bumps = elements.bumps & ~elements.tombstones
    puts = ~(elements.tombstones | bumps)
    mods, creates = elements.mods, elements.creates
    yield ~bumps & (elements.name_sizes == 0), "it has no key"
    yield puts & (mods != elements.mains), "its value says that it is of another"
    yield (
        puts & ((creates < 1) | (creates > mods) | (elements.versions < 1)),
        "its create revision or its version can't be",
    )
    yield elements.tombstones & ~_just_keys(elements), "a delete has more than a key"


def _just_keys(elements: Elements) -> Bools:
    """Which values have a key and nothing else."""
    just: Bools = elements.names + elements.name_sizes == elements.stops
    for index, value in elements.odd.items():
        just[index] = value == KeyValue(value.key)
    return just
