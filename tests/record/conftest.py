"""What the tests of the recorder share with those of the flows."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from flows.conftest import bench  # noqa: E402, F401
