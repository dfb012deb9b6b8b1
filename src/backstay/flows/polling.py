"""Holding a snapshot against the members of its cluster: asked before it came, and right after.

Before, since what was asked for is then in the snapshot whatever is compacted later; after, since
only then its revision is known. Not later than that: kube-apiserver compacts every five minutes.
"""

from collections.abc import Sequence

from backstay.checks.members import NAME, members
from backstay.checks.question import Answer, ask, unknown
from backstay.client.answer import Hash
from backstay.client.hashing import Poll
from backstay.client.snapshot import Received
from backstay.clock import Clock
from backstay.errors import DamagedError, UsageError
from backstay.flows.source import Poller
from backstay.mvcc.hashkv import HashKV, compute_hashkv
from backstay.mvcc.snapshot import FIRST_REVISION, NEVER_COMPACTED, Snapshot
from backstay.repo.manifest import MemberEntry, SnapshotEntry
from backstay.report import Check, Report

#: As many answers as a manifest has room for.
_MOST = 256


class Polling:
    """What the members of one etcd were asked, for one snapshot.

    Args:
        poller: asks them; None: nobody is asked, and there is no such check.
        last: the newest snapshot that is stored of the etcd, for its size; None: there is none.
        report: is told that they are asked.
    """

    def __init__(self, poller: Poller | None, last: SnapshotEntry | None, report: Report) -> None:
        self._poller = poller
        self._elements = last.total_keys if last else None
        self._report = report
        self._polls: list[Poll] = []

    def before(self) -> None:
        """Ask at the newest revision that any of them has."""
        self._ask(0)

    def after(self, fd: int) -> None:
        """Ask at the revision of the snapshot that came.

        Args:
            fd: the file; where it is too damaged to tell its revision nobody is asked.
        """
        if self._poller is None:
            return
        try:
            with Snapshot.open(fd, name="the snapshot that came") as snapshot:
                revision = snapshot.revision
        except DamagedError:
            return
        self._ask(revision)

    def _ask(self, revision: int) -> None:
        if self._poller is None:
            return
        took = max((poll.seconds or 0.0 for poll in self._polls), default=0.0)
        with self._report.task("asking the members for HashKV"):
            found = self._poller.poll(revision, elements=self._elements, took=took or None)
        self._polls.append(found)

    def check(
        self, snapshot: Snapshot, received: Received, own: HashKV | None, clock: Clock
    ) -> tuple[Check, ...]:
        """Hold the snapshot against what they answered.

        Args:
            snapshot: what came.
            received: from whom.
            own: its HashKV at its newest revision; None where it is damaged.
            clock: measures.
        """
        if self._poller is None:
            return ()
        polls, source = self._polls, received.source.header.member_id
        return (ask(NAME, lambda: _answer(polls, snapshot, own, source), clock),)

    @property
    def entries(self) -> tuple[MemberEntry, ...]:
        """What the manifest has of it."""
        answers = [
            one
            for poll in self._polls
            for one in poll.answered
            if one.hash.revision >= 0 and one.hash.compact_revision >= NEVER_COMPACTED
        ]
        return tuple(
            MemberEntry(
                name=one.name[:256],
                id=f"{one.id:x}",
                revision=one.hash.revision,
                compact_revision=one.hash.compact_revision,
                hash=one.hash.hash,
                seconds=round(one.seconds, 3),
            )
            for one in answers[:_MOST]
        )


def _answer(polls: Sequence[Poll], snapshot: Snapshot, own: HashKV | None, source: int) -> Answer:
    if own is None:
        return unknown("the snapshot is too damaged to compare it with its members")
    known: dict[tuple[int, int], int | None] = {(own.revision, own.compact_revision): own.hash}

    def expected(theirs: Hash) -> int | None:
        at = theirs.revision, theirs.compact_revision
        if at not in known:
            known[at] = _compute(snapshot, *at)
        return known[at]

    return members(polls, expected, source)


def _compute(snapshot: Snapshot, revision: int, compact_revision: int) -> int | None:
    """Compute HashKV where the file has what it takes."""
    if revision < FIRST_REVISION:
        return None
    try:
        found = compute_hashkv(snapshot, revision=revision, compact_revision=compact_revision)
    except UsageError:
        return None
    return found.hash
