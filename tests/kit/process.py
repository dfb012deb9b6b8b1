"""The program as a process of its own: for what a call inside the tests' process can't show.

Signals, closed streams, what others can see in /proc, and what is left when it is killed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PROGRAM = (sys.executable, "-m", "backstay.cli.main")


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a user who has set these variables and no others of ours."""
    ours = ("BACKSTAY_", "_BACKSTAY", "ETCDCTL_", "AWS_", "COVERAGE", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | variables


def start(words, folder: Path, variables: Mapping[str, str], **more) -> subprocess.Popen:
    """Start a command line; its output is text, in pipes unless told otherwise."""
    more = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    } | more
    return subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        cwd=folder,
        env=environment(variables),
        text=True,
        errors="replace",
        **more,
    )


def stop(process: subprocess.Popen, number: int, seconds: float = 30) -> tuple[str, str, float]:
    """Send a signal and wait for the end; gives both streams, and the seconds that it took."""
    began = time.monotonic()
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        raise
    return out or "", err or "", time.monotonic() - began


def wait_until(true: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.002)


def family(pid: int) -> list[int]:
    """A process and all that it started, by their ids."""
    found = [pid]
    try:
        tasks = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
        children = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in tasks]
    except OSError:  # it has ended
        return found
    return found + [
        one for line in children for child in line.split() for one in family(int(child))
    ]
