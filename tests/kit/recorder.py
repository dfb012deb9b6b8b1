"""`backstay record` as a process of its own, beside a test.

with running(cli, "hosted", "blue", "-n", "clusters") as recorder:
    recorder.until(lambda: last_recorded(cli, cluster) >= head)
recorder.told        # it was told to stop, and ended well; all that it said
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from kit.cli import Cli
from kit.process import start

_PATIENCE = 60.0


@dataclass
class Recorder:
    """A recorder that runs.

    Attributes:
        process: it.
        path: of what it says.
    """

    process: Popen
    path: Path

    @property
    def told(self) -> str:
        """What it has said so far."""
        return self.path.read_text()

    def until(self, true: Callable[[], object]) -> object:
        """Wait for something to come true while it runs."""
        deadline = time.monotonic() + _PATIENCE
        while not (found := true()):
            assert self.process.poll() is None, self.told
            assert time.monotonic() < deadline, self.told
            time.sleep(0.05)
        return found

    def says(self, text: str) -> None:
        """Wait until it has said something."""
        self.until(lambda: text in self.told)


@contextmanager
def running(cli: Cli, *words, every: str = "300ms", **variables) -> Iterator[Recorder]:
    """Run one until the block ends; then it must end well."""
    path = cli.folder / f"recorder-{time.monotonic_ns()}.txt"
    with path.open("w") as told:
        process = start(
            ("record", *words, "--every", every), cli.folder, cli.variables | variables, stderr=told
        )
    recorder = Recorder(process, path)
    try:
        yield recorder
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE)
        assert process.returncode == 0, recorder.told
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def last_recorded(cli: Cli, cluster: str) -> int:
    """The last revision that can be restored, as `timeline` says; 0 where there is none."""
    found = cli("timeline", "--cluster", cluster, "--json").json
    windows = [one for life in found[0]["lineages"] for one in life["windows"]] if found else []
    return windows[-1]["last"] if windows else 0
