"""`backstay verify`: prove that a backup or a snapshot file is whole."""

from typing import Any

import click

from backstay.cli import options
from backstay.cli.connect import subject_of
from backstay.cli.session import Session


@click.command()
@click.argument("subject", metavar="FILE|ID")
@click.option(
    "--read-data", is_flag=True, help="Decrypt what is stored, and look into it.  For IDs."
)
@options.store_optional
@options.recipients
@options.identity
@options.spool
@options.talk
@click.pass_obj
def command(session: Session, /, *, subject: str, read_data: bool, **more: Any) -> int:
    """Prove that a backup or a snapshot file is whole.

    Of a file: its SHA-256, every page, every revision and value.  Of a backup: what is stored is
    read back; with --read-data it is also decrypted and looked into.  Ends with 3 where something
    is wrong, with 4 where something could not be asked.
    """
    from backstay.cli.verdicts import answer_checks, exit_code, tell_checks
    from backstay.clock import SystemClock
    from backstay.flows.fetch import BackupSubject
    from backstay.flows.verify import verify_backup, verify_file

    clock, report = SystemClock(), session.report()
    found = subject_of(subject, more, need_identity=read_data)
    if isinstance(found, BackupSubject):
        checks = verify_backup(found, read_data=read_data, clock=clock, report=report)
    else:
        checks = verify_file(found, clock=clock, report=report)
    session.close()
    if session.json:
        session.answer(answer_checks(checks, subject=found.name))
    else:
        tell_checks(session, checks, good="whole")
    return exit_code(checks)
