"""What the commands that record share: how often what is done, and the recorder itself."""

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.connect import spool_directory
from backstay.cli.session import Session
from backstay.cli.values import Duration, Size
from backstay.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from backstay.client.etcd import Etcd
    from backstay.flows.ancestry import Watched
    from backstay.flows.recording.keynames import KeySaver
    from backstay.flows.recording.plan import Options
    from backstay.repo.catalogue import Repository
    from backstay.repo.manifest import Manifest

_POSITIVE = ("every", "full_every", "prove_every", "patience", "max_bytes")


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


def wanted(cluster: str, more: dict[str, Any]) -> "Options":
    """Say how is recorded.

    Args:
        cluster: the cluster's name.
        more: options of `recording`, `spool` and `sealing`.

    Raises:
        UsageError: something makes no sense.
    """
    from backstay.flows.recording.plan import Options
    from backstay.repo.name import check_cluster
    from backstay.repo.sealing import Sealing

    check_cluster(cluster)
    for name in _POSITIVE:
        if not more[name] > 0:
            raise UsageError(
                f"--{name.replace('_', '-')} is not above zero", "give more, or leave it out"
            )
    return Options(
        cluster=cluster,
        spool_dir=Path(spool_directory(more["spool_dir"])),
        sealing=Sealing(level=more["level"], threads=more["threads"]),
        **{name: more[name] for name in _POSITIVE},
    )


def follow(
    session: Session,
    etcd: "Etcd",
    repository: "Repository",
    full: "Callable[[Watched], Manifest]",
    how: "Options",
    *,
    keys: "KeySaver | None" = None,
    renew: "Callable[[], Etcd] | None" = None,
    listen: str | None,
) -> int:
    """Record until a signal comes, and say what was recorded.

    Args:
        session: of this call.
        etcd: an open client.
        repository: where to.
        full: takes full backups.
        how: how.
        keys: as the recorder takes them; so `renew`.
        renew: see there.
        listen: the address for metrics; None: nobody listens.
    """
    from backstay.clock import SystemClock
    from backstay.flows.recording.listen import serve
    from backstay.flows.recording.recorder import Recorder
    from backstay.flows.recording.tally import Figures, Tally

    clock, report = SystemClock(), session.report()
    tally, stop = Tally(Figures(began=time.time())), threading.Event()
    with ExitStack() as stack:
        if listen:
            where = stack.enter_context(serve(listen, how.cluster, tally, how, clock))
            report.say(f"metrics at http://{where}/metrics")
        stack.enter_context(session.stop.told(stop.set))
        recorder = Recorder(
            etcd,
            repository,
            full,
            how,
            tally=tally,
            clock=clock,
            report=report,
            stop=stop,
            keys=keys,
            renew=renew,
        )
        whole = recorder.run()
    session.close()
    return _tell(session, how.cluster, tally.figures, whole=whole)


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
