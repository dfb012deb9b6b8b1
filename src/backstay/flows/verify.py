"""Proving that a snapshot file or a stored backup is whole, and writing down what was found."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from backstay.checks import keys
from backstay.checks import partner as partners
from backstay.checks.question import Answer, ask, failed, passed
from backstay.checks.stored import stored
from backstay.checks.together import together
from backstay.checks.transfer import transfer
from backstay.clock import Clock
from backstay.errors import BackstayError, DamagedError
from backstay.flows.ancestry import Inside
from backstay.flows.examine import Findings, hashkv_of, look_into
from backstay.flows.fetch import BackupSubject, FileSubject
from backstay.flows.keyring import Known, prove
from backstay.flows.recipients import Holding, openable
from backstay.kubedata.outcome import KeyProof
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry
from backstay.repo.manifest import CheckEntry, SnapshotEntry
from backstay.repo.note import VERIFY, Note
from backstay.report import Check, Report, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyQuestion:
    """Keys that are to be tried on what is encrypted in a snapshot.

    Attributes:
        known: finds them for a snapshot; what it raises is the answer, in the words of `ask`.
        prove_all: try them on every value, not on samples.
        by_the_way: nobody asked by name: where nothing is encrypted there is no such check.
    """

    known: Callable[[Snapshot], Known]
    prove_all: bool = False
    by_the_way: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a verification came to.

    Attributes:
        checks: the verdicts.
        keys: what came of trying keys on each snapshot that could be opened, by its name; empty
            where none were tried.
    """

    checks: tuple[Check, ...]
    keys: tuple[tuple[str, KeyProof], ...] = ()

    def keys_as_json(self) -> list[dict[str, Any]]:
        """Give the groups of values as JSON has them; of several snapshots with their names."""
        several = len(self.keys) > 1
        return [
            {"snapshot": name, **group} if several else dict(group)
            for name, proof in self.keys
            for group in proof.to_json()
        ]


def verify_file(
    subject: FileSubject, question: KeyQuestion | None = None, *, clock: Clock, report: Report
) -> Verified:
    """Ask of a snapshot file what can be asked of it alone.

    Args:
        subject: the file.
        question: keys to try; None leaves them out.
        clock: for durations.
        report: is told each verdict.

    Raises:
        BackstayError: the file can't be read.
    """
    try:
        with subject.opened(report) as snapshot:
            found = look_into(snapshot, clock, report)
            tried = _Keys(snapshot, question, clock, report)
    except DamagedError as error:
        # What does not even open has no place in the other questions.
        broken = Check(name="structure", verdict=Verdict.FAIL, detail=str(error), seconds=0.0)
        return Verified(checks=_judged((broken,), report))
    checks = (_transfer(found, clock), *found.checks, *tried.checks)
    return Verified(checks=_judged(checks, report), keys=tried.proofs(subject.name))


class _Keys:
    """Tries keys on a snapshot, where there are any."""

    def __init__(
        self, snapshot: Snapshot, question: KeyQuestion | None, clock: Clock, report: Report
    ) -> None:
        self._report = report
        self._found: list[KeyProof] = []
        self.checks: tuple[Check, ...] = ()
        if question is not None:
            check = ask(keys.NAME, lambda: self._try(snapshot, question), clock)
            idle = any(not proof.groups for proof in self._found)
            if not (idle and question.by_the_way and check.verdict is not Verdict.PASS):
                self.checks = (check,)

    def _try(self, snapshot: Snapshot, question: KeyQuestion) -> Answer:
        known = question.known(snapshot).discovering(snapshot)
        if known.inside is not None and known.inside.summary:
            self._report.say(known.inside.summary)
        proof, answer = prove(snapshot, known, prove_all=question.prove_all)
        self._found.append(proof)
        return answer

    def proofs(self, name: str) -> tuple[tuple[str, KeyProof], ...]:
        """Give what came of it, under the snapshot's name."""
        return tuple((name, proof) for proof in self._found) if self.checks else ()


def _transfer(found: Findings, clock: Clock) -> Check:
    """Hold the file to its own SHA-256: how it came here is not known any more."""
    trailer, sha256 = found.trailer, found.sha256
    return ask("transfer", lambda: transfer(trailer, sha256=sha256, received=sha256), clock)


def verify_backup(
    subject: BackupSubject,
    question: KeyQuestion | None = None,
    *,
    partner: Callable[[Report], Answer] | None = None,
    read_data: bool,
    clock: Clock,
    report: Report,
) -> Verified:
    """Ask of a backup whether the store still has it, and with `read_data` what is in it.

    Where an identity is given and no data is read, its question is whether it opens the backup.

    The verdicts are written beside the manifest; where that is refused, a warning says so. What
    came of keys and identities is not: it says as much of what was given as of the backup.

    Args:
        subject: the backup; with its identities where `read_data` is asked for.
        question: keys to try, with `read_data`; None leaves them out.
        partner: asks whether what lies in the repository for keys is there; None leaves it out.
        read_data: whether to decrypt, and to ask structure and content again.
        clock: for durations and the note's date.
        report: is told each verdict.
    """
    began = clock.monotonic()
    checks: tuple[Check, ...] = (_stored(subject.repository, subject.entry, clock, report),)
    if partner is not None:
        checks += (ask(partners.NAME, lambda: partner(report), clock),)
    of_keys: tuple[Check, ...] = () if read_data else _openable(subject, clock)
    inside: tuple[_Inside, ...] = ()
    if read_data:
        inside = tuple(_look(part, question, clock, report) for part in subject.parts)
        checks += together([(part.name, part.checks) for part in inside])
        checks += _documents(subject, clock, report)
        of_keys = together([(part.name, part.of_keys) for part in inside])
    _judged((*checks, *of_keys), report)
    seconds = clock.monotonic() - began
    write_down(subject, VERIFY, checks, seconds=seconds, clock=clock, report=report)
    proofs = tuple(proof for part in inside for proof in part.proofs)
    return Verified(checks=(*checks, *of_keys), keys=proofs)


def _openable(subject: BackupSubject, clock: Clock) -> tuple[Check, ...]:
    identities, manifest = subject.identities, subject.entry.manifest
    if identities is None or not subject.repository.config.recipients:
        return ()
    one = Holding(manifest.id, manifest.recipients, manifest.objects)
    return (ask("openable", lambda: openable(subject.repository, one, identities), clock),)


def _stored(repository: Repository, entry: Entry, clock: Clock, report: Report) -> Check:
    with report.task("reading what is stored", entry.manifest.stored_size) as progress:
        objects = entry.manifest.objects
        return ask("stored", lambda: stored(repository.store, objects, progress), clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inside:
    """What was found in one snapshot of a backup."""

    name: str
    checks: tuple[Check, ...]
    of_keys: tuple[Check, ...] = ()
    proofs: tuple[tuple[str, KeyProof], ...] = ()


def _look(
    part: BackupSubject, question: KeyQuestion | None, clock: Clock, report: Report
) -> _Inside:
    """Decrypt a snapshot, and ask what can be asked of it."""
    name = part.snapshot.name
    with ExitStack() as stack:
        opened: list[Snapshot] = []

        def unsealed() -> Answer:
            opened.append(stack.enter_context(part.opened(report)))
            return passed("decrypted, unpacked, and equal to what was sealed by size and SHA-256")

        sealed = ask("sealed", unsealed, clock)
        if not opened:
            return _Inside(name=name, checks=(sealed,))
        found = look_into(opened[0], clock, report)
        checks = (
            sealed,
            _transfer(found, clock),
            *found.checks,
            ask("figures", lambda: _figures(opened[0], found, part.snapshot), clock),
        )
        tried = _Keys(opened[0], question, clock, report)
        proofs = tried.proofs(name)
        return _Inside(name=name, checks=checks, of_keys=tried.checks, proofs=proofs)


def _documents(subject: BackupSubject, clock: Clock, report: Report) -> tuple[Check, ...]:
    """Open what lies beside the snapshots, where there is something."""
    documents = subject.documents

    def unsealed() -> Answer:
        for entry in documents:
            subject.fetch(entry, _Nowhere(), report)
        roles = ", ".join(entry.role for entry in documents)
        return passed(f"{roles}: decrypted, unpacked, and equal to what was sealed")

    return (ask("documents", unsealed, clock),) if documents else ()


class _Nowhere:
    """A sink that keeps nothing."""

    def write(self, data: bytes, /) -> int:
        """Take bytes."""
        return len(data)


def _figures(snapshot: Snapshot, found: Findings, written: SnapshotEntry) -> Answer:
    """Compare what the file says now with what the manifest says of it."""
    hashkv = hashkv_of(snapshot, found)
    if found.status is None or hashkv is None:
        return failed("the figures can't be had: see structure and content")
    pairs: dict[str, tuple[object, object]] = {
        "hash": (found.status.hash, written.hash),
        "keys": (found.status.total_keys, written.total_keys),
        "HashKV": (hashkv.hash, written.hashkv.hash),
        "revision": (hashkv.revision, written.hashkv.revision),
    }
    pairs.update(_head(snapshot, written))
    wrong = [
        f"{name} {mine}, not {theirs}" for name, (mine, theirs) in pairs.items() if mine != theirs
    ]
    if wrong:
        return failed(f"the file differs from its manifest: {'; '.join(wrong)}")
    return passed(f"HashKV {hashkv.hash} at revision {hashkv.revision}, as recorded")


def _head(snapshot: Snapshot, written: SnapshotEntry) -> dict[str, tuple[object, object]]:
    """Give what later backups are compared with: as the file has it, as the manifest says it."""
    tip = written.tip
    mine = Inside.of(snapshot, None if tip is None else bytes.fromhex(tip.salt))
    pairs: dict[str, tuple[object, object]] = {}
    if written.live_keys is not None:
        pairs["live keys"] = (mine.live_keys, written.live_keys)
    # Counting bytes may take too long here where it did not where the backup was made.
    if written.live_size is not None and mine.live_size is not None:
        pairs["live bytes"] = (mine.live_size, written.live_size)
    if tip is not None:
        found = None if mine.tip is None else mine.tip.digest
        pairs["fingerprint of the last change"] = (found, tip.digest)
    return pairs


def _judged(checks: tuple[Check, ...], report: Report) -> tuple[Check, ...]:
    for check in checks:
        report.judge(check)
    return checks


def write_down(
    subject: BackupSubject,
    action: str,
    checks: tuple[Check, ...],
    *,
    seconds: float,
    clock: Clock,
    report: Report,
) -> None:
    """Put verdicts beside the manifest; who may only read can still look."""
    note = Note(
        backup=subject.name,
        action=action,
        at=clock.now(),
        seconds=round(seconds, 3),
        checks=tuple(CheckEntry.of(check) for check in checks),
    )
    try:
        subject.repository.add(note)
    except BackstayError as error:
        report.warn(f"the verdicts could not be written beside the manifest: {error}")
