"""Sealing keyrings anew, and their archives, to the recipients that their repository has now.

As for backups (see `rewrap`): new parts are made from what was proven, and read back; a note makes
them count, in one put; then the old parts go. The header is not touched, since the backup's
manifest has its digest. A keyring never lies on the disk meanwhile; an archive lies in the spool.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO

from backstay.clock import Clock
from backstay.errors import BackstayError, FormatError, StoreError
from backstay.flows.rewrap import Fate, Options, Outcome, delete_old, read_back, seal_anew
from backstay.flows.spool import Spool
from backstay.repo import keyring as keyrings
from backstay.repo.archive import fetch_archive
from backstay.repo.catalogue import Repository
from backstay.repo.config import Encryption
from backstay.repo.entry import Entry
from backstay.repo.keyring import Saved
from backstay.repo.keyring_reseal import KeyringNote
from backstay.repo.manifest import ObjectEntry
from backstay.repo.name import Run
from backstay.repo.note import Moved, Resealing
from backstay.repo.packing import Readable
from backstay.repo.reseal import current, superseded
from backstay.repo.sealing import unseal
from backstay.report import Report

#: A keyring that is meant, or why it is not: its name, and that.
Meant = Saved | tuple[str, BackstayError]


def all_keyrings(
    keys: Repository,
    *,
    data: str | None = None,
    cluster: str | None = None,
    lineages: frozenset[tuple[str, str]] | None = None,
) -> Iterator[Meant]:
    """Name keyrings of a repository; what can't be read is told.

    Args:
        keys: one for keys.
        data: only those of the repository with this id.
        cluster: only those of this one.
        lineages: only those that a recorder saved for one of these, as cluster and lineage.

    Raises:
        RefusedError: the repository is not for keys.
        StoreError: the store refuses.
    """
    for one in reversed(keyrings.headers(keys, cluster)):
        if not isinstance(one, Saved):
            yield one.path, FormatError(one.reason, one.do)
        elif data in {None, one.header.data} and (
            lineages is None or (one.header.cluster, one.header.lineage) in lineages
        ):
            yield one


def keyrings_of(keys: Repository, entries: Iterable[Entry]) -> Iterator[Meant]:
    """Find the keyrings of backups; those that have none are passed over."""
    for entry in entries:
        manifest = entry.manifest
        if manifest.keyring is not None:
            try:
                found: Meant = keyrings.find(keys, manifest.keyring, manifest.name)
            except BackstayError as error:
                found = f"the keyring of {manifest.id}", error
            yield found


def rewrap_keyring(
    keys: Repository, saved: Saved, options: Options, *, clock: Clock, report: Report
) -> Outcome:
    """Seal a keyring to the recipients of now, and what lies beside it.

    Args:
        keys: one for keys.
        saved: the keyring.
        options: how.
        clock: for names and durations.
        report: is told how far it is.

    Raises:
        RefusedError: the repository is not for keys.
        SealError: none of the identities opens it.
        DamagedError: it is not what its header says; nothing was changed.
        NotFoundError: it was removed meanwhile.
        StoreError: the store refuses, or did not keep what was written.
        SpaceError: the spool or the store is full.
    """
    keyrings.check_place(keys)
    fate = Fate.KEPT
    if saved.header.recipients != keys.config.recipients:
        saved = _Resealing(keys, saved, options, clock, report).make()
        fate = Fate.REWRAPPED
    removed, locked = delete_old(keys, superseded(saved.notes))
    return Outcome(saved.header.id, fate, removed, locked)


@dataclass(frozen=True, slots=True)
class _Resealing:
    """One keyring that is sealed anew."""

    keys: Repository
    saved: Saved
    options: Options
    clock: Clock
    report: Report

    def make(self) -> Saved:
        """Make the new parts count, and give the keyring as it is then."""
        run = Run.begin(self.saved.header.cluster, self.clock.now())
        header = self.saved.header
        made = [self._keyring(run)]
        if header.archive is not None:
            made.append(self._archive(header.archive, run))
        read_back(self.keys, made, "keyring", self.clock, self.report)
        keyrings.publish_note(self.keys, self.saved, self._note(made), run)
        now = keyrings.again(self.keys, self.saved)
        if now.header.object.path != made[0].path:
            raise StoreError(
                f"the keyring {header.id} was sealed anew by somebody else at the same time, or"
                " the store does not list what was written",
                "run it again: what is there is whole",
            )
        return now

    def _keyring(self, run: Run) -> ObjectEntry:
        old, sink = self.saved.header.object, BytesIO()
        # It is more than whole: it is what its header says, too.
        keyrings.load(self.keys, self.saved, self.options.identities)
        unseal(self.keys.store, old, sink, self.options.identities, Encryption.AGE)
        sink.seek(0)
        return self._seal(sink, old, run)

    def _archive(self, old: ObjectEntry, run: Run) -> ObjectEntry:
        with Spool(self.options.spool_dir, expected=old.size) as spool:
            with self.report.task("fetching what lies with the keys", old.stored_size) as progress:
                identities = self.options.identities
                fetch_archive(self.keys, self.saved.header, spool, identities, progress)
            spool.finish()
            return self._seal(spool.follow(), old, run)

    def _seal(self, source: Readable, old: ObjectEntry, run: Run) -> ObjectEntry:
        path = keyrings.part_of(self.saved, old, run)
        return seal_anew(source, self.keys, old, path, self.options.sealing)

    def _note(self, made: list[ObjectEntry]) -> KeyringNote:
        before = current(self.saved.notes)
        # As the header has them: it is what a later resealing is held to.
        first = {one.now: one.path for one in before.objects} if before else {}
        return KeyringNote(
            keyring=self.saved.header.id,
            digest=self.saved.digest,
            at=self.clock.now(),
            resealed=Resealing(
                number=before.number + 1 if before else 1,
                recipients=self.keys.config.recipients,
                objects=tuple(
                    Moved(
                        path=first.get(old.path, old.path),
                        now=new.path,
                        stored_size=new.stored_size,
                        stored_sha256=new.stored_sha256,
                    )
                    for old, new in zip(self.saved.header.parts, made, strict=True)
                ),
            ),
        )
