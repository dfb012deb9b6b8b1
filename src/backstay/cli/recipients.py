"""`backstay recipients`: who can read what a repository gets, and what it has."""

from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.complete import clusters
from backstay.cli.connect import StoreOptions, open_repository, read_identities
from backstay.cli.session import Session

if TYPE_CHECKING:
    from backstay.repo.catalogue import Repository
    from backstay.repo.config import Config
    from backstay.report import Check

_MARKS = {"PASS": "yes", "FAIL": "NO"}


@click.group()
def command() -> None:
    """Say who can read what comes, and what is there.

    What lies in the repository keeps the recipients that it was sealed to; a change counts for
    what is written from then on.
    """


@command.command("list")
@options.store
@options.recipients
@options.talk
@click.pass_obj
def list_(session: Session, /, *, recipient: tuple[str, ...], **store: Any) -> None:
    """List the recipients of now, and earlier ones that can still read something."""
    from backstay.cli.tables import columns
    from backstay.flows.recipients import readers

    repository = open_repository(StoreOptions.of(store), recipient)
    found = readers(repository)
    if session.json:
        listed = [
            {
                "recipient": one.recipient,
                "current": one.current,
                "since": one.since.isoformat() if one.since else None,
                "holdings": one.holdings,
            }
            for one in found
        ]
        session.answer({**_config(repository.config), "readers": listed})
        return
    rows = [("RECIPIENT", "SINCE", "CAN READ")]
    rows += [
        (
            one.recipient,
            f"{one.since:%Y-%m-%d %H:%M:%SZ}" if one.since else "removed",
            f"{one.holdings} {_what(repository)}",
        )
        for one in found
    ]
    session.print(columns(rows))


@command.command()
@click.argument("new", metavar="AGE1...")
@options.store
@options.recipients
@options.talk
@click.pass_obj
def add(session: Session, /, *, new: str, recipient: tuple[str, ...], **store: Any) -> None:
    """Let one more recipient read what is written from now on."""
    from backstay.clock import SystemClock
    from backstay.flows import recipients

    repository = open_repository(StoreOptions.of(store), recipient)
    config = recipients.add(repository, new, SystemClock())
    _tell_change(session, repository, config, pinned=bool(recipient))


@command.command()
@click.argument("old", metavar="AGE1...")
@options.store
@options.recipients
@options.talk
@click.pass_obj
def remove(session: Session, /, *, old: str, recipient: tuple[str, ...], **store: Any) -> None:
    """Seal what is written from now on without a recipient; what is there it can still read."""
    from backstay.clock import SystemClock
    from backstay.flows import recipients

    repository = open_repository(StoreOptions.of(store), recipient)
    config = recipients.remove(repository, old, SystemClock())
    _tell_change(session, repository, config, pinned=bool(recipient))


@command.command()
@click.option("--cluster", shell_complete=clusters, help="Only what is of this cluster.")
@options.store
@options.recipients
@options.identity
@options.talk
@click.pass_obj
def check(
    session: Session,
    /,
    *,
    cluster: str | None,
    recipient: tuple[str, ...],
    identity: str | None,
    **store: Any,
) -> int:
    """Say which backups an identity can't open, from the first bytes of each object.

    Of a repository for keys: which keyrings.  Ends with 3 where there is one that it can't open,
    with 4 where one could not be looked at.
    """
    from backstay.cli.verdicts import answer_checks, exit_code
    from backstay.clock import SystemClock
    from backstay.errors import UsageError
    from backstay.flows.recipients import check_openable

    identities = read_identities(identity)
    if identities is None:
        raise UsageError("no identity to try is given", "use --identity or BACKSTAY_IDENTITY")
    repository = open_repository(StoreOptions.of(store), recipient)
    checks = check_openable(
        repository, identities, cluster=cluster, clock=SystemClock(), report=session.report()
    )
    session.close()
    if session.json:
        session.answer(answer_checks(checks, identity=identities.name))
    else:
        _tell_openable(session, repository, checks)
    return exit_code(checks)


def _tell_openable(session: Session, repository: "Repository", checks: "tuple[Check, ...]") -> None:
    from backstay.cli.tables import columns
    from backstay.report import Verdict

    good = [one for one in checks if one.verdict is Verdict.PASS]
    rows = [("NAME", "OPENS", "DETAIL")]
    rows += [(one.name, _MARKS.get(one.verdict, "?"), one.detail) for one in checks]
    session.print(columns(rows))
    session.tell(f"{len(good)} of {len(checks)} {_what(repository)} can be opened")


def _tell_change(
    session: Session, repository: "Repository", config: "Config", *, pinned: bool
) -> None:
    from backstay.cli.tables import columns

    if session.json:
        session.answer(_config(config))
        return
    url = repository.store.url
    session.tell(f"{url} is sealed to {len(config.recipients)} from now on")
    session.tell(columns([("", name) for name in config.recipients]))
    what = _what(repository)
    session.tell(f"Its {what} of before keep theirs: `backstay rewrap` seals them anew.")
    if pinned:
        session.tell("Mend what is pinned (--recipient, backstay.toml): the old set is refused.")


def _config(config: "Config") -> dict[str, Any]:
    return {
        "repository": config.repository,
        "role": str(config.role),
        "generation": config.generation,
        "recipients": list(config.recipients),
    }


def _what(repository: "Repository") -> str:
    return "keyrings" if repository.config.role == "keys" else "backups"
