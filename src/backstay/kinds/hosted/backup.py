"""Backing up a hosted control plane: snapshots, keys and objects, bound by one manifest.

By default nothing is paused and nothing stops: an etcd snapshot is consistent by itself. With
`quiesce` nothing writes while it is taken, at the price of the API; what was is put back
whatever comes of it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from backstay.client.hashing import Budget
from backstay.clock import Clock
from backstay.errors import UsageError
from backstay.flows import backup as flow
from backstay.flows.ancestry import Watched
from backstay.flows.places import Places
from backstay.flows.sweeping import sweep_keys
from backstay.kinds.etcd import MemberPoller
from backstay.kinds.hosted.cluster import Hosted
from backstay.kinds.hosted.companion import Belongings
from backstay.kinds.hosted.quiescing.quiesce import Options as QuiesceOptions
from backstay.kinds.hosted.quiescing.quiesce import Quiesce
from backstay.kinds.hosted.quiescing.quiet import Watcher, watch_all, watch_etcd
from backstay.kinds.hosted.reach.pod_script import PodPaths
from backstay.kinds.hosted.reach.transport import Network, Reached, reach
from backstay.kubeapi.api import Api
from backstay.repo.manifest import Manifest
from backstay.repo.sealing import Sealing
from backstay.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a hosted control plane is backed up.

    Attributes:
        spool_dir: where snapshots lie meanwhile.
        cluster: another name for it in the repository; empty takes `NAMESPACE.NAME`.
        transport: `auto`, `direct`, `port-forward` or `exec`.
        quiesce: how writers are stopped; None lets them go on.
        prove_all: whether keys are tried on all values, not on samples.
        members: how much may be asked of the members; None: nothing.
        sealing: how hard to compress.
        network: how Services are reached.
        paths: where things are in the containers, for `exec`.
        watched: which lineage it is, where a recorder has watched it without a break.
    """

    spool_dir: Path
    cluster: str = ""
    transport: str = "auto"
    quiesce: QuiesceOptions | None = None
    prove_all: bool = False
    members: Budget | None = field(default_factory=Budget)
    sealing: Sealing = field(default_factory=Sealing)
    network: Network | None = None
    paths: PodPaths | None = None
    watched: Watched | None = None


def backup_hosted(
    api: Api, hosted: Hosted, places: Places, options: Options, *, clock: Clock, report: Report
) -> Manifest:
    """Back up a hosted control plane.

    Args:
        api: of its management cluster.
        hosted: the control plane.
        places: where the backup goes.
        options: how.
        clock: for names, dates and durations.
        report: is told of each step.

    Returns:
        The manifest, as it was published.

    Raises:
        RefusedError: the repositories are one place, or another run quiesces the cluster.
        KubeError: the API refuses.
        EtcdError: no member gave a whole snapshot.
        StoreError: a store refuses.
    """
    places.check()
    sweep_keys(places.data, places.keys, report)
    cluster = options.cluster or hosted.cluster
    with reach(
        api,
        hosted,
        options.transport,
        clock=clock,
        network=options.network,
        paths=options.paths,
    ) as reached:
        report.say(f"transport {reached.way.transport}: {reached.way.reason}")
        belongings = Belongings(
            api,
            hosted,
            places,
            cluster=cluster,
            transport=reached.way.transport,
            prove_all=options.prove_all,
            clock=clock,
            report=report,
        )
        return flow.backup(
            _parts(reached, options, clock),
            places.data,
            flow.Options(cluster=cluster, spool_dir=options.spool_dir, sealing=options.sealing),
            companion=belongings,
            during=_during(api, hosted, reached, options, belongings, clock=clock, report=report),
            clock=clock,
            report=report,
        )


def _parts(reached: Reached, options: Options, clock: Clock) -> list[flow.Part]:
    allowed = options.members
    return [
        flow.Part(
            shard.name,
            shard.source,
            None if allowed is None else MemberPoller(shard.members, allowed, clock),
            options.watched,
        )
        for shard in reached.shards
    ]


def _during(
    api: Api,
    hosted: Hosted,
    reached: Reached,
    options: Options,
    belongings: Belongings,
    *,
    clock: Clock,
    report: Report,
) -> Callable[[], AbstractContextManager[object]]:
    """Say what is held while the snapshots come."""
    wanted = options.quiesce
    if wanted is None:
        return nullcontext
    watch = _watcher(reached)

    @contextmanager
    def quiesced() -> Iterator[None]:
        quiesce = Quiesce(api, hosted, watch, options=wanted, clock=clock, report=report)
        with quiesce:
            yield
        belongings.quiesced = quiesce.outcome

    return quiesced


def _watcher(reached: Reached) -> Watcher:
    etcds = [shard.etcd for shard in reached.shards if shard.etcd is not None]
    if len(etcds) < len(reached.shards):
        raise UsageError(
            f"with --transport {reached.way.transport} nobody can see whether etcd is quiet",
            "use --transport port-forward or direct with --quiesce",
        )
    return watch_all([watch_etcd(etcd) for etcd in etcds])
