"""Backing up an OKD control plane into a directory, as cluster-backup.sh does.

The snapshot and the tar lie there as they are, for cluster-restore.sh: the one place where keys lie
with the data, because it was asked for by name. Nothing appears before all checks have their
verdicts, and nothing where one FAILED.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from backstay.checks.partner import NAME as PARTNER
from backstay.checks.question import Answer, ask
from backstay.checks.transfer import transfer
from backstay.client.snapshot import Received
from backstay.clock import Clock
from backstay.errors import CheckFailedError, SpaceError
from backstay.files import explained, free_space, new_file
from backstay.flows.examine import look_into
from backstay.flows.spool import MARGIN
from backstay.kinds.okd.archive import write_archive
from backstay.kinds.okd.cluster import Cluster
from backstay.kinds.okd.companion import Partner
from backstay.kinds.okd.host import Host, guarded
from backstay.kinds.okd.pair import PairNames, new_pair
from backstay.kinds.okd.source import OkdSource
from backstay.kinds.okd.told import completed
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.status import Status
from backstay.repo.manifest import OkdEntry
from backstay.report import Check, Report, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """How a pair is written.

    Attributes:
        directory: where to; made where it is not there.
        force: whether guards that refuse are skipped.
        rate: bytes a second that are read of the snapshot at most; 0: as fast as they come.
        prove_all: whether keys are tried on all values, not on samples.
    """

    directory: Path
    force: bool = False
    rate: int = 0
    prove_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A pair that is there.

    Attributes:
        snapshot: the snapshot file.
        archive: the tar.
        status: what `etcdutl snapshot status` prints of the first; None where its structure
            could not be verified.
        okd: what is known of the cluster, as a manifest has it.
        checks: what was asked; none FAILED.
    """

    snapshot: Path
    archive: Path
    status: Status | None
    okd: OkdEntry
    checks: tuple[Check, ...]


def write_pair(
    host: Host,
    cluster: Cluster,
    options: OutputOptions,
    *,
    guards: Callable[[], Sequence[Check]],
    clock: Clock,
    report: Report,
) -> Written:
    """Write a snapshot and a tar into a directory: both, or none.

    Args:
        host: a control plane host.
        cluster: what its API told; what it did not is asked of etcd.
        options: how.
        guards: asks what may refuse it.
        clock: for names and durations.
        report: is told of each step.

    Raises:
        CheckFailedError: a check FAILED; nothing was published.
        RefusedError: a guard refuses, a name is taken, or another run writes there.
        EtcdError: no member gave a whole snapshot.
        SpaceError: the disk is full.
        BackstayError: the host's files can't be read, or a rollout went on meanwhile.
    """
    allowed = guarded(guards, report, force=options.force)
    moment = clock.now()
    names = PairNames.of(moment, dirty=allowed.dirty)
    known = completed(cluster, host.client)
    with new_pair(options.directory, names, report) as folder:
        with new_file(folder / names.archive) as file:
            archived = write_archive(host.tree, file, options.directory, report)
        partner = Partner(
            host=host,
            archived=archived,
            cluster=known,
            guarded=allowed,
            prove_all=options.prove_all,
            clock=clock,
            report=report,
        )
        source = OkdSource(host.client, rate=options.rate, clock=clock)
        _check_room(options.directory, source.choose(report))
        with new_file(folder / names.snapshot) as file:
            received = source.fetch(_Taken(file, options.directory), report)
        okd = partner.entry(moment, partner.revision())
        status, checks = _examine(folder, okd, received, partner)
        partner.check_unmoved()
    return Written(
        snapshot=options.directory / names.snapshot,
        archive=options.directory / names.archive,
        status=status,
        okd=okd,
        checks=(*checks, *allowed.checks),
    )


def _check_room(directory: Path, expected: int) -> None:
    free, needed = free_space(directory), expected + MARGIN
    if free < needed:
        raise SpaceError(
            f"{directory} has {free} bytes free, {needed} are needed", "name another --output-dir"
        )


class _Taken:
    """A sink that is a file."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path

    def write(self, data: bytes, /) -> None:
        with explained(self._path):
            self._file.write(data)

    def reset(self) -> None:
        with explained(self._path):
            self._file.seek(0)
            self._file.truncate()


def _examine(
    folder: Path, okd: OkdEntry, received: Received, partner: Partner
) -> tuple[Status | None, tuple[Check, ...]]:
    """Ask what a backup into a repository is asked, of the files that were written.

    Raises:
        CheckFailedError: the answer to one is no.
    """
    with Snapshot.open(folder / okd.snapshot_name) as snapshot:
        found = look_into(snapshot, partner.clock, partner.report)
        keys = partner.check_keys(snapshot)

    def inside() -> Answer:
        path = folder / okd.archive_name
        with explained(path), path.open("rb") as file:
            return partner.look_inside(file, okd)

    came = ask(
        "transfer",
        lambda: transfer(found.trailer, sha256=found.sha256, received=received.db_sha256),
        partner.clock,
    )
    checks = (came, *found.checks, keys, ask(PARTNER, inside, partner.clock))
    for check in checks:
        partner.report.judge(check)
    wrong = [f"{it.name}: {it.detail}" for it in checks if it.verdict is Verdict.FAIL]
    if wrong:
        raise CheckFailedError(f"{'; '.join(wrong)}; nothing was written", "find out why")
    return found.status, checks
