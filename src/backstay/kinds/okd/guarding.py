"""The guards of one backup: gathers what they ask about, and holds the Lease meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backstay.client.health import Choice, choose, survey
from backstay.client.proxy import Proxies
from backstay.clock import Clock
from backstay.closing import Closing
from backstay.errors import NotVerifiedError
from backstay.files import free_space
from backstay.flows.spool import MARGIN
from backstay.kinds.okd.asking import Backups, Circumstances, ask_guards
from backstay.kinds.okd.certificates import host_certificates
from backstay.kinds.okd.cluster import Cluster
from backstay.kinds.okd.guards import Dated, Room
from backstay.kinds.okd.host import Host
from backstay.kinds.okd.lease import NAME, NAMESPACE, Turn
from backstay.kinds.okd.release import Standing, standing
from backstay.kinds.okd.static_pods import running
from backstay.kinds.okd.told import completed, name_of
from backstay.kinds.okd.window import Window
from backstay.kubeapi.api import Api
from backstay.repo.catalogue import Repository
from backstay.report import Check, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the user says of the guards.

    Attributes:
        window: the hours for backups; None is any.
        least: seconds that must have passed since another host's backup.
        namespace: where the Lease lies.
        environment: proxies that are exported here.
        servers: URLs of those that are uploaded to.
        spool_dir: where the snapshot will lie on its way to a repository.
        output_dir: where it will stay; None where it goes to a repository.
    """

    window: Window | None = None
    least: float = 0.0
    namespace: str = NAMESPACE
    environment: Proxies = field(default_factory=Proxies)
    servers: tuple[str, ...] = ()
    spool_dir: Path
    output_dir: Path | None = None

    @property
    def lease(self) -> str:
        """What messages call the Lease."""
        return f"Lease {self.namespace}/{NAME}"

    def rooms(self, choice: Choice) -> tuple[Room, ...]:
        """Look at the directory that a snapshot is written to; it need not be there.

        Args:
            choice: what was heard of the members.

        Raises:
            NotVerifiedError: no member told how large it is.
            BackstayError: the directory can't be looked at.
        """
        if not choice.order:
            raise NotVerifiedError("no member told how large the snapshot will be", "see members")
        size = max(status.db_size for status in choice.order)
        directory, option = self.spool_dir, "--spool-dir"
        if self.output_dir is not None:
            above = (self.output_dir, *self.output_dir.absolute().parents)
            directory = next((it for it in above if it.is_dir()), self.output_dir)
            option = "--output-dir"
        return (Room(str(directory), size + MARGIN, free_space(directory), option),)


class Guarding(Closing):
    """Asks the guards of one backup, and holds the Lease from then on until this is closed.

    Args:
        host: the backup is made on.
        cluster: what its API said.
        api: of the cluster; None where there is none.
        rules: what the user says of the guards.
        named: the cluster's name in the repository; empty takes the infrastructure's.
        clock: the machine's.
        report: is told each verdict.
    """

    def __init__(
        self,
        host: Host,
        cluster: Cluster,
        api: Api | None,
        rules: Rules,
        *,
        named: str = "",
        clock: Clock,
        report: Report,
    ) -> None:
        self._host = host
        self._cluster = cluster
        self._rules = rules
        self._named = named
        self._clock = clock
        self._report = report
        self._turn: Turn | None = None
        if api is not None:
            node = host.etcd.node
            self._turn = Turn(api, node, rules.namespace, clock=clock)

    def ask(self, repository: Repository | None) -> tuple[Check, ...]:
        """Ask them all.

        Args:
            repository: of the snapshots; None where both files stay in a directory.

        Raises:
            EtcdError: the cluster's name is asked of etcd, and no member answers.
            BackstayError: nobody knows the cluster's name, and it is wanted for the repository.
        """
        known = completed(self._cluster, self._host.client)
        backups = None
        if repository is not None:
            opened, name = repository, name_of(known, self._named)

            def backups() -> Backups:
                return Backups.of(opened, name)

        found = Circumstances(
            cluster=self._cluster,
            running=_running(known),
            node=self._host.etcd.node,
            certificates=self._certificates,
            environment=self._rules.environment,
            servers=self._rules.servers,
            rooms=self._rooms,
            window=self._rules.window,
            least=self._rules.least,
            backups=backups,
            stored=repository is not None,
            turn=None if self._turn is None else self._turn.take,
            lease=self._rules.lease,
        )
        return ask_guards(found, clock=self._clock, report=self._report)

    def standing(self, repository: Repository) -> Standing:
        """Say whether a backup is due because the cluster was upgraded: for `--if-upgraded`.

        Raises:
            StoreError: the store refuses.
            EtcdError: no member of etcd answers.
            BackstayError: nobody knows the cluster's name.
        """
        known = completed(self._cluster, self._host.client)
        return standing(_running(known), repository.backups(name_of(known, self._named)))

    def finish(self) -> None:
        """Note on the Lease that the backup is complete."""
        if self._turn is not None:
            self._turn.finish()

    def close(self) -> None:
        """Give the Lease back, and tell where it was lost."""
        if self._turn is not None:
            turn, self._turn = self._turn, None
            turn.close()
            if turn.lost:
                self._report.warn(f"{turn.title} was not ours to the end: {turn.lost}")

    def _certificates(self) -> Sequence[Dated]:
        return host_certificates(self._host.tree, running(self._host.tree))

    def _rooms(self) -> Sequence[Room]:
        return self._rules.rooms(choose(survey(self._host.client).members))


def _running(cluster: Cluster) -> str:
    return cluster.release.running if cluster.release is not None else ""
