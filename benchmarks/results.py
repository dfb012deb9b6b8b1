"""What a run found, as rows of a table and as the page that keeps it."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from backstay import __version__
from benchmarks import ROOT
from benchmarks.programs import ETCDUTL, RCLONE, environment, run
from benchmarks.timing import Times

HEADINGS = ("what", "against", "on", "ours", "theirs", "ratio", "goal", "met")
METHOD = """\
Each program is started and timed whole, from outside. Ours and theirs run by turns, each once
before that without being counted; files lie in the page cache and nothing is left to be written
(`sync`) when a program starts. A time is the median of the runs, the quickest in brackets; a ratio
is that of the medians. Data come from a real etcd: see benchmarks/snapshots.py.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, and what is said about it below.

    Attributes:
        cells: under `HEADINGS`, without the last.
        met: whether the goal was met; None where there is none.
        notes: more about it.
    """

    cells: tuple[str, ...]
    met: bool | None
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The row in Markdown."""
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        return f"| {' | '.join((*self.cells, met))} |"


def compared(
    what: str,
    against: str,
    on: str,
    *,
    times: tuple[Times, Times],
    goal: float | None = None,
    notes: Sequence[str] = (),
) -> Row:
    """Make a row of two times and the ratio that they should have at most."""
    ours, theirs = times
    ratio = ours.median / theirs.median
    told = "" if goal is None else f"{goal:g}x"
    cells = (what, against, on, str(ours), str(theirs), f"{ratio:.2f}", told)
    return Row(cells, None if goal is None else ratio <= goal, tuple(notes))


def limited(what: str, on: str, ours: float, unit: str, goal: float | None = None) -> Row:
    """Make a row of one figure and what it should be at most."""
    told = "" if goal is None else f"{goal:g} {unit}"
    met = None if goal is None else ours < goal
    return Row((what, "", on, f"{ours:.0f} {unit}", "", "", told), met)


def at_least(what: str, on: str, ours: float, unit: str, goal: float) -> Row:
    """Make a row of one figure and what it should be at least."""
    cells = (what, "", on, f"{ours:,.0f} {unit}", "", "", f"{goal:,} {unit}")
    return Row(cells, ours >= goal)


def table(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table."""
    head = f"| {' | '.join(HEADINGS)} |"
    rule = f"|{'---|' * len(HEADINGS)}"
    return "\n".join([head, rule, *(row.line for row in rows), ""])


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page, which is measured together.

    Attributes:
        title: its heading, which no other has.
        text: what is under it, when and on what it was measured first.
    """

    title: str
    text: str

    @classmethod
    def of(
        cls, title: str, rows: Sequence[Row], *, words: str, machine: Sequence[str], about: str = ""
    ) -> "Section":
        """Make one of what a run found.

        Args:
            title: its heading.
            rows: what was found.
            words: the command line of the run.
            machine: on what; see `facts`.
            about: what a reader must know of how these were measured.
        """
        now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        facts = [*machine, f"load after the run: {os.getloadavg()[1]:.1f}"]
        notes = [note for row in rows for note in row.notes]
        lines = [f"Written by `{words}`, {now}.", "", *(f"- {fact}" for fact in facts), ""]
        return cls(title, "\n".join([*lines, *([about] if about else []), table(rows), *notes]))


def page(sections: Sequence[Section], before: str = "") -> str:
    """Write the page that keeps what was measured.

    Args:
        sections: of this run.
        before: the page as it was: sections of it that this run has not are kept as they are.
    """
    kept = {section.title: section for section in _sections(before)}
    kept |= {section.title: section for section in sections}
    parts = [f"## {section.title}\n\n{section.text.strip()}\n" for section in kept.values()]
    return "\n".join(["# Speed and memory\n", METHOD, *parts])


def _sections(text: str) -> Iterator[Section]:
    for part in f"\n{text}".split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        yield Section(title, body)


def facts() -> list[str]:
    """Say on what the run is made; ask before it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    machine = f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB of memory"
    theirs = [run([program, "version"]).out.splitlines()[0] for program in (ETCDUTL, RCLONE)]
    return [
        f"{machine}, Linux {platform.release()}; load before the run: {os.getloadavg()[1]:.1f}",
        f"backstay {__version__}{_commit()}, Python {platform.python_version()}",
        ", ".join(theirs),
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment()
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({done.stdout.strip()})"


def command_line() -> str:
    """Say how the run was started."""
    return " ".join(["python -m benchmarks", *sys.argv[1:]])
