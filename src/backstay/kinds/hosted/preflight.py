"""Looking whether a backup of a hosted control plane would work, without making one.

Each question is asked in turn, and none hides another: where the cluster can't be found, the
rights are asked about all the same, and the repositories looked at. What is asked of an etcd's
members is what `preflight etcd` asks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backstay.checks import connection
from backstay.checks.question import Answer, ask, failed, passed, unknown
from backstay.client.health import Choice
from backstay.client.text import one_line
from backstay.clock import Clock
from backstay.flows.preflight import Put, ask_repositories, space, together
from backstay.kinds.hosted import questions, rights
from backstay.kinds.hosted.belongings.keys import SavedKeys, saved_keys
from backstay.kinds.hosted.cluster import (
    Hosted,
    control_plane_namespace,
)
from backstay.kinds.hosted.find import find
from backstay.kubeapi.api import Api
from backstay.repo.catalogue import Repository
from backstay.report import Check, Report

#: Characters of a server's word in a message.
_WORD = 60
_BACKUP = ("backup",)
_MEND = "mend these, or use another --transport"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be looked at.

    Attributes:
        name: of the HostedCluster.
        namespace: of the HostedCluster.
        commands: whose rights are asked about: names of `rights.RIGHTS`, as `backup`, `exec`.
            With `exec` our certificate is not asked about: what is run in a pod has the pod's.
        spool_dir: where a snapshot will lie.
        data: opens the repository of the snapshots; None leaves it out.
        keys: opens that of the keyrings; None leaves it out.
        survey: looks at the members of each etcd, by the shard's name; None leaves them out.
        quota: bytes; the quota of members that don't tell it; None leaves them out.
    """

    name: str
    namespace: str
    commands: tuple[str, ...] = _BACKUP
    spool_dir: Path
    data: Callable[[], Repository] | None = None
    keys: Callable[[], Repository] | None = None
    survey: Callable[[Hosted], Mapping[str, Choice]] | None = None
    quota: int | None = None


@dataclass(slots=True)
class _Heard:
    hosted: Hosted | None = None
    keys: SavedKeys | None = None
    choices: Mapping[str, Choice] = field(default_factory=dict)


def preflight(api: Api, plan: Plan, *, clock: Clock, report: Report) -> tuple[Check, ...]:
    """Ask everything that a backup of a hosted control plane depends on.

    Args:
        api: of the management cluster.
        plan: what is to be looked at.
        clock: the machine's.
        report: is told each verdict.

    Returns:
        One check for each question, in the order in which they were asked.
    """
    heard = _Heard()
    checks: list[Check] = []

    def put(name: str, question: Callable[[], Answer]) -> None:
        check = ask(name, question, clock)
        checks.append(check)
        report.judge(check)

    put("found", lambda: _found(api, plan, heard))
    put("rights", lambda: _rights(api, plan))
    if heard.hosted is not None:
        hosted = heard.hosted
        put("conditions", lambda: questions.conditions(hosted))
        put("quiesced", lambda: questions.quiesced(hosted))
        put("pods", lambda: questions.pods(hosted))
        if "exec" not in plan.commands:
            put("certificates", lambda: questions.certificates(api, hosted, clock.now()))
        put("keys", lambda: _keys(api, hosted, heard))
        if hosted.encryption or heard.keys is None or heard.keys.keys:
            put("rotation", lambda: questions.rotation(hosted, heard.keys))
        _members(hosted, plan, heard, put)
    ask_repositories(plan.data, plan.keys, put, clock)
    return tuple(checks)


def _found(api: Api, plan: Plan, heard: _Heard) -> Answer:
    hosted = heard.hosted = find(api, plan.name, plan.namespace)
    parts = [
        hosted.title,
        one_line(hosted.platform),
        f"release {one_line(hosted.release_version)[:_WORD] or 'unknown'}",
        "unmanaged etcd" if hosted.unmanaged else f"{len(hosted.shards)} etcd",
        f"{len(hosted.node_pools)} NodePools",
    ]
    return passed(", ".join(part for part in parts if part))


def _rights(api: Api, plan: Plan) -> Answer:
    """What is asked needs only names, so that it can be asked where nothing may be read."""
    hosted = Hosted(
        name=plan.name,
        namespace=plan.namespace,
        control_plane_namespace=control_plane_namespace(plan.namespace, plan.name),
        hosted_cluster={},
    )
    needed = rights.needed(*plan.commands)
    lacking = rights.ask(api, hosted, needed)
    if lacking:
        words = "; ".join(map(str, lacking))
        return failed(f"we may not: {words}; docs/hosted.md has the roles")
    return passed(f"all {len(needed)} that {' and '.join(plan.commands)} need")


def _keys(api: Api, hosted: Hosted, heard: _Heard) -> Answer:
    keys = heard.keys = saved_keys(api, hosted)
    wrong = (*keys.problems, *keys.replaced)
    if wrong:
        return failed("; ".join(wrong))
    named = ", ".join(f"{key.role} {key.key_name} of {key.secret}" for key in keys.keys)
    told = "; ".join(part for part in (named, *keys.warnings) if part)
    if keys.kms is not None:
        return unknown(told)
    if not keys.keys and hosted.encryption:
        return failed(f"secrets are encrypted with {one_line(hosted.encryption)}, by no key named")
    return passed(told or "secrets are not encrypted in etcd")


def _members(
    hosted: Hosted,
    plan: Plan,
    heard: _Heard,
    put: Put,
) -> None:
    """Ask what `preflight etcd` asks, of each etcd."""
    survey, quota = plan.survey, plan.quota
    if survey is None:
        return

    def members() -> Answer:
        heard.choices = survey(hosted)
        answers = {name: connection.members(it, _MEND) for name, it in heard.choices.items()}
        return together(answers)

    put("members", members)
    choices = heard.choices
    if not choices:
        return
    put("alarms", lambda: together({n: connection.alarms(it) for n, it in choices.items()}))
    telling = {n: it for n, it in choices.items() if quota or any(s.quota for s in it.order)}
    if telling:
        put(
            "quota",
            lambda: together({n: connection.quota(it, quota) for n, it in telling.items()}),
        )
    put("space", lambda: space(choices.values(), plan.spool_dir))
