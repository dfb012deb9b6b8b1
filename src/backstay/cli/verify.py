"""`backstay verify`: prove that a backup or a snapshot file is whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from backstay.cli import options
from backstay.cli.complete import subjects
from backstay.cli.connect import is_file, open_keys_repository, subject_of
from backstay.cli.measured import metrics_file
from backstay.cli.session import Session
from backstay.errors import UsageError

if TYPE_CHECKING:
    from backstay.flows.fetch import BackupSubject, FileSubject
    from backstay.flows.partner import Partner
    from backstay.flows.verify import KeyQuestion
    from backstay.repo.catalogue import Repository

#: More than any EncryptionConfiguration has.
_LIMIT = 1 << 20


@click.command()
@click.argument("subject", metavar="FILE|ID", shell_complete=subjects)
@click.option(
    "--read-data", is_flag=True, help="Decrypt what is stored, and look into it.  For IDs."
)
@click.option(
    "--encryption-config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Try the keys of a kube-apiserver's EncryptionConfiguration on what is encrypted.",
)
@click.option("--prove-all", is_flag=True, help="Try keys on every value, not on samples.")
@options.accepting
@options.keys_store
@options.store_optional
@options.recipients
@options.identity
@options.spool
@metrics_file
@options.talk
@click.pass_context
def command(
    ctx: click.Context,
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
    read back; with --read-data it is also decrypted and looked into.  With --keys-repo the saved
    keys are tried on what is encrypted in it, and data is read for that; of an OKD control plane
    the static pod resources are looked at, too, which needs no identity.  Ends with 3 where
    something is wrong, with 4 where something could not be asked.
    """
    from backstay.cli.verdicts import answer_checks, exit_code, tell_checks
    from backstay.clock import SystemClock
    from backstay.flows.fetch import BackupSubject
    from backstay.flows.verify import verify_backup, verify_file

    session = ctx.ensure_object(Session)
    named = ctx.get_parameter_source("keys_repo") is ParameterSource.COMMANDLINE
    if named and encryption_config:
        raise UsageError(
            "--keys-repo and --encryption-config are two places for keys", "give one of them"
        )
    if encryption_config and not (read_data or is_file(subject)):
        raise UsageError("keys are tried on what is decrypted", "add --read-data")
    clock, report = SystemClock(), session.report()
    found = subject_of(subject, more, need_identity=read_data)
    partner = _partner(found, more)
    if named and not (partner and partner.identities is None):
        read_data = True
    question = (
        _configured(encryption_config, prove_all=prove_all)
        if encryption_config
        else _saved(found, more, named=named and read_data, prove_all=prove_all)
    )
    if isinstance(found, BackupSubject):
        verified = verify_backup(
            found,
            question,
            partner=partner.ask if partner else None,
            read_data=read_data,
            clock=clock,
            report=report,
        )
    else:
        verified = verify_file(found, question, clock=clock, report=report)
    session.close()
    if session.json:
        proof = {"keys": verified.keys_as_json()} if verified.keys else {}
        session.answer(answer_checks(verified.checks, subject=found.name, **proof))
    else:
        tell_checks(session, verified.checks, good="whole", accepted=more["accepted"])
    return exit_code(verified.checks, more["accepted"])


def _partner(found: "BackupSubject | FileSubject", more: dict[str, Any]) -> "Partner | None":
    """Look at what lies with the keys, where the backup has something there."""
    from backstay.flows.fetch import BackupSubject
    from backstay.flows.partner import Partner

    if not isinstance(found, BackupSubject) or not more["keys_repo"]:
        return None
    manifest = found.entry.manifest
    if manifest.okd is None:
        return None
    return Partner(manifest, lambda: open_keys_repository(more), found.identities, found.spool_dir)


def _configured(path: Path, *, prove_all: bool) -> "KeyQuestion":
    """Try the keys of a file."""
    from backstay.files import read_private
    from backstay.flows.keyring import Known
    from backstay.flows.verify import KeyQuestion
    from backstay.kubedata.configuration import parse_configuration

    configuration = parse_configuration(read_private(path, limit=_LIMIT), name=str(path))
    known = Known(configurations=(configuration,))
    return KeyQuestion(known=lambda _: known, prove_all=prove_all)


def _saved(
    found: "BackupSubject | FileSubject", more: dict[str, Any], *, named: bool, prove_all: bool
) -> "KeyQuestion | None":
    """Try the keys that were saved.

    A repository for keys that only a variable or the settings name is used where there is
    something to try, and an identity to open it with: who wants to know less is not stopped.
    """
    from backstay.cli.connect import no_identity, read_identities
    from backstay.flows.fetch import BackupSubject
    from backstay.flows.keymatch import FileKeys
    from backstay.flows.keyring import BackupKeys
    from backstay.flows.verify import KeyQuestion

    def opened() -> "Repository":
        return open_keys_repository(more)

    identities = read_identities(more["identity"]) if more["keys_repo"] else None
    if named and identities is None:
        raise no_identity("saved keys")
    if identities is None:
        return None
    keys: BackupKeys | FileKeys
    if isinstance(found, BackupSubject):
        manifest = found.entry.manifest
        # An OKD backup that came without keys has its question for that: `partner`.
        if manifest.keyring is None and (not named or manifest.okd is not None):
            return None
        keys = BackupKeys(manifest, opened, identities)
    else:
        keys = FileKeys(opened, identities)
    if named:
        keys.prepare()
    return KeyQuestion(known=keys, prove_all=prove_all, by_the_way=not named)
