"""Where a run works: its directory, its data, how large and how often."""

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import snapshots
from benchmarks.snapshots import Data
from benchmarks.timing import warm

#: About 1.2 GB, and about 720 MB, as etcd writes them.
LARGE_VALUES = Data(keys=290_000, value_size=2560)
SMALL_VALUES = Data(keys=4_000_000, value_size=100)
#: As large, and compressible as what Kubernetes stores: zstd makes a quarter of it, and a sixth of
#: the data of a small real API server.
LIKE_OBJECTS = Data(keys=290_000, value_size=2560, random=0.1)
#: About 100 MB and 2 GB.
LITTLE = Data(keys=24_000, value_size=2560)
MUCH = Data(keys=480_000, value_size=2560)
#: About 500 MB, as compressible as `LIKE_OBJECTS`, and 1 GB.
CONTROL_PLANE = Data(keys=120_000, value_size=2560, random=0.1)
LARGE_CONTROL_PLANE = Data(keys=240_000, value_size=2560)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where and how a run works.

    Attributes:
        folder: for what is made meanwhile.
        data_dir: for snapshots, which may be kept for the next run.
        scale: 1 for the sizes that the goals speak of; less for a try.
        repetitions: how often a thing is timed; None is as often as its row says.
    """

    folder: Path
    data_dir: Path
    scale: float = 1.0
    repetitions: int | None = None

    def times(self, wanted: int) -> int:
        """How often to do what a row wants to do so often."""
        return self.repetitions or wanted

    def snapshot(self, data: Data) -> Path:
        """Give a snapshot file with such data, in the page cache; made where it is not there."""
        data = data.scaled(self.scale)
        path = self.data_dir / data.file_name
        if not path.exists():
            began = time.monotonic()
            snapshots.make(path, data)
            self.say(f"made {size_of(path)} by a real etcd in {time.monotonic() - began:.0f} s")
        warm(path)
        return path

    def say(self, text: str) -> None:
        """Tell whoever waits."""
        print(text, flush=True)


def size_of(path: Path) -> str:
    """Say how large a file is, for people."""
    return f"{path.stat().st_size / 1e6:,.0f} MB"
