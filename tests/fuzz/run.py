"""Runs one target under atheris, which follows what parts of the program its inputs reach.

    python tests/fuzz/run.py bolt -max_total_time=600 FOUND tests/fuzz/corpus/bolt

All but the target's name is libFuzzer's; new inputs go to the first folder.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
# One processor: with more a computation may fork, which a fuzzer does not survive.
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import atheris  # noqa: E402 - after the path is set

with atheris.instrument_imports(include=["backstay"], enable_loader_override=False):
    from fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until the time is over, or something is found."""
    name, *words = sys.argv[1:]
    atheris.Setup([sys.argv[0], *words], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
