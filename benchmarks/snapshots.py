"""Make large snapshots with a real etcd, to measure readers on.

Usage: python benchmarks/snapshots.py FILE --keys N --value-size BYTES [--rewrites N]

Values are incompressible; `--rewrites` puts that many keys a second time and deletes a tenth as
many, so that the history has superseded versions and tombstones. etcd runs on a unix socket in a
temporary directory and is gone afterwards.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.needs import binary

TXN_OPERATIONS = 100


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def put(key: bytes, value: bytes) -> bytes:
    return field(2, field(2, field(1, key) + field(2, value)))


def delete(key: bytes) -> bytes:
    return field(2, field(3, field(1, key)))


def transactions(keys: int, size: int, rewrites: int) -> Iterator[bytes]:
    source = random.Random(keys * 31 + size)

    def name(number: int) -> bytes:
        return b"/registry/things/namespace-%04d/name-%08d" % (number % 1000, number)

    operations: list[bytes] = []
    for number in range(keys):
        operations.append(put(name(number), source.randbytes(size)))
        if len(operations) == TXN_OPERATIONS:
            yield b"".join(operations)
            operations.clear()
    chosen = source.sample(range(keys), rewrites)
    for place, number in enumerate(chosen):
        again = place % 10 == 9
        operations.append(
            delete(name(number)) if again else put(name(number), source.randbytes(size))
        )
        if len(operations) == TXN_OPERATIONS:
            yield b"".join(operations)
            operations.clear()
    yield b"".join(operations)


def run_all(call: Callable[[bytes], bytes], requests: Iterator[bytes]) -> None:
    with ThreadPoolExecutor(16) as pool:
        waiting = []
        for request in requests:
            waiting.append(pool.submit(call, request))
            if len(waiting) >= 64:
                waiting.pop(0).result()
        for one in waiting:
            one.result()


def make(path: Path, *, keys: int, size: int, rewrites: int) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        # etcd takes no path in such a URL: its socket is a file `etcd:0` where it is started.
        url, socket = "unix://etcd:0", f"unix:{folder}/etcd:0"
        command = [
            str(binary("etcd")),
            *("--data-dir", f"{folder}/data", "--unsafe-no-fsync", "--log-level", "error"),
            *("--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", "unix://peer:0"),
            *("--initial-advertise-peer-urls", "http://localhost:2380"),
            *("--initial-cluster", "default=http://localhost:2380"),
            *("--max-txn-ops", str(TXN_OPERATIONS), "--quota-backend-bytes", str(16 << 30)),
            *("--max-request-bytes", str(64 << 20), "--snapshot-count", "2000"),
        ]
        server = subprocess.Popen(command, cwd=folder)
        try:
            with grpc.insecure_channel(socket) as channel:
                grpc.channel_ready_future(channel).result(timeout=30)
                call = channel.unary_unary("/etcdserverpb.KV/Txn")
                run_all(
                    lambda data: call(data, wait_for_ready=True, timeout=60),
                    transactions(keys, size, rewrites),
                )
            save = [str(binary("etcdctl")), "--endpoints", url, "snapshot", "save", str(path)]
            subprocess.run(save, check=True, capture_output=True, cwd=folder)
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--value-size", type=int, required=True)
    parser.add_argument("--rewrites", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    make(options.file, keys=options.keys, size=options.value_size, rewrites=options.rewrites)
    print(options.file, options.file.stat().st_size, f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
