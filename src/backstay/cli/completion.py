"""`backstay completion`: a shell's script that completes commands, options and backups."""

import click

from backstay.cli import options
from backstay.cli.session import Session

SHELLS = ("bash", "zsh", "fish")
#: click's name for the variable through which a shell's script asks.
VARIABLE = "_BACKSTAY_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@options.talk
@click.pass_obj
def command(session: Session, /, *, shell: str) -> None:
    """Print the script that makes a shell complete what is typed.

    \b
    bash:  source <(backstay completion bash)
           or for all users: backstay completion bash > /etc/bash_completion.d/backstay
    zsh:   source <(backstay completion zsh)
    fish:  backstay completion fish > ~/.config/fish/completions/backstay.fish

    IDs and clusters are completed where the repository is a directory (file://): a key that is
    pressed waits for no network.
    """  # noqa: D301 - click wants the character, not how it is written
    from click.shell_completion import ShellComplete, get_completion_class

    found = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    if found is None:  # click knows all of SHELLS
        raise click.UsageError(f"there is no completion for {shell}")
    # Without the look at the version of a bash here: the script may be for another machine.
    script = ShellComplete.source(found(root, {}, "backstay", VARIABLE))
    if session.json:
        session.answer({"shell": shell, "script": script})
    else:
        session.print(script)
