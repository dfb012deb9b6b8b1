"""Pruning of what is recorded: after the backups, since what stays of these decides.

It is decided twice: for the plan, by the backups that are to stay; and when it is done, by those
that are there then. Only what both would remove goes. Rolls that name a delta go before it.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from backstay.errors import BackstayError
from backstay.repo.catalogue import Repository
from backstay.repo.chain import Judged, Range, Standing, judge, ranges
from backstay.repo.delta import StoredDelta, list_all
from backstay.repo.entry import Entry
from backstay.repo.roll import mend, suspects, take_out
from backstay.repo.store import Locker
from backstay.report import Report

#: Deltas that are deleted at the same time.
_WORKERS = 16


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of the backups.

    Attributes:
        staying: those that stay.
        unreadable: of clusters of which not all can be read, why.
        now: the time by the store's clock, asked for before anything was listed.
    """

    staying: Sequence[Entry]
    unreadable: Mapping[str, str]
    now: datetime

    def standing(self, cluster: str, lineage: str) -> tuple[Standing, ...]:
        """Give the snapshots of a lineage that stay."""
        return tuple(
            Standing(
                id=entry.manifest.id,
                revision=snapshot.revision,
                verified=entry.verified,
                failed=entry.failed,
            )
            for entry in self.staying
            if entry.manifest.cluster == cluster
            for snapshot in entry.manifest.snapshots
            if snapshot.lineage == lineage
        )


@dataclass(frozen=True, slots=True)
class Removed:
    """What has gone.

    Attributes:
        deltas: how many.
        size: bytes that they took in the store.
        troubles: what could not be done, one line each.
    """

    deltas: int = 0
    size: int = 0
    troubles: tuple[str, ...] = ()


@dataclass(slots=True)
class Chains:
    """What is recorded, of one cluster or of all.

    Attributes:
        repository: where it lies.
        cluster: whose; None: of all.
        recorded: for how long it is kept; None: from the oldest backup on.
        report: is told of each step.
    """

    repository: Repository
    cluster: str | None
    recorded: timedelta | None
    report: Report
    _locked: dict[str, datetime] = field(default_factory=dict)
    _going: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    _stale: bool = False

    def plan(self, situation: Situation) -> tuple[Range, ...]:
        """Decide what stays and what goes; nothing is removed.

        Raises:
            StoreError: the store refuses.
        """
        found: list[Range] = []
        listed = self._listed()
        self._stale = bool(suspects(self.repository, self.cluster, listed))
        for (cluster, lineage), deltas in sorted(listed.items()):
            self._ask_locks(one for one in self._judge(deltas, situation) if not one.keep)
            judged = self._judge(deltas, situation)
            self._going[cluster, lineage] = {one.delta.path for one in judged if not one.keep}
            found += ranges(judged)
        return tuple(found)

    @property
    def due(self) -> bool:
        """Whether the plan has anything to do."""
        return self._stale or any(self._going.values())

    def remove(self, situation: Situation) -> Removed:
        """Remove what the plan says and what still is to go; what fails is told.

        Args:
            situation: the backups that are there now.
        """
        if not self.due:
            return Removed()
        number = size = 0
        troubles: list[str] = []
        try:
            listed = self._listed()
            self._mend(listed)
        except BackstayError as error:
            return Removed(troubles=(self._tell("nothing recorded was removed", error),))
        for (cluster, lineage), deltas in sorted(listed.items()):
            planned = self._going.get((cluster, lineage), set())
            judged = self._judge(deltas, situation)
            going = [one.delta for one in judged if not one.keep and one.delta.path in planned]
            if not going:
                continue
            try:
                self._remove(cluster, lineage, going, deltas)
            except BackstayError as error:
                what = f"what is recorded of {cluster}, lineage {lineage[:8]}, was not all removed"
                troubles.append(self._tell(what, error))
                continue
            number += len(going)
            size += sum(delta.stored_size for delta in going)
        return Removed(number, size, tuple(troubles))

    def _mend(self, listed: Mapping[tuple[str, str], Sequence[StoredDelta]]) -> None:
        """Make rolls anew that say more than there is."""
        if not self._stale:
            return
        for path in suspects(self.repository, self.cluster, listed):
            if mend(self.repository, path, listed):
                self.report.say(f"{path} named deltas that are gone: it was made anew")

    def _tell(self, what: str, error: BackstayError) -> str:
        told = f"{what}: {error}"
        self.report.warn(told)
        return told

    def _listed(self) -> dict[tuple[str, str], list[StoredDelta]]:
        found: dict[tuple[str, str], list[StoredDelta]] = {}
        for delta in list_all(self.repository, self.cluster):
            found.setdefault((delta.cluster, delta.lineage), []).append(delta)
        return {key: sorted(deltas, key=lambda one: one.name) for key, deltas in found.items()}

    def _judge(self, deltas: Sequence[StoredDelta], situation: Situation) -> tuple[Judged, ...]:
        first = deltas[0]
        return judge(
            deltas,
            situation.standing(first.cluster, first.lineage),
            situation.now,
            recorded=self.recorded,
            locked=self._locked,
            unreadable=situation.unreadable.get(first.cluster, ""),
        )

    def _ask_locks(self, going: Iterable[Judged]) -> None:
        """Ask a store that locks until when it does; only of what would go."""
        store = self.repository.store
        if not isinstance(store, Locker):
            return
        # A copy that is locked would be left, and be the delta from then on.
        copies = [(one.delta.path, copy.path) for one in going for copy in one.delta.copies]
        with ThreadPoolExecutor(_WORKERS) as pool:
            ends = pool.map(store.locked_until, (copy for _, copy in copies))
            for (path, _), end in zip(copies, ends, strict=True):
                if end is not None:
                    self._locked[path] = max(end, self._locked.get(path, end))

    def _remove(
        self,
        cluster: str,
        lineage: str,
        going: Sequence[StoredDelta],
        deltas: Sequence[StoredDelta],
    ) -> None:
        paths = {delta.path for delta in going}
        staying = [delta for delta in deltas if delta.path not in paths]
        take_out(self.repository, cluster, lineage, going, staying)
        with (
            self.report.task("removing what is recorded", len(going), "deltas") as advance,
            ThreadPoolExecutor(_WORKERS) as pool,
        ):

            def delete(delta: StoredDelta) -> None:
                for copy in reversed(delta.copies):
                    self.repository.store.delete(copy.path)
                advance(1)

            try:
                list(pool.map(delete, going))
            except BaseException:
                # Also where somebody wants us to stop: what has not begun never will.
                pool.shutdown(cancel_futures=True)
                raise
