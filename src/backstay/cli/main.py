"""The entry point: the tree of commands, and what an error looks like from outside.

Commands are loaded when they are called, so that `backstay --version` and completion stay
instant.
"""

import errno
import os
import sys
from importlib import import_module
from io import TextIOWrapper

import click

from backstay import __version__
from backstay.cli.session import Session
from backstay.cli.stop import WORDS, Stop, leave
from backstay.cli.values import FilePath
from backstay.errors import BackstayError, SpaceError

#: Name of each command: its module below this package and its line in the help.
COMMANDS = {
    "init": ("init", "Make a repository."),
    "keygen": ("keygen", "Make a key pair for a repository."),
    "preflight": ("preflight", "Look whether a backup would work."),
    "backup": ("backup", "Back up a cluster."),
    "list": ("listing", "List the backups of a repository."),
    "show": ("show", "Print the manifest of a backup."),
    "pin": ("pin", "Keep a backup from being pruned."),
    "unpin": ("unpin", "Let a prune decide on a backup again."),
    "prune": ("prune", "Say which backups to keep, and remove the others."),
    "consolidate": ("consolidate", "Make a full backup from an old one and its deltas."),
    "verify": ("verify", "Prove that a backup or a snapshot file is whole."),
    "drill": ("drill", "Restore a backup into a throw-away etcd and compare."),
    "export": ("export", "Write a backup as a stock snapshot file."),
    "record": ("record", "Record all changes of a cluster until stopped."),
    "timeline": ("timeline", "Show what can be restored, and what can't."),
    "restore": ("restore", "Restore a backup."),
    "import": ("importing", "Take in backups that other tools made."),
    "resume": ("resume", "Put a quiesced control plane back."),
    "recipients": ("recipients", "Say who can read what comes, and what is there."),
    "rewrap": ("rewrap", "Seal backups anew, to the recipients of now."),
    "metrics": ("metrics", "Print what Prometheus is to know of a repository."),
    "status": ("status", "Print what `etcdutl snapshot status` prints."),
    "hashkv": ("hashkv", "Print what the HashKV call would answer, from the file alone."),
    "completion": ("completion", "Print a script that makes a shell complete."),
    "demo": ("demo", "See the main job on real servers, in a minute."),
}

INTERRUPTED = 130
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; say which one may have been meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"there is no command {args[0]!r}: {meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="backstay %(version)s")
@click.option(
    "--config",
    type=FilePath(dir_okay=False),
    envvar="BACKSTAY_CONFIG",
    help="Settings file; else ./backstay.toml, then in ~/.config/backstay, then in /etc.",
)
@click.pass_context
def backstay(ctx: click.Context, config: str | None) -> None:
    """Back up etcd, prove that the backups restore, and restore them."""
    from backstay.cli.settings import find_settings

    name = ctx.invoked_subcommand
    command = backstay.get_command(ctx, name) if name else None
    found = find_settings(config)
    if found is not None and name and command:
        ctx.default_map = {name: found.defaults_of(name, command, COMMANDS)}


def main(arguments: list[str], stop: Stop | None = None) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name.
        stop: knows of the signals that came to this process.

    Returns:
        The exit code of the process.
    """
    stop = stop or Stop()
    session = Session(stop)
    try:
        code = backstay.main(arguments, prog_name="backstay", standalone_mode=False, obj=session)
    except SystemExit:
        raise  # shell completion ends so, and click where the reader of our output has gone
    except BaseException as error:  # noqa: BLE001 - the last stop before the user
        return _finish(session, _tell(session, error, stop))
    return _finish(session, code if isinstance(code, int) else 0)


def _finish(session: Session, code: int) -> int:
    """Leave the metrics of a run that was asked for them, however it ended."""
    if session.measured is None:
        return code
    from backstay.cli.measured import finish

    return finish(session, code)


def _tell(session: Session, error: BaseException, stop: Stop) -> int:
    """Say how it ended, and give the exit code."""
    session.close()
    if session.debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    what, do, code = _ending(error, stop)
    session.complain(what, do=do)
    return code


def _ending(error: BaseException, stop: Stop) -> tuple[str, str, int]:
    """What happened, what to do about it, and the exit code."""
    if stop.code is not None:
        # Whatever error the way out ended in: a library may have put its own over ours.
        return WORDS[stop.code], "", stop.code
    if isinstance(error, BackstayError):
        return error.what, error.do, error.exit_code
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f"see `{context.command_path} --help`" if context else ""
        return error.format_message().rstrip("."), hint, error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return WORDS[INTERRUPTED], "", INTERRUPTED
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return str(error.strerror), "free some space", SpaceError.exit_code
    return (
        f"this is a defect of backstay: {type(error).__name__}",
        "run it again with --debug and report the traceback",
        DEFECT,
    )


def _prepare_streams() -> None:
    """Make standard streams that can be written to, whatever the caller left of them."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # Else the next file that is opened gets its number, and the words of a library.
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Names of files need not be text of the terminal's encoding.
            stream.reconfigure(errors="backslashreplace")


def run() -> None:
    """Run the command line of this process."""
    _prepare_streams()
    stop = Stop()
    stop.listen()
    # Not through the interpreter's own end: threads of the object store's library, which are not
    # Python's, may wake up while it is taken down, and the exit code is that of a crash then.
    leave(main(sys.argv[1:], stop))


if __name__ == "__main__":
    run()
