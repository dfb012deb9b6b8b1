"""Sealing a backup anew, to the recipients of now; the backup is never missing meanwhile.

    old objects ──▶ spool (proven equal to the manifest) ──▶ new objects ──▶ read back
      ──▶ the note that makes them count, in one put ──▶ the old objects go

Killed anywhere, one whole set of objects is what the backup has: the old one until the note is
there, the new one from then on. New objects without a note are swept like those of any dead run;
old ones that a killed run has left go with the next rewrap. What the store locks stays, and is
told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from backstay.checks.question import ask
from backstay.checks.stored import stored
from backstay.clock import Clock
from backstay.errors import RefusedError, StoreError
from backstay.flows.fetch import BackupSubject
from backstay.flows.spool import Spool
from backstay.repo.catalogue import Repository
from backstay.repo.config import Encryption
from backstay.repo.entry import Entry
from backstay.repo.identity import Identities
from backstay.repo.manifest import CheckEntry, ObjectEntry
from backstay.repo.name import Run
from backstay.repo.note import REWRAP, Moved, Note, Resealing
from backstay.repo.packing import Readable
from backstay.repo.reseal import current, publish, superseded
from backstay.repo.sealing import Sealing, seal
from backstay.repo.store import Locker
from backstay.report import Check, Report, Verdict


class Fate(StrEnum):
    """What became of a backup."""

    REWRAPPED = "rewrapped"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a backup, and of its old objects.

    Attributes:
        id: of the backup.
        fate: whether it was sealed anew; one that has the recipients of now is kept.
        removed: paths of old objects that are gone now.
        locked: paths of old objects that the store keeps, and until when.
    """

    id: str
    fate: Fate
    removed: tuple[str, ...] = ()
    locked: tuple[tuple[str, datetime], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How backups are sealed anew.

    Attributes:
        identities: open what is there.
        spool_dir: where a snapshot lies meanwhile.
        sealing: how hard to compress.
    """

    identities: Identities
    spool_dir: Path
    sealing: Sealing


def check_sealed(repository: Repository) -> None:
    """Hold a repository to be one whose backups can be sealed anew.

    Raises:
        RefusedError: it is not encrypted.
    """
    if repository.config.encryption is not Encryption.AGE:
        raise RefusedError(
            f"{repository.store.url} is not encrypted", "there is nothing to seal anew in it"
        )


def rewrap(
    repository: Repository, entry: Entry, options: Options, *, clock: Clock, report: Report
) -> Outcome:
    """Seal a backup to the recipients of now.

    Args:
        repository: one for data.
        entry: the backup.
        options: how.
        clock: for names and durations.
        report: is told how far it is.

    Raises:
        RefusedError: the repository is not encrypted.
        SealError: none of the identities opens it.
        DamagedError: it is not what its manifest says; nothing was changed.
        NotFoundError: it was removed meanwhile.
        StoreError: the store refuses, or did not keep what was written.
        SpaceError: the spool or the store is full.
    """
    check_sealed(repository)
    fate = Fate.KEPT
    if entry.manifest.recipients != repository.config.recipients:
        entry = _Resealing(repository, entry, options, clock, report).make()
        fate = Fate.REWRAPPED
    removed, locked = delete_old(repository, superseded(entry.notes))
    return Outcome(entry.manifest.id, fate, removed, locked)


def seal_anew(
    source: Readable, repository: Repository, old: ObjectEntry, path: str, sealing: Sealing
) -> ObjectEntry:
    """Seal what is in an object to the recipients of now.

    Args:
        source: what is in it, in the clear.
        repository: where it goes.
        old: the object.
        path: of the new one.
        sealing: how.

    Raises:
        StoreError: the store refuses, or something else was sealed than is in the object.
    """
    sealed = seal(source, repository.store, path, repository.config.recipients, sealing)
    if (sealed.size, sealed.sha256) != (old.size, old.sha256):
        raise StoreError(f"{path} was not sealed whole", "look at the disk of the spool")
    return sealed.entry(path, old.role)


def read_back(
    repository: Repository,
    made: Sequence[ObjectEntry],
    whose: str,
    clock: Clock,
    report: Report,
) -> Check:
    """Hold the store to have kept what was sealed anew.

    Args:
        repository: where it went.
        made: the new objects.
        whose: they are, in a word.
        clock: for durations.
        report: is told how far it is.

    Raises:
        StoreError: it did not.
    """
    total = sum(one.stored_size for one in made)
    with report.task("reading back what is stored", total) as progress:
        check = ask("stored", lambda: stored(repository.store, made, progress), clock)
    if check.verdict is not Verdict.PASS:
        raise StoreError(check.detail, f"the {whose} is as it was; look at the store")
    return check


@dataclass(frozen=True, slots=True)
class _Resealing:
    """One backup that is sealed anew."""

    repository: Repository
    entry: Entry
    options: Options
    clock: Clock
    report: Report

    def make(self) -> Entry:
        """Make the new objects count, and give the backup as it is then."""
        began = self.clock.monotonic()
        run = Run.begin(self.entry.manifest.cluster, self.clock.now())
        made = tuple(self._seal(one, run) for one in self.entry.manifest.objects)
        check = read_back(self.repository, made, "backup", self.clock, self.report)
        note = self._note(made, check, seconds=self.clock.monotonic() - began)
        publish(self.repository.store, note)
        return self._as_it_is_now(made)

    def _seal(self, old: ObjectEntry, run: Run) -> ObjectEntry:
        repository, spool_dir = self.repository, self.options.spool_dir
        entry = self.entry
        subject = BackupSubject(
            repository, entry, entry.manifest.id, self.options.identities, spool_dir
        )
        with Spool(spool_dir, expected=old.size) as spool:
            subject.fetch(old, spool, self.report)
            spool.finish()
            path = f"{run.folder}{old.path.rpartition('/')[2]}"
            return seal_anew(spool.follow(), repository, old, path, self.options.sealing)

    def _note(self, made: Sequence[ObjectEntry], check: Check, *, seconds: float) -> Note:
        before = current(self.entry.notes)
        # As the manifest has them: it is what a later resealing is held to.
        first = {one.now: one.path for one in before.objects} if before else {}
        olds = [first.get(one.path, one.path) for one in self.entry.manifest.objects]
        return Note(
            backup=self.entry.manifest.id,
            action=REWRAP,
            at=self.clock.now(),
            seconds=round(seconds, 3),
            checks=(CheckEntry.of(check),),
            resealed=Resealing(
                number=before.number + 1 if before else 1,
                recipients=self.repository.config.recipients,
                objects=tuple(
                    Moved(
                        path=old,
                        now=new.path,
                        stored_size=new.stored_size,
                        stored_sha256=new.stored_sha256,
                    )
                    for old, new in zip(olds, made, strict=True)
                ),
            ),
        )

    def _as_it_is_now(self, made: Sequence[ObjectEntry]) -> Entry:
        """Look that the new objects count: before that the old ones must not go."""
        found = self.repository.find(self.entry.manifest.id)
        if {one.path for one in found.manifest.objects} != {one.path for one in made}:
            raise StoreError(
                f"{self.entry.manifest.id} was sealed anew by somebody else at the same time, or"
                " the store does not list what was written",
                "run it again: what is there is whole",
            )
        return found


def delete_old(
    repository: Repository, paths: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, datetime], ...]]:
    """Delete old objects, as far as the store lets them go.

    Returns:
        What is gone now, and what is locked until when.

    Raises:
        StoreError: the store refuses.
    """
    store, removed, locked = repository.store, [], []
    for path in paths:
        until = store.locked_until(path) if isinstance(store, Locker) else None
        if until is not None:
            locked.append((path, until))
        elif repository.is_there(path):
            store.delete(path)
            removed.append(path)
    return tuple(removed), tuple(locked)
