"""Restoring an OKD control plane: both files of a backup, as cluster-restore.sh takes them.

The pair is fetched into a private directory, proven there, and appears whole under the names that
it had (promise 6). What the manual asks people to remember is asked here: the same z-stream
release, keys that open the data, certificates that nodes still take, nothing else in the directory.
`--force` lifts what a rule forbids, never damage. The restore itself is done on the hosts: see
`restore_steps`.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from backstay.checks import keys as keys_check
from backstay.checks import partner as partner_check
from backstay.checks.question import Answer, ask, failed, passed, unknown
from backstay.checks.transfer import NAME as TRANSFER
from backstay.checks.transfer import transfer
from backstay.clock import Clock
from backstay.errors import (
    BackstayError,
    CheckFailedError,
    DamagedError,
    FormatError,
    NotVerifiedError,
    RefusedError,
    SpaceError,
)
from backstay.files import PRIVATE, explained, free_space
from backstay.flows import datadir
from backstay.flows.examine import look_into
from backstay.flows.export import export_file
from backstay.flows.fetch import BackupSubject
from backstay.flows.keyring import Known, prove
from backstay.flows.partner import Partner
from backstay.flows.timetravel import PointSubject
from backstay.kinds.foreign.names import is_pair
from backstay.kinds.okd.cluster import VERSION, parse_release
from backstay.kinds.okd.restore_steps import restore_steps
from backstay.kinds.step import Step
from backstay.kubeapi.api import Api
from backstay.kubeapi.resource import CLUSTER_VERSIONS
from backstay.kubedata.configuration import parse_configuration
from backstay.kubedata.podarchive import PodArchive, read_archive
from backstay.mvcc.delta import Proof
from backstay.mvcc.export import Edits
from backstay.mvcc.membership import Member
from backstay.mvcc.snapshot import Snapshot, Trailer
from backstay.repo.archive import fetch_archive
from backstay.repo.manifest import OkdEntry
from backstay.report import Check, Report, Verdict

LISTED, RELEASE, CERTIFICATES = "listed", "release", "certificates"
_FORCE = "choose another backup, or use --force if you know better"
_MARGIN = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The release that is to be restored.

    Attributes:
        version: it; empty where it is not known.
        gap: why it is not known.
    """

    version: str = ""
    gap: str = "give it with --version, or let --kubeconfig tell"


def running_of(api: Api) -> Running:
    """Ask a cluster which release it runs; that it does not answer is a gap, and no error."""
    try:
        release = parse_release(api.get(CLUSTER_VERSIONS, VERSION))
    except BackstayError as error:
        return Running(gap=f"the API does not tell: {error.what}")
    return Running(version=release.running) if release.running else Running()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a pair is written.

    Attributes:
        output_dir: where; new, or empty.
        running: the release that is to be restored.
        force: whether rules are lifted.
        point: the revision to write instead of that of the backup; its base is the backup.
    """

    output_dir: Path
    running: Running
    force: bool = False
    point: PointSubject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """A file of the pair.

    Attributes:
        path: where it is.
        size: bytes.
        sha256: hex.
    """

    path: Path
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A pair that was written.

    Attributes:
        output_dir: where it is.
        files: the snapshot and the archive.
        checks: what was asked; what failed was lifted by force.
        steps: what remains to be done, on the hosts.
        proof: what a member had said of the revision that was asked for, and was compared.
    """

    output_dir: Path
    files: tuple[WrittenFile, ...]
    checks: tuple[Check, ...]
    steps: tuple[Step, ...]
    proof: Proof | None = None


def restore_okd(
    subject: BackupSubject, partner: Partner, options: Options, *, clock: Clock, report: Report
) -> Restored:
    """Write the pair of a backup.

    Args:
        subject: the backup.
        partner: its archive.
        options: how.
        clock: for the dates of certificates, and durations.
        report: is told of each step.

    Raises:
        RefusedError: a rule forbids it.
        AlreadyExistsError: the directory is not empty.
        NotFoundError: the archive is gone, or was never saved.
        CheckFailedError: the two do not belong together.
        DamagedError: one of them is damaged.
        SealError: the identity opens one of them not.
        FormatError: the manifest names no pair.
        GapError: revisions on the way to the point are missing.
        SpaceError: the disk is full.
    """
    restoring = _Restoring(subject, partner, options, clock, report)
    return restoring.run()


@dataclass(slots=True)
class _Restoring:
    """One restore on its way."""

    subject: BackupSubject
    partner: Partner
    options: Options
    clock: Clock
    report: Report
    checks: tuple[Check, ...] = ()
    proof: Proof | None = None

    def run(self) -> Restored:
        okd = self.partner.okd
        check_names(okd, self.subject.name)
        if okd.forced:
            self.report.warn(f"this backup was made past guards: {', '.join(okd.forced)}")
        self.rule(LISTED, self._listed)
        self.rule(RELEASE, lambda: same_release(okd.version, self.options.running))
        found = datadir.look_at(self.options.output_dir)
        self._check_meant(okd)
        self._check_room(found)
        with ExitStack() as stack:
            # Beside the target, even where that exists: it is replaced in one step.
            beside = replace(found, exists=False)
            private = stack.enter_context(datadir.building(beside)) / "pair"
            with explained(private):
                private.mkdir(mode=0o700)
            archive = self._fetch_archive(private / okd.archive_name)
            snapshot = self._fetch_snapshot(private / okd.snapshot_name)
            members = self._examine(private, okd)
            datadir.publish_whole(private, found)
        files = tuple(replace(it, path=found.path / it.path.name) for it in (snapshot, archive))
        steps = restore_steps(okd, members, found.path)
        return Restored(
            output_dir=found.path, files=files, checks=self.checks, steps=steps, proof=self.proof
        )

    def must(self, name: str, question: Callable[[], Answer]) -> None:
        """Ask what no force lifts."""
        check = self._ask(name, question)
        if check.verdict is Verdict.FAIL:
            raise CheckFailedError(
                f"{self.subject.name}: {check.name}: {check.detail}", "use another backup"
            )

    def rule(self, name: str, question: Callable[[], Answer]) -> None:
        """Ask what a rule asks for; force lifts it."""
        check = self._ask(name, question)
        if check.verdict is Verdict.FAIL and not self.options.force:
            raise RefusedError(f"{self.subject.name}: {check.name}: {check.detail}", _FORCE)
        if check.verdict is Verdict.FAIL:
            self.report.warn(f"{check.name}: {check.detail}: lifted by --force")

    def _ask(self, name: str, question: Callable[[], Answer]) -> Check:
        check = ask(name, question, self.clock)
        self.report.judge(check)
        self.checks += (check,)
        if check.verdict is Verdict.COULD_NOT_VERIFY:
            self.report.warn(f"{check.name}: COULD NOT VERIFY: {check.detail}")
        return check

    def _listed(self) -> Answer:
        wrong = [check.name for check in self.subject.entry.checks if check.verdict is Verdict.FAIL]
        if wrong:
            return failed(f"the backup is listed as failed: {', '.join(dict.fromkeys(wrong))}")
        return passed("no check of it has ever failed")

    def _check_meant(self, okd: OkdEntry) -> None:
        """Look by the digests whether the two belong together, before anything is fetched."""
        answer = partner_check.meant(okd, self.partner.saved.header)
        if answer.verdict is Verdict.FAIL:
            raise CheckFailedError(f"{self.subject.name}: {answer.detail}", "use another backup")

    def _check_room(self, target: datadir.Target) -> None:
        stored = self.subject.entry.manifest.object_of(self.subject.snapshot)
        deltas = self.options.point.deltas if self.options.point else ()
        changes = sum(delta.stored_size for delta in deltas)
        needed = stored.size + changes + self.partner.okd.archive_size + _MARGIN
        free = free_space(target.path.parent)
        if free < needed:
            raise SpaceError(
                f"{target.path.parent} has {free} bytes free, {needed} are needed",
                "free some space there, or name another --output-dir; nothing was changed",
            )

    def _fetch_archive(self, path: Path) -> WrittenFile:
        partner = self.partner
        expected = partner.okd.archive_size
        with (
            _new(path) as file,
            self.report.task("fetching the static pod resources", expected) as progress,
        ):
            fetch_archive(partner.place, partner.saved.header, file, partner.identities, progress)
        return _written(path)

    def _fetch_snapshot(self, path: Path) -> WrittenFile:
        point = self.options.point
        if point is not None:
            _, self.proof = export_file(point, path, Edits(), self.report)
            return _written(path)
        stored = self.subject.entry.manifest.object_of(self.subject.snapshot)
        with _new(path) as file:
            self.subject.fetch(stored, file, self.report)
        return _written(path)

    def _examine(self, private: Path, okd: OkdEntry) -> tuple[Member, ...]:
        """Prove both files, and that they belong together."""
        with explained(private), (private / okd.archive_name).open("rb") as file:
            archive = read_archive(file, okd.archive_name)
        self.must(
            partner_check.NAME,
            lambda: partner_check.inside(okd, archive, self.partner.configuration),
        )
        ends = partner_check.endings(archive, self.clock.now())
        self.rule(CERTIFICATES, lambda: partner_check.certificates(ends))
        if ends.soon:
            self.report.warn(f"certificates run out soon: {partner_check.listed(ends.soon)}")
        with Snapshot.open(private / okd.snapshot_name, name=okd.snapshot_name) as snapshot:
            self._prove_whole(snapshot)
            self.rule(keys_check.NAME, lambda: _prove(snapshot, archive))
            return _members(snapshot, self.report)

    def _prove_whole(self, snapshot: Snapshot) -> None:
        found = look_into(snapshot, self.clock, self.report)
        if found.trailer is Trailer.ABSENT:
            self.rule(TRANSFER, _without_trailer)
        else:
            sha256 = found.sha256
            self.must(TRANSFER, lambda: transfer(found.trailer, sha256=sha256, received=sha256))
        for check in found.checks:
            self.must(check.name, partial(Answer, check.verdict, check.detail))


def _without_trailer() -> Answer:
    return failed("the snapshot has no SHA-256 at its end, and cluster-restore.sh takes none such")


def check_names(okd: OkdEntry, name: str) -> None:
    """Hold a manifest to name a pair as cluster-backup.sh does: the names become files.

    Raises:
        CheckFailedError: it names no archive.
        FormatError: these are no such names.
    """
    if not okd.archive_sha256:
        raise CheckFailedError(
            f"{name} has no static pod resources, without which no control plane is restored",
            "use another backup; `backstay restore etcd` restores its etcd alone",
        )
    if not is_pair(okd.snapshot_name, okd.archive_name):
        raise FormatError(
            f"{name} names its files {okd.snapshot_name[:80]!r} and {okd.archive_name[:80]!r},"
            " which no cluster-restore.sh would take",
            "find out who wrote that manifest",
        )


def same_release(backup: str, running: Running) -> Answer:
    """Is the backup of the same z-stream release? The manual asks for that: 4.7.2 from 4.7.2.

    OKD's releases of one minor have all the same three numbers and differ in what follows, so the
    whole version is compared.

    Args:
        backup: its version; empty where it does not say.
        running: the release that is to be restored.
    """
    if not backup:
        return unknown("the backup does not say which release it is of: it must be the same")
    if not running.version:
        return unknown(f"the backup is of {backup}; what runs is not known: {running.gap}")
    if backup != running.version:
        return failed(
            f"the backup is of release {backup}, and {running.version} is to be restored: a restore"
            " needs the same z-stream release"
        )
    return passed(f"release {backup} on both sides")


def _prove(snapshot: Snapshot, archive: PodArchive) -> Answer:
    data = archive.configuration
    name = "the encryption configuration in the archive"
    found = None if data is None else parse_configuration(data, name=name)
    return prove(snapshot, Known.of_configuration(found).discovering(snapshot))[1]


def _members(snapshot: Snapshot, report: Report) -> tuple[Member, ...]:
    try:
        return tuple(sorted(snapshot.members(), key=lambda member: member.name))
    except DamagedError as error:
        report.warn(f"the members of the cluster can't be read: {error}")
        return ()


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    with explained(path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        with os.fdopen(fd, "wb") as file:
            yield file


def _written(path: Path) -> WrittenFile:
    with explained(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return WrittenFile(path=path, size=file.tell(), sha256=digest.hexdigest())


def exit_code(checks: Sequence[Check]) -> int:
    """Sum up: 4 where something could not be asked; what failed was lifted by force."""
    unproven = any(check.verdict is Verdict.COULD_NOT_VERIFY for check in checks)
    return NotVerifiedError.exit_code if unproven else 0
