"""Proving that a snapshot file or a stored backup is whole, and writing down what was found."""

from contextlib import ExitStack
from dataclasses import dataclass

from backstay.checks import keys
from backstay.checks.question import Answer, ask, failed, passed
from backstay.checks.stored import stored
from backstay.checks.transfer import transfer
from backstay.clock import Clock
from backstay.errors import BackstayError, DamagedError
from backstay.flows.examine import Findings, hashkv_of, look_into
from backstay.flows.fetch import BackupSubject, FileSubject
from backstay.kubedata.encryption import EncryptionConfiguration
from backstay.kubedata.outcome import KeyProof
from backstay.kubedata.proof import prove_keys
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.catalogue import Entry, Repository
from backstay.repo.manifest import CheckEntry, SnapshotEntry
from backstay.repo.note import VERIFY, Note
from backstay.report import Check, Report, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyQuestion:
    """Keys that are to be tried on what is encrypted in a snapshot.

    Attributes:
        configuration: the API server's, with its keys.
        prove_all: try them on every value, not on samples.
    """

    configuration: EncryptionConfiguration
    prove_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a verification came to.

    Attributes:
        checks: the verdicts.
        keys: what came of trying keys, group by group; None where none were given.
    """

    checks: tuple[Check, ...]
    keys: KeyProof | None = None


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
            tried = _Keys(snapshot, question, clock)
    except DamagedError as error:
        # What does not even open has no place in the other questions.
        broken = Check(name="structure", verdict=Verdict.FAIL, detail=str(error), seconds=0.0)
        return Verified(checks=_judged((broken,), report))
    checks = (_transfer(found, clock), *found.checks, *tried.checks)
    return Verified(checks=_judged(checks, report), keys=tried.proof)


class _Keys:
    """Tries keys on a snapshot, where there are any."""

    def __init__(self, snapshot: Snapshot, question: KeyQuestion | None, clock: Clock) -> None:
        self.proof: KeyProof | None = None
        self.checks: tuple[Check, ...] = ()
        if question is not None:
            self.checks = (ask(keys.NAME, lambda: self._try(snapshot, question), clock),)

    def _try(self, snapshot: Snapshot, question: KeyQuestion) -> Answer:
        configurations = [question.configuration]
        self.proof = prove_keys(snapshot, configurations, prove_all=question.prove_all)
        return keys.keys(self.proof)


def _transfer(found: Findings, clock: Clock) -> Check:
    """Hold the file to its own SHA-256: how it came here is not known any more."""
    trailer, sha256 = found.trailer, found.sha256
    return ask("transfer", lambda: transfer(trailer, sha256=sha256, received=sha256), clock)


def verify_backup(
    subject: BackupSubject,
    question: KeyQuestion | None = None,
    *,
    read_data: bool,
    clock: Clock,
    report: Report,
) -> Verified:
    """Ask of a backup whether the store still has it, and with `read_data` what is in it.

    The verdicts are written beside the manifest; where that is refused, a warning says so. What
    came of keys is not: it says as much of the keys that were given as of the backup.

    Args:
        subject: the backup; with its identities where `read_data` is asked for.
        question: keys to try, with `read_data`; None leaves them out.
        read_data: whether to decrypt, and to ask structure and content again.
        clock: for durations and the note's date.
        report: is told each verdict.
    """
    began = clock.monotonic()
    checks = [_stored(subject.repository, subject.entry, clock, report)]
    tried: _Keys | None = None
    if read_data:
        inside, tried = _inside(subject, question, clock, report)
        checks += inside
    of_keys = tried.checks if tried else ()
    _judged((*checks, *of_keys), report)
    seconds = clock.monotonic() - began
    write_down(subject, VERIFY, tuple(checks), seconds=seconds, clock=clock, report=report)
    return Verified(checks=(*checks, *of_keys), keys=tried.proof if tried else None)


def _stored(repository: Repository, entry: Entry, clock: Clock, report: Report) -> Check:
    with report.task("reading what is stored", entry.manifest.stored_size) as progress:
        objects = entry.manifest.objects
        return ask("stored", lambda: stored(repository.store, objects, progress), clock)


def _inside(
    subject: BackupSubject, question: KeyQuestion | None, clock: Clock, report: Report
) -> tuple[list[Check], _Keys | None]:
    """Decrypt, and ask what can be asked of the snapshot."""
    with ExitStack() as stack:
        opened: list[Snapshot] = []

        def unsealed() -> Answer:
            opened.append(stack.enter_context(subject.opened(report)))
            return passed("decrypted, unpacked, and equal to what was sealed by size and SHA-256")

        checks = [ask("sealed", unsealed, clock)]
        if not opened:
            return checks, None
        found = look_into(opened[0], clock, report)
        checks += [
            _transfer(found, clock),
            *found.checks,
            ask("figures", lambda: _figures(opened[0], found, subject.snapshot), clock),
        ]
        return checks, _Keys(opened[0], question, clock)


def _figures(snapshot: Snapshot, found: Findings, written: SnapshotEntry) -> Answer:
    """Compare what the file says now with what the manifest says of it."""
    hashkv = hashkv_of(snapshot, found)
    if found.status is None or hashkv is None:
        return failed("the figures can't be had: see structure and content")
    pairs = {
        "hash": (found.status.hash, written.hash),
        "keys": (found.status.total_keys, written.total_keys),
        "HashKV": (hashkv.hash, written.hashkv.hash),
        "revision": (hashkv.revision, written.hashkv.revision),
    }
    wrong = [
        f"{name} {mine}, not {theirs}" for name, (mine, theirs) in pairs.items() if mine != theirs
    ]
    if wrong:
        return failed(f"the file differs from its manifest: {'; '.join(wrong)}")
    return passed(f"HashKV {hashkv.hash} at revision {hashkv.revision}, as recorded")


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
