"""`backstay preflight hosted`: look whether a backup of a hosted control plane would work."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.complete import clusters
from backstay.cli.connect import (
    StoreOptions,
    open_keys_repository,
    open_repository,
    spool_directory,
)
from backstay.cli.session import Session
from backstay.cli.transport import transport
from backstay.cli.values import Size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backstay.client.health import Choice
    from backstay.kinds.hosted.cluster import Hosted
    from backstay.kinds.step import Step
    from backstay.kubeapi.api import Api
    from backstay.report import Check


@dataclass(slots=True)
class Asked:
    """What came of asking.

    Attributes:
        checks: the verdicts.
        transport: that would be used; empty where that could not be found out.
    """

    checks: tuple["Check", ...] = ()
    transport: str = ""


@click.command("hosted")
@click.argument("name")
@options.kube
@options.store
@options.keys_store
@options.recipients
@options.keys_recipients
@transport
@click.option("--quiesce", is_flag=True, help="Ask about the rights that --quiesce needs, too.")
@click.option("--cluster", shell_complete=clusters, default="", help="Taken as `backup` takes it.")
@options.spool
@click.option("--quota", type=Size(), help="The members' quota; before 3.6 they don't tell it.")
@options.talk
@click.pass_obj
def hosted(
    session: Session,
    /,
    *,
    name: str,
    namespace: str,
    kubeconfig: Path | None,
    context: str | None,
    **more: Any,
) -> int:
    """Look whether a backup of a hosted control plane would work, without making one."""
    from backstay.kubeapi.connect import connect

    with connect(kubeconfig, context) as api:
        asked = ask(session, api, name, namespace, more)
    return finish(session, asked.checks)


def ask(session: Session, api: "Api", name: str, namespace: str, more: dict[str, Any]) -> Asked:
    """Ask everything that a backup depends on; `backup --dry-run` does the same."""
    from backstay.clock import SystemClock
    from backstay.kinds.hosted.preflight import Plan, preflight

    asked = Asked()
    with ExitStack() as stack:
        plan = Plan(
            name=name,
            namespace=namespace,
            commands=_commands(more),
            spool_dir=spool_directory(more["spool_dir"]),
            data=lambda: open_repository(StoreOptions.of(more), more["recipient"]),
            keys=lambda: open_keys_repository(more),
            survey=lambda found: _survey(stack, api, found, more["transport"], asked),
            quota=more.get("quota"),
        )
        asked.checks = preflight(api, plan, clock=SystemClock(), report=session.report())
    return asked


def _commands(more: dict[str, Any]) -> tuple[str, ...]:
    """Name the tables of rights that are needed."""
    way = more["transport"]
    found = ["backup", "port-forward" if way == "auto" else way]
    return (*found, "quiesce") if more["quiesce"] else tuple(found)


def _survey(
    stack: ExitStack, api: "Api", found: "Hosted", wanted: str, asked: Asked
) -> "Mapping[str, Choice]":
    """Look at all members by the way that a backup would take."""
    from backstay.clock import SystemClock
    from backstay.kinds.hosted.reach.transport import reach

    reached = stack.enter_context(reach(api, found, wanted, clock=SystemClock()))
    asked.transport = str(reached.way.transport)
    return {shard.name: shard.source.survey() for shard in reached.shards}


def finish(session: Session, checks: tuple["Check", ...], steps: "tuple[Step, ...]" = ()) -> int:
    """Print verdicts and steps; give the exit code."""
    from backstay.cli.steps import answer_steps, tell_steps
    from backstay.cli.verdicts import answer_checks, exit_code, tell_checks

    session.close()
    if session.json:
        told = {"steps": answer_steps(steps)} if steps else {}
        session.answer(answer_checks(checks, **told))
    else:
        tell_steps(session, steps)
        tell_checks(session, checks, good="ready")
    return exit_code(checks)
