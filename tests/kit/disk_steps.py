"""The program, killed before its n-th step to the disk. Imports little: each child does it anew."""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Sequence

_STEPS = ("fsync", "mkdir", "rmdir", "chmod", "rename", "unlink")
_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = [
    "backstay.cli.main",
    "backstay.cli.restore_okd",
    "backstay.flows.partner",
    "backstay.kinds.okd.restore",
    "kit.disk_steps",
]


def run_killed(variables: dict[str, str], words: Sequence[object], moment: int) -> int:
    """Run a command line in a process of its own; gives its exit code, or minus the signal."""
    # The first who starts one decides what its children know from birth.
    _FORKS.set_forkserver_preload(_PRELOADED)
    child = _FORKS.Process(target=_run, args=(variables, [str(word) for word in words], moment))
    child.start()
    child.join()
    return child.exitcode


def _run(variables: dict[str, str], words: list[str], moment: int) -> None:
    from backstay import files
    from backstay.cli.main import main

    os.environ.update(variables)
    left = itertools.count(moment, -1)

    def dying(step):
        def wrapped(*arguments, **more):
            if next(left) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **more)

        return wrapped

    for name in _STEPS:
        setattr(os, name, dying(getattr(os, name)))
    files._rename_noreplace = dying(files._rename_noreplace)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os._exit(main(words))
