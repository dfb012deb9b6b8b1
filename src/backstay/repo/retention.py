"""Retention: which backups to keep and which to remove, each with all reasons in words.

Pure functions over what is known of the backups (promise 7). Nothing is read or removed here.

Backups are counted by cluster and lineage. Inside a lineage the revision orders them, never a
clock. Into hours, days, weeks, months and years they are sorted by the store's clock, in UTC; the
clock of whoever wrote them decides nothing. A time that lies ahead of the store's own clock is not
believed: such a backup stays, and takes no place of another.

What is kept on no account of a rule:

- the newest verified backup of each lineage; where none is verified, the newest;
- what is pinned, or locked by the store;
- what is younger than the safe age, by the store's clock;
- what one that is kept needs, directly or by others;
- all of a cluster of which something can't be read: what that needs is not known.

A rule like `daily 7` keeps the newest verified backup of each of the seven newest days that have
one. Beside these it keeps at most as many that are not verified, and newer than the verified one of
their day: a later verify may find them good, and they take no place of a good one. One that failed
a check is kept by no rule.

Everything here is monotonic: a rule that keeps more never removes what one that keeps less keeps.
And it is idempotent: what is kept is kept again when the rest has gone.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta

from backstay.repo.leftovers import SAFE_AGE

#: A time that is so far ahead of the store's clock is one that the clock has jumped back from.
_AHEAD = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What retention knows of a backup.

    Attributes:
        id: its full ID.
        cluster: whose it is.
        lineage: which life of its etcd; of the first snapshot where there are several.
        root: the first of the lineages that may be one life with this one, see `repo.lineage`.
        revision: of the first snapshot.
        written: when its manifest came to the store, by the store's clock; aware.
        verified: whether it is proven.
        failed: whether a check of it has failed.
        pins: who pinned it and why, in words.
        needs: IDs of backups of its cluster without which it can't be restored.
        locked_until: until when the store deletes nothing of it; None where it is not locked.
    """

    id: str
    cluster: str
    lineage: str
    root: str
    revision: int
    written: datetime
    verified: bool
    failed: bool
    pins: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    locked_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How many to keep, of each cluster and lineage.

    Attributes:
        last: of the newest.
        hourly: hours to keep one of; and so on.
        across_unproven: count lineages as one that may be one life: nothing speaks against it.
        across_lineages: count all lineages of a cluster as one, ordered by the store's clock:
            then only the newest verified of the cluster is kept for being that.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    across_unproven: bool = False
    across_lineages: bool = False

    @property
    def empty(self) -> bool:
        """Whether it keeps nothing that is not kept anyway."""
        return not any(getattr(self, name) for name in RULES)

    def as_json(self) -> dict[str, int | bool]:
        """Give it as JSON has it."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a backup, and why.

    Attributes:
        fact: which backup.
        keep: whether it stays.
        reasons: all that speaks for it; where nothing does, why no rule keeps it.
    """

    fact: Fact
    keep: bool
    reasons: tuple[str, ...]


def _week(moment: datetime) -> str:
    year, week, _ = moment.isocalendar()
    return f"{year:04}-W{week:02}"


#: What each rule counts: the name of a stretch of time, or of the backup itself.
RULES: dict[str, Callable[[Fact], str]] = {
    "last": lambda fact: fact.id,
    "hourly": lambda fact: f"{_utc(fact):%Y-%m-%d %Hh}",
    "daily": lambda fact: f"{_utc(fact):%Y-%m-%d}",
    "weekly": lambda fact: _week(_utc(fact)),
    "monthly": lambda fact: f"{_utc(fact):%Y-%m}",
    "yearly": lambda fact: f"{_utc(fact):%Y}",
}


def _utc(fact: Fact) -> datetime:
    return fact.written.astimezone(UTC)


def decide(
    facts: Sequence[Fact],
    policy: Policy,
    now: datetime,
    *,
    unreadable: Mapping[str, str] | None = None,
    age: timedelta = SAFE_AGE,
) -> tuple[Decision, ...]:
    """Decide on each backup.

    Args:
        facts: all backups of the clusters in question; no ID twice.
        policy: how many to keep.
        now: the time by the store's clock, asked for before the backups were listed.
        unreadable: of clusters of which not all can be read, why.
        age: what is younger stays.

    Returns:
        A decision on each, in the order of `facts`.
    """
    reasons = _Reasons()
    for fact in facts:
        reasons.keep(fact, _for_itself(fact, now, age, unreadable or {}))
    for group in _groups(facts, policy, now):
        group.protect(reasons)
        for rule in RULES:
            group.count(rule, getattr(policy, rule), reasons)
    _keep_needed(facts, reasons)
    return tuple(reasons.decision(fact) for fact in facts)


@dataclass(slots=True)
class _Reasons:
    """What was found for and against each backup, by its ID."""

    for_it: dict[str, list[str]] = field(default_factory=dict)
    against: dict[str, list[str]] = field(default_factory=dict)

    def keep(self, fact: Fact, reasons: Iterable[str]) -> None:
        for reason in reasons:
            self.for_it.setdefault(fact.id, []).append(reason)

    def pass_over(self, fact: Fact, reason: str) -> None:
        self.against.setdefault(fact.id, []).append(reason)

    def decision(self, fact: Fact) -> Decision:
        kept = self.for_it.get(fact.id)
        if kept:
            return Decision(fact, keep=True, reasons=tuple(kept))
        if fact.failed:
            failed = "a check of it failed, so no rule keeps it"
            return Decision(fact, keep=False, reasons=(failed,))
        against = tuple(self.against.get(fact.id, ())) or ("no rule keeps anything",)
        return Decision(fact, keep=False, reasons=against)


def _for_itself(
    fact: Fact, now: datetime, age: timedelta, unreadable: Mapping[str, str]
) -> Iterator[str]:
    """Say what keeps a backup, whatever the others are."""
    if fact.cluster in unreadable:
        yield f"nothing of {fact.cluster} is removed: {unreadable[fact.cluster]}"
    yield from fact.pins
    if fact.locked_until is not None:
        yield f"locked until {fact.locked_until.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    if _is_ahead(fact, now):
        yield f"its date, {_utc(fact):%Y-%m-%d}, lies ahead of the store's clock"
    elif now - fact.written < age:
        yield f"younger than {age / timedelta(hours=1):g} h"


def _is_ahead(fact: Fact, now: datetime) -> bool:
    return fact.written - now > _AHEAD


@dataclass(frozen=True, slots=True)
class _Group:
    """Backups that are counted together, newest first.

    Attributes:
        name: what reasons call it.
        all: those of the group.
        counted: those of them that take part in rules.
    """

    name: str
    all: tuple[Fact, ...]
    counted: tuple[Fact, ...]

    def protect(self, reasons: _Reasons) -> None:
        """Keep the one that a restore would choose."""
        verified = [fact for fact in self.all if fact.verified]
        if verified:
            reasons.keep(verified[0], [f"the newest verified of {self.name}"])
            return
        whole = [fact for fact in self.all if not fact.failed] or self.all
        reasons.keep(whole[0], [f"the newest of {self.name}, which has no verified one"])

    def count(self, rule: str, number: int, reasons: _Reasons) -> None:
        """Keep what a rule keeps."""
        if not number:
            return
        proven, others = self._chosen(rule)
        for place, fact in enumerate(proven[:number], start=1):
            reasons.keep(fact, [f"{rule} {place} of {number}: {self._what(rule, fact)}"])
        # An older one that is not verified is worth less than the last that is.
        end = self.counted.index(proven[number - 1]) if len(proven) >= number else None
        newer = set() if end is None else {fact.id for fact in self.counted[:end]}
        beside = [fact for fact in others if end is None or fact.id in newer][:number]
        for fact in beside:
            reasons.keep(fact, [f"{rule}, beside those: {self._what(rule, fact)}, not verified"])
        kept = {fact.id for fact in (*proven[:number], *beside)}
        chosen = {RULES[rule](fact) for fact in (*proven[:number], *beside)}
        for fact in self.counted:
            if fact.id not in kept:
                reasons.pass_over(fact, _why_not(rule, number, fact, chosen))

    def _chosen(self, rule: str) -> tuple[list[Fact], list[Fact]]:
        """Find the newest verified of each stretch, and what is newer there and not verified.

        Each is in a place of its own among all; that the clock went back between two does not
        matter. What has no place can go, and no other's place changes.
        """
        proven: dict[str, Fact] = {}
        others: dict[str, Fact] = {}
        for fact in self.counted:
            stretch = RULES[rule](fact)
            if fact.verified:
                proven.setdefault(stretch, fact)
            elif stretch not in proven:
                others.setdefault(stretch, fact)
        return list(proven.values()), list(others.values())

    @staticmethod
    def _what(rule: str, fact: Fact) -> str:
        if rule == "last":
            return "among the newest"
        return f"the newest of {RULES[rule](fact)}"


def _why_not(rule: str, number: int, fact: Fact, chosen: Collection[str]) -> str:
    stretch = RULES[rule](fact)
    if rule != "last" and stretch in chosen:
        return f"{rule}: another of {stretch} is kept"
    if fact.verified:
        return f"{rule}: {number} newer are kept"
    return f"{rule}: not verified, and others are kept"


def _groups(facts: Sequence[Fact], policy: Policy, now: datetime) -> Iterator[_Group]:
    """Sort backups into those that are counted together."""
    together: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        together.setdefault((fact.cluster, _counted_with(fact, policy)), []).append(fact)
    for (cluster, lineage), found in sorted(together.items()):
        if policy.across_lineages:
            # Revisions of two lineages say nothing of each other; what is left is the store's
            # clock, where it can be believed.
            ordered = sorted(
                found, key=lambda fact: (not _is_ahead(fact, now), *_by_clock(fact)), reverse=True
            )
        else:
            # Where lineages may be one life, a revision that went back would have spoken against.
            ordered = sorted(found, key=_by_revision, reverse=True)
        counted = [fact for fact in ordered if not fact.failed and not _is_ahead(fact, now)]
        yield _Group(_title(cluster, lineage, found), tuple(ordered), tuple(counted))


def _counted_with(fact: Fact, policy: Policy) -> str:
    """Say which lineage, or row of them, a backup is counted in; empty: its whole cluster."""
    if policy.across_lineages:
        return ""
    return fact.root if policy.across_unproven else fact.lineage


def _title(cluster: str, lineage: str, facts: Sequence[Fact]) -> str:
    if not lineage:
        return f"cluster {cluster}"
    several = len({fact.lineage for fact in facts}) > 1
    return f"lineage {lineage[:8]}" + " and those that may be its life" * several


def _by_revision(fact: Fact) -> tuple[int, datetime, str]:
    return fact.revision, fact.written, fact.id


def _by_clock(fact: Fact) -> tuple[datetime, int, str]:
    return fact.written, fact.revision, fact.id


def _keep_needed(facts: Sequence[Fact], reasons: _Reasons) -> None:
    """Keep what those that are kept need, and what these need in turn."""
    known = {fact.id: fact for fact in facts}
    asked = [fact for fact in facts if fact.id in reasons.for_it]
    seen = {fact.id for fact in asked}
    while asked:
        fact = asked.pop()
        for name in fact.needs:
            if name in known and name != fact.id:
                reasons.keep(known[name], [f"needed by {fact.id}"])
                if name not in seen:
                    seen.add(name)
                    asked.append(known[name])
