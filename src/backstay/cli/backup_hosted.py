"""`backstay backup hosted`: back up a hosted control plane."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.complete import clusters
from backstay.cli.connect import check_keys_repo, open_places, spool_directory
from backstay.cli.measured import metrics_file
from backstay.cli.sealing import sealing
from backstay.cli.session import Session
from backstay.cli.transport import transport
from backstay.cli.values import Duration

if TYPE_CHECKING:
    from backstay.kinds.step import Step
    from backstay.kubeapi.api import Api
    from backstay.repo.manifest import Manifest


@click.command("hosted")
@click.argument("name")
@options.kube
@options.store
@options.keys_store
@options.recipients
@options.keys_recipients
@transport
@click.option("--quiesce", is_flag=True, help="Stop what writes meanwhile; the API is down then.")
@click.option(
    "--quiesce-timeout",
    type=Duration(),
    default="5m",
    show_default=True,
    help="Patience until nobody writes; then all is put back, and there is no backup.",
)
@click.option(
    "--cluster",
    shell_complete=clusters,
    default="",
    help="Its name in the repository, if not NAMESPACE.NAME.",
)
@options.members
@options.accepting
@click.option("--prove-all", is_flag=True, help="Try the keys on every value, not on samples.")
@options.spool
@sealing
@click.option("--dry-run", is_flag=True, help="Do what `preflight hosted` does, and print steps.")
@metrics_file
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
    dry_run: bool,
    **more: Any,
) -> int:
    """Back up a hosted control plane (HyperShift).

    The snapshot is taken while everything runs.  Encryption keys and Secrets go to --keys-repo,
    sealed; the keys are tried on the snapshot before the backup counts.
    """
    from backstay.kubeapi.connect import connect

    _check(more)
    with connect(kubeconfig, context) as api:
        if dry_run:
            return _look(session, api, name, namespace, more)
        manifest = _make(session, api, name, namespace, more)
    from backstay.cli.verdicts import tell_backup

    return tell_backup(session, manifest, more["accepted"], _quiet(manifest))


def _check(more: dict[str, Any]) -> None:
    from backstay.repo.name import check_cluster

    if more["cluster"]:
        check_cluster(more["cluster"])
    check_keys_repo(more)


def _make(
    session: Session, api: "Api", name: str, namespace: str, more: dict[str, Any]
) -> "Manifest":
    from backstay.cli.members import budget
    from backstay.clock import SystemClock
    from backstay.kinds.hosted.backup import Options, backup_hosted
    from backstay.kinds.hosted.find import find
    from backstay.kinds.hosted.quiescing.quiesce import Options as QuiesceOptions
    from backstay.repo.sealing import Sealing

    wanted = Options(
        spool_dir=Path(spool_directory(more["spool_dir"])),
        cluster=more["cluster"],
        transport=more["transport"],
        quiesce=QuiesceOptions(timeout=more["quiesce_timeout"]) if more["quiesce"] else None,
        prove_all=more["prove_all"],
        members=budget(more),
        sealing=Sealing(level=more["level"], threads=more["threads"]),
    )
    places = open_places(more)
    found = find(api, name, namespace)
    return backup_hosted(api, found, places, wanted, clock=SystemClock(), report=session.report())


def _quiet(manifest: "Manifest") -> str:
    """Say whether nothing wrote meanwhile; nothing where that was not asked for."""
    hosted = manifest.hosted
    if hosted is None or hosted.quiesced is None:
        return ""
    down = f", the API was down for {hosted.api_downtime:.1f} s" if hosted.api_downtime else ""
    return f"{'quiesced' if hosted.quiesced else 'NOT quiesced'}{down}"


def _look(session: Session, api: "Api", name: str, namespace: str, more: dict[str, Any]) -> int:
    """Do what `preflight` does, and print what a backup would do."""
    from backstay.cli.preflight_hosted import ask, finish
    from backstay.kinds.hosted.belongings.encryption import references
    from backstay.kinds.hosted.find import find
    from backstay.kinds.hosted.steps import Plan, backup_steps

    asked = ask(session, api, name, namespace, more)
    steps: tuple[Step, ...] = ()
    if not any(check.name == "found" and check.verdict == "FAIL" for check in asked.checks):
        found = find(api, name, namespace)
        plan = Plan(
            transport=asked.transport or "port-forward",
            quiesce=more["quiesce"],
            repo=more["repo"],
            keys_repo=more["keys_repo"],
            keys=tuple(dict.fromkeys(reference.secret for reference in references(found))),
        )
        steps = backup_steps(found, plan)
    return finish(session, asked.checks, steps)
