"""The option --metrics-file: a run leaves a line that says how it ended, whatever ended it."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from backstay.cli.session import Session
from backstay.cli.values import FilePath
from backstay.errors import BackstayError, UsageError
from backstay.report import Event, Judged, Verdict

F = TypeVar("F", bound=Callable[..., Any])


class Measured:
    """The textfile of a run, until it is over.

    Args:
        path: of the textfile.
        context: of the command; its parameters say what it was about.
    """

    def __init__(self, path: Path, context: click.Context) -> None:
        self._path = path
        self._context = context
        self._began = time.monotonic()
        self._verdicts: Counter[Verdict] = Counter()

    def __call__(self, event: Event) -> None:
        """Count a verdict."""
        if isinstance(event, Judged):
            self._verdicts[event.check.verdict] += 1

    def end(self, code: int) -> None:
        """Write how the run ended.

        A command line that made so little sense that no cluster is known was no run, nor is what
        only looks at what would be done.

        Raises:
            BackstayError: the file can't be written.
        """
        from backstay.flows.runfile import Run, write_run
        from backstay.repo.measure import Verdicts

        words = self._context.params
        cluster = _cluster(words)
        looked = words.get("dry_run") or words.get("yes") is False
        if looked or (code == UsageError.exit_code and not cluster):
            return
        run = Run(
            command=self._context.command_path.removeprefix("backstay "),
            cluster=cluster,
            repository=str(words.get("repo") or ""),
            ended=time.time(),
            seconds=round(time.monotonic() - self._began, 3),
            code=code,
            verdicts=Verdicts.of(self._verdicts.elements()),
        )
        write_run(self._path, run)


def _cluster(words: dict[str, Any]) -> str:
    """Name the cluster that a command line is about; empty where it names none."""
    from backstay.cli.connect import is_file
    from backstay.repo.name import CLUSTER

    subject = str(words.get("subject") or "")
    hosted = f"{words.get('namespace')}.{words.get('name')}" if words.get("namespace") else ""
    of_subject = "" if not subject or is_file(subject) else subject.partition("/")[0]
    found = str(words.get("cluster") or of_subject or hosted)
    # What is no name is other people's words, which make no label.
    return found if CLUSTER.fullmatch(found) else ""


def _callback(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    del param
    session = ctx.find_object(Session)
    if session is not None and value is not None:
        session.measured = Measured(value, ctx)


def metrics_file(function: F) -> F:
    """Say where a run leaves how it ended."""
    return click.option(
        "--metrics-file",
        type=FilePath(dir_okay=False, path_type=Path),
        envvar="BACKSTAY_METRICS_FILE",
        expose_value=False,
        callback=_callback,
        help="A file for node_exporter's textfile collector: how this run ended, and when one last"
        " ended well.  [env: BACKSTAY_METRICS_FILE]",
    )(function)


def finish(session: Session, code: int) -> int:
    """Write how a run ended, where that was asked for.

    Returns:
        The exit code of the process: that of the run, but 1 where it went well and could not be
        written down, since a monitor would see a failure, too.
    """
    if session.measured is None:
        return code
    try:
        session.measured.end(code)
    except BackstayError as error:
        session.complain(f"how the run ended could not be written down: {error.what}", do=error.do)
        return code or BackstayError.exit_code
    return code
