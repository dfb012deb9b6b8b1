"""What one call of the program shares: how it talks, and to whom.

With --json one document goes to standard output and nothing else. People's words and
progress go to standard error then, and also where standard output is no terminal. What a
command was asked to print (a list, a status) goes to standard output either way.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from backstay.report import Event, Report


class Session:
    """One call of the program."""

    def __init__(self) -> None:
        self.json = False
        self.debug = False
        self.quiet = False
        self.log_format = "text"
        self._listener: Any = None

    @property
    def words(self) -> Any:
        """The stream for people's words."""
        return sys.stderr if self.json or not sys.stdout.isatty() else sys.stdout

    def report(self, *more: Callable[[Event], None]) -> Report:
        """Make the report of a flow; its events are shown as this session talks."""
        from backstay.cli.progress import listener
        from backstay.report import Report

        if self._listener is None:
            self._listener = listener(self)
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
            click.echo(text, file=self.words)

    def log(self, level: str, text: str, **more: Any) -> None:
        """Write one JSON log line."""
        import json
        from datetime import UTC, datetime

        line = {"time": datetime.now(UTC).isoformat(), "level": level, "message": text, **more}
        click.echo(json.dumps(line), file=sys.stderr)

    def complain(self, what: str, *, do: str) -> None:
        """Tell an error: one line."""
        if self.log_format == "json":
            self.log("error", what, **({"do": do} if do else {}))
        else:
            click.echo(f"backstay: {what}: {do}" if do else f"backstay: {what}", err=True)

    def answer(self, document: Any) -> None:
        """Print the document that --json asks for."""
        import json

        click.echo(json.dumps(document, indent=2))
