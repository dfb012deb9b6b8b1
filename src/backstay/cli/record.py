"""`backstay record`: all changes of a cluster, until somebody stops it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import click

from backstay.cli import options
from backstay.cli.complete import clusters
from backstay.cli.connect import (
    StoreOptions,
    check_keys_repo,
    etcd_access,
    open_places,
    open_repository,
)
from backstay.cli.guarding import Asking, control_plane_host, guarding
from backstay.cli.recording import follow, recording, wanted
from backstay.cli.sealing import sealing
from backstay.cli.session import Session
from backstay.cli.transport import watching


@click.group()
def command() -> None:
    """Record all changes of a cluster until stopped."""


@command.command("etcd")
@options.cluster
@options.store
@options.recipients
@options.etcd
@options.spool
@sealing
@recording
@options.talk
@click.pass_obj
def etcd(session: Session, /, *, cluster: str, recipient: tuple[str, ...], **more: Any) -> int:
    """Record an etcd: every change, sealed every few seconds, with full backups between.

    It goes on where the repository ends, once the etcd is proven to be the one that was recorded.
    Stop it with SIGTERM or Ctrl-C: it seals what it has.
    """
    from backstay.client.etcd import Etcd
    from backstay.clock import SystemClock
    from backstay.flows.ancestry import Watched
    from backstay.flows.backup import NAME, Part, backup
    from backstay.flows.backup import Options as BackupOptions
    from backstay.kinds.etcd import EtcdSource
    from backstay.repo.manifest import Manifest

    how = wanted(cluster, more)
    report = session.report()
    repository = open_repository(StoreOptions.of(more), recipient)
    with Etcd(etcd_access(more)) as client:

        def full(watched: Watched) -> Manifest:
            part = Part(NAME, EtcdSource(client), watched=watched)
            made = BackupOptions(cluster=cluster, spool_dir=how.spool_dir, sealing=how.sealing)
            return backup([part], repository, made, clock=SystemClock(), report=report)

        return follow(session, client, repository, full, how, listen=more["listen"])


@command.command("hosted")
@click.argument("name")
@options.kube
@options.store
@options.keys_store
@options.recipients
@options.keys_recipients
@watching
@click.option(
    "--cluster",
    shell_complete=clusters,
    default="",
    help="Its name in the repository, if not NAMESPACE.NAME.",
)
@options.members
@options.spool
@sealing
@recording
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
    cluster: str,
    **more: Any,
) -> int:
    """Record the etcd of a hosted control plane (HyperShift), as `record etcd` does.

    Full backups are those of `backup hosted`.  Where values come under a key that is new, that key
    goes to --keys-repo before the changes that need it are stored.
    """
    from backstay.cli.members import budget
    from backstay.clock import SystemClock
    from backstay.flows.recording.line import Line
    from backstay.kinds.hosted.backup import Options
    from backstay.kinds.hosted.record import HostedRecord
    from backstay.kubeapi.connect import connect

    check_keys_repo(more)
    how = wanted(cluster or f"{namespace}.{name}", more)
    places = open_places(more)
    places.check()
    record = HostedRecord(
        connect=lambda: connect(kubeconfig, context),
        name=name,
        namespace=namespace,
        places=places,
        options=Options(
            spool_dir=how.spool_dir,
            cluster=how.cluster,
            transport=more["transport"],
            members=budget(more),
            sealing=how.sealing,
        ),
        clock=SystemClock(),
        report=session.report(),
    )
    with Line(record.etcd) as line:
        return follow(
            session,
            line.open(),
            places.data,
            record.full,
            how,
            keys=record.keys(how.cluster),
            renew=line.open,
            listen=more["listen"],
        )


@command.command("okd")
@options.store
@options.keys_store
@options.recipients
@options.keys_recipients
@control_plane_host
@options.members
@guarding
@options.spool
@sealing
@recording
@options.talk
@click.pass_obj
def okd(session: Session, /, *, host_root: Path, endpoints: str, cluster: str, **more: Any) -> int:
    """Record the etcd of an OKD or OpenShift control plane, on one of its hosts.

    Full backups are those of `backup okd`, rules and all.  Where values come under a key of
    kube-apiserver that is new, the host's static pod resources, which have it, go to --keys-repo
    before the changes that need it are stored.
    """
    from backstay.cli.members import budget
    from backstay.clock import SystemClock
    from backstay.flows.recording.line import Line
    from backstay.kinds.okd.backup import Options
    from backstay.kinds.okd.host import Host, open_host
    from backstay.kinds.okd.record import Asked, OkdRecord
    from backstay.kinds.okd.told import completed, name_of

    check_keys_repo(more)
    clock, report = SystemClock(), session.report()
    asked = {**more, "cluster": cluster}

    def opened() -> AbstractContextManager[Host]:
        return open_host(host_root, clock, endpoints=endpoints)

    with Asking(asked, host_root, None) as asking, opened() as host:
        named = name_of(completed(asking.cluster, host.client), cluster)
        places = open_places(more, asking.proxies)
    places.check()
    how = wanted(named, more)

    @contextmanager
    def ask(host: Host) -> Iterator[Asked]:
        with Asking(asked, host_root, None) as asking:
            yield Asked(asking.cluster, asking.guards(host, places.data, report))
            asking.finish()

    record = OkdRecord(
        open=opened,
        ask=ask,
        name=named,
        places=places,
        options=Options(spool_dir=how.spool_dir, members=budget(more), sealing=how.sealing),
        clock=clock,
        report=report,
    )
    with Line(record.etcd) as line:
        return follow(
            session,
            line.open(),
            places.data,
            record.full,
            how,
            keys=record.keys,
            renew=line.open,
            listen=more["listen"],
        )
