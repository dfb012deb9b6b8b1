"""How much memory a program has of its own while it runs.

Pages of mapped files are not counted: they are the system's to take back. Counted are RssAnon and
RssShmem of the program and of each fork of it, added up, so that a page which two of them share
counts twice. Other programs that it starts (etcdutl) are not its own memory.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.programs import ended_well, environment

#: Between two looks. A look costs about 0.2 ms.
INTERVAL = 0.01
_OWN = ("RssAnon:", "RssShmem:")
#: Of a process that ended while it was looked at.
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


def peak(command: Sequence[object], variables: Mapping[str, str] | None = None) -> int:
    """Run a program to its end; gives the most bytes that it had at one time."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            words,
            env=environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        most = 0
        while process.poll() is None:
            most = max(most, own(process.pid))
            time.sleep(INTERVAL)
        said.seek(0)
        ended_well(words, process.returncode, said.read())
    return most


def own(pid: int) -> int:
    """Look at a process and its forks: bytes of their own."""
    program = _program(pid)
    return sum(_own(each) for each in _family(pid) if _program(each) == program)


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(*_GONE):
        # A child belongs to the thread that started it.
        for task in list(Path(f"/proc/{pid}/task").iterdir()):
            with suppress(*_GONE):
                for child in (task / "children").read_text().split():
                    yield from _family(int(child))


def _program(pid: int) -> str:
    with suppress(*_GONE):
        return str(Path(f"/proc/{pid}/exe").readlink())
    return ""


def _own(pid: int) -> int:
    with suppress(*_GONE):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(_OWN))
    return 0
