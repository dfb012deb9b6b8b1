"""What one call of the program shares: how it talks, and to whom.

With --json one document goes to standard output and nothing else. People's words and
progress go to standard error then, and also where standard output is no terminal. What a
command was asked to print (a list, a status) goes to standard output either way.

Words that nobody can read any more (a closed pipe, a full disk under a log) are dropped: they end
no backup. What a command was asked to print is not dropped in silence.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from backstay.cli.stop import Stop
from backstay.cli.values import printable
from backstay.errors import BackstayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from backstay.cli.measured import Measured
    from backstay.report import Event, Report


class Session:
    """One call of the program.

    Args:
        stop: knows of the signals that came to this process.
    """

    def __init__(self, stop: Stop | None = None) -> None:
        self.stop = stop or Stop()
        self.json = False
        self.debug = False
        self.quiet = False
        self.log_format = "text"
        self.measured: Measured | None = None
        self._listener: Any = None

    @property
    def words(self) -> Any:
        """The stream for people's words; None where the caller has closed it."""
        out = sys.stdout
        return out if not self.json and out is not None and out.isatty() else sys.stderr

    def report(self, *more: Callable[[Event], None]) -> Report:
        """Make the report of a flow; its events are shown as this session talks."""
        from backstay.cli.progress import listener
        from backstay.report import Report

        if self._listener is None:
            self._listener = listener(self)
        if self.measured is not None:
            more = (*more, self.measured)
        return Report(self._listener, *more)

    def close(self) -> None:
        """Take down what moves on the terminal."""
        if self._listener is not None:
            with suppress(Exception):
                self._listener.close()

    def tell(self, text: str = "") -> None:
        """Say something to people."""
        if self.quiet:
            return
        if self.log_format == "json":
            self.log("info", text)
        else:
            _say(printable(text, keep="\n"), self.words)

    def log(self, level: str, text: str, **more: Any) -> None:
        """Write one JSON log line."""
        import json
        from datetime import UTC, datetime

        line = {"time": datetime.now(UTC).isoformat(), "level": level, "message": text, **more}
        _say(json.dumps(line), sys.stderr)

    def complain(self, what: str, *, do: str) -> None:
        """Tell an error: one line."""
        if self.log_format == "json":
            self.log("error", what, **({"do": do} if do else {}))
        else:
            words = f"backstay: {what}: {do}" if do else f"backstay: {what}"
            _say(printable(" ".join(words.split())), sys.stderr)

    def answer(self, document: Any) -> None:
        """Print the document that --json asks for.

        Raises:
            BackstayError: standard output takes no more; a closed pipe passes as it is.
        """
        import json

        _print(json.dumps(document, indent=2) + "\n")

    def print(self, text: str, end: str = "\n") -> None:
        """Print what a command was asked for.

        Raises:
            BackstayError: standard output takes no more; a closed pipe passes as it is.
        """
        _print(printable(text, keep="\n") + end)


def _print(text: str) -> None:
    if sys.stdout is None:
        raise BackstayError("there is no standard output to write the answer to", "open one")
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:
        raise
    except OSError as error:
        mute(sys.stdout)
        raise BackstayError(
            f"the answer can't be written to standard output: {error.strerror}",
            "run it again with standard output elsewhere",
        ) from error


def _say(text: str, stream: Any) -> None:
    if stream is None:
        return
    try:
        click.echo(text, file=stream)
    except OSError:
        mute(stream)


def mute(stream: Any) -> None:
    """Let what is written to a stream go nowhere: what it still holds too, at our end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, stream.fileno())
        os.close(null)
