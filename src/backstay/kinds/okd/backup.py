"""Backing up an OKD control plane into repositories: the snapshot to one, the tar to the other.

The order is that of cluster-backup.sh: first the rules, then the tar, then the snapshot. What the
host runs is looked at once more after that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backstay.client.hashing import Budget
from backstay.clock import Clock
from backstay.files import unnamed_file
from backstay.flows import backup as flow
from backstay.flows.ancestry import Watched
from backstay.flows.places import Places
from backstay.flows.sweeping import sweep_keys
from backstay.kinds.etcd import MemberPoller
from backstay.kinds.okd.archive import write_archive
from backstay.kinds.okd.cluster import Cluster
from backstay.kinds.okd.companion import OkdCompanion, Partner
from backstay.kinds.okd.host import Host, guarded
from backstay.kinds.okd.source import OkdSource
from backstay.kinds.okd.told import completed, name_of
from backstay.repo.manifest import Manifest
from backstay.repo.sealing import Sealing
from backstay.report import Check, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an OKD control plane is backed up.

    Attributes:
        spool_dir: where the snapshot and the tar lie meanwhile.
        cluster: another name for it in the repository; empty takes the infrastructure's.
        force: whether guards that refuse are skipped.
        rate: bytes a second that are read of the snapshot at most; 0: as fast as they come.
        prove_all: whether keys are tried on all values, not on samples.
        members: how much may be asked of the members; None: nothing.
        sealing: how hard to compress.
        watched: which lineage it is, where a recorder has watched it without a break.
    """

    spool_dir: Path
    cluster: str = ""
    force: bool = False
    rate: int = 0
    prove_all: bool = False
    members: Budget | None = field(default_factory=Budget)
    sealing: Sealing = field(default_factory=Sealing)
    watched: Watched | None = None


def backup_okd(
    host: Host,
    cluster: Cluster,
    places: Places,
    options: Options,
    *,
    guards: Callable[[], Sequence[Check]],
    clock: Clock,
    report: Report,
) -> Manifest:
    """Back up an OKD control plane.

    Args:
        host: one of its hosts.
        cluster: what its API told; what it did not is asked of etcd.
        places: where the backup goes.
        options: how.
        guards: asks what may refuse it.
        clock: for names, dates and durations.
        report: is told of each step.

    Returns:
        The manifest, as it was published.

    Raises:
        RefusedError: the repositories are one place, or a guard refuses.
        EtcdError: no member gave a whole snapshot.
        StoreError: a store refuses.
        SpaceError: the spool or a store is full.
        BackstayError: the host's files can't be read, or a rollout went on meanwhile.
    """
    places.check()
    allowed = guarded(guards, report, force=options.force)
    sweep_keys(places.data, places.keys, report)
    known = completed(cluster, host.client)
    name = name_of(known, options.cluster)
    with unnamed_file(options.spool_dir) as file:
        archived = write_archive(host.tree, file, options.spool_dir, report)
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
        poller = MemberPoller.of(host.client, options.members, clock)
        return flow.backup(
            [flow.Part(flow.NAME, source, poller, options.watched)],
            places.data,
            flow.Options(cluster=name, spool_dir=options.spool_dir, sealing=options.sealing),
            companion=OkdCompanion(partner, file, places),
            clock=clock,
            report=report,
        )
