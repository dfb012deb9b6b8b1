"""Which member a snapshot is taken from: every member is looked at first.

`survey` asks; `choose` decides, as a pure function over what was heard, with a reason for each
member. A member that lags, only learns or is corrupt would give a snapshot that is stale or
wrong; the leader is spared where a follower is as good.
"""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from backstay.client.answer import Alarm, Status
from backstay.client.endpoint import Endpoint, parse_endpoint
from backstay.client.etcd import Etcd
from backstay.errors import EtcdError, UsageError

#: Raft entries that a member may be behind. etcd keeps 5,000 for slow followers; more than that
#: behind, one is not just a moment late.
MAX_LAG = 5000
#: A file that fills so much of its quota is worth a word.
_FULL = 0.8
#: An alarm as Status tells it, in the text form of protobuf.
_ALARM = re.compile(r"(?:memberID:(\d+)\s+)?alarm:([A-Z]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberHealth:
    """What was heard of one member.

    Attributes:
        endpoints: where it was reached, the first answer first; for an unreachable one, where
            it was tried.
        status: what it says of itself; None where it could not be reached.
        error: why it could not be reached; empty where it was.
        hint: what to do about that; may be empty.
        name: its name; empty where the member list was not to be had.
        alarms: those that stand against it.
        elsewhere: those that stand against other members; a snapshot of this one has them too.
    """

    endpoints: tuple[Endpoint, ...]
    status: Status | None = None
    error: str = ""
    hint: str = ""
    name: str = ""
    alarms: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """How to call it in a message."""
        return f"{self.name} ({self.endpoints[0]})" if self.name else str(self.endpoints[0])


@dataclass(frozen=True, slots=True)
class Survey:
    """What was heard of all members that were asked.

    Attributes:
        members: one each, in the order of their endpoints.
        notes: what could not be asked, and why.
    """

    members: tuple[MemberHealth, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Opinion:
    """What was decided of one member.

    Attributes:
        member: of whom.
        usable: whether a snapshot may be taken from it.
        reason: why, or why not.
        warnings: what the reader should know of it all the same.
    """

    member: MemberHealth
    usable: bool
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """Whom to ask for a snapshot, best first.

    Attributes:
        opinions: one for each member; the usable ones first, in the order to try them.
    """

    opinions: tuple[Opinion, ...] = field(default=())

    @property
    def order(self) -> tuple[Status, ...]:
        """The members to try, by what they said of themselves."""
        return tuple(
            o.member.status for o in self.opinions if o.usable and o.member.status is not None
        )

    @property
    def best(self) -> Status:
        """The member to try first.

        Raises:
            EtcdError: there is none.
        """
        if not self.order:
            reasons = "; ".join(f"{o.member.title} {o.reason}" for o in self.opinions)
            hints = [o.member.hint for o in self.opinions if o.member.hint]
            raise EtcdError(
                f"no member is fit to take a snapshot from: {reasons}",
                hints[0] if hints else "name other members with --endpoints, or mend these",
            )
        return self.order[0]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader should know, each with the member's name."""
        return tuple(f"{o.member.title} {w}" for o in self.opinions for w in o.warnings)


def survey(etcd: Etcd, *, discover: bool = False) -> Survey:
    """Ask every member how it is, all at once.

    Args:
        etcd: the cluster; the endpoints that were given are asked.
        discover: ask at the addresses that the cluster itself names too; they may be out of
            reach from here.

    Raises:
        AuthenticationError: etcd does not let us in.
    """
    notes: list[str] = []
    names: dict[int, str] = {}
    found: list[Endpoint] = []
    try:
        for member in etcd.members(linearizable=False):
            names[member.id] = member.name
            found.extend(_known(member.client_urls))
    except EtcdError as error:
        notes.append(f"the list of members was not to be had: {error.what}")
    endpoints = list(dict.fromkeys([*etcd.endpoints, *(found if discover else ())]))
    with ThreadPoolExecutor(len(endpoints), thread_name_prefix="backstay-survey") as pool:
        heard = list(pool.map(lambda endpoint: _ask(etcd, endpoint), endpoints))
    alarms = {alarm for h in heard if h.status for alarm in _told(h.status)}
    try:
        alarms.update(etcd.alarms())
    except EtcdError as error:
        notes.append(f"alarms are known from the members' own status alone: {error.what}")
    return Survey(tuple(_named(h, names, alarms) for h in _merged(heard)), tuple(notes))


def _known(urls: Iterable[str]) -> Iterable[Endpoint]:
    for url in urls:
        try:
            yield parse_endpoint(url)
        except UsageError:
            continue


def _ask(etcd: Etcd, endpoint: Endpoint) -> MemberHealth:
    try:
        return MemberHealth(endpoints=(endpoint,), status=etcd.status(endpoint))
    except EtcdError as error:
        return MemberHealth(endpoints=(endpoint,), error=error.what, hint=error.do)


def _told(status: Status) -> Iterable[Alarm]:
    for words in status.errors:
        for member, kind in _ALARM.findall(words):
            yield Alarm(int(member or 0), kind)


def _merged(heard: Iterable[MemberHealth]) -> list[MemberHealth]:
    """Make one of those that were reached by several addresses."""
    members: dict[object, MemberHealth] = {}
    for health in heard:
        key = health.status.header.member_id if health.status else health.endpoints
        if key in members:
            first = members[key]
            members[key] = replace(first, endpoints=first.endpoints + health.endpoints)
        else:
            members[key] = health
    return list(members.values())


def _named(health: MemberHealth, names: dict[int, str], alarms: Iterable[Alarm]) -> MemberHealth:
    if health.status is None:
        return health
    member = health.status.header.member_id
    # etcd raises CORRUPT for member 0 where it can't tell which one is.
    own = frozenset(a.kind for a in alarms if a.member_id in {member, 0})
    others = frozenset(a.kind for a in alarms) - own
    return replace(health, name=names.get(member, ""), alarms=own, elsewhere=others)


def choose(
    members: Sequence[MemberHealth], *, max_lag: int = MAX_LAG, assumed_quota: int | None = None
) -> Choice:
    """Decide from which members a snapshot may be taken, and in which order.

    Args:
        members: what was heard of them.
        max_lag: raft entries that a member may be behind the foremost one.
        assumed_quota: bytes; a quota to compare with where etcd does not tell its own.

    Raises:
        EtcdError: the endpoints belong to different clusters.
    """
    clusters = {m.status.header.cluster_id: m for m in members if m.status}
    if len(clusters) > 1:
        others = " and ".join(m.title for m in clusters.values())
        raise EtcdError(
            f"the endpoints belong to {len(clusters)} clusters: {others}",
            "name the members of one with --endpoints",
        )
    foremost = max((m.status.raft_applied_index for m in members if m.status), default=0)
    opinions = [_judge(member, foremost - max_lag, foremost, assumed_quota) for member in members]
    # sorted() keeps the order of the endpoints among equals.
    return Choice(tuple(sorted(opinions, key=_rank)))


def _judge(member: MemberHealth, least: int, foremost: int, quota: int | None) -> Opinion:
    status = member.status
    if status is None:
        return Opinion(member, usable=False, reason=f"can't be reached: {member.error}")
    if status.is_learner:
        return Opinion(member, usable=False, reason="only learns: it may be far behind")
    if "CORRUPT" in member.alarms:
        return Opinion(member, usable=False, reason="has the alarm CORRUPT")
    if status.raft_applied_index < least:
        behind = foremost - status.raft_applied_index
        return Opinion(member, usable=False, reason=f"is {behind} raft entries behind")
    return Opinion(member, True, _why(status), tuple(_warnings(member, status, quota)))


def _why(status: Status) -> str:
    if status.is_leader:
        return "leads"
    return "follows" if status.leader else "has no leader"


def _rank(opinion: Opinion) -> tuple[bool, int, int]:
    status = opinion.member.status
    if status is None or not opinion.usable:
        return (True, 0, 0)
    # Without a leader, nobody knows who is right: the one that has come furthest is.
    rank = {"follows": 0, "leads": 1}.get(opinion.reason, 2)
    return (False, rank, -status.raft_applied_index if rank == 2 else 0)


def _warnings(member: MemberHealth, status: Status, assumed: int | None) -> Iterable[str]:
    for alarm in sorted(member.alarms | member.elsewhere):
        whose = "has" if alarm in member.alarms else "is in a cluster with"
        yield (
            f"{whose} the alarm {alarm}: a snapshot of it is whole, but it holds the alarm, and a"
            " copy restored from it refuses requests until that is gone"
        )
    if not status.leader:
        yield "has no leader: what it has may be older than what others had agreed on"
    quota = status.quota or assumed
    if quota and status.db_size > _FULL * quota:
        free = 1 - status.db_size_in_use / status.db_size
        known = "its quota" if status.quota else "the quota that is assumed (etcd does not tell)"
        yield (
            f"has a file of {status.db_size} bytes, {status.db_size / quota:.0%} of {known};"
            f" {free:.0%} of it are free pages, which a defragmentation gives back"
        )
