"""An hour with a fuzzer that follows coverage, shared among the targets; $FUZZ_SECONDS is less."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get("FUZZ_SECONDS", "3600")) // len(TARGETS)
#: What the fuzzer itself remembers of all inputs grows by megabytes a second, and counts as theirs.
_ROUND = 180


@pytest.mark.soak
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_nothing_is_found(target):
    found = ROOT / ".fuzz" / target
    found.mkdir(parents=True, exist_ok=True)
    for begun in range(0, SECONDS, _ROUND):
        done = subprocess.run(
            [
                *(sys.executable, ROOT / "tests/fuzz/run.py", target),
                f"-max_total_time={min(_ROUND, SECONDS - begun)}",
                # One input: seconds, and MB of memory.
                *("-timeout=20", "-rss_limit_mb=2048", f"-artifact_prefix={found}/"),
                *("-print_final_stats=1", found, ROOT / "tests/fuzz/corpus" / target),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert "number_of_executed_units" in done.stderr
