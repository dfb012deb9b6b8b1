"""`backstay import`: take in backups that other tools made."""

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
from backstay.cli.measured import metrics_file
from backstay.cli.sealing import sealing
from backstay.cli.session import Session
from backstay.cli.values import FilePath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backstay.kinds.foreign.take import Importer, Taken


@click.command()
@click.argument("directory", metavar="DIR", type=FilePath(file_okay=False, path_type=Path))
@options.store_where("unless --dry-run is given")
@options.keys_store
@options.recipients
@options.keys_recipients
@click.option(
    "--cluster",
    default="",
    shell_complete=clusters,
    help="What they are of; else the infrastructure's name in them.",
)
@options.spool
@sealing
@click.option("--dry-run", is_flag=True, help="Prove the files, and store nothing.")
@metrics_file
@options.talk
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    directory: Path,
    cluster: str,
    dry_run: bool,
    **more: Any,
) -> int:
    """Take in backups that other tools made.

    Takes what cluster-backup.sh (pairs, or snapshots alone), etcdctl (*.db) and k3s
    (etcd-snapshot-*, on-demand-*, also zipped) have left in DIR and one level below.  Each file is
    proven before it is stored; one that is damaged is refused and named, and the others go on.
    Static pod resources hold keys: they go to --keys-repo.  What is there already is skipped.
    """
    from backstay.kinds.foreign.scan import scan
    from backstay.kinds.foreign.take import exit_code
    from backstay.repo.name import check_cluster

    session = ctx.ensure_object(Session)
    if not more["repo"] and not dry_run:
        raise options.no_repository(ctx)
    if cluster:
        check_cluster(cluster)
    importer = _importer(session, directory, cluster, more, dry_run=dry_run)
    found = scan(directory)
    taken = list(importer.take_all(found))
    session.close()
    if session.json:
        session.answer([_document(one) for one in taken])
    else:
        _tell(session, taken)
    return exit_code(taken)


def _importer(
    session: Session, directory: Path, cluster: str, more: dict[str, Any], *, dry_run: bool
) -> "Importer":
    from backstay.clock import SystemClock
    from backstay.kinds.foreign.take import Importer, Options
    from backstay.repo.sealing import Sealing

    store = StoreOptions.of(more)
    return Importer(
        repository=open_repository(store, more["recipient"]) if more["repo"] else None,
        keys=open_keys_repository(more) if more["keys_repo"] else None,
        options=Options(
            directory=directory,
            spool_dir=spool_directory(more["spool_dir"]),
            cluster=cluster,
            dry_run=dry_run,
            sealing=Sealing(level=more["level"], threads=more["threads"]),
        ),
        clock=SystemClock(),
        report=session.report(),
    )


def _document(one: "Taken") -> dict[str, Any]:
    known = one.candidate
    return {
        "file": str(one.path),
        "partner": str(known.partner) if known and known.partner else None,
        "tool": known.named.tool if known else None,
        "taken_at": known.taken_at.isoformat() if known else None,
        "taken_at_by": known.assumed if known else None,
        "cluster": one.cluster or None,
        "revision": one.revision or None,
        "fate": str(one.fate),
        "detail": one.detail,
        "id": one.manifest.id if one.manifest else None,
        "checks": [
            {"name": it.name, "verdict": str(it.verdict), "detail": it.detail} for it in one.checks
        ],
    }


def _tell(session: Session, taken: "Sequence[Taken]") -> None:
    from backstay.cli.tables import columns
    from backstay.kinds.foreign.take import Fate
    from backstay.report import Verdict

    rows = [("FILE", "TOOL", "CLUSTER", "TAKEN", "REVISION", "STATE", "DETAIL")]
    for one in taken:
        known = one.candidate
        rows.append(
            (
                str(one.path),
                known.named.tool if known else "",
                one.cluster,
                f"{known.taken_at:%Y-%m-%d %H:%M:%SZ}" if known else "",
                str(one.revision or ""),
                str(one.fate),
                one.detail,
            )
        )
    session.print(columns(rows))
    for one in taken:
        for check in one.checks:
            if check.verdict is not Verdict.PASS:
                session.tell(f"{one.path}: {check.name}: {check.verdict}: {check.detail}")
    for cluster in sorted({one.cluster for one in taken if one.fate is Fate.IMPORTED}):
        session.tell(f"{cluster}/latest is what was imported last, until the next backup")
