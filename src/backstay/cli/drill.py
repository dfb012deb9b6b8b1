"""`backstay drill`: restore a backup into a throw-away etcd and compare."""

from pathlib import Path
from typing import Any

import click

from backstay.cli import options
from backstay.cli.complete import subjects
from backstay.cli.connect import at_point, check_point, spool_directory, subject_of
from backstay.cli.measured import metrics_file
from backstay.cli.points import point_facts
from backstay.cli.session import Session
from backstay.cli.values import FilePath


@click.command()
@click.argument("subject", metavar="ID|FILE", shell_complete=subjects)
@click.option("--etcd", type=FilePath(path_type=Path), help="The etcd to use.")
@click.option("--etcdutl", type=FilePath(path_type=Path), help="The etcdutl to use.")
@options.point
@options.store_optional
@options.recipients
@options.identity
@options.spool
@metrics_file
@options.talk
@click.pass_obj
def command(
    session: Session,
    /,
    *,
    subject: str,
    etcd: Path | None,
    etcdutl: Path | None,
    spool_dir: str | None,
    **more: Any,
) -> int:
    """Restore a backup into a throw-away etcd, compare with the original, and say how long it took.

    The etcd listens on sockets that nobody else can reach, and is gone at the end.  It needs room
    for two copies in --spool-dir.
    """
    from backstay.cli.verdicts import answer_checks, exit_code, tell_checks
    from backstay.clock import SystemClock
    from backstay.flows.drill import drill, find_tools
    from backstay.flows.fetch import BackupSubject
    from backstay.flows.verify import write_down
    from backstay.repo.note import DRILL

    clock, report = SystemClock(), session.report()
    workplace = spool_directory(spool_dir)
    words = {**more, "spool_dir": spool_dir}
    check_point(words)
    found = at_point(subject_of(subject, words), words, report)
    tools = find_tools(found, etcd, etcdutl)
    drilled = drill(found, tools, workplace, clock=clock, report=report)
    if isinstance(found, BackupSubject):
        seconds = drilled.seconds
        write_down(found, DRILL, drilled.checks, seconds=seconds, clock=clock, report=report)
    session.close()
    if session.json:
        facts = {"subject": found.name, "seconds": round(drilled.seconds, 3), "etcd": drilled.etcd}
        session.answer(answer_checks(drilled.checks, **facts, **point_facts(found)))
    else:
        tell_checks(session, drilled.checks, good=f"restored in {drilled.seconds:.1f} s, and equal")
    return exit_code(drilled.checks)
