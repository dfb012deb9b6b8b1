"""The programs that are measured: found, run as a user runs them, and timed whole."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ROOT
from kit.needs import binary

BACKSTAY = str(Path(sys.executable).parent / "backstay")
ETCDUTL = str(binary("etcdutl"))
ETCDCTL = str(binary("etcdctl"))
RCLONE = str(binary("rclone"))
#: Settings of whoever starts the run, which would decide what is measured.
_FOREIGN = ("AWS_", "BACKSTAY_", "ETCD", "PYTHON", "RCLONE_")


@dataclass(frozen=True, slots=True)
class Run:
    """How a program ran.

    Attributes:
        seconds: from its start to its end, by the clock on the wall.
        cpu: seconds that it, and what it started, worked.
        out: its standard output.
    """

    seconds: float
    cpu: float
    out: str


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the environment of a user who has set these variables, and none that concern us."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**kept, **(variables or {})}


def run(command: Sequence[object], variables: Mapping[str, str] | None = None) -> Run:
    """Run a program to its end; that it ends well is part of what is measured."""
    words = [str(word) for word in command]
    before, began = _cpu(), time.perf_counter()
    done = subprocess.run(
        words,
        env=environment(variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    ended_well(words, done.returncode, done.stderr or done.stdout)
    return Run(seconds, _cpu() - before, done.stdout)


def ended_well(command: Sequence[str], code: int, said: str) -> None:
    """Stop the whole run where a program failed: its time means nothing."""
    if code:
        raise SystemExit(f"{' '.join(command)}\nended with {code}: {said.strip()[-2000:]}")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compile_ours() -> None:
    """Have the .pyc files that an installed package has; an editable one may lack them."""
    command = [sys.executable, "-m", "compileall", "-q", ROOT / "src" / "backstay"]
    subprocess.run(command, check=True, env=environment())
