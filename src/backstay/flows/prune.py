"""Pruning: a plan with reasons, and then one backup after the other.

What the plan was made from may have changed when it is carried out: another prune, a pin, a new
backup that needs an old one, a check that failed meanwhile. So before each backup goes its removal
is announced, everything is listed again, and it is decided again; only what both would remove goes.
Nothing is ever replaced in a repository, so what is listed as before need not be read again.

A backup that fails to be removed does not stop the others. What a killed run has begun is finished
by the next.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from backstay.clock import Clock
from backstay.errors import BackstayError, NotFoundError, RefusedError, StoreError
from backstay.flows.chains import Chains, Removed, Situation
from backstay.repo import keyring as keyrings
from backstay.repo import leftovers, removal
from backstay.repo.catalogue import Repository
from backstay.repo.chain import Range
from backstay.repo.config import Role
from backstay.repo.entry import Entry, Listed, Unreadable
from backstay.repo.keyring import Saved
from backstay.repo.leftovers import SAFE_AGE
from backstay.repo.lineage import Stored
from backstay.repo.manifest import KeyringEntry, Manifest
from backstay.repo.name import BackupId, check_cluster
from backstay.repo.pin import REMOVAL_LASTS
from backstay.repo.removal import Announced
from backstay.repo.retention import Decision, Fact, Policy, decide
from backstay.repo.store import Locker
from backstay.report import Report

#: Between the announcement of a removal and the removal, in seconds: what takes longer is given
#: up, since a pin does not wait for ever. Far less than `pin.REMOVAL_LASTS`.
_IN_TIME = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is pruned, and how.

    Attributes:
        policy: how many to keep.
        cluster: the one cluster that is meant; None is all.
        by: who is at work, as `root@host`.
        recorded: for how long what was recorded is kept; None: from the oldest backup of its
            lineage on.
    """

    policy: Policy
    cluster: str | None = None
    by: str
    recorded: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done.

    Attributes:
        now: when, by the store's clock.
        decisions: on each backup, oldest first.
        unreadable: manifests that can't be read: nothing of their clusters is touched.
        sizes: bytes that each backup takes in the store, by its ID.
        recorded: on what is recorded, by ranges.
    """

    now: datetime
    decisions: tuple[Decision, ...]
    unreadable: tuple[Unreadable, ...]
    sizes: dict[str, int]
    recorded: tuple[Range, ...] = ()

    @property
    def removed(self) -> tuple[Decision, ...]:
        """Those that would go."""
        return tuple(one for one in self.decisions if not one.keep)

    @property
    def freed(self) -> int:
        """Bytes that would be free then."""
        return sum(self.sizes[one.fact.id] for one in self.removed)

    @property
    def lineages(self) -> dict[str, int]:
        """How many lineages each cluster has."""
        return self._counted(lambda fact: fact.lineage)

    @property
    def lives(self) -> dict[str, int]:
        """The same, where those that may be one life count as one."""
        return self._counted(lambda fact: fact.root)

    def _counted(self, name: Callable[[Fact], str]) -> dict[str, int]:
        found = {(one.fact.cluster, name(one.fact)) for one in self.decisions}
        return dict(Counter(cluster for cluster, _ in sorted(found)))


class Fate(StrEnum):
    """What became of a backup that was to go."""

    REMOVED = "removed"
    KEPT = "kept"  # something came meanwhile
    GONE = "gone"  # somebody else has removed it
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one backup.

    Attributes:
        id: which.
        fate: what.
        detail: why it was kept, what failed, or what else there is to know.
        keys_left: whether its keyring is still in the repository for keys.
    """

    id: str
    fate: Fate
    detail: str = ""
    keys_left: bool = False


@dataclass(frozen=True, slots=True)
class Pruned:
    """What came of a plan.

    Attributes:
        outcomes: on each backup that was to go.
        finished: IDs of backups that an earlier run had begun to remove, and that are gone now.
        keys_left: IDs of removed backups whose keyrings are still there.
        troubles: what else failed, one line each.
        recorded: what has gone of what was recorded.
    """

    outcomes: tuple[Outcome, ...] = ()
    finished: tuple[str, ...] = ()
    keys_left: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    recorded: Removed = field(default_factory=Removed)

    @property
    def failed(self) -> bool:
        """Whether something could not be done."""
        return bool(self.troubles) or any(one.fate is Fate.FAILED for one in self.outcomes)


@dataclass(slots=True)
class Prune:
    """One prune of a repository.

    Attributes:
        repository: the one with the backups.
        options: what is pruned.
        keys: the repository with their keyrings; None leaves those where they are.
        clock: for dates and durations; it decides nothing.
        report: is told of each step.
    """

    repository: Repository
    options: Options
    keys: Repository | None
    clock: Clock
    report: Report
    _read: dict[Listed, Entry | Unreadable] = field(default_factory=dict)
    _locked: dict[str, datetime] = field(default_factory=dict)
    _chains: Chains = field(init=False)

    def __post_init__(self) -> None:
        """Look at what is recorded of the same clusters."""
        chosen = self.options
        self._chains = Chains(self.repository, chosen.cluster, chosen.recorded, self.report)

    def plan(self) -> Plan:
        """Decide what stays and what goes; nothing is removed.

        Raises:
            RefusedError: the repository is not for data, or the other one not for keys.
            NotFoundError: there is no backup of the cluster that is meant.
            StoreError: the store refuses.
        """
        self._check_places()
        # In this order: what comes while it is listed is younger than nothing.
        now = self.repository.store.now()
        found = [one for cluster in self._clusters() for one in self._look(cluster)]
        decisions = self._decide(found, now)
        self._ask_locks([one.fact.id for one in decisions if not one.keep], found)
        decisions = self._decide(found, now)
        staying = {one.fact.id for one in decisions if one.keep}
        recorded = self._chains.plan(_situation(found, now, staying))
        if self.options.cluster is not None and not found and not recorded:
            raise NotFoundError(
                f"{self.repository.store.url} has no backup of {self.options.cluster}",
                "see `backstay list`",
            )
        return Plan(
            now=now,
            decisions=tuple(sorted(decisions, key=_order)),
            unreadable=tuple(one for one in found if isinstance(one, Unreadable)),
            sizes={one.manifest.id: one.manifest.stored_size for one in _entries(found)},
            recorded=recorded,
        )

    def execute(self, plan: Plan) -> Pruned:
        """Remove what a plan says, and finish what earlier runs have begun.

        Raises:
            BackstayError: nothing could be begun.
        """
        finished, keys_left, troubles = self._finish(plan.now)
        outcomes = []
        with self.report.task("removing backups", len(plan.removed), "backups") as advance:
            for decision in plan.removed:
                outcome = self._remove(decision.fact, plan.now)
                outcomes.append(outcome)
                keys_left += [outcome.id] if outcome.keys_left else []
                advance(1)
        recorded = self._remove_recorded(plan)
        self._sweep()
        return Pruned(
            tuple(outcomes),
            tuple(finished),
            tuple(keys_left),
            (*troubles, *recorded.troubles),
            recorded,
        )

    def _remove_recorded(self, plan: Plan) -> Removed:
        """Remove what is recorded and leads on from no backup that is there now."""
        if not self._chains.due:
            return Removed()
        try:
            found = [one for cluster in self._clusters() for one in self._look(cluster)]
        except BackstayError as error:
            self.report.warn(f"nothing recorded was removed: {error}")
            return Removed(troubles=(f"nothing recorded was removed: {error}",))
        return self._chains.remove(_situation(found, plan.now))

    def _check_places(self) -> None:
        config, url = self.repository.config, self.repository.store.url
        if config.role is not Role.DATA:
            raise RefusedError(
                f"{url} is a repository for {config.role}",
                "name the one with the backups by --repo, and this one by --keys-repo",
            )
        if self.keys is not None:
            keyrings.check_place(self.keys)

    def _clusters(self) -> tuple[str, ...]:
        one = self.options.cluster
        return self.repository.clusters() if one is None else (check_cluster(one),)

    def _look(self, cluster: str) -> list[Entry | Unreadable]:
        """List a cluster's backups, and read what has not been read before."""
        listed = self.repository.listed(cluster)
        fresh = [one for one in listed if one not in self._read]
        found = self.repository.read_all(fresh)
        self._read |= {
            one: entry for one, entry in zip(fresh, found, strict=True) if entry is not None
        }
        return [self._read[one] for one in listed if one in self._read]

    def _decide(self, found: Sequence[Entry | Unreadable], now: datetime) -> tuple[Decision, ...]:
        facts = [self._fact(entry) for entry in _entries(found)]
        unreadable = {one.cluster: one.reason for one in found if isinstance(one, Unreadable)}
        return decide(facts, self.options.policy, now, unreadable=unreadable)

    def _fact(self, entry: Entry) -> Fact:
        manifest = entry.manifest
        end = Stored.of(manifest.snapshots[0])
        return Fact(
            id=manifest.id,
            cluster=manifest.cluster,
            lineage=end.lineage,
            root=end.root,
            revision=manifest.revision,
            written=entry.written,
            verified=entry.verified,
            failed=entry.failed,
            pins=tuple(str(pin) for pin in entry.pins),
            needs=manifest.needs,
            locked_until=self._locked.get(manifest.id),
        )

    def _ask_locks(self, going: Sequence[str], found: Sequence[Entry | Unreadable]) -> None:
        """Ask a store that locks until when it does; only of what would go."""
        store = self.repository.store
        if not isinstance(store, Locker):
            return
        for entry in _entries(found):
            if entry.manifest.id in going:
                paths = (removal.manifest_of(entry.manifest.name), *_objects(entry.manifest))
                ends = [end for end in map(store.locked_until, paths) if end is not None]
                if ends:
                    self._locked[entry.manifest.id] = max(ends)

    def _remove(self, fact: Fact, now: datetime) -> Outcome:
        """Remove one backup; what fails is told, and stops no other."""
        backup = BackupId.parse(fact.id)
        try:
            outcome = self._try_to_remove(fact, backup, now)
        except BackstayError as error:
            self.report.warn(f"{fact.id} was not removed, or not all of it: {error}")
            return Outcome(fact.id, Fate.FAILED, str(error))
        words = f"{fact.id}: {outcome.fate}"
        self.report.say(f"{words}: {outcome.detail}" if outcome.detail else words)
        return outcome

    def _try_to_remove(self, fact: Fact, backup: BackupId, now: datetime) -> Outcome:
        store = self.repository.store
        manifest = self._manifest(fact)
        saved = self._saved(backup, manifest.keyring)
        began = self.clock.monotonic()
        path = removal.announce(
            store, backup, manifest.keyring, by=self.options.by, at=self.clock.now()
        )
        try:
            # What comes from here on sees the announcement; what came before is seen here.
            found = self._look(fact.cluster)
            outcome = self._still(fact, self._decide(found, now))
            if outcome is None:
                self._check_in_time(fact, began)
        except BaseException:
            with suppress(BackstayError):
                store.delete(path)
            raise
        if outcome is not None:
            store.delete(path)
            return outcome
        # If this fails it may have been done: the announcement stays, for the next run to see.
        removal.unlist(store, backup)
        others = (entry for entry in _entries(found) if entry.manifest.id != fact.id)
        return self._clear(backup, manifest.keyring, saved, others, now)

    def _check_in_time(self, fact: Fact, began: float) -> None:
        if self.clock.monotonic() - began > _IN_TIME:
            raise StoreError(
                f"to look for pins of {fact.id} took longer than {_IN_TIME:.0f} s", "try again"
            )

    def _manifest(self, fact: Fact) -> Manifest:
        return next(
            entry.manifest
            for entry in self._read.values()
            if isinstance(entry, Entry) and entry.manifest.id == fact.id
        )

    @staticmethod
    def _still(fact: Fact, decisions: Iterable[Decision]) -> Outcome | None:
        """Look what is decided on a backup now; None where it is to go."""
        now = next((one for one in decisions if one.fact.id == fact.id), None)
        if now is None:
            return Outcome(fact.id, Fate.GONE, "another prune was faster")
        return Outcome(fact.id, Fate.KEPT, "; ".join(now.reasons)) if now.keep else None

    def _saved(self, backup: BackupId, entry: KeyringEntry | None) -> Saved | None:
        """Find the keyring that goes with a backup, where it can be removed.

        Raises:
            DamagedError: what lies there is not what the manifest means; it is not touched.
            StoreError: the store refuses.
        """
        if entry is None or self.keys is None:
            return None
        if entry.repository != self.keys.config.repository:
            return None
        with suppress(NotFoundError):
            return keyrings.find(self.keys, entry, backup)
        return None

    def _clear(
        self,
        backup: BackupId,
        entry: KeyringEntry | None,
        saved: Saved | None,
        others: Iterable[Entry],
        now: datetime,
    ) -> Outcome:
        """Delete all else of a backup that is not listed any more."""
        store = self.repository.store
        in_use = {path for other in others for path in _objects(other.manifest)}
        removal.clear(store, backup, in_use, now - SAFE_AGE)
        if self.keys is not None and saved is not None:
            keyrings.remove(self.keys, saved)
            if self._saved(backup, entry) is not None:
                raise StoreError(
                    f"the keys of {backup} were deleted and are still there",
                    "find out why the store keeps them, and run it again",
                )
        left = entry is not None and not self._has(entry)
        if not left:
            removal.forget(store, backup)
        return Outcome(str(backup), Fate.REMOVED, keys_left=left)

    def _has(self, entry: KeyringEntry) -> bool:
        """Whether the repository for keys that was given is the one that is meant."""
        return self.keys is not None and entry.repository == self.keys.config.repository

    def _finish(self, now: datetime) -> tuple[list[str], list[str], list[str]]:
        """Finish removals that died half-way, where all of the cluster can be read."""
        finished: list[str] = []
        keys_left: list[str] = []
        troubles: list[str] = []
        for cluster in self._clusters():
            for one in removal.announced(self.repository.store, cluster):
                try:
                    outcome = self._finish_one(one, now)
                except BackstayError as error:
                    troubles.append(f"what is left of {one.backup} can't be removed: {error}")
                    self.report.warn(troubles[-1])
                    continue
                if outcome is not None:
                    (keys_left if outcome.keys_left else finished).append(outcome.id)
        return finished, keys_left, troubles

    def _finish_one(self, one: Announced, now: datetime) -> Outcome | None:
        store = self.repository.store
        if removal.is_listed(store, one.backup):
            if now - one.newest > REMOVAL_LASTS:
                for path in one.paths:
                    store.delete(path)
            return None
        found = self._look(one.backup.cluster)
        if any(isinstance(other, Unreadable) for other in found):
            return None
        saved = self._saved(one.backup, one.keyring)
        return self._clear(one.backup, one.keyring, saved, _entries(found), now)

    def _sweep(self) -> None:
        """Delete what dead runs left, of this kind and of others; it is swept later otherwise."""
        try:
            leftovers.sweep(self.repository)
            if self.keys is not None:
                keyrings.sweep(self.keys)
        except BackstayError as error:
            self.report.warn(f"what dead runs left could not be swept: {error}")


def _situation(
    found: Sequence[Entry | Unreadable], now: datetime, staying: Collection[str] | None = None
) -> Situation:
    """Say which backups stay; all that are there where that is not said."""
    entries = [one for one in _entries(found) if staying is None or one.manifest.id in staying]
    unreadable = {one.cluster: one.reason for one in found if isinstance(one, Unreadable)}
    return Situation(entries, unreadable, now)


def _entries(found: Iterable[Entry | Unreadable]) -> list[Entry]:
    return [one for one in found if isinstance(one, Entry)]


def _objects(manifest: Manifest) -> tuple[str, ...]:
    return tuple(item.path for item in manifest.objects)


def _order(decision: Decision) -> tuple[str, datetime, int]:
    fact = decision.fact
    return fact.cluster, fact.written, fact.revision
