"""What is asked of a restored etcd: is it the one that was backed up?

A drill asks a throw-away member that nobody else writes to. A restored control plane has several
members and is in use by the time it is asked: what is asked of that is in `restored_cluster`.
"""

from backstay.checks.question import Answer, failed, passed
from backstay.client.answer import KeyValue
from backstay.client.etcd import Etcd
from backstay.errors import CompactedError
from backstay.mvcc.hashkv import compute_hashkv
from backstay.mvcc.live import count_live, sample_live
from backstay.mvcc.snapshot import Snapshot

#: At how many revisions samples are compared, and how many at each.
REVISIONS = 3
SAMPLES = 40
_CANARY = b"\0backstay/drill"
_ALL = b"\0"


def hashkv(snapshot: Snapshot, etcd: Etcd) -> Answer:
    """Does it answer HashKV as the file says that it must?"""
    theirs = etcd.hashkv(etcd.endpoints[0], snapshot.revision)
    mine = compute_hashkv(
        snapshot, revision=theirs.revision, compact_revision=theirs.compact_revision
    )
    if mine.hash != theirs.hash:
        return failed(
            f"HashKV {theirs.hash} at revision {theirs.revision}, the file says {mine.hash}"
        )
    return passed(f"HashKV {theirs.hash} at revision {theirs.revision} on both sides")


def keys(snapshot: Snapshot, etcd: Etcd) -> Answer:
    """Has it as many keys as the file has?"""
    theirs = etcd.range(_ALL, _ALL, revision=snapshot.revision, count_only=True).count
    mine = count_live(snapshot, snapshot.revision)
    if mine != theirs:
        return failed(f"{theirs} keys, the file has {mine}")
    return passed(f"{theirs} keys on both sides")


def revisions(snapshot: Snapshot) -> tuple[int, ...]:
    """Choose revisions of the window, spread evenly, the newest included."""
    first = max(snapshot.compact_revision + 1, 1)
    last = snapshot.revision
    step = max((last - first) // (REVISIONS - 1), 1)
    return tuple(sorted({last, *range(last, first - 1, -step)}))[-REVISIONS:]


def samples(snapshot: Snapshot, etcd: Etcd) -> Answer:
    """Do single keys have the same value, revision and version, now and earlier?"""
    compared = 0
    for revision in revisions(snapshot):
        for mine in sample_live(snapshot, revision, SAMPLES):
            theirs = etcd.range(mine.key, revision=revision).kvs
            if theirs != (mine,):
                return failed(_difference(mine, theirs, revision))
            compared += 1
    if not compared:
        return passed("there are no keys to compare")
    return passed(f"{compared} keys compared at revisions {_listed(revisions(snapshot))}")


def _difference(mine: KeyValue, theirs: tuple[KeyValue, ...], revision: int) -> str:
    # Values are not shown: they may be secrets.
    found = f"modified at {theirs[0].mod_revision}" if theirs else "missing"
    return (
        f"key {mine.key[:100]!r} at revision {revision} is {found}, the file has it modified at"
        f" {mine.mod_revision}"
    )


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def watch(snapshot: Snapshot, etcd: Etcd) -> Answer:
    """Is a client that watched the lost cluster told to start again?"""
    old = max(snapshot.revision, 1)
    try:
        with etcd.watch(start_revision=old) as events:
            next(iter(events))
    except CompactedError:
        return passed(f"a watch from revision {old} is told `compacted`, and starts again")
    return failed(f"a watch from revision {old} went on as if nothing had happened")


def writes(revision: int, etcd: Etcd) -> Answer:
    """Does it take writes, above every revision that any client has seen?"""
    head = etcd.put(_CANARY, b"")
    if head <= revision:
        return failed(f"a write came to revision {head}, not above {revision}")
    return passed(f"a write came to revision {head}")
