"""Deltas from lists of changes, from snapshot files and from a real watch."""

import mmap
import tempfile
from bisect import bisect_left

from backstay.mvcc.delta import Delta, Mark, Position, read_delta, run_of
from backstay.mvcc.deltawriter import DeltaWriter, Origin, Written
from backstay.mvcc.keyvalue import parse_keyvalue
from backstay.mvcc.revision import parse_revision
from backstay.mvcc.snapshot import Snapshot
from kit.snapfile import varint

__all__ = ["varint"]

LINEAGE = "0123456789abcdef"
ORIGIN = Origin("prod", LINEAGE, "w1")
#: The time of revision R is R seconds after this, in milliseconds since 1970.
EPOCH = 1_795_000_000_000


def at(revision: int) -> int:
    """When a revision was written, in deltas from here: milliseconds since 1970."""
    return EPOCH + 1000 * revision


def read_mark(revision: int) -> Mark:
    """The time of a revision, as a delta has it."""
    return Mark(revision, at(revision))


def add(writer: DeltaWriter, key: bytes, value: bytes) -> None:
    """Add an element of bucket `key`."""
    revision = parse_revision(key)
    if revision.tombstone:
        writer.delete(revision.main, revision.sub, parse_keyvalue(value).key)
    else:
        writer.put(revision.main, revision.sub, value)


def written(elements, begin, *, origin=ORIGIN, whole=True, number=0, previous="") -> Written:
    """One delta of some elements of bucket `key`, with a time for each revision."""
    writer = DeltaWriter(origin, Position(*begin), number=number, previous=previous)
    for key, value in elements:
        main = parse_revision(key).main
        if main > writer.end.main:
            writer.mark(main - 1, at(main - 1))
        add(writer, key, value)
    if whole and writer.end.sub:
        writer.mark(writer.end.main, at(writer.end.main))
    else:
        writer.mark(writer.end.main - 1, at(writer.end.main - 1))
    return writer.finish()


def elements_of(path) -> list[tuple[bytes, bytes]]:
    """All of bucket `key` of a snapshot file."""
    with Snapshot.open(path) as snapshot:
        return list(snapshot.bucket(b"key").items())


def chain(elements, begin: int, size: int, *, origin=ORIGIN) -> list[Written]:
    """Deltas of `size` revisions each, one after the other."""
    found: list[Written] = []
    mains = [int.from_bytes(key[:8], "big") for key, _ in elements]
    while begin <= mains[-1]:
        some = elements[bisect_left(mains, begin) : bisect_left(mains, begin + size)]
        previous = found[-1].digest if found else ""
        found.append(written(some, (begin,), origin=origin, number=len(found), previous=previous))
        begin += size
    return found


def mapped(data: bytes) -> mmap.mmap:
    """Bytes as a mapped file."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return mmap.mmap(file.fileno(), len(data), access=mmap.ACCESS_READ)


def read(data: bytes, name: str = "a delta") -> Delta:
    """Read a delta from its bytes."""
    return read_delta(mapped(data), 0, len(data), name)


def changes(data: bytes) -> list[tuple[bytes, bytes]]:
    """The keys and values of a delta."""
    view = mapped(data)
    found = []
    for block in read_delta(view, 0, len(data), "a delta").blocks:
        run = run_of([block])
        for key, value, stop in zip(run.keys, run.values, run.stops, strict=True):
            found.append((view[key:value], view[value:stop]))
    return found
