"""Large snapshots, made by a real etcd.

    python -m benchmarks.snapshots FILE --keys N --value-size BYTES

A part of each value is random, the rest text. After a compaction every fiftieth key is written a
second time or deleted, so that the history has superseded versions and tombstones.
"""

import argparse
import random
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from backstay.client.answer import Delete, Put
from backstay.client.etcd import Etcd as Client
from kit.etcd import Etcd

#: More in one transaction, and etcd writes a line of its log for each of them.
_OPERATIONS = 200
#: Half of what etcd takes in one request.
_BYTES = 768 << 10
_WRITERS = 4
#: Requests that wait for a writer; more would be memory.
_AHEAD = 16
#: More than compressors look back.
_TEXT = 16 << 20
_WORDS = 5000
_CHANGED = 50
_FLAGS = (
    *("--max-txn-ops", str(_OPERATIONS)),
    *("--quota-backend-bytes", str(16 << 30)),
    *("--snapshot-count", "2000"),
    # It sleeps between batches, of which four million keys would make thousands.
    *("--experimental-compaction-batch-limit", "1000000"),
)


@dataclass(frozen=True, slots=True)
class Data:
    """What a snapshot holds.

    Attributes:
        keys: how many were written first.
        value_size: bytes of each value.
        random: what part of each value is random; the rest is text.
    """

    keys: int
    value_size: int
    random: float = 0.5

    def scaled(self, scale: float) -> "Data":
        """Give the same with fewer keys."""
        return replace(self, keys=max(_CHANGED, int(self.keys * scale)))

    @property
    def file_name(self) -> str:
        """How the file is called that holds it."""
        return f"{self.keys}x{self.value_size}-{self.random:g}.db"


def make(path: Path, data: Data) -> None:
    """Write a snapshot file; etcd works beside it, and is gone afterwards."""
    with TemporaryDirectory(dir=path.parent) as folder:
        with Etcd.start(Path(folder), tls=None, flags=_FLAGS) as etcd:
            _fill(etcd, data)
            etcd_file = Path(folder, "snapshot.db")
            etcd.ctl("snapshot", "save", str(etcd_file))
        etcd_file.rename(path)


def _fill(etcd: Etcd, data: Data) -> None:
    source = random.Random(data.keys * 31 + data.value_size)
    values = _values(data, source)
    batch = min(_OPERATIONS, _BYTES // data.value_size)
    with Client(etcd.access) as client:
        _write(client, (Put(_key(n), next(values)) for n in range(data.keys)), batch)
        client.compact(client.range(b"\0").header.revision)
        changed = enumerate(source.sample(range(data.keys), data.keys // _CHANGED))
        _write(client, (_change(place, _key(n), next(values)) for place, n in changed), batch)


def _key(number: int) -> bytes:
    return b"/registry/pods/%03d/%07d" % (number % 1000, number)


def _change(place: int, key: bytes, value: bytes) -> Put | Delete:
    return Delete(key) if place % 10 == 9 else Put(key, value)


def _values(data: Data, source: random.Random) -> Iterator[bytes]:
    text = _text(source)
    told = int(data.value_size * (1 - data.random))
    last = len(text) - told
    while True:
        start = int(source.random() * last)
        yield source.randbytes(data.value_size - told) + text[start : start + told]


def _text(source: random.Random) -> bytes:
    """Write words of which few are frequent and most are rare, as field names and values are."""
    words = [source.randbytes(source.randint(1, 5)).hex() for _ in range(_WORDS)]
    frequencies = [1 / rank for rank in range(1, _WORDS + 1)]
    return " ".join(source.choices(words, frequencies, k=_TEXT // 5)).encode()[:_TEXT]


def _write(client: Client, operations: Iterator[Put | Delete], size: int) -> None:
    """Write in large transactions, several at once."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        waiting: deque[Future[int]] = deque()
        while batch := list(islice(operations, size)):
            waiting.append(pool.submit(client.txn, batch))
            if len(waiting) > _AHEAD:
                waiting.popleft().result()
        for one in waiting:
            one.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--value-size", type=int, required=True)
    options = parser.parse_args()
    began = time.monotonic()
    make(options.file, Data(options.keys, options.value_size))
    print(options.file, options.file.stat().st_size, f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
