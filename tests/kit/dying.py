"""The program, killed at every step that it takes in a directory.

    found = dying(["backup", "okd", ...], folder, directory, at=17)     # kill -9 before the 17th
    found.steps                                                         # what it did there

A step is a call that makes, opens, links, renames or removes something whose path leads through
that directory. The program runs in a process of its own, born of one that has everything imported.
"""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from kit.killing import FORKS

_PRELOADED = [
    "backstay.cli.backup_okd",
    "backstay.cli.main",
    "backstay.kinds.okd.backup",
    "backstay.kinds.okd.host",
    "backstay.kinds.okd.output",
]
_STEPS = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"}


@dataclass
class Death:
    """How a run ended.

    Attributes:
        code: its exit code; -9 for one that was killed.
        steps: what it did in the directory, in order; the last one was not done any more.
        told: what it said.
    """

    code: int
    steps: list[str]
    told: str


def run(words: list[str], variables: dict[str, str], directory: str, at: int, log: str) -> None:
    """Be the program, in a process of its own."""
    for name in set(os.environ) - {"PATH", "HOME", "LANG", "TMPDIR"}:
        del os.environ[name]
    os.environ.update(variables)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    steps = os.open(f"{log}.steps", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number in (1, 2):
        os.dup2(file, number)
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event not in _STEPS:
            return
        about = [os.fsdecode(a) for a in arguments[:2] if isinstance(a, str | bytes | os.PathLike)]
        if event != "os.link" and not any(path.startswith(directory) for path in about):
            return
        seen += 1
        os.write(steps, f"{event} {' '.join(about)}\n".encode())
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

    from backstay.cli.main import main

    sys.addaudithook(hook)
    sys.exit(main(words))


def dying(words, folder: Path, directory: Path, at: int = 0, **variables: str) -> Death:
    """Run a command line, and kill it at a step; 0 lets it live."""
    FORKS.set_forkserver_preload(_PRELOADED)
    log = folder / "told.txt"
    arguments = [str(word) for word in words]
    child = FORKS.Process(target=run, args=(arguments, variables, str(directory), at, str(log)))
    child.start()
    child.join(90)
    assert child.exitcode is not None, "it hangs"
    steps = Path(f"{log}.steps").read_text().splitlines()
    return Death(child.exitcode, steps, log.read_text())
