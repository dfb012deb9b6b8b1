"""What a backup does at the same time: it looks into what came while the store is read back."""

import threading
import time

import pytest

from backstay.report import Finished, Started, Verdict
from kit.faulty_store import Fault, FaultyStore

EXAMINING = "examining the snapshot"
SECONDS = 20


def test_the_snapshot_is_looked_into_while_the_store_is_read_back(bench, client):
    examined = threading.Event()
    tasks = {}

    def listener(event):
        if isinstance(event, Started):
            tasks[event.task] = event.name
        elif isinstance(event, Finished) and tasks[event.task] == EXAMINING:
            examined.set()

    def plan(operation):
        # The store does not answer before the other has ended, which must not wait for it.
        return Fault.REFUSE if operation.name == "stream" and not examined.wait(SECONDS) else None

    made = bench.back_up_by(client, FaultyStore(bench.store, plan), listener)
    assert {check.verdict for check in made.checks} == {Verdict.PASS}
    assert [check.name for check in made.checks][:2] == ["transfer", "stored"]


class EndlessStore(FaultyStore):
    """Its objects go on for ever, in small pieces."""

    def __init__(self, store):
        super().__init__(store)
        self.asked = threading.Event()

    def stream(self, path, *, offset=0):
        del path, offset
        while True:
            self.asked.set()
            yield b"piece"
            time.sleep(0.01)


def test_what_is_interrupted_reads_nothing_back_any_more(bench, client):
    store = EndlessStore(bench.store)

    def listener(event):
        if isinstance(event, Started) and event.name == EXAMINING:
            assert store.asked.wait(SECONDS)
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        bench.back_up_by(client, store, listener)
    assert time.monotonic() - began < 8
    assert "beside" not in {thread.name for thread in threading.enumerate()}
    assert bench.listed == []
    bench.assert_no_spool()
