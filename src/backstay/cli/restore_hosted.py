"""`backstay restore hosted`: make manifests that restore a hosted control plane."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.connect import (
    StoreOptions,
    at_point,
    check_point,
    open_keys_repository,
    open_store,
    subject_of,
)
from backstay.cli.session import Session
from backstay.cli.transport import transport
from backstay.cli.values import Duration, FilePath
from backstay.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from backstay.flows.fetch import BackupSubject
    from backstay.flows.timetravel import PointSubject
    from backstay.kinds.hosted.recovery.rollout import RolledOut
    from backstay.kinds.hosted.restore import Made
    from backstay.repo.staging import Staging

_LIMIT = 16 << 20


@click.command("hosted")
@click.argument("subject", metavar="ID")
@options.point
@options.store
@options.keys_store
@options.recipients
@options.identity
@click.option(
    "--rendered",
    metavar="FILE",
    help="What `hcp create cluster ... --render` printed; - reads standard input.",
)
@click.option("--from-backup", is_flag=True, help="Use the resources that were saved instead.")
@click.option(
    "-o",
    "--output",
    type=FilePath(dir_okay=False, path_type=Path),
    help="Where to write the manifests (0600; they hold a key); standard output without it.",
)
@click.option(
    "--staging",
    metavar="URL",
    help="Where the plain snapshot goes for a while.  [default: beside the repository]",
)
@click.option(
    "--url-expires",
    type=Duration(),
    default="24h",
    show_default=True,
    help="For how long the presigned URL is to work; 7 days at most.",
)
@click.option("--take-saved", is_flag=True, help="Write the saved values over those that differ.")
@click.option("--force", is_flag=True, help="Go on in spite of what can be lifted.")
@click.option("--apply", "apply_", is_flag=True, help="Apply the manifests too.")
@click.option("--wait", is_flag=True, help="With --apply: wait for the restore, and prove it.")
@click.option(
    "--wait-timeout",
    type=Duration(),
    help="Patience until etcd is there, until it is restored, and until the API is available; each"
    " has its own.  [default: 20m, 2h, 1h]",
)
@click.option("--dry-run", is_flag=True, help="Print the steps, and do nothing.")
@transport
@options.kube_access
@options.spool
@options.talk
@click.pass_obj
def hosted(session: Session, /, *, subject: str, **more: Any) -> int:
    """Make manifests that restore a hosted control plane into a new cluster.

    HyperShift restores an etcd only when a cluster is made.  The snapshot is put, plain, where a
    presigned URL leads; URL and saved keys go into the manifests; what can't be changed later is
    compared with the saved cluster.
    """
    _check(more)
    if more["dry_run"]:
        return _show_steps(session, subject, more)
    from backstay.cli.verdicts import exit_code

    found, more["point"] = _subject_and_point(session, subject, more)
    staging = _staging(more)
    if more["apply_"]:
        done, made = _apply(session, found, staging, more)
        session.close()
        _tell_applied(session, made, staging, done)
        return exit_code(done.checks)
    made = _make(session, found, staging, more)
    session.close()
    _write(session, made, staging, more["output"])
    return 0


def _check(more: dict[str, Any]) -> None:
    check_point(more)
    if bool(more["rendered"]) == more["from_backup"]:
        raise UsageError(
            "the manifests come from one of two places", "give --rendered FILE or --from-backup"
        )
    if more["wait_timeout"] is not None and not more["wait"]:
        raise UsageError("--wait-timeout is there for --wait", "add --wait, or leave it out")
    if more["wait"] and not more["apply_"]:
        raise UsageError("there is nothing to wait for", "add --apply, or leave out --wait")
    if more["apply_"] and more["output"]:
        raise UsageError("manifests are applied or written", "give --apply or -o, not both")
    output = more["output"]
    if output is not None and output.exists():
        raise RefusedError(f"{output} is there already", "name another file with -o")


def _subject(text: str, more: dict[str, Any]) -> "BackupSubject":
    from backstay.flows.fetch import BackupSubject

    found = subject_of(text, more)
    if not isinstance(found, BackupSubject):
        raise UsageError(
            f"{text} is a file: it has no keys and no resources",
            "give the ID of a backup; `backstay list` has them",
        )
    return found


def _subject_and_point(
    session: Session, text: str, more: dict[str, Any]
) -> "tuple[BackupSubject, PointSubject | None]":
    """Find the backup; where a point is asked for, that, and the backup that it is made from."""
    from backstay.flows.fetch import BackupSubject
    from backstay.flows.timetravel import PointSubject

    point = at_point(_subject(text, more), more, session.report())
    found = point.base if isinstance(point, PointSubject) else point
    assert isinstance(found, BackupSubject)
    return found, point if isinstance(point, PointSubject) else None


def _staging(more: dict[str, Any]) -> "Staging":
    from backstay.clock import SystemClock
    from backstay.repo.staging import Staging, default_place

    url = more["staging"] or default_place(more["repo"])
    if url.rstrip("/") == more["repo"].rstrip("/"):
        raise UsageError(
            "the staging place is the repository itself", "name another prefix with --staging"
        )
    return Staging(open_store(replace(StoreOptions.of(more), repo=url)), SystemClock())


def _options(more: dict[str, Any]) -> Any:
    from backstay.kinds.hosted.restore import Options

    return Options(
        rendered=_rendered(more["rendered"]),
        url_seconds=round(more["url_expires"]),
        take_saved=more["take_saved"],
        force=more["force"],
        expect=more["wait"],
        point=more["point"],
    )


def _rendered(name: str | None) -> bytes | None:
    from backstay.files import read_private

    if not name:
        return None
    if name != "-":
        return read_private(Path(name), limit=_LIMIT)
    data = sys.stdin.buffer.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise UsageError(f"standard input has more than {_LIMIT} bytes", "give the manifests alone")
    return data


def _make(
    session: Session, found: "BackupSubject", staging: "Staging", more: dict[str, Any], **given: Any
) -> "Made":
    from backstay.clock import SystemClock
    from backstay.kinds.hosted.restore import make_manifests

    wanted = replace(given.pop("options", None) or _options(more), **given)
    return make_manifests(
        found,
        open_keys_repository(more),
        staging,
        wanted,
        clock=SystemClock(),
        report=session.report(),
    )


def _apply(
    session: Session, found: "BackupSubject", staging: "Staging", more: dict[str, Any]
) -> "tuple[RolledOut, Made]":
    from backstay.clock import SystemClock
    from backstay.kinds.hosted.recovery.rollout import (
        Options,
        earlier_url,
        examine,
        roll_out,
        target_of,
    )
    from backstay.kubeapi.connect import connect

    clock, wanted = SystemClock(), _options(more)
    with connect(more["kubeconfig"], more["context"]) as api:
        name, namespace = target_of(found.entry.manifest, wanted.rendered)
        restore = (wanted.point or found).name
        url = earlier_url(api, name, namespace, restore)
        made = _make(
            session,
            found,
            staging,
            more,
            options=wanted,
            url=url,
            examine=lambda text: examine(api, text, restore, force=wanted.force),
        )
        rolling = Options(
            wait=more["wait"],
            force=wanted.force,
            transport=more["transport"],
            patience=_patience(more["wait_timeout"]),
        )
        done = roll_out(api, made, staging, rolling, clock=clock, report=session.report())
    return done, made


def _patience(seconds: float | None) -> Any:
    from backstay.kinds.hosted.recovery.waiting import Options

    if seconds is None:
        return Options()
    return Options(appear=seconds, restored=seconds, available=seconds)


def _write(session: Session, made: "Made", staging: "Staging", output: Path | None) -> None:
    from backstay.files import new_file

    place = f"{staging.url}/{made.staged}"
    if output is not None:
        with new_file(output) as file:
            file.write(made.text.encode())
    if session.json:
        session.answer(_document(made, place, output))
        return
    if output is None:
        session.print(made.text, end="")
    for change in made.changes:
        session.tell(f"changed  {change}")
    if made.expires is not None:
        session.tell(f"the snapshot lies in the clear at {place}, until {made.expires:%F %H:%MZ}")
    if output is not None:
        session.tell(f"Next: oc apply -f {output}; delete it then, since it holds a key and a URL")


def _document(made: "Made", place: str, output: Path | None) -> dict[str, Any]:
    return {
        "name": made.name,
        "namespace": made.namespace,
        "backup": made.restore,
        "manifests": str(output) if output else made.text,
        "staged": place,
        "expires": made.expires and made.expires.isoformat(),
        "changes": list(made.changes),
        "warnings": list(made.warnings),
        "differences": [asdict(one) for one in made.differences],
    }


def _tell_applied(session: Session, made: "Made", staging: "Staging", done: "RolledOut") -> None:
    from backstay.cli.verdicts import answer_checks, tell_checks

    place = f"{staging.url}/{made.staged}" if made.staged else ""

    if session.json:
        session.answer(
            answer_checks(
                done.checks,
                name=made.name,
                namespace=made.namespace,
                backup=made.restore,
                created=list(done.created),
                kept=list(done.kept),
                staged=place,
                removed=done.removed,
            )
        )
        return
    session.tell(f"created {len(done.created)} objects, {len(done.kept)} were there already")
    if done.checks:
        tell_checks(session, done.checks, good="restored and proven")
        return
    if made.expires is not None:
        session.tell(f"the snapshot lies in the clear at {place}, until {made.expires:%F %H:%MZ}")
    session.tell("Next: run the same with --wait: it waits, proves, and takes that away")


def _show_steps(session: Session, subject: str, more: dict[str, Any]) -> int:
    from backstay.cli.steps import answer_steps, tell_steps
    from backstay.kinds.hosted.recovery.rollout import target_of
    from backstay.kinds.hosted.steps import restore_steps
    from backstay.repo.staging import default_place

    found = _subject(subject, more)
    name, namespace = target_of(found.entry.manifest, _rendered(more["rendered"]))
    steps = restore_steps(
        name,
        namespace=namespace,
        staging=more["staging"] or default_place(more["repo"]),
        hours=max(round(more["url_expires"] / 3600), 1),
        apply=more["apply_"],
    )
    session.close()
    if session.json:
        session.answer({"backup": found.name, "steps": answer_steps(steps)})
    else:
        tell_steps(session, steps)
    return 0
