"""kill -9 of the recorder at random places, under load: what was sealed stays, each change once."""

import os
import random
import signal
import threading
import time

import pytest

from backstay.client.answer import Delete, Put
from backstay.client.etcd import Etcd as Client
from backstay.flows.timeline import look
from kit.cli import etcd_variables
from kit.etcd import Etcd
from kit.killing import FORKS, PRELOADED, run_program
from kit.recording import at, hashkv_at


class Load:
    """Writes all the time, several keys in a transaction, until the block ends."""

    def __init__(self, etcd) -> None:
        self.etcd = etcd
        self.head = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        dice = random.Random(5)
        with Client(self.etcd.access) as client:
            while not self._stop.is_set():
                keys = [b"key/%d" % n for n in dice.sample(range(200), dice.randint(1, 8))]
                todo = [
                    Put(key, dice.randbytes(dice.choice([10, 100, 1000])))
                    if dice.random() < 0.8
                    else Delete(key)
                    for key in keys
                ]
                self.head = client.txn([*todo, Put(b"always", b"%d" % self.head)])
                time.sleep(0.03)


@pytest.mark.parametrize(
    "kills", [pytest.param(10, id="10"), pytest.param(100, id="100", marks=pytest.mark.soak)]
)
def test_promise_8_a_recorder_that_is_killed_again_and_again_loses_and_doubles_nothing(
    bench, tmp_path, kills
):
    FORKS.set_forkserver_preload(PRELOADED)
    dice = random.Random()
    with Etcd.start(tmp_path / "etcd") as etcd, Load(etcd) as load:
        variables = etcd_variables(etcd, tmp_path / "tls") | {
            "BACKSTAY_REPO": bench.store.url,
            "BACKSTAY_SPOOL_DIR": str(bench.spool),
            "TMPDIR": str(bench.spool),
        }
        words = ["record", "etcd", "--cluster", "prod", "--every", "100ms", "--json"]
        words += ["--max-bytes", "100KiB"]

        def start():
            log = str(tmp_path / "said.txt")
            child = FORKS.Process(target=run_program, args=(words, variables, str(tmp_path), log))
            child.start()
            return child

        def reach(child):
            """How far it can be restored."""
            lives = look(bench.repository, "prod").lives
            assert child.exitcode is None, (tmp_path / "said.txt").read_text()
            return lives[-1].windows[-1].last if lives and lives[-1].windows else 0

        reached = 0
        for number in range(kills):
            child = start()
            # Now and then before it has done anything; else when it has gone on.
            deadline = time.monotonic() + (60 if number % 3 == 0 else dice.uniform(0.1, 2.5))
            while (found := reach(child)) <= reached and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(dice.uniform(0, 0.2))
            assert found >= reached, "what was sealed is gone"
            reached = found
            os.kill(child.pid, signal.SIGKILL)
            child.join()
        assert reached
        child = start()
        head = load.head
        deadline = time.monotonic() + 60
        while reach(child) < head:
            assert time.monotonic() < deadline, (tmp_path / "said.txt").read_text()
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        life = look(bench.repository, "prod").lives[-1]
        (window,) = life.windows
        assert not [one for one in life.missing if one.first <= window.last]
        entry = next(e for e in bench.listed if e.manifest.snapshots[0].lineage == life.lineage)
        base = entry.manifest.revision
        revisions = {base, window.last, *dice.sample(range(base, window.last + 1), 6)}
        with Client(etcd.access) as client:
            said = {r: client.hashkv(client.endpoints[0], r) for r in revisions}
    for revision, found in said.items():
        with at(bench, revision, entry=entry) as (snapshot, _):
            assert hashkv_at(snapshot, found.compact_revision) == found.hash
