"""Sealing what is recorded anew, to the recipients of now; no delta is ever missing meanwhile.

    old copy ──▶ spool (it proves itself) ──▶ new copy ──▶ read back ──▶ listed ──▶ old copies go

A new copy is the same bytes in the clear under a name of its own: digests and the chain of
predecessors stay what they are. From when it is there it counts, and whoever reads falls back to
another where it is not whole. Killed anywhere, one whole copy is there; a later run does the
rest.

A copy is deleted only by whoever has proven a better one (`StoredDelta.rank`) and seen it listed.
So of two rewraps at the same time neither takes away what the other goes by: the best that is
proven is deleted by nobody.

What is as it was recorded does not say whom it is sealed to. Only where the recipients were never
changed is that known; else it is sealed anew, once.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path

from backstay.checks.question import ask
from backstay.checks.stored import stored
from backstay.clock import Clock
from backstay.errors import BackstayError, DamagedError, NotFoundError, SealError, StoreError
from backstay.flows.deltafetch import Fetched
from backstay.flows.rewrap import Options, check_sealed, delete_old
from backstay.repo.catalogue import Repository
from backstay.repo.delta import StoredDelta, list_all, listed_now, put_copy
from backstay.repo.deltaname import fingerprint
from backstay.repo.identity import Identities
from backstay.report import Report, Verdict

#: Deltas that are sealed anew at the same time.
_WORKERS = 4
#: What is wrong with one delta alone, and stops no other.
_ITS_OWN = (DamagedError, NotFoundError, SealError)


@dataclass(frozen=True, slots=True)
class DeltasOutcome:
    """What became of the deltas of a lineage.

    Attributes:
        cluster: whose.
        lineage: of which life.
        rewrapped: how many were sealed anew.
        kept: how many have the recipients of now.
        removed: paths of old copies that are gone now.
        locked: paths of old copies that the store keeps, and until when.
        failures: what went wrong, one for each delta that is as it was.
    """

    cluster: str
    lineage: str
    rewrapped: int = 0
    kept: int = 0
    removed: tuple[str, ...] = ()
    locked: tuple[tuple[str, datetime], ...] = ()
    failures: tuple[BackstayError, ...] = ()


def rewrap_deltas(
    repository: Repository,
    options: Options,
    *,
    cluster: str | None = None,
    lineages: frozenset[tuple[str, str]] | None = None,
    clock: Clock,
    report: Report,
) -> Iterator[DeltasOutcome]:
    """Seal what is recorded to the recipients of now, lineage by lineage.

    Args:
        repository: one for data.
        options: how.
        cluster: only what is of this one.
        lineages: only these, as cluster and lineage.
        clock: for durations.
        report: is told how far it is.

    Raises:
        RefusedError: the repository is not encrypted.
        StoreError: the store refuses, or did not keep what was written.
        SpaceError: the spool or the store is full.
    """
    check_sealed(repository)
    listed = list(list_all(repository, cluster))
    for (owner, lineage), group in groupby(listed, key=lambda one: (one.cluster, one.lineage)):
        if lineages is None or (owner, lineage) in lineages:
            deltas = list(group)
            with report.task("sealing deltas anew", len(deltas), "deltas") as advance:
                work = _Work(repository, options, clock)
                with ThreadPoolExecutor(_WORKERS) as pool:
                    try:
                        for one in pool.map(work.renew, deltas):
                            work.outcomes.append(one)
                            advance(1)
                    except BaseException:
                        # Also where somebody wants us to stop: what has not begun never will.
                        pool.shutdown(cancel_futures=True)
                        raise
            yield _sum(owner, lineage, work.outcomes)


def _anew(error: BackstayError) -> BackstayError:
    """Say the same without a traceback, which would keep the file that the delta was in."""
    return type(error)(error.what, error.do)


def _sum(cluster: str, lineage: str, found: Sequence["_One"]) -> DeltasOutcome:
    return DeltasOutcome(
        cluster,
        lineage,
        rewrapped=sum(one.made for one in found),
        kept=sum(not one.made and one.failure is None for one in found),
        removed=tuple(path for one in found for path in one.removed),
        locked=tuple(lock for one in found for lock in one.locked),
        failures=tuple(one.failure for one in found if one.failure is not None),
    )


@dataclass(frozen=True, slots=True)
class _One:
    """What became of one delta."""

    made: bool = False
    removed: tuple[str, ...] = ()
    locked: tuple[tuple[str, datetime], ...] = ()
    failure: BackstayError | None = None


@dataclass(frozen=True, slots=True)
class _Work:
    """Seals deltas anew, each by itself; a source of deltas, too."""

    repository: Repository
    options: Options
    clock: Clock
    outcomes: list[_One] = field(default_factory=list)

    @property
    def identities(self) -> Identities:
        return self.options.identities

    @property
    def spool_dir(self) -> Path:
        return self.options.spool_dir

    def renew(self, delta: StoredDelta) -> _One:
        """Seal a delta anew where it needs that; what is wrong with it alone is handed back."""
        try:
            return self._renew(delta)
        except NotFoundError as error:
            # A prune may have been faster.
            there = listed_now(self.repository, delta)
            return _One(failure=_anew(error)) if there else _One()
        except (DamagedError, SealError) as error:
            return _One(failure=_anew(error))

    def _renew(self, delta: StoredDelta) -> _One:
        current = self._is_current(delta)
        if current and not delta.others:
            return _One()
        if current and self._proves(delta):
            return self._settle(delta, delta.path, made=False)
        return self._settle(delta, self._seal(delta), made=True)

    def _is_current(self, delta: StoredDelta) -> bool:
        """Whether the best copy is known to be sealed to the recipients of now."""
        config = self.repository.config
        if delta.resealed is None:
            return config.generation == 1
        return delta.resealed.recipients == fingerprint(config.recipients)

    def _proves(self, delta: StoredDelta) -> bool:
        """Whether the best copy is whole, as far as it can be opened here."""
        try:
            with Fetched(self, (delta,), best=True) as fetched:
                list(fetched.read(Report()))
        except _ITS_OWN:
            return False
        return True

    def _seal(self, delta: StoredDelta) -> str:
        """Make a new copy that is whole in the store; gives its path."""
        store = self.repository.store
        with Fetched(self, (delta,)) as fetched:
            list(fetched.read(Report()))
            made = put_copy(self.repository, delta, fetched.data, self.options.sealing)
        if made.size != delta.name.size:
            raise StoreError(f"{made.path} was not sealed whole", "look at the disk of the spool")
        check = ask("stored", partial(stored, store, (made,), lambda _size: None), self.clock)
        if check.verdict is not Verdict.PASS:
            with suppress(BackstayError):
                store.delete(made.path)
            raise StoreError(check.detail, "what is recorded is as it was; look at the store")
        return made.path

    def _settle(self, delta: StoredDelta, proven: str, *, made: bool) -> _One:
        """Delete what is worse than a copy that was proven, once that is seen to be listed."""
        now = listed_now(self.repository, delta)
        mine = next((one for one in (now.copies if now else ()) if one.path == proven), None)
        if mine is None:
            raise StoreError(
                f"{self.repository.store.url} does not list {proven}, or somebody else has sealed"
                " it anew at the same time",
                "run it again: what is there is whole",
            )
        worse = sorted({one.path for one in delta.copies if one.rank < mine.rank})
        removed, locked = delete_old(self.repository, worse)
        return _One(made, removed, locked)
