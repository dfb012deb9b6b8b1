"""`backstay resume`: put back what a backup had stopped, and could not put back itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.session import Session
from backstay.cli.values import Duration

if TYPE_CHECKING:
    from backstay.kinds.hosted.quiescing.resume import Resumed


@click.group()
def command() -> None:
    """Put a quiesced control plane back."""


@command.command("hosted")
@click.argument("name")
@options.kube
@click.option(
    "--timeout",
    type=Duration(),
    default="10m",
    show_default=True,
    help="Patience with the control plane, until it is seen to be as it was; 0s does not look.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
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
    timeout: float,
    dry_run: bool,
) -> int:
    """Put back what `backup hosted --quiesce` had stopped, whatever killed it.

    All that it takes is in annotations of the objects themselves, so it works from any machine, and
    as often as you like.  Where another backup is at work right now, it ends that one's quiet.
    """
    from backstay.clock import SystemClock
    from backstay.kinds.hosted.quiescing.resume import resume
    from backstay.kubeapi.connect import connect

    with connect(kubeconfig, context) as api:
        resumed = resume(
            api,
            name,
            namespace,
            clock=SystemClock(),
            report=session.report(),
            dry_run=dry_run,
            patience=timeout,
        )
    session.close()
    if session.json:
        session.answer(_document(resumed, dry_run=dry_run))
    else:
        _tell(session, resumed, dry_run=dry_run)
    return _code(resumed)


def _code(resumed: "Resumed") -> int:
    from backstay.errors import NotVerifiedError

    proof = resumed.proof
    return NotVerifiedError.exit_code if proof is not None and not proof.back else 0


def _tell(session: Session, resumed: "Resumed", *, dry_run: bool) -> None:
    done, proof = resumed.put_back, resumed.proof
    if not done.changes:
        session.tell(f"nothing to put back: {done.cluster} is not quiesced")
    for change in done.changes:
        session.tell(f"{change.subject}: {change.what}")
        if dry_run:
            session.print(change.command)
    if proof is not None and proof.back:
        session.tell(f"{done.cluster} is as it was: {proof.detail}")


def _document(resumed: "Resumed", *, dry_run: bool) -> dict[str, Any]:
    from backstay.kinds.hosted.quiescing.record import stamp

    done, proof, record = resumed.put_back, resumed.proof, resumed.put_back.record
    return {
        "cluster": done.cluster,
        "dry_run": dry_run,
        "quiesced_by": record
        and {"run": record.run, "host": record.by, "since": stamp(record.since)},
        "changes": [
            {"object": change.subject, "change": change.what, "command": change.command}
            for change in done.changes
        ],
        "left": list(done.left),
        "as_it_was": None if proof is None else proof.back,
        "detail": "" if proof is None else proof.detail,
    }
