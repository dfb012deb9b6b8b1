"""What is asked of a restored etcd of several members that is in use: is it one, and is it whole?

Each member is asked itself, by a client that reaches no other: through a Service three clusters of
one answer as if they were one of three. API servers write all the time, and compact: questions
are about revisions that stand still, or are put again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from backstay.checks.question import Answer, failed, passed, unknown
from backstay.client.answer import Hash, Status
from backstay.client.etcd import Etcd
from backstay.clock import Clock
from backstay.errors import CompactedError, EtcdError

#: A client for each member, by the member's name.
Members = Mapping[str, Etcd]

#: How often members are asked for hashes that can be compared, and seconds in between.
_ATTEMPTS = 6
_PAUSE = 1.0
_ALL = b"\0"


def _status(etcd: Etcd) -> Status:
    return etcd.status(etcd.endpoints[0])


def one_cluster(members: Members, replicas: int) -> Answer:
    """Are all members of one and the same cluster, and is it as large as it should be?"""
    views = {name: _View.of(etcd) for name, etcd in members.items()}
    reason = _split(views, replicas)
    if reason:
        return failed(reason)
    reason = _undecided(views, replicas)
    if reason:
        return unknown(reason)
    cluster = next(iter(views.values())).cluster
    return passed(f"{replicas} members of cluster {cluster:x}, each names the same")


def _split(views: "Mapping[str, _View]", replicas: int) -> str:
    """Say why these are not the members of one cluster; empty where nothing speaks against it."""
    for name, view in views.items():
        if len(view.listed) != replicas:
            return (
                f"{name} is of a cluster of {len(view.listed)}, not of {replicas}: what is written"
                " to it reaches no other"
            )
        if view.learners:
            return f"{name} knows {view.learners} members that only learn"
    if len({view.cluster for view in views.values()}) > 1:
        named = ", ".join(f"{name} {view.cluster:x}" for name, view in views.items())
        return f"the members are of different clusters: {named}"
    if len({view.listed for view in views.values()}) > 1:
        return "the members name different members"
    return ""


def _undecided(views: "Mapping[str, _View]", replicas: int) -> str:
    """Say what is missing until it can be said that they are of one; empty where nothing is."""
    if len(views) != replicas:
        return f"{len(views)} of {replicas} members could be reached"
    if {view.me for view in views.values()} != next(iter(views.values())).listed:
        return "not each member was asked itself: addresses lead to the same one"
    leaders = {view.leader for view in views.values()}
    if len(leaders) > 1 or 0 in leaders:
        return "the members do not agree yet on who leads"
    return ""


@dataclass(frozen=True, slots=True)
class _View:
    """How one member sees the cluster."""

    cluster: int
    me: int
    leader: int
    listed: frozenset[int]
    learners: int

    @classmethod
    def of(cls, etcd: Etcd) -> "_View":
        """Ask it."""
        status = _status(etcd)
        members = etcd.members(linearizable=False)
        return cls(
            cluster=status.header.cluster_id,
            me=status.header.member_id,
            leader=status.leader,
            listed=frozenset(member.id for member in members),
            learners=sum(member.is_learner for member in members),
        )


def same_hashkv(members: Members, clock: Clock) -> Answer:
    """Do all members have the same keys and values, at one revision?"""
    reason = "nobody was asked"
    for attempt in range(_ATTEMPTS):
        if attempt:
            clock.sleep(_PAUSE)
        found = _hashes(members)
        if isinstance(found, str):
            reason = found
            continue
        return _compared(found)
    return unknown(f"the members give no hashes that can be compared: {reason}")


def _compared(found: dict[str, Hash]) -> Answer:
    one = next(iter(found.values()))
    if len({answer.hash for answer in found.values()}) > 1:
        named = ", ".join(f"{name} {answer.hash}" for name, answer in found.items())
        return failed(f"HashKV differs at revision {one.revision}: {named}")
    return passed(f"HashKV {one.hash} at revision {one.revision} on {len(found)} members")


def _hashes(members: Members) -> dict[str, Hash] | str:
    """Ask all for their hash at a revision that all have; why not, where that did not succeed."""
    revision = min(_status(etcd).header.revision for etcd in members.values())
    try:
        found = _each(members, lambda etcd: etcd.hashkv(etcd.endpoints[0], revision))
    except CompactedError:
        # Nobody has written yet: before 3.5.16 the revision of the compaction itself is refused,
        # and the newest one, which it is, is not.
        found = _each(members, lambda etcd: etcd.hashkv(etcd.endpoints[0]))
    if len({answer.revision for answer in found.values()}) > 1:
        return "they stand at different revisions"
    if len({answer.compact_revision for answer in found.values()}) > 1:
        return "they are compacting"
    return found


def _each(members: Members, question: Callable[[Etcd], Hash]) -> dict[str, Hash]:
    # One after the other: a member takes no writes while it sums.
    return {name: question(etcd) for name, etcd in members.items()}


def revision_reached(members: Members, least: int) -> Answer:
    """Does every member stand at or above the revision that the restore made?"""
    found = {name: _status(etcd).header.revision for name, etcd in members.items()}
    low = {name: revision for name, revision in found.items() if revision < least}
    if low:
        named = ", ".join(f"{name} at {revision}" for name, revision in low.items())
        return failed(f"below revision {least}, at which the snapshot is: {named}")
    return passed(f"all members at or above revision {least}")


def key_count(members: Members, total: int, start: int, bump: int) -> Answer:
    """Has every member the keys of the backup?

    Counted exactly where the revision at which it began is still there: at that one nothing has
    expired, and nobody has written yet. A restore that bumps again begins so much higher. Once
    the control plane has compacted (its first time is five to ten minutes after it starts), what
    is there now says less: events expire, and whoever runs a control plane deletes too.

    Args:
        members: whom to ask.
        total: keys that the backup has.
        start: revision of the snapshot that was restored.
        bump: by which a restore may have raised it again.
    """
    now: dict[str, int] = {}
    for name, etcd in members.items():
        count = _count_at_start(etcd, (start, start + bump))
        if count is None:
            now[name] = _count(etcd, 0)
        elif count != total:
            return failed(f"{name} began with {count} keys, the backup has {total}")
    if not now:
        return passed(f"{total} keys on {len(members)} members, as the backup has")
    named = ", ".join(f"{name} has {count}" for name, count in now.items())
    told = f"the backup has {total} keys, now {named}"
    fewest = min(now.values())
    if fewest * 2 < total:
        return failed(told)
    if fewest < total:
        return unknown(f"{told}; the revision of the restore is compacted, some may have expired")
    return passed(f"{told} (the revision of the restore is compacted already)")


def _count(etcd: Etcd, revision: int) -> int:
    return etcd.range(
        _ALL,
        _ALL,
        revision=revision,
        count_only=True,
        serializable=True,
        endpoint=etcd.endpoints[0],
    ).count


def _count_at_start(etcd: Etcd, revisions: tuple[int, ...]) -> int | None:
    """Count at the one of these revisions that it began with; None where that is gone."""
    head = _status(etcd).header.revision
    for revision in sorted(set(revisions), reverse=True):
        if revision <= head:
            try:
                return _count(etcd, revision)
            except CompactedError:
                continue
    return None


def reachable(members: Members) -> tuple[dict[str, Etcd], str]:
    """Give the members that answer, and why the first of the others does not."""
    found, reason = {}, ""
    for name, etcd in members.items():
        try:
            _status(etcd)
        except EtcdError as error:
            reason = reason or f"{name}: {error}"
        else:
            found[name] = etcd
    return found, reason
