"""Restoring a backup of one etcd: fail early, verify, edit, let etcd's tool build, publish.

The order is the point. The tool and the target are looked at before anything is fetched; nothing
appears at the target before all is on the disk (promise 6).
"""

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from backstay.client.tools import (
    Membership,
    Tool,
    Version,
    find_restorer,
    parse_version,
    restore,
    show,
)
from backstay.errors import RefusedError, ToolError
from backstay.files import explained
from backstay.flows import datadir
from backstay.flows.fetch import Subject
from backstay.flows.timetravel import opened_at, prove_export, tell_leases
from backstay.mvcc.delta import Proof
from backstay.mvcc.export import Edits, Exported, export
from backstay.mvcc.history import Past
from backstay.mvcc.snapshot import Snapshot, Trailer
from backstay.report import Report

#: Far more than a cluster writes between a backup and its loss, and what upstream's tools use.
BUMP = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a backup is restored.

    Attributes:
        data_dir: where the data directory is to appear.
        membership: who the member will be; a token is made from the backup's ID where it has none.
        bump: by how much the revision is raised, so that no client's watch is left behind.
        keep_alarms: whether alarms stay as they were.
        unverified: whether a file without a SHA-256 is taken.
        etcdutl: the tool to use; None looks for one.
    """

    data_dir: Path
    membership: Membership = field(default_factory=Membership)
    bump: int = BUMP
    keep_alarms: bool = False
    unverified: bool = False
    etcdutl: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was restored.

    Attributes:
        data_dir: where it is.
        sha256: of the database that etcd's tool was given; the same for all members of a cluster.
        revision: at which the etcd will stand.
        token: the initial cluster token, the same for all members of a cluster.
        tool: what made the data directory.
        alarms_dropped: how many alarms stood in the backup and are gone.
        auth_enabled: whether etcd will ask for passwords: those of the time of the backup.
        proof: of a point, what a member had said and was compared; None where nothing was recorded.
    """

    data_dir: Path
    sha256: str
    revision: int
    token: str
    tool: str
    alarms_dropped: int
    auth_enabled: bool
    proof: Proof | None = None


def token_of(name: str) -> str:
    """Make an initial cluster token from a backup's ID: equal on all members, new for each ID."""
    # A file's name need not be text.
    return f"backstay-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"


def check_members(subject: Subject, membership: Membership) -> None:
    """Hold members of one cluster to one backup.

    Two members that were restored from two backups both report that they are healthy, and
    differ for ever.

    Raises:
        RefusedError: several members are to come from `latest`.
    """
    if membership.size > 1 and subject.moving:
        raise RefusedError(
            f"{membership.size} members can't be restored from {subject.asked}: a backup that comes"
            " between two of them would make them differ for ever",
            f"give the same full ID on each member, now {subject.name}",
        )


def restore_etcd(subject: Subject, options: Options, report: Report) -> Restored:
    """Restore one member's data directory.

    Args:
        subject: the backup or file.
        options: how.
        report: is told of each step.

    Raises:
        ToolError: no etcdutl is fit for it, or it failed.
        AlreadyExistsError: something stands at the target.
        RefusedError: several members from a moving name, or a file without a SHA-256.
        CheckFailedError: a point is not what a member said of it.
        DamagedError: the backup is damaged.
        GapError: revisions on the way to a point are missing.
        SpaceError: a disk is too full.
    """
    check_members(subject, options.membership)
    tool = find_restorer(options.etcdutl)
    target = datadir.look_at(options.data_dir)
    report.say(f"restoring {subject.name} with {tool}")
    _compare(tool, needed(subject.etcd_version), report)
    with ExitStack() as stack:
        snapshot, past = stack.enter_context(opened_at(subject, report))
        if snapshot.trailer is None and not options.unverified:
            raise RefusedError(
                f"{subject.name} has no SHA-256 at its end, so nothing tells whether it is whole",
                "look at it with `backstay verify`, then use --skip-hash-check",
            )
        _compare(tool, needed(snapshot.cluster_version, snapshot.storage_version), report)
        datadir.check_room(target, snapshot.size + (past.size if past else 0))
        private = stack.enter_context(datadir.building(target))
        return _build(
            snapshot,
            past,
            subject,
            tool=tool,
            target=target,
            private=private,
            options=options,
            report=report,
        )


def needed(*versions: str) -> Version:
    """Find the highest of some versions, as far as they are known: major and minor, patch 0."""
    known = (parse_version(text) for text in versions)
    return max(((v[0], v[1], 0) for v in known if v), default=(0, 0, 0))


def _compare(tool: Tool, data: Version, report: Report) -> None:
    """Say it where the tool is older than the data: it works, but no older etcd will start on it.

    (Tried: 3.6.6's files, restored by etcdutl 3.5.30, start on 3.6.6.)
    """
    if tool.version[:2] < data[:2]:
        report.warn(
            f"the data is of etcd {data[0]}.{data[1]}, the tool of {show(tool.version)}: start"
            f" the result with etcd {data[0]}.{data[1]} or later"
        )


def _build(
    snapshot: Snapshot,
    past: Past | None,
    subject: Subject,
    *,
    tool: Tool,
    target: datadir.Target,
    private: Path,
    options: Options,
    report: Report,
) -> Restored:
    """Edit, let the tool build, publish."""
    alarms = 0 if options.keep_alarms else sum(1 for _ in snapshot.alarms())
    edits = Edits(
        bump=options.bump, mark_compacted=options.bump > 0, drop_alarms=not options.keep_alarms
    )
    file = private / "snapshot.db"
    exported = _export(snapshot, past, file, edits, report)
    with file.open("rb") as written:
        proof = prove_export(subject, written.fileno(), snapshot, past, report)
    own = options.membership
    membership = own if own.token else replace(own, token=token_of(subject.name))
    built = private / "data"
    with report.task(f"building the data directory with {tool.path.name}"):
        restore(tool, file, built, membership)
    file.unlink()
    if not (built / datadir.MEMBER).is_dir():
        raise ToolError(f"{tool} ended well but made no data directory", "use another etcdutl")
    datadir.publish(built, target)
    return Restored(
        data_dir=target.path,
        sha256=exported.sha256,
        revision=exported.revision,
        token=membership.token,
        tool=str(tool),
        alarms_dropped=alarms,
        auth_enabled=snapshot.auth_enabled,
        proof=proof,
    )


def _export(
    snapshot: Snapshot, past: Past | None, path: Path, edits: Edits, report: Report
) -> Exported:
    with (
        explained(path),
        path.open("xb") as file,
        report.task("writing the snapshot with its edits", snapshot.size) as progress,
    ):
        path.chmod(0o600)
        exported = export(snapshot, file, edits, progress, past=past)
    tell_leases(exported, report)
    if exported.source_trailer is Trailer.ABSENT:
        report.warn("the source had no SHA-256: its structure was checked, its bytes were not")
    return exported
