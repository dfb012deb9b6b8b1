"""`backstay preflight`: look whether a backup would work."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.complete import clusters
from backstay.cli.connect import StoreOptions, etcd_access, open_repository, spool_directory
from backstay.cli.preflight_hosted import hosted
from backstay.cli.preflight_okd import okd
from backstay.cli.session import Session
from backstay.cli.values import Size

if TYPE_CHECKING:
    from backstay.client.access import Access


@click.group()
def command() -> None:
    """Look whether a backup would work."""


command.add_command(hosted)
command.add_command(okd)


@command.command("etcd")
@click.option(
    "--cluster", shell_complete=clusters, help="The cluster's name; taken as `backup` takes it."
)
@options.store
@options.recipients
@options.etcd
@options.spool
@click.option("--quota", type=Size(), help="The members' quota; before 3.6 they don't tell it.")
@options.talk
@click.pass_obj
def etcd(
    session: Session,
    /,
    *,
    cluster: str | None,
    recipient: tuple[str, ...],
    spool_dir: str | None,
    quota: int | None,
    **more: Any,
) -> int:
    """Look whether a backup of an etcd would work, without making one."""
    from backstay.repo.name import check_cluster

    if cluster is not None:
        check_cluster(cluster)
    store = StoreOptions.of(more)
    return look(
        session, etcd_access(more), store, recipient, spool_directory(spool_dir), quota=quota
    )


def look(
    session: Session,
    access: "Access",
    store: StoreOptions,
    recipient: tuple[str, ...],
    spool_dir: Path,
    *,
    quota: int | None = None,
) -> int:
    """Ask, and print the verdicts; `backup --dry-run` does the same."""
    from backstay.cli.verdicts import answer_checks, exit_code, tell_checks
    from backstay.client.etcd import Etcd
    from backstay.client.health import choose, survey
    from backstay.clock import SystemClock
    from backstay.flows.preflight import preflight

    with Etcd(access) as client:
        checks = preflight(
            lambda: choose(survey(client).members),
            lambda: open_repository(store, recipient),
            spool_dir,
            quota=quota,
            clock=SystemClock(),
            report=session.report(),
        )
    session.close()
    if session.json:
        session.answer(answer_checks(checks))
    else:
        tell_checks(session, checks, good="ready")
    return exit_code(checks)
