"""A revision of 50 MB: recorded whole, over several deltas, in bounded memory."""

import json
import os
import signal
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.flows.timeline import look
from backstay.repo.delta import list_deltas
from kit.cli import etcd_variables
from kit.etcd import Etcd
from kit.histories import b64
from kit.recording import at, hashkv_at

_MEASURE = """
import resource, sys
from backstay.cli.main import main
from backstay.cli.stop import Stop
stop = Stop()
stop.listen()
code = main(sys.argv[1:], stop)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
import os
os._exit(code)
"""
#: Of which the revision itself, as gRPC and protobuf hold it at the same time, is the most.
MOST = 500 << 20


@pytest.mark.soak
def test_a_revision_of_50_megabytes_is_recorded_whole_in_bounded_memory(bench, tmp_path):
    limits = ("--max-request-bytes", str(80 << 20), "--max-txn-ops", "1000")
    with Etcd.start(tmp_path / "etcd", tls=None, flags=limits) as etcd:
        with Client(etcd.access) as client:
            client.put(b"first", b"value")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
        environment |= etcd_variables(etcd, tmp_path / "tls")
        environment |= {
            "BACKSTAY_REPO": bench.store.url,
            "BACKSTAY_SPOOL_DIR": str(bench.spool),
        }
        words = ["record", "etcd", "--cluster", "prod", "--every", "300ms"]
        with (tmp_path / "said.txt").open("w") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", _MEASURE, *words],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        try:
            head = 2
            _until(bench, process, tmp_path, head)
            value = os.urandom(500_000)
            body = {
                "success": [
                    {"requestPut": {"key": b64(b"key/%d" % n), "value": b64(value)}}
                    for n in range(100)
                ]
            }
            with urlopen(
                f"{etcd.endpoint}/v3/kv/txn", json.dumps(body).encode(), timeout=60
            ) as answer:
                head = int(json.load(answer)["header"]["revision"])
            _until(bench, process, tmp_path, head)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.stdout.close()
        assert process.returncode == 0, (tmp_path / "said.txt").read_text()
        used = int(out.split()[-1])
        assert used < MOST, f"{used >> 20} MiB"
        with Client(etcd.access) as client:
            found = client.hashkv(client.endpoints[0], head)
    (entry,) = bench.listed
    lineage = entry.manifest.snapshots[0].lineage
    deltas = list(list_deltas(bench.repository, "prod", lineage))
    assert sum(bool(delta.begin.sub) for delta in deltas) >= 2, "a revision spans deltas"
    with at(bench, head) as (snapshot, _):
        assert hashkv_at(snapshot, found.compact_revision) == found.hash


def _until(bench, process, folder, head):
    deadline = time.monotonic() + 90
    while True:
        lives = look(bench.repository, "prod").lives
        if lives and lives[-1].windows and lives[-1].windows[-1].last >= head:
            return
        assert process.poll() is None, (folder / "said.txt").read_text()
        assert time.monotonic() < deadline, (folder / "said.txt").read_text()
        time.sleep(0.1)
