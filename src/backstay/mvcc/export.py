"""A snapshot written out as a stock snapshot file, with the edits that a restore may want.

What a restored cluster must not inherit is changed here, in the file, so that any etcdutl can
restore it plainly: revisions that clients have seen already, alarms, passwords. In the same pass it
may come out at another revision (see `history`). How pages are kept, moved and wiped is the
business of `bolt.patch`.

Source for the bump: etcd 3.6, etcdutl/snapshot/v3_snapshot.go (`--bump-revision`,
`--mark-compacted`), which adds an element without a value at the last revision + N, sub 0, and
notes that revision as `scheduledCompactRev`. One thing differs: etcd counts from the last
element, which lies below the true revision where a compaction has removed what came after it;
here it is the true revision, so that revisions never go back.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

from backstay.bolt.patch import BLOCK_SIZE, Append, Change, Patch, Replace
from backstay.bolt.tree import Element
from backstay.bolt.write import write_all
from backstay.errors import DamagedError, UsageError
from backstay.mvcc.revision import element_key
from backstay.mvcc.snapshot import TRAILER_SIZE, Snapshot, Trailer

if TYPE_CHECKING:
    from backstay.mvcc.history import Past

_LAST_REVISION = (1 << 63) - 1
_SCHEDULED = b"scheduledCompactRev"
_AUTH_ENABLED = b"authEnabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What an export changes.

    Attributes:
        bump: by how much the revision goes up, so that no client has seen it before.
        mark_compacted: whether everything up to the new revision counts as compacted, so that
            watches and reads of older revisions are told so; goes together with `bump`.
        drop_alarms: whether bucket `alarm` comes out empty.
        disable_auth: whether etcd asks for no passwords afterwards; users and roles stay.
    """

    bump: int = 0
    mark_compacted: bool = False
    drop_alarms: bool = False
    disable_auth: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        size: bytes of the file, trailer included.
        sha256: of the database, which is the file without its trailer; in hex.
        revision: at which an etcd stands that has this file.
        compact_revision: where the history begins; -1 where there was no compaction.
        source_trailer: whether the source had a SHA-256 to check it by: `MATCHES` or `ABSENT`.
        changes_applied: how many recorded changes were added.
        leases_added: how many leases of keys that are there had no entry, and have one now.
    """

    size: int
    sha256: str
    revision: int
    compact_revision: int
    source_trailer: Trailer
    changes_applied: int = 0
    leases_added: int = 0


def export(
    snapshot: Snapshot,
    target: BinaryIO,
    edits: Edits | None = None,
    progress: Callable[[int], None] = lambda _: None,
    *,
    past: "Past | None" = None,
) -> Exported:
    """Write a snapshot as a stock snapshot file, with a SHA-256 at its end, front to back.

    Without edits the database comes out byte for byte. With edits, or at another revision, the free
    pages are wiped, so that what was deleted, compacted or rewound is gone. The structure of what
    is copied is checked as it goes by, and so is the source's own SHA-256; where it has none the
    new file has one all the same, and `source_trailer` says so. The file counts only when this
    function has returned.

    Args:
        snapshot: the source.
        target: where to write, from its current position on; it need not seek.
        edits: what to change.
        progress: called with each number of bytes of the database that is written.
        past: at which revision, see `history.look_back`; default: as it is.

    Raises:
        UsageError: the edits make no sense, or the revision would get too large.
        DamagedError: the source is damaged, or its SHA-256 does not match.
        OSError: the target can't be written; `files.explained` words it.
    """
    edits = edits or Edits()
    revision = _revision_after(snapshot, edits, past.revision if past else snapshot.revision)
    changes = _changes(snapshot, edits, past, revision)
    patch = Patch(snapshot.bolt, changes)
    same = not changes
    digest = _copy(snapshot, patch, target, progress, same=same)
    write_all(target, digest)
    return Exported(
        size=patch.size + TRAILER_SIZE,
        sha256=digest.hex(),
        revision=revision,
        compact_revision=revision if edits.mark_compacted else snapshot.compact_revision,
        source_trailer=Trailer.ABSENT if snapshot.trailer is None else Trailer.MATCHES,
        changes_applied=past.changes if past else 0,
        leases_added=len(past.leases) if past else 0,
    )


def _copy(
    snapshot: Snapshot,
    patch: Patch,
    target: BinaryIO,
    progress: Callable[[int], None],
    *,
    same: bool,
) -> bytes:
    """Write the database, and sum it and the source on the way; gives the sum of what was written.

    Summing and writing have threads of their own, in which they let others run: the next block is
    made meanwhile.
    """
    written = hashlib.sha256()
    source = written if same else hashlib.sha256()
    view = memoryview(snapshot.bolt.image.data)
    check_apart = snapshot.trailer is not None and not same
    done = 0
    jobs: list[Future[None]] = []
    with ThreadPoolExecutor(3) as pool:
        for block in patch.blocks():
            _finish(jobs)
            jobs = [
                pool.submit(written.update, block),
                pool.submit(write_all, target, block),
            ]
            if check_apart:
                jobs.append(pool.submit(source.update, view[done : done + len(block)]))
            done += len(block)
            progress(len(block))
        _finish(jobs)
    if check_apart:
        for start in range(done, snapshot.size, BLOCK_SIZE):
            source.update(view[start : min(start + BLOCK_SIZE, snapshot.size)])
    if snapshot.trailer not in {None, source.digest()}:
        raise DamagedError(
            f"{snapshot.name} is damaged: it does not match the SHA-256 at its end",
            "fetch it again, or use another backup",
        )
    return written.digest()


def _finish(jobs: "list[Future[None]]") -> None:
    for job in jobs:
        job.result()


def _revision_after(snapshot: Snapshot, edits: Edits, before: int) -> int:
    if edits.bump < 0:
        raise UsageError(f"a revision can't be bumped by {edits.bump}", "give a number above 0")
    if edits.mark_compacted != bool(edits.bump):
        raise UsageError(
            "a bump of the revision and mark-compacted need each other: without the one clients"
            " miss changes, without the other they see revisions again",
            "ask for both, or for none",
        )
    revision = before + edits.bump
    if revision > _LAST_REVISION:
        raise UsageError(
            f"{snapshot.name} is at revision {before}; a bump by {edits.bump} goes"
            " above the largest revision that etcd can count",
            "bump by less",
        )
    return revision


def _changes(
    snapshot: Snapshot, edits: Edits, past: "Past | None", revision: int
) -> dict[bytes, Change]:
    log = past.log() if past else None
    changes: dict[bytes, Change] = {b"key": log} if log else {}
    if past and past.leases:
        changes[b"lease"] = past.lease_bucket(snapshot)
    if edits.bump:
        key = element_key(revision, 0)
        changes[b"key"] = _then(log, (key, b""))
        changes[b"meta"] = _with(snapshot, b"meta", _SCHEDULED, key)
    if edits.drop_alarms:
        changes[b"alarm"] = Replace(list)
    if edits.disable_auth:
        changes[b"auth"] = _with(snapshot, b"auth", _AUTH_ENABLED, b"\0")
    return changes


def _then(change: Append | None, element: Element) -> Append:
    """What is to be done with a bucket, and one element after all others."""
    if change is None:
        return Append(lambda: (element,))
    return Append(lambda: chain(change.elements(), (element,)), change.upto)


def _with(snapshot: Snapshot, bucket: bytes, key: bytes, value: bytes) -> Replace:
    """The contents of a bucket with one element put in, or in the place of the one of that key."""

    def elements() -> Iterator[Element]:
        found = snapshot.bucket(bucket)
        put = False
        for old_key, old_value in found.items() if found else ():
            if not put and old_key >= key:
                yield key, value
                put = True
            if old_key != key:
                yield old_key, old_value
        if not put:
            yield key, value

    return Replace(elements)
