"""`backstay record`: all changes of a cluster, until somebody stops it."""

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from backstay.cli import options
from backstay.cli.connect import StoreOptions, etcd_access, open_repository, spool_directory
from backstay.cli.sealing import sealing
from backstay.cli.session import Session
from backstay.cli.values import Duration, Size
from backstay.errors import UsageError


@click.group()
def command() -> None:
    """Record all changes of a cluster until stopped."""


def recording(function: options.F) -> options.F:
    """Say how often what is done."""
    return options.compose(
        click.option(
            "--every",
            type=Duration(),
            default="10s",
            show_default=True,
            help="Seal what has come that often: so much may be lost.",
        ),
        click.option(
            "--max-bytes",
            type=Size(),
            default="8MiB",
            show_default=True,
            help="Seal at once where so many bytes of changes have come.",
        ),
        click.option(
            "--full-every",
            type=Duration(),
            default="24h",
            show_default=True,
            help="Make a full backup that often; the recording goes on meanwhile.",
        ),
        click.option(
            "--prove-every",
            type=Duration(),
            default="1h",
            show_default=True,
            help="Ask a follower for HashKV that often: what is made later is compared with it.",
        ),
        click.option(
            "--patience",
            type=Duration(),
            default="15s",
            show_default=True,
            help="Ask another member where one has said nothing for so long.",
        ),
        click.option(
            "--listen",
            metavar="ADDR",
            help="Serve /metrics for Prometheus and /healthz there: 127.0.0.1:9414 or :9414.",
        ),
    )(function)


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
def etcd(
    session: Session,
    /,
    *,
    cluster: str,
    recipient: tuple[str, ...],
    spool_dir: str | None,
    level: int,
    threads: int | None,
    every: float,
    max_bytes: int,
    full_every: float,
    prove_every: float,
    patience: float,
    listen: str | None,
    **more: Any,
) -> int:
    """Record an etcd: every change, sealed every few seconds, with full backups between.

    It goes on where the repository ends, once the etcd is proven to be the one that was recorded.
    Stop it with SIGTERM or Ctrl-C: it seals what it has.
    """
    from backstay.client.etcd import Etcd
    from backstay.clock import SystemClock
    from backstay.flows.ancestry import Watched
    from backstay.flows.backup import NAME, Part, backup
    from backstay.flows.backup import Options as BackupOptions
    from backstay.flows.recording.listen import serve
    from backstay.flows.recording.plan import Options
    from backstay.flows.recording.recorder import Recorder
    from backstay.flows.recording.tally import Figures, Tally
    from backstay.kinds.etcd import EtcdSource
    from backstay.repo.manifest import Manifest
    from backstay.repo.name import check_cluster
    from backstay.repo.sealing import Sealing

    check_cluster(cluster)
    for name, value in (
        ("--every", every),
        ("--full-every", full_every),
        ("--prove-every", prove_every),
        ("--patience", patience),
        ("--max-bytes", max_bytes),
    ):
        if not value > 0:
            raise UsageError(f"{name} is not above zero", "give more, or leave it out")
    spool = Path(spool_directory(spool_dir))
    packing = Sealing(level=level, threads=threads)
    wanted = Options(
        cluster=cluster,
        spool_dir=spool,
        every=every,
        max_bytes=max_bytes,
        full_every=full_every,
        prove_every=prove_every,
        patience=patience,
        sealing=packing,
    )
    report = session.report()
    repository = open_repository(StoreOptions.of(more), recipient)
    clock = SystemClock()
    tally = Tally(Figures(began=clock.now().timestamp()))
    stop = threading.Event()
    with ExitStack() as stack:
        client = stack.enter_context(Etcd(etcd_access(more)))
        if listen:
            where = stack.enter_context(serve(listen, cluster, tally, wanted, clock))
            report.say(f"metrics at http://{where}/metrics")

        def full(watched: Watched) -> Manifest:
            part = Part(NAME, EtcdSource(client), watched=watched)
            how = BackupOptions(cluster=cluster, spool_dir=spool, sealing=packing)
            return backup([part], repository, how, clock=clock, report=report)

        stack.enter_context(session.stop.told(stop.set))
        recorder = Recorder(
            client,
            repository,
            full,
            wanted,
            tally=tally,
            clock=clock,
            report=report,
            stop=stop,
        )
        whole = recorder.run()
    session.close()
    return _tell(session, cluster, tally.figures, whole=whole)


def _tell(session: Session, cluster: str, figures: Any, *, whole: bool) -> int:
    from dataclasses import asdict

    if session.json:
        session.answer({"cluster": cluster, "whole": whole, **asdict(figures)})
    else:
        session.tell(
            f"{cluster}: recorded up to revision {figures.sealed} in lineage {figures.lineage}:"
            f" {figures.changes} changes in {figures.deltas} deltas, {figures.fulls} full backups"
        )
    return 0 if whole else 1
