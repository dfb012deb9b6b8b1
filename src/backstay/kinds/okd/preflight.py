"""Looking whether a backup of an OKD control plane would work, and may be made, without making one.

Each question is asked in turn, and none hides another: where this is no control plane host the
guards are asked all the same, and the repositories looked at.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from backstay.checks import connection
from backstay.checks.question import Answer, ask, failed, passed
from backstay.client.health import Choice, choose, survey
from backstay.clock import Clock
from backstay.errors import BackstayError, NotVerifiedError
from backstay.flows.preflight import Opened, ask_repositories
from backstay.kinds.okd.asking import Backups, Circumstances, ask_guards
from backstay.kinds.okd.certificates import host_certificates
from backstay.kinds.okd.cluster import Cluster
from backstay.kinds.okd.guarding import Rules
from backstay.kinds.okd.guards import Dated, Room
from backstay.kinds.okd.host import Host
from backstay.kinds.okd.lease import Taken, look
from backstay.kinds.okd.rights import needed
from backstay.kinds.okd.static_pods import StaticPod, running
from backstay.kinds.okd.told import completed, name_of
from backstay.kubeapi.api import Api
from backstay.kubeapi.review import lacking
from backstay.repo.catalogue import Repository
from backstay.report import Check, Report

_MEND = "mend these, or run on another control plane host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be looked at.

    Attributes:
        host: opens the host.
        cluster: what its API said.
        api: of the cluster; None where there is none.
        rules: what the user says of the guards.
        named: the cluster's name in the repository; empty takes the infrastructure's.
        data: opens the repository of the snapshots; None leaves it out.
        keys: opens that of the tars; None leaves it out.
        quota: bytes; the quota of members that don't tell it; None leaves them out.
    """

    host: Callable[[], AbstractContextManager[Host]]
    cluster: Cluster
    api: Api | None
    rules: Rules
    named: str = ""
    data: Callable[[], Repository] | None = None
    keys: Callable[[], Repository] | None = None
    quota: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a look came to.

    Attributes:
        checks: one for each question, in the order in which they were asked.
        pods: the static pods that run on the host; empty where that is not known.
        host: the host, closed by now; None where it could not be opened.
    """

    checks: tuple[Check, ...]
    pods: tuple[StaticPod, ...] = ()
    host: Host | None = None


def preflight(plan: Plan, *, clock: Clock, report: Report) -> Found:
    """Ask everything that a backup of an OKD control plane depends on.

    Args:
        plan: what is to be looked at.
        clock: the machine's.
        report: is told each verdict.
    """
    with ExitStack() as stack:
        look_at = _Look(plan, stack, clock, report)
        look_at.run()
        return Found(tuple(look_at.checks), look_at.pods, look_at.host)


class _Look:
    """One look, and what was heard on the way."""

    def __init__(self, plan: Plan, stack: ExitStack, clock: Clock, report: Report) -> None:
        self._plan = plan
        self._stack = stack
        self._clock = clock
        self._report = report
        self._choice: Choice | None = None
        self._opened = Opened()
        self.host: Host | None = None
        self.pods: tuple[StaticPod, ...] = ()
        self.checks: list[Check] = []

    def run(self) -> None:
        """Ask all of it."""
        plan = self._plan
        self._put("found", self._found)
        if plan.api is not None:
            api = plan.api
            self._put("rights", lambda: rights(api, plan.rules.namespace))
        self._members()
        self._opened = ask_repositories(plan.data, plan.keys, self._put, self._clock)
        self.checks += ask_guards(self._circumstances(), clock=self._clock, report=self._report)

    def _put(self, name: str, question: Callable[[], Answer]) -> None:
        check = ask(name, question, self._clock)
        self.checks.append(check)
        self._report.judge(check)

    def _found(self) -> Answer:
        host = self.host = self._stack.enter_context(self._plan.host())
        self.pods = running(host.tree)
        for pod in self.pods:
            self._report.say(pod.found)
        revisions = ", ".join(f"{pod.name} {pod.revision}" for pod in self.pods)
        return passed(f"host {host.etcd.node}, revisions: {revisions}")

    def _members(self) -> None:
        """Ask what `preflight etcd` asks."""
        host, quota = self.host, self._plan.quota
        if host is None:
            return

        def members() -> Answer:
            self._choice = choose(survey(host.client).members)
            return connection.members(self._choice, _MEND)

        self._put("members", members)
        choice = self._choice
        if choice is None:
            return
        self._put("alarms", lambda: connection.alarms(choice))
        if quota or any(status.quota for status in choice.order):
            self._put("quota", lambda: connection.quota(choice, quota))

    def _circumstances(self) -> Circumstances:
        plan = self._plan
        running, named = self._known()
        api = plan.api
        return Circumstances(
            cluster=plan.cluster,
            running=running,
            node=self.host.etcd.node if self.host is not None else "",
            certificates=self._certificates,
            environment=plan.rules.environment,
            servers=plan.rules.servers,
            rooms=self._rooms,
            window=plan.rules.window,
            least=plan.rules.least,
            backups=None if plan.data is None else lambda: self._backups(named),
            stored=plan.rules.output_dir is None,
            turn=None if api is None else lambda: looked(api, plan.rules),
            lease=plan.rules.lease,
        )

    def _known(self) -> tuple[str, str]:
        """Give the release that runs and the cluster's name; where the API is silent, etcd's word.

        Guards take the API's word alone: what a member of etcd has may be of a moment ago.
        """
        known, named = self._plan.cluster, self._plan.named
        try:
            known = completed(known, self.host.client) if self.host is not None else known
            named = name_of(known, named)
        except BackstayError as error:
            self._report.warn(str(error))
        return known.release.running if known.release is not None else "", named

    def _backups(self, named: str) -> Backups:
        if self._opened.data is None:
            raise NotVerifiedError("the repository could not be opened: see there")
        if not named:
            raise NotVerifiedError("the cluster's name is not known", "name it with --cluster")
        return Backups.of(self._opened.data, named)

    def _certificates(self) -> Sequence[Dated]:
        return host_certificates(self.host.tree, self.pods) if self.host is not None else ()

    def _rooms(self) -> Sequence[Room]:
        if self._choice is None:
            raise NotVerifiedError("how large the snapshot will be is not known: see members")
        return self._plan.rules.rooms(self._choice)


def rights(api: Api, namespace: str) -> Answer:
    """May we do with the API what guards and Lease need?

    Raises:
        KubeError: the server does not say.
    """
    wanted = needed(namespace)
    missing = lacking(api, wanted)
    if missing:
        words = "; ".join(map(str, missing))
        return failed(f"we may not: {words}; deploy/okd has the roles")
    return passed(f"all {len(wanted)} that guards and Lease need")


def looked(api: Api, rules: Rules) -> Taken:
    """Look at the Lease, as a backup would ask for it, and leave it as it is.

    Raises:
        NotVerifiedError: somebody has it; whether they live, only a watch can tell.
        KubeError: it can't be read.
    """
    record = look(api, rules.namespace)
    if record.holder:
        raise NotVerifiedError(
            f"{record.node or 'another run'} has {rules.lease}, or died while it did",
            "a backup watches it, and finds out",
        )
    return Taken(mine=True, record=record)
