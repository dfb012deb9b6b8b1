"""Shows the events of a flow: bars on a terminal, lines elsewhere, JSON lines on request."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from backstay.cli.session import Session
from backstay.cli.values import printable, show_duration, show_size
from backstay.report import Advanced, Check, Event, Finished, Judged, Said, Started, Verdict

#: Seconds between two progress lines where there is no terminal.
LINE_INTERVAL = 5.0

MARKS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.COULD_NOT_VERIFY: "yellow"}


class Listener(Protocol):
    """Takes events; is closed before anything else is printed."""

    def __call__(self, event: Event) -> None:
        """Show an event."""

    def close(self) -> None:
        """Take down what moves."""


def listener(session: Session) -> Listener:
    """Choose how this session shows events."""
    if session.log_format == "json":
        return JsonLines(session)
    words = session.words
    if words is not None and words.isatty() and not session.quiet:
        return Bars(session)
    return Lines(session)


def verdict_line(check: Check) -> str:
    """Write a verdict as one line."""
    return f"{check.verdict:<16} {check.name}: {check.detail}"


def _now() -> float:
    return time.monotonic()


@dataclass(slots=True)
class _Task:
    name: str
    total: int | None
    unit: str
    done: int = 0
    began: float = field(default_factory=_now)
    shown: float = field(default_factory=_now)

    def amount(self, number: float) -> str:
        return show_size(number) if self.unit == "bytes" else f"{number:.0f} {self.unit}"

    def ended(self) -> str:
        """Say how it went."""
        took = show_duration(_now() - self.began)
        return f"{self.name}: {self.amount(self.done)} in {took}" if self.done else self.name

    def line(self, now: float) -> str:
        seconds = max(now - self.began, 1e-6)
        rate = self.done / seconds
        text = f"{self.name}: {self.amount(self.done)}"
        if self.total:
            text += f" of {self.amount(self.total)}"
        text += f", {self.amount(rate)}/s"
        if self.total and rate and self.done < self.total:
            text += f", {show_duration((self.total - self.done) / rate)} left"
        return text


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tasks: dict[int, _Task] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        with self._lock:
            self._show(event)

    def close(self) -> None:
        """Take down what moves: nothing."""

    def _show(self, event: Event) -> None:
        match event:
            case Started(task, name, total, unit):
                self._tasks[task] = _Task(name, total, unit)
            case Advanced(task, amount):
                self._advance(self._tasks[task], amount)
            case Finished(task, ok):
                ended = self._tasks.pop(task)
                if ok:
                    self._session.tell(ended.ended())
            case Judged(check):
                self._session.tell(verdict_line(check))
            case Said(text, warning):
                self._session.tell(f"warning: {text}" if warning else text)

    def _advance(self, task: _Task, amount: int) -> None:
        task.done += amount
        now = _now()
        if now - task.shown >= LINE_INTERVAL:
            task.shown = now
            self._session.tell(task.line(now))


class JsonLines(Lines):
    """One JSON object a line, for machines that read logs."""

    def _show(self, event: Event) -> None:
        log = self._session.log
        match event:
            case Judged(check):
                level = "info" if check.verdict is Verdict.PASS else "warning"
                log(
                    level,
                    check.detail,
                    check=check.name,
                    verdict=str(check.verdict),
                    seconds=round(check.seconds, 3),
                )
            case Said(text, warning):
                log("warning" if warning else "info", text)
            case _:
                super()._show(event)


class Bars:
    """Progress bars with rate and time left, for a terminal."""

    def __init__(self, session: Session) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._console = Console(file=session.words, highlight=False)
        self._progress: Any = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[line]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[int, tuple[Any, _Task]] = {}
        self._lock = threading.Lock()
        self._moving = False

    def __call__(self, event: Event) -> None:
        """Show an event; a terminal that has gone ends no work."""
        with self._lock, suppress(OSError):
            self._show(event)

    def close(self) -> None:
        """Take down the bars."""
        with self._lock, suppress(OSError):
            self._stop()

    def _stop(self) -> None:
        if self._moving:
            self._progress.stop()
            self._moving = False

    def _show(self, event: Event) -> None:
        match event:
            case Started(task, name, total, unit):
                self._start(task, _Task(name, total, unit))
            case Advanced(task, amount):
                self._advance(task, amount)
            case Finished(task, ok):
                self._finish(task, ok=ok)
            case Judged(check):
                color = MARKS[check.verdict]
                mark = f"[{color}]{check.verdict:<16}[/] {_plain(check.name)}"
                self._console.print(f"{mark}: {_plain(check.detail)}", soft_wrap=True)
            case Said(text, warning):
                words = f"[yellow]warning:[/] {_plain(text)}" if warning else _plain(text)
                self._console.print(words, soft_wrap=True)

    def _start(self, task: int, facts: _Task) -> None:
        if not self._moving:
            self._progress.start()
            self._moving = True
        bar = self._progress.add_task(_plain(facts.name), total=facts.total, line="")
        self._tasks[task] = (bar, facts)

    def _advance(self, task: int, amount: int) -> None:
        bar, facts = self._tasks[task]
        facts.done += amount
        now = _now()
        if now - facts.shown > 0.1:
            facts.shown = now
            rate = facts.done / max(now - facts.began, 1e-6)
            line = f"{facts.amount(facts.done)}  {facts.amount(rate)}/s"
            self._progress.update(bar, completed=facts.done, line=line)

    def _finish(self, task: int, *, ok: bool) -> None:
        bar, facts = self._tasks.pop(task)
        self._progress.remove_task(bar)
        if not self._tasks:
            self._stop()
        if ok:
            self._console.print(_plain(facts.ended()), soft_wrap=True)


def _plain(text: str) -> str:
    """Let other people's words be words: no markup of ours, no codes of the terminal."""
    from rich.markup import escape

    return escape(printable(text))
