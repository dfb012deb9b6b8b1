"""A small process that ends what we started, even when we are killed.

Run as a script: `python -I -S keeper.py [--remove DIR] [--patience SECONDS] [-- PROGRAM ...]`.
It runs the program (its output goes where ours goes) and waits for the end of its own standard
input, which comes when its parent closes it or dies, of whatever cause. Then the program gets
SIGTERM, later SIGKILL, and the directory is removed. Where the keeper itself is killed, the
kernel kills the program. It imports the standard library alone, and exits as the program did.

A pipe is used rather than PR_SET_PDEATHSIG alone because that is bound to the thread that
starts a process, and needs code between fork and exec, which is not safe beside gRPC's threads.
"""

import ctypes
import functools
import os
import select
import shutil
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
PATIENCE = 5.0
#: What still writes into the directory while it is removed is given this long to end.
_REMOVAL_SECONDS = 60.0


def main(arguments: list[str]) -> int:
    """Keep until standard input ends, or the program does."""
    directory, patience = "", PATIENCE
    while arguments and arguments[0] != "--":
        option, value, *arguments = arguments
        if option == "--remove":
            directory = value
        elif option == "--patience":
            patience = float(value)
    os.set_blocking(0, False)
    try:
        return _keep(arguments[1:], patience)
    finally:
        if directory:
            _remove(directory)


def _keep(command: list[str], patience: float) -> int:
    if not command:
        while not _orphaned(None):
            pass
        return 0
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=functools.partial(_die_with, os.getpid()),  # noqa: PLW1509 - this process has no other thread
    )
    while child.poll() is None and not _orphaned(0.2):
        pass
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
    return _code(child.wait())


def _code(code: int) -> int:
    return 128 - code if code < 0 else code


def _orphaned(seconds: float | None) -> bool:
    ready, _, _ = select.select([0], [], [], seconds)
    if not ready:
        return False
    try:
        return os.read(0, 4096) == b""
    except BlockingIOError:
        return False


def _die_with(keeper: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        # It was killed before the kernel knew: nobody would ever end what is started here.
        os._exit(1)


def _remove(directory: str) -> None:
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while os.path.lexists(directory) and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.01)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Our parent is told as well, and decides. A handler, since SIG_IGN would be inherited.
        signal.signal(number, lambda *_: None)
    sys.exit(main(sys.argv[1:]))
