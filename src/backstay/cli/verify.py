"""`backstay verify`: prove that a backup or a snapshot file is whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.connect import subject_of
from backstay.cli.session import Session
from backstay.errors import UsageError

if TYPE_CHECKING:
    from backstay.flows.verify import KeyQuestion

#: More than any EncryptionConfiguration has.
_LIMIT = 1 << 20


@click.command()
@click.argument("subject", metavar="FILE|ID")
@click.option(
    "--read-data", is_flag=True, help="Decrypt what is stored, and look into it.  For IDs."
)
@click.option(
    "--encryption-config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Try the keys of a kube-apiserver's EncryptionConfiguration on what is encrypted.",
)
@click.option("--prove-all", is_flag=True, help="Try them on every value, not on samples.")
@options.store_optional
@options.recipients
@options.identity
@options.spool
@options.talk
@click.pass_obj
def command(
    session: Session,
    /,
    *,
    subject: str,
    read_data: bool,
    encryption_config: Path | None,
    prove_all: bool,
    **more: Any,
) -> int:
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
    question = _question(encryption_config, prove_all=prove_all)
    found = subject_of(subject, more, need_identity=read_data)
    if isinstance(found, BackupSubject):
        if question and not read_data:
            raise UsageError("keys are tried on what is decrypted", "add --read-data")
        verified = verify_backup(found, question, read_data=read_data, clock=clock, report=report)
    else:
        verified = verify_file(found, question, clock=clock, report=report)
    session.close()
    if session.json:
        proof = {"keys": verified.keys.to_json()} if verified.keys else {}
        session.answer(answer_checks(verified.checks, subject=found.name, **proof))
    else:
        tell_checks(session, verified.checks, good="whole")
    return exit_code(verified.checks)


def _question(path: Path | None, *, prove_all: bool) -> "KeyQuestion | None":
    from backstay.files import read_private
    from backstay.flows.verify import KeyQuestion
    from backstay.kubedata.configuration import parse_configuration

    if path is None:
        return None
    configuration = parse_configuration(read_private(path, limit=_LIMIT), name=str(path))
    return KeyQuestion(configuration=configuration, prove_all=prove_all)
