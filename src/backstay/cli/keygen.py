"""`backstay keygen`: make a key pair for a repository."""

from pathlib import Path

import click

from backstay.cli import options
from backstay.cli.session import Session
from backstay.cli.values import FilePath


@click.command()
@click.option(
    "-o",
    "--output",
    type=FilePath(dir_okay=False, path_type=Path),
    help="Where to write the identity; standard output without it.",
)
@options.talk
@click.pass_obj
def command(session: Session, /, *, output: Path | None) -> None:
    """Make an age key pair: the identity (private key) and its recipient (public key).

    Keep the identity where the backups are not: who has it can read them, and without it nobody
    can.  The recipient goes into `backstay init`.
    """
    from backstay.clock import SystemClock
    from backstay.repo.identity import generate, write_identity

    text, recipient = generate(SystemClock().now())
    if output is None and session.json:
        session.answer({"identity": text, "recipient": recipient})
    elif output is None:
        session.print(text, end="")
        session.tell(f"Public key: {recipient}")
    else:
        write_identity(output, text)
        if session.json:
            session.answer({"path": str(output), "recipient": recipient})
        else:
            session.tell(f"Public key: {recipient}")
            session.tell(
                f"Keep {output} safe, and not beside the backups: nothing else opens them."
            )
