"""A second process for half of a long computation over a mapped file.

A fork shares the mapped pages and has all modules loaded, so it costs a few milliseconds. It is
only safe while no other thread runs in this process, threads of libraries included; where one
does, or there is one processor, the caller computes everything itself.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def can_fork() -> bool:
    """Whether a second process is safe, and of use."""
    try:
        with os.scandir("/proc/self/task") as tasks:
            threads = sum(1 for _ in tasks)
        return threads == 1 and len(os.sched_getaffinity(0)) > 1
    except (OSError, AttributeError):
        return False


@contextmanager
def forked(job: Callable[[], bytes]) -> Iterator[Callable[[], bytes | None]]:
    """Run `job` in a copy of this process while the block runs.

    Yields a function that waits for the result. It gives None where the job did not end well:
    the caller then does the work again, and meets the same error in its own process.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _run(job, reader, writer)
    os.close(writer)
    running = True

    def result() -> bytes | None:
        nonlocal running
        with os.fdopen(os.dup(reader), "rb") as pipe:
            data = pipe.read()
        _, state = os.waitpid(child, 0)
        running = False
        return data if os.waitstatus_to_exitcode(state) == 0 else None

    try:
        yield result
    finally:
        os.close(reader)
        if running:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _run(job: Callable[[], bytes], reader: int, writer: int) -> None:
    """Do the job, tell the result, and end without any of the parent's own last acts."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(job())
        code = 0
    finally:
        os._exit(code)
