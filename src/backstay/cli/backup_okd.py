"""`backstay backup okd`: back up the control plane of OKD or OpenShift, on one of its hosts."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from backstay.cli import options
from backstay.cli.connect import check_keys_repo, open_places, spool_directory
from backstay.cli.guarding import Asking, control_plane_host, guarding, output_dir
from backstay.cli.measured import metrics_file
from backstay.cli.sealing import sealing
from backstay.cli.session import Session
from backstay.cli.values import Rate
from backstay.errors import UsageError

if TYPE_CHECKING:
    from backstay.kinds.okd.host import Host
    from backstay.kinds.okd.output import Written
    from backstay.kinds.okd.release import Standing


@click.command("okd")
@options.store_where("unless --output-dir is given")
@options.keys_store
@options.recipients
@options.keys_recipients
@output_dir
@control_plane_host
@click.option("--force", is_flag=True, help="Skip the rules that refuse; names tell of it.")
@click.option(
    "--limit-rate",
    type=Rate(),
    default=0,
    metavar="SIZE/s",
    help="Read the snapshot no faster.  etcd keeps its read transaction open for longer then.",
)
@click.option("--prove-all", is_flag=True, help="Try the keys on every value, not on samples.")
@options.members
@options.accepting
@click.option(
    "--if-upgraded",
    is_flag=True,
    help="Only where no restorable backup of the running release is in the repository.",
)
@guarding
@options.spool
@sealing
@click.option("--dry-run", is_flag=True, help="Do what `preflight okd` does, and print steps.")
@metrics_file
@options.talk
@click.pass_context
def okd(
    ctx: click.Context,
    /,
    *,
    output_dir: Path | None,
    host_root: Path,
    endpoints: str,
    dry_run: bool,
    **more: Any,
) -> int:
    """Back up the control plane of OKD or OpenShift, on one of its hosts.

    With --repo and --keys-repo the snapshot goes to the one, and the tar of static pod resources,
    which has the encryption keys, to the other, sealed.  With --output-dir both are left as the
    files that cluster-restore.sh takes.
    """
    from backstay.clock import SystemClock
    from backstay.kinds.okd.host import open_host

    session: Session = ctx.obj
    _check(ctx, output_dir, more)
    with ExitStack() as stack:
        asking = stack.enter_context(Asking(more, host_root, output_dir))
        if dry_run:
            return _look(session, asking, host_root, endpoints, more)
        host = stack.enter_context(open_host(host_root, SystemClock(), endpoints=endpoints))
        if output_dir is None:
            return _store(session, host, asking, more)
        return _write(session, host, asking, output_dir, more)


def _look(
    session: Session, asking: Asking, host_root: Path, endpoints: str, more: dict[str, Any]
) -> int:
    """Do what `preflight` does, and print what a backup would do."""
    from backstay.cli.preflight_hosted import finish
    from backstay.cli.preflight_okd import look, steps_of

    found = look(session, asking, host_root, endpoints, more)
    return finish(session, found.checks, steps_of(found, asking.rules.output_dir, more))


def _check(ctx: click.Context, output_dir: Path | None, more: dict[str, Any]) -> None:
    """Hold the command line to name one kind of place, and both of its parts."""
    from backstay.repo.name import check_cluster

    if more["cluster"]:
        check_cluster(more["cluster"])
    if output_dir is None:
        if not more["repo"]:
            raise UsageError(
                "neither a repository nor a directory is given",
                "name --repo and --keys-repo, or --output-dir",
            )
        check_keys_repo(more)
        return
    if more["if_upgraded"]:
        raise UsageError(
            "--if-upgraded asks a repository, and a directory is given", "leave one out"
        )
    named = {ctx.get_parameter_source(name) for name in ("repo", "keys_repo")}
    if ParameterSource.COMMANDLINE in named:
        raise UsageError("a repository and a directory are given", "leave one out")


def _store(session: Session, host: "Host", asking: Asking, more: dict[str, Any]) -> int:
    from backstay.cli.members import budget
    from backstay.cli.verdicts import tell_backup
    from backstay.clock import SystemClock
    from backstay.kinds.okd.backup import Options, backup_okd
    from backstay.repo.sealing import Sealing

    wanted = Options(
        spool_dir=Path(spool_directory(more["spool_dir"])),
        cluster=more["cluster"],
        force=more["force"],
        rate=more["limit_rate"],
        prove_all=more["prove_all"],
        members=budget(more),
        sealing=Sealing(level=more["level"], threads=more["threads"]),
    )
    places = open_places(more, asking.proxies)
    if more["if_upgraded"]:
        standing = asking.of(host, session.report()).standing(places.data)
        if not standing.due:
            return _idle(session, standing)
    manifest = backup_okd(
        host,
        asking.cluster,
        places,
        wanted,
        guards=asking.guards(host, places.data, session.report()),
        clock=SystemClock(),
        report=session.report(),
    )
    asking.finish()
    return tell_backup(session, manifest, more["accepted"])


def _idle(session: Session, standing: "Standing") -> int:
    """Say that there is nothing to do."""
    session.close()
    if session.json:
        session.answer({"nothing_to_do": standing.reason, "backup": standing.backup})
    else:
        session.tell(f"nothing to do: {standing.reason}")
    return 0


def _write(
    session: Session, host: "Host", asking: Asking, directory: Path, more: dict[str, Any]
) -> int:
    from backstay.cli.verdicts import exit_code
    from backstay.clock import SystemClock
    from backstay.kinds.okd.output import OutputOptions, write_pair

    wanted = OutputOptions(
        directory=directory,
        force=more["force"],
        rate=more["limit_rate"],
        prove_all=more["prove_all"],
    )
    written = write_pair(
        host,
        asking.cluster,
        wanted,
        guards=asking.guards(host, None, session.report()),
        clock=SystemClock(),
        report=session.report(),
    )
    asking.finish()
    session.close()
    _tell_pair(session, written, directory, more["accepted"])
    return exit_code(written.checks, more["accepted"])


def _tell_pair(
    session: Session, written: "Written", directory: Path, accepted: Sequence[str]
) -> None:
    """Say what cluster-backup.sh says, and what it can't say."""
    from backstay.cli.verdicts import answer_checks, tell_checks
    from backstay.mvcc.status import render
    from backstay.repo.document import plain

    status = written.status
    if session.json:
        told = None if status is None else {
            "hash": status.hash,
            "revision": status.revision,
            "totalKey": status.total_keys,
            "totalSize": status.total_size,
        }  # fmt: skip
        paths = {"snapshot": str(written.snapshot), "archive": str(written.archive)}
        session.answer(answer_checks(written.checks, **paths, status=told, okd=plain(written.okd)))
        return
    tell_checks(session, written.checks, accepted=accepted)
    session.print(f"Snapshot saved at {written.snapshot}")
    if status is not None:
        session.print(render(status, "json"), end="")
    session.print(f"snapshot db and kube resources are successfully saved to {directory}")
