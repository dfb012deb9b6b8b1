"""`backstay preflight okd`: look whether a backup of an OKD control plane would work, now."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.connect import StoreOptions, open_keys_repository, open_repository
from backstay.cli.guarding import Asking, control_plane_host, guarding, output_dir
from backstay.cli.preflight_hosted import finish
from backstay.cli.session import Session
from backstay.cli.values import Size

if TYPE_CHECKING:
    from backstay.kinds.okd.preflight import Found
    from backstay.kinds.step import Step
    from backstay.repo.catalogue import Repository


@click.command("okd")
@options.store_where("unless --output-dir is given")
@options.keys_store
@options.recipients
@options.keys_recipients
@output_dir
@control_plane_host
@guarding
@options.spool
@click.option("--quota", type=Size(), help="The members' quota; before 3.6 they don't tell it.")
@options.talk
@click.pass_obj
def okd(
    session: Session,
    /,
    *,
    output_dir: Path | None,
    host_root: Path,
    endpoints: str,
    **more: Any,
) -> int:
    """Look whether a backup of an OKD control plane would work, and may be made now.

    Runs on one of its hosts, as the backup does.  Nothing is written, but a word to each repository
    that shows that it can be written to.
    """
    from backstay.repo.name import check_cluster

    if more["cluster"]:
        check_cluster(more["cluster"])
    with Asking(more, host_root, output_dir) as asking:
        found = look(session, asking, host_root, endpoints, more)
    return finish(session, found.checks)


def look(
    session: Session, asking: Asking, host_root: Path, endpoints: str, more: dict[str, Any]
) -> "Found":
    """Ask everything that a backup depends on; `backup okd --dry-run` does the same."""
    from backstay.clock import SystemClock
    from backstay.kinds.okd.host import open_host
    from backstay.kinds.okd.preflight import Plan, preflight

    clock, where = SystemClock(), StoreOptions.of(more)
    stored = asking.rules.output_dir is None

    def data() -> "Repository":
        return open_repository(where, more["recipient"], asking.proxies)

    def keys() -> "Repository":
        return open_keys_repository(more, asking.proxies)

    plan = Plan(
        host=lambda: open_host(host_root, clock, endpoints=endpoints),
        cluster=asking.cluster,
        api=asking.api,
        rules=asking.rules,
        named=more["cluster"],
        data=data if stored and more["repo"] else None,
        keys=keys if stored and more["repo"] else None,
        quota=more.get("quota"),
    )
    return preflight(plan, clock=clock, report=session.report())


def steps_of(found: "Found", output_dir: Path | None, more: dict[str, Any]) -> "tuple[Step, ...]":
    """Give the steps of a backup, with the commands that they equal."""
    from backstay.kinds.okd.steps import Going, backup_steps

    if output_dir is None:
        going = Going(repo=more["repo"] or "", keys_repo=more["keys_repo"] or "")
    else:
        going = Going(output_dir=str(output_dir))
    return backup_steps(found.pods, found.host.etcd if found.host is not None else None, going)
