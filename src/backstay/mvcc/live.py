"""The keys that are there at a revision: how many, some of them, certain ones.

From the first revision of the window on, the file has every change, so keys need not be remembered
to be counted: a put of version 1 is one key more, a delete one less. Before it, a finished
compaction has left one element of each key that is there.
"""

from collections.abc import Collection, Iterator
from random import Random

import numpy as np

from backstay.mvcc.columns import Bools
from backstay.mvcc.elements import Elements, read_elements
from backstay.mvcc.keyset import KeyTable, fingerprint, tail
from backstay.mvcc.keyvalue import KeyValue, parse_keyvalue
from backstay.mvcc.revision import ELEMENT_SIZE
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.window import revision_in_window

#: So many elements are picked at most, to find keys that are still there.
_MAX_PICKED = 200_000


def count_live(snapshot: Snapshot, revision: int | None = None) -> int:
    """Count the keys that are there at a revision.

    Where a compaction was asked for and has not finished, memory grows by about 150 bytes for
    each key that was changed since the one before it.

    Args:
        snapshot: the file.
        revision: default: the file's head.

    Raises:
        UsageError: the file does not have that revision.
        DamagedError: the file is damaged.
    """
    at = revision_in_window(snapshot, revision)
    return _survey(snapshot, at)[0]


def _survey(snapshot: Snapshot, revision: int) -> tuple[int, int]:
    """Count the keys that are there, and the puts up to the revision."""
    start = snapshot.compact_revision
    settled = start <= snapshot.finished_compaction
    live = puts = 0
    for elements in read_elements(snapshot):
        first, last = elements.until(start), elements.until(revision)
        stored = _puts(elements)
        puts += int(stored[:last].sum())
        live += int(stored[:first].sum()) if settled else 0
        made = stored[first:last] & (elements.versions[first:last] == 1)
        live += int(made.sum()) - int(elements.tombstones[first:last].sum())
    return live + (0 if settled else _count_unsettled(snapshot)), puts


def _puts(elements: Elements) -> Bools:
    stored: Bools = ~(elements.tombstones | elements.bumps)
    return stored


def _count_unsettled(snapshot: Snapshot) -> int:
    """Count the keys at the compact revision, where the compaction may be half done."""
    data = snapshot.bolt.image.data
    begin, end = snapshot.finished_compaction, snapshot.compact_revision
    changed: dict[bytes, bool] = {}
    for elements in read_elements(snapshot):
        first, last = elements.until(begin), elements.until(end)
        keys = map(fingerprint, elements.keys(data, first, last))
        changed |= zip(keys, _puts(elements)[first:last].tolist(), strict=True)
    live = sum(changed.values())
    for elements in read_elements(snapshot):
        last = elements.until(begin)
        keys = map(fingerprint, elements.keys(data, 0, last))
        stored = _puts(elements)[:last].tolist()
        live += sum(put and key not in changed for key, put in zip(keys, stored, strict=True))
    return live


def sample_live(
    snapshot: Snapshot, revision: int | None = None, number: int = 100, *, seed: int = 0
) -> tuple[KeyValue, ...]:
    """Choose keys that are there at a revision, each as it is then, in the order of their keys.

    Args:
        snapshot: the file.
        revision: default: the file's head.
        number: how many at most; fewer come where there are fewer, or where nearly all that was
            ever put is gone.
        seed: another one chooses others; the same one always the same.

    Raises:
        UsageError: the file does not have that revision.
        DamagedError: the file is damaged.
    """
    at = revision_in_window(snapshot, revision)
    live, puts = _survey(snapshot, at)
    if live <= 0:
        return ()
    random = Random(seed)  # noqa: S311 - a sample is no secret
    # Most picked puts are overwritten or deleted later; with so many, enough are likely not.
    wanted = min(puts, _MAX_PICKED, 3 * number * puts // live + 2 * number)
    places = sorted(random.sample(range(puts), wanted))
    values = list(_last_of(snapshot, at, places).values())
    chosen = random.sample(values, min(number, len(values)))
    data = snapshot.bolt.image.data
    found = [parse_keyvalue(data[start:stop]) for start, stop in chosen]
    return tuple(sorted(found, key=lambda value: value.key))


def _last_of(snapshot: Snapshot, revision: int, places: list[int]) -> dict[bytes, tuple[int, int]]:
    """Give the picked puts that no later change up to the revision has replaced.

    Args:
        snapshot: the file.
        revision: up to which.
        places: which puts, counted from the first of the file; in order.
    """
    data = snapshot.bolt.image.data
    picked: dict[bytes, tuple[int, int]] = {}
    table = KeyTable()
    wanted = np.array(places, np.int64)
    done = 0
    for elements in read_elements(snapshot):
        last = elements.until(revision)
        stored = _puts(elements)[:last]
        ordinals = np.cumsum(stored) - 1 + done
        done += int(stored.sum())
        hits = stored & np.isin(ordinals, wanted)
        table.add(elements.tails[:last][hits])
        for index in np.flatnonzero(table.may_have(elements.tails[:last])).tolist():
            key = elements.key(data, index)
            picked.pop(key, None)
            if hits[index]:
                picked[key] = _value_of(elements, index)
    return picked


def _value_of(elements: Elements, index: int) -> tuple[int, int]:
    """Where the value of a put lies in the file."""
    return int(elements.starts[index]) + ELEMENT_SIZE, int(elements.stops[index])


def find_live(
    snapshot: Snapshot, keys: Collection[bytes], revision: int | None = None
) -> dict[bytes, KeyValue]:
    """Look up keys at a revision; those that are not there then are left out.

    Raises:
        UsageError: the file does not have that revision.
        DamagedError: the file is damaged.
    """
    at = revision_in_window(snapshot, revision)
    data = snapshot.bolt.image.data
    wanted = frozenset(keys)
    found: dict[bytes, tuple[int, int]] = {}
    for elements, index, key in _changes(snapshot, at, wanted):
        found.pop(key, None)
        if not elements.tombstones[index]:
            found[key] = _value_of(elements, index)
    return {key: parse_keyvalue(data[start:stop]) for key, (start, stop) in found.items()}


def _changes(
    snapshot: Snapshot, revision: int, wanted: frozenset[bytes]
) -> Iterator[tuple[Elements, int, bytes]]:
    """Give the changes of certain keys up to a revision, in order."""
    table = KeyTable()
    table.add(np.array([tail(key) for key in wanted], np.uint64))
    data = snapshot.bolt.image.data
    for elements in read_elements(snapshot):
        may_be = table.may_have(elements.tails) & ~elements.bumps
        for index in np.flatnonzero(may_be[: elements.until(revision)]).tolist():
            key = elements.key(data, index)
            if key in wanted:
                yield elements, index, key
