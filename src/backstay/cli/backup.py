"""`backstay backup`: back up a cluster."""

from pathlib import Path
from typing import Any

import click

from backstay.cli import options
from backstay.cli.backup_hosted import hosted
from backstay.cli.backup_okd import okd
from backstay.cli.connect import StoreOptions, etcd_access, open_repository, spool_directory
from backstay.cli.measured import metrics_file
from backstay.cli.sealing import sealing
from backstay.cli.session import Session


@click.group()
def command() -> None:
    """Back up a cluster."""


command.add_command(hosted)
command.add_command(okd)


@command.command("etcd")
@options.cluster
@options.store
@options.recipients
@options.etcd
@options.members
@options.accepting
@options.spool
@sealing
@click.option("--dry-run", is_flag=True, help="Do what `preflight etcd` does, and stop.")
@metrics_file
@options.talk
@click.pass_obj
def etcd(
    session: Session,
    /,
    *,
    cluster: str,
    recipient: tuple[str, ...],
    spool_dir: str | None,
    level: int,
    threads: int | None,
    dry_run: bool,
    **more: Any,
) -> int:
    """Back up an etcd.

    Every member is looked at first; a healthy follower gives the snapshot.  It is checked, sealed,
    stored and read back, and held against its members; the backup exists when all that is done.
    """
    from backstay.cli.members import budget
    from backstay.cli.verdicts import tell_backup
    from backstay.client.etcd import Etcd
    from backstay.clock import SystemClock
    from backstay.flows.backup import NAME, Options, Part, backup
    from backstay.kinds.etcd import EtcdSource, MemberPoller
    from backstay.repo.name import check_cluster
    from backstay.repo.sealing import Sealing

    check_cluster(cluster)
    store = StoreOptions.of(more)
    if dry_run:
        from backstay.cli.preflight import look

        return look(session, etcd_access(more), store, recipient, spool_directory(spool_dir))
    wanted = Options(
        cluster=cluster,
        spool_dir=Path(spool_directory(spool_dir)),
        sealing=Sealing(level=level, threads=threads),
    )
    report = session.report()
    repository = open_repository(store, recipient)
    clock = SystemClock()
    with Etcd(etcd_access(more)) as client:
        poller = MemberPoller.of(client, budget(more), clock)
        part = Part(NAME, EtcdSource(client), poller)
        manifest = backup([part], repository, wanted, clock=clock, report=report)
    return tell_backup(session, manifest, more["accepted"])
