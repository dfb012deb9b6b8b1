"""Recording the etcd of a hosted control plane: the way to it, its full backups, and its keys.

The recorder runs for months. What it reaches etcd by is found anew where it fails: members,
certificates and the account's token may be others by then.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

from backstay.client.etcd import Etcd
from backstay.clock import Clock
from backstay.errors import UsageError
from backstay.flows.ancestry import Watched
from backstay.flows.places import Places
from backstay.flows.recording.keysaver import Found, RecordedKeys
from backstay.kinds.hosted.backup import Options, backup_hosted
from backstay.kinds.hosted.belongings.keys import saved_keys
from backstay.kinds.hosted.belongings.resources import collect
from backstay.kinds.hosted.cluster import Hosted
from backstay.kinds.hosted.companion import keyring_of
from backstay.kinds.hosted.find import find
from backstay.kinds.hosted.reach.transport import reach
from backstay.kubeapi.api import Api
from backstay.repo.manifest import Manifest
from backstay.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedRecord:
    """A hosted control plane that is recorded.

    Attributes:
        connect: opens the API of its management cluster.
        name: of the HostedCluster.
        namespace: of the HostedCluster.
        places: where everything goes.
        options: how full backups are made, and how etcd is reached.
        clock: for names and dates.
        report: is told.
    """

    connect: Callable[[], AbstractContextManager[Api]]
    name: str
    namespace: str
    places: Places
    options: Options
    clock: Clock
    report: Report

    @contextmanager
    def etcd(self) -> Iterator[Etcd]:
        """Reach its etcd by what the API says now.

        Raises:
            KubeError: the API does not let us.
            EtcdError: there is no way.
            UsageError: etcd can't be watched that way, or there are several.
        """
        with ExitStack() as stack:
            api = stack.enter_context(self.connect())
            hosted = _check(find(api, self.name, self.namespace))
            reached = stack.enter_context(
                reach(
                    api,
                    hosted,
                    self.options.transport,
                    clock=self.clock,
                    network=self.options.network,
                )
            )
            etcd = reached.shards[0].etcd
            way = f"transport {reached.way.transport}: {reached.way.reason}"
            if etcd is None:
                raise UsageError(
                    f"etcd can't be watched through exec ({way})",
                    "use --transport port-forward or direct",
                )
            self.report.say(way)
            yield etcd

    def full(self, watched: Watched) -> Manifest:
        """Make a full backup of it.

        Args:
            watched: which lineage the watch has gone on with.

        Raises:
            BackstayError: as a backup does.
        """
        with self.connect() as api:
            hosted = find(api, self.name, self.namespace)
            options = replace(self.options, watched=watched)
            return backup_hosted(
                api, hosted, self.places, options, clock=self.clock, report=self.report
            )

    def keys(self, cluster: str) -> RecordedKeys:
        """Give what saves its keys.

        Args:
            cluster: its name in the repositories.
        """
        return RecordedKeys(
            self.places, cluster, lambda: self._read_keys(cluster), self.clock, self.report
        )

    @contextmanager
    def _read_keys(self, cluster: str) -> Iterator[Found]:
        with self.connect() as api:
            hosted = find(api, self.name, self.namespace)
            found = saved_keys(api, hosted)
            for warning in (*found.problems, *found.warnings, *found.replaced):
                self.report.warn(warning)
            keyring = keyring_of(cluster, found, collect(api, hosted), self.clock.now())
        yield Found(keyring)


def _check(hosted: Hosted) -> Hosted:
    others = len(hosted.unmanaged.shards) if hosted.unmanaged else len(hosted.shards) - 1
    if others > 0:
        raise UsageError(
            f"{hosted.title} has {others + 1} etcds, and a recorder follows one",
            "give each one's endpoints to a `record etcd` of its own",
        )
    return hosted
