"""The entry point: the tree of commands, and what an error looks like from outside.

Commands are loaded when they are called, so that `backstay --version` and completion stay
instant.
"""

import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

import click

from backstay import __version__
from backstay.cli.session import Session
from backstay.errors import BackstayError

#: Name of each command: its module below this package and its line in the help.
COMMANDS = {
    "init": ("init", "Make a repository."),
    "keygen": ("keygen", "Make a key pair for a repository."),
    "preflight": ("preflight", "Look whether a backup would work."),
    "backup": ("backup", "Back up a cluster."),
    "list": ("listing", "List the backups of a repository."),
    "show": ("show", "Print the manifest of a backup."),
    "verify": ("verify", "Prove that a backup or a snapshot file is whole."),
    "drill": ("drill", "Restore a backup into a throw-away etcd and compare."),
    "export": ("export", "Write a backup as a stock snapshot file."),
    "restore": ("restore", "Restore a backup."),
    "status": ("status", "Print what `etcdutl snapshot status` prints."),
    "hashkv": ("hashkv", "Print what the HashKV call would answer, from the file alone."),
    "demo": ("demo", "See the main job on real servers, in a minute."),
}

INTERRUPTED = 130
TERMINATED = 143
DEFECT = 1


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of a backup's life."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"backstay.cli.{COMMANDS[cmd_name][0]}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="backstay %(version)s")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    envvar="BACKSTAY_CONFIG",
    help="Settings file; else ./backstay.toml, then in ~/.config/backstay, then in /etc.",
)
@click.pass_context
def backstay(ctx: click.Context, config: str | None) -> None:
    """Back up etcd, prove that the backups restore, and restore them."""
    from backstay.cli.settings import default_map, find_settings

    ctx.default_map = default_map(find_settings(config), COMMANDS)


class Terminated(BaseException):
    """SIGTERM came: everything is put back on the way out."""


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    del signum, frame
    raise Terminated


def main(arguments: list[str]) -> int:
    """Run one command line.

    Returns:
        The exit code of the process.
    """
    session = Session()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = backstay.main(arguments, prog_name="backstay", standalone_mode=False, obj=session)
    except (BackstayError, click.ClickException, click.Abort) as error:
        return _tell(session, error)
    except (KeyboardInterrupt, Terminated) as stop:
        session.close()
        term = isinstance(stop, Terminated)
        session.complain("stopped" if term else "interrupted", do="")
        return TERMINATED if term else INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone: nobody is left to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DEFECT
    except Exception as error:  # noqa: BLE001 - the last stop before the user
        return _tell_defect(session, error)
    return code if isinstance(code, int) else 0


def _tell(session: Session, error: Any) -> int:
    session.close()
    _trace(session, error)
    if isinstance(error, BackstayError):
        session.complain(error.what, do=error.do)
        return error.exit_code
    if isinstance(error, click.Abort):
        session.complain("interrupted", do="")
        return INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context else ""
    session.complain(error.format_message().rstrip("."), do=hint)
    return int(error.exit_code)


def _trace(session: Session, error: BaseException) -> None:
    if session.debug:
        import traceback

        traceback.print_exception(error)


def _tell_defect(session: Session, error: Exception) -> int:
    session.close()
    _trace(session, error)
    session.complain(
        f"this is a defect of backstay: {type(error).__name__}",
        do="run it again with --debug and report the traceback",
    )
    return DEFECT


def run() -> None:
    """Run the command line of this process."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
