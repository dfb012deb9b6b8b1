"""Recording a real etcd under all the writes that it takes: lag, CPU, and what is stored."""

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from backstay.client.etcd import Etcd as Client
from benchmarks.programs import BACKSTAY, compile_ours, run
from benchmarks.results import Row, limited
from benchmarks.servers import cpu_of
from benchmarks.workshop import Workshop
from kit.cli import etcd_variables
from kit.etcd import Etcd, free_port

_SECONDS = 40
_WRITERS = 8
_VALUE = 1024
#: Seconds between the last write and the moment when it is stored: `--every`, and as much again.
_GOAL_LAG = 20.0
#: Percent of half-random values.
_GOAL_STORED = 60.0
#: What is half random: each byte of it, as of digits of a random number; or every other half of it.
_KINDS = ("random digits", "random bytes and text")
_PATIENCE = 120.0


def record(shop: Workshop) -> Iterator[Row]:
    """`backstay record etcd` beside writers that never wait, then SIGTERM."""
    compile_ours()
    for number, kind in enumerate(_KINDS):
        yield from _record(shop, shop.folder / f"record-{number}", kind)


def _record(shop: Workshop, folder: Path, kind: str) -> Iterator[Row]:
    folder.mkdir()
    with Etcd.start(folder / "etcd") as etcd:
        variables = etcd_variables(etcd, folder / "tls") | {
            "BACKSTAY_REPO": f"file://{folder}/repo",
            "BACKSTAY_SPOOL_DIR": str(folder),
        }
        identity = folder / "identity.txt"
        run([BACKSTAY, "keygen", "-o", identity], variables)
        recipient = identity.read_text().split("public key: ")[1].split()[0]
        run([BACKSTAY, "init", "--recipient", recipient], variables)
        with Client(etcd.access) as client:
            client.put(b"first", b"value")
        port = free_port()
        process = subprocess.Popen(
            [
                str(BACKSTAY),
                "record",
                "etcd",
                "--cluster",
                "bench",
                "--json",
                "--listen",
                f"127.0.0.1:{port}",
            ],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        while not list(folder.glob("repo/clusters/bench/backups/*.json")):
            assert process.poll() is None, "the recorder has ended"
            time.sleep(0.2)
        began = cpu_of(process.pid)
        seconds = max(_SECONDS * shop.scale, 5.0)
        changes = _write(etcd, seconds, kind)
        ended = time.monotonic()
        with Client(etcd.access) as client:
            head = client.range(b"first").header.revision
        while _sealed(port) < head:
            assert time.monotonic() - ended < _PATIENCE, "it does not keep up"
            time.sleep(0.1)
        lag = time.monotonic() - ended
        cpu = cpu_of(process.pid) - began
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=120)
    found = json.loads(out)
    assert found["whole"], found
    rate = f"{changes:,} changes of {_VALUE} bytes ({kind}) in {seconds:.0f} s"
    notes = (
        (
            f"{changes / seconds:,.0f} changes/s; {1e6 * cpu / changes:.0f} µs of CPU and"
            f" {found['stored_bytes'] / max(found['changes'], 1):.0f} stored bytes a change;"
            f" {found['deltas']} deltas"
        ),
    )
    what = "`record etcd`, from the last write until it is stored"
    yield limited(what, rate, lag, "s", _GOAL_LAG)
    stored = 100 * found["stored_bytes"] / found["bytes"]
    what = "`record etcd`, what is stored of keys and values"
    row = limited(what, rate, stored, "%", _GOAL_STORED)
    yield Row(row.cells, row.met, notes)


def _half_random(kind: str, source: random.Random, text: bytes) -> bytes:
    if kind == _KINDS[0]:
        return source.randbytes(_VALUE // 2).hex().encode()
    start = source.randrange(len(text) - _VALUE)
    return source.randbytes(_VALUE // 2) + text[start : start + _VALUE // 2]


def _write(etcd: Etcd, seconds: float, kind: str) -> int:
    """Write from several threads for a while; gives how many changes it were."""
    counts = [0] * _WRITERS
    until = time.monotonic() + seconds

    def write(number: int) -> None:
        source = random.Random(number)
        words = [source.randbytes(4).hex().encode() for _ in range(4000)]
        text = b" ".join(source.choices(words, k=20_000))
        with Client(etcd.access) as client:
            while time.monotonic() < until:
                key = b"/registry/pods/%06d" % source.randrange(100_000)
                client.put(key, _half_random(kind, source, text))
                counts[number] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(_WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def _sealed(port: int) -> int:
    """Ask a recorder which revision is stored whole."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    name = "backstay_record_sealed_revision{"
    return int(float(next(line.split()[-1] for line in lines if line.startswith(name))))
