"""Applying a restore, waiting for it, and proving what came of it.

Border: the order of things. What each does is in `apply`, `waiting` and `restored`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from backstay.checks.question import ask, unknown
from backstay.client.access import Access, Timeouts
from backstay.client.etcd import Etcd
from backstay.client.secret import Secret
from backstay.clock import Clock
from backstay.errors import BackstayError
from backstay.kinds.hosted.cluster import MAIN, at, control_plane_namespace
from backstay.kinds.hosted.find import find
from backstay.kinds.hosted.manifests.documents import parse_documents
from backstay.kinds.hosted.reach.transport import Network, Reached, reach
from backstay.kinds.hosted.recovery.apply import apply, check
from backstay.kinds.hosted.recovery.creation import MARK, Creation, plan
from backstay.kinds.hosted.recovery.etcd_init import etcd_init_gone
from backstay.kinds.hosted.recovery.guest import open_guest
from backstay.kinds.hosted.recovery.restored import prove, prove_api
from backstay.kinds.hosted.recovery.waiting import Options as Patience
from backstay.kinds.hosted.recovery.waiting import wait, wait_available
from backstay.kinds.hosted.restore import Made
from backstay.kubeapi.api import Api
from backstay.kubeapi.resource import HOSTED_CLUSTERS, STATEFUL_SETS
from backstay.repo.manifest import Manifest
from backstay.repo.staging import Staging
from backstay.report import Check, Report, Verdict

#: A connection through the API takes two handshakes more.
_FORWARDED = Timeouts(dial=20.0, command=20.0)
_URL = "spec.etcd.managed.storage.restoreSnapshotURL"
#: What `waiting` calls its look at upstream's own condition.
CONDITION = "snapshot-restored"
#: Seconds for the pods of etcd to be replaced, once upstream has taken etcd-init out.
_LEAVES = 1200.0
_LOOK = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a restore is applied.

    Attributes:
        wait: whether to wait for it and to prove it.
        force: lift what can be lifted.
        transport: how members are reached for the proof.
        patience: for the control plane.
        network: how Services are reached.
    """

    wait: bool = False
    force: bool = False
    transport: str = "auto"
    patience: Patience = field(default_factory=Patience)
    network: Network | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledOut:
    """What came of it.

    Attributes:
        created: what this run has created.
        kept: what was there already, just as it should be.
        checks: the proof; empty where nobody waited.
        removed: whether the restore object is gone: it must stay for as long as a pod that
            restarts would download it again.
    """

    created: tuple[str, ...]
    kept: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    removed: bool = False


def target_of(manifest: Manifest, rendered: bytes | None) -> tuple[str, str]:
    """Name the HostedCluster that a restore will make, and its namespace.

    Args:
        manifest: of the backup.
        rendered: the manifests that were rendered; None where the saved ones are used.

    Raises:
        FormatError: the manifests can't be read.
        RefusedError: they have no HostedCluster, or several.
    """
    if rendered is None:
        saved = manifest.hosted
        return (saved.name, saved.namespace) if saved is not None else ("", "")
    hosted = parse_documents(rendered, "what was rendered").hosted_cluster
    return hosted.name, hosted.namespace


def earlier_url(api: Api, name: str, namespace: str, restore: str) -> Secret | None:
    """Find the URL that an earlier run of the same restore has put into its HostedCluster.

    Args:
        api: of the management cluster.
        name: of the HostedCluster.
        namespace: of the HostedCluster.
        restore: which restore this is.

    Raises:
        KubeError: the API failed.
    """
    there = api.find(HOSTED_CLUSTERS, name, namespace)
    annotations: dict[str, object] = at(there, "metadata.annotations", {})
    urls: list[object] = at(there, _URL, [])
    if annotations.get(MARK) != restore or len(urls) != 1 or not isinstance(urls[0], str):
        return None
    return Secret(urls[0])


def roll_out(
    api: Api, made: Made, staging: Staging, options: Options, *, clock: Clock, report: Report
) -> RolledOut:
    """Apply manifests that restore, and with `wait` prove what came of it.

    Args:
        api: of the management cluster.
        made: the manifests.
        staging: where the restore object lies.
        options: how.
        clock: waits and measures.
        report: is told of each step, and each verdict.

    Raises:
        AlreadyExistsError: something is there that must not be; nothing was created.
        RefusedError: the release can't restore what is asked for; nothing was created.
        KubeError: the API failed; the same restore, run again, goes on.
    """
    with _needed(api, made, staging, report):
        applied = apply(api, _creation(made.text, made.restore), report=report, force=options.force)
        if not options.wait:
            return RolledOut(created=applied.created, kept=applied.kept)
        checks = _proven(api, made, options, clock, report)
    removed = _remove(api, made, staging, _leaving(checks, options), clock=clock, report=report)
    return RolledOut(created=applied.created, kept=applied.kept, checks=checks, removed=removed)


def examine(api: Api, text: str, restore: str, *, force: bool) -> None:
    """Look whether manifests can be applied, before a plain snapshot is put anywhere.

    Args:
        api: of the management cluster.
        text: the manifests; their URL may be another than it will be.
        restore: which restore this is.
        force: lift what can be lifted.

    Raises:
        UsageError: there is something among them that a restore does not create.
        AlreadyExistsError: something is there that must not be.
        RefusedError: the release can't restore what is asked for.
        KubeError: the API failed, or rights are missing.
    """
    check(api, _creation(text, restore), report=Report(), force=force)


def _creation(text: str, restore: str) -> Creation:
    documents = parse_documents(text, "the manifests").manifests
    return plan([dict(one.value) for one in documents], restore)


@contextmanager
def _needed(api: Api, made: Made, staging: Staging, report: Report) -> Iterator[None]:
    """Where the block fails, take the restore object away, unless a HostedCluster names it."""
    try:
        yield
    except BaseException:
        _forget(api, made, staging, report)
        raise


def _forget(api: Api, made: Made, staging: Staging, report: Report) -> None:
    place = f"{staging.url}/{made.staged}".rstrip("/")
    try:
        path = made.staged or _earlier(made, staging)
        if not path:
            return
        place = f"{staging.url}/{path}"
        url = earlier_url(api, made.name, made.namespace, made.restore)
        if url is not None and _leads_to(url, path):
            report.warn(f"{place} stays: the HostedCluster names it; run the same again to go on")
            return
        staging.remove(path)
    except BackstayError as error:
        report.warn(f"{place} is left, and open to who can read it: {error}")


def _leads_to(url: Secret, path: str) -> bool:
    return unquote(urlsplit(url.reveal()).path).endswith(f"/{path}")


def _proven(
    api: Api, made: Made, options: Options, clock: Clock, report: Report
) -> tuple[Check, ...]:
    name, namespace, patience = made.name, made.namespace, options.patience
    waited = wait(api, name, namespace, options=patience, clock=clock, report=report)
    if any(check.verdict is Verdict.FAIL for check in waited.checks):
        return waited.checks
    members = _members(api, made, options, waited.replicas, clock=clock, report=report)
    available = wait_available(api, name, namespace, options=patience, clock=clock, report=report)
    canary = prove_api(
        lambda: open_guest(api, find(api, name, namespace)),
        made.expected,
        clock=clock,
        report=report,
    )
    return (*waited.checks, *members, available, canary)


def _members(
    api: Api, made: Made, options: Options, replicas: int, *, clock: Clock, report: Report
) -> tuple[Check, ...]:
    """Ask each member, soon: once the control plane compacts, keys can't be counted exactly."""
    try:
        hosted = find(api, made.name, made.namespace)
        with (
            reach(api, hosted, options.transport, clock=clock, network=options.network) as reached,
            _each(reached, clock) as members,
        ):
            return prove(members, made.expected, replicas, clock=clock, report=report)
    except BackstayError as error:
        reason = str(error)
    check = ask("one-cluster", lambda: unknown(f"no member could be reached: {reason}"), clock)
    report.judge(check)
    return (check,)


@contextmanager
def _each(reached: Reached, clock: Clock) -> Iterator[Mapping[str, Etcd]]:
    """Open a client for each member of the main etcd, which reaches no other."""
    shard = reached.shards[0]
    with ExitStack() as stack:
        members = {}
        for endpoint in shard.etcd.endpoints if shard.etcd is not None else ():
            access = Access(endpoints=(endpoint,), tls=reached.way.tls, timeouts=_FORWARDED)
            client = stack.enter_context(Etcd(access, shard.dialer, clock))
            members[endpoint.host.partition(".")[0]] = client
        yield members


def _leaving(checks: Sequence[Check], options: Options) -> float:
    """For how long to wait until etcd-init has gone; where upstream leaves it, not at all."""
    restored = any(check.name == CONDITION and check.verdict is Verdict.PASS for check in checks)
    return min(options.patience.available, _LEAVES) if restored else 0.0


def _remove(
    api: Api, made: Made, staging: Staging, seconds: float, *, clock: Clock, report: Report
) -> bool:
    """Delete the restore object, where no pod will download it again."""
    place = f"{staging.url}/{made.staged}"
    try:
        path = made.staged or _earlier(made, staging)
        if not path:
            report.warn(
                f"the restore object of an earlier run is not in {staging.url}: if it lies"
                " elsewhere, delete it there"
            )
            return False
        place = f"{staging.url}/{path}"
        if not _has_gone(api, made, seconds, clock, report):
            report.warn(
                f"{place} stays, open to who has its URL: a pod that restarts would download it"
                " again; once etcd-init has left the StatefulSet, the same command removes it"
            )
            return False
        staging.remove(path)
    except BackstayError as error:
        report.warn(f"{place} is left, and open to who can read it: {error}")
        return False
    report.say(f"{place} is deleted")
    return True


def _earlier(made: Made, staging: Staging) -> str:
    """Find the object that an earlier run has staged; empty where it is not there."""
    hosted = parse_documents(made.text, "the manifests").hosted_cluster.value
    urls: list[object] = at(hosted, _URL, [])
    told = [Secret(url) for url in urls if isinstance(url, str)]
    paths = [one.path for one in staging.staged()]
    return next((path for path in paths for url in told if _leads_to(url, path)), "")


def _has_gone(api: Api, made: Made, seconds: float, clock: Clock, report: Report) -> bool:
    """Wait until no pod has an etcd-init: they are replaced one by one, after the proof."""
    where = control_plane_namespace(made.namespace, made.name)
    deadline = clock.monotonic() + seconds
    with report.task("waiting for etcd-init to leave the StatefulSet"):
        while True:
            stateful_set = api.find(STATEFUL_SETS, MAIN, where)
            if stateful_set is not None and etcd_init_gone(stateful_set):
                return True
            if clock.monotonic() >= deadline:
                return False
            clock.sleep(_LOOK)
