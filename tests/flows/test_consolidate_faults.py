"""Consolidations while a store fails, or while they die, at every operation."""

import random
import signal
import threading
import time

import pytest

from backstay.client.answer import Put
from backstay.client.etcd import Etcd as Client
from backstay.errors import BackstayError, RefusedError
from backstay.flows.consolidate import Nothing, Wanted, consolidate
from backstay.mvcc.delta import Position
from backstay.mvcc.deltawriter import DeltaWriter, Origin
from backstay.repo.catalogue import Repository
from backstay.repo.delta import put_delta
from backstay.report import Report, Verdict
from kit import deltas, process
from kit.faulty_store import Fault, FaultyStore
from kit.histories import elements
from kit.shelf import CLOCK

#: One in so many is tried in a moment; all of them take longer.
STEPS = [pytest.param(29, id="some"), pytest.param(1, id="all", marks=pytest.mark.soak)]


@pytest.fixture
def recorded(bench, client):
    """A backup, and two deltas after it; gives the backup and the last revision."""
    base = bench.back_up_by(client)
    for _ in range(4):
        client.txn([Put(b"key/%d" % number, b"changed") for number in range(20)])
    head = client.range(b"\0").header.revision
    for first, last in ((base.revision + 1, head - 2), (head - 1, head)):
        writer = DeltaWriter(Origin("prod", base.snapshots[0].lineage, "w"), Position(first))
        for key, value in elements(client, first, last):
            deltas.add(writer, key, value)
        writer.mark(last, deltas.at(last))
        put_delta(bench.repository, writer.finish())
    return base, head


def run(bench, store=None):
    """One consolidation, by the flow itself; `store` stands in for the real one."""
    used = Repository(store or bench.store, bench.repository.config)
    wanted = Wanted(cluster="prod", spool_dir=bench.spool)
    return consolidate(
        used, wanted, bench.identities, clock=CLOCK, report=Report(bench.said.append)
    )


def made(bench, base):
    """The consolidated backup, where there is one; all that is listed is whole."""
    others = [entry for entry in bench.listed if entry.manifest.id != base.id]
    assert len(others) <= 1
    for entry in others:
        assert set(bench.prove(entry).values()) == {Verdict.PASS}
    return others


def clear(bench, base, kept):
    """Forget all but the first backup and its deltas."""
    for info in list(bench.store.list("clusters")):
        if info.path not in kept:
            bench.store.delete(info.path)
    assert not made(bench, base)


def operations(bench, kept, base):
    store = FaultyStore(bench.store)
    run(bench, store)
    assert {"list", "read", "stream", "writer", "publish", "put_new", "now"} <= set(store.names)
    clear(bench, base, kept)
    return store.operations


def paths(bench):
    return {info.path for info in bench.store.list("clusters")}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
def test_promise_1_whatever_the_store_does_at_any_step(bench, recorded, fault, step):
    base, head = recorded
    kept = paths(bench)
    number_of = len(operations(bench, kept, base))
    for number in range(1 + fault.value % step, number_of + 1, step):
        store = FaultyStore(bench.store, {number: fault})
        try:
            found = run(bench, store)
        except BackstayError:
            found = None
        whole = [
            entry for entry in bench.listed if entry.manifest.id != base.id and not entry.failed
        ]
        for entry in whole:
            assert set(bench.prove(entry).values()) == {Verdict.PASS}, store.operations[number - 1]
        # A list that is cut short may hide deltas or backups; what was made is whole all the same.
        assert found is None or isinstance(found, Nothing) or found.revision <= head
        again = run(bench)
        assert isinstance(again, Nothing) or again.revision == head
        assert any(entry.manifest.revision == head and entry.verified for entry in bench.listed)
        clear(bench, base, kept)


class KilledError(BaseException):
    """The program is no more."""


class Mortal(FaultyStore):
    """A store whose user dies at a moment; what it still tries then is not done."""

    def __init__(self, store, at):
        super().__init__(store)
        self._at = at
        self.now_at = 0
        self._guard = threading.Lock()

    def _begin(self, name, path):
        self._die()
        return super()._begin(name, path)

    def _end(self, fault, path):
        self._die()

    def _die(self):
        with self._guard:
            self.now_at += 1
            if self.now_at >= self._at:
                raise KilledError


@pytest.mark.parametrize("step", STEPS)
def test_promise_1_one_that_dies_before_or_after_any_operation(bench, recorded, step):
    base, head = recorded
    kept = paths(bench)
    store = Mortal(bench.store, 1 << 30)
    run(bench, store)
    clear(bench, base, kept)
    seen = set()
    for at in range(1, store.now_at + 1, step):
        with pytest.raises(KilledError):
            run(bench, Mortal(bench.store, at))
        seen.add(len(made(bench, base)))
        assert run(bench)
        assert [entry.manifest.revision for entry in made(bench, base)] == [head]
        clear(bench, base, kept)
    assert 0 in seen


@pytest.mark.parametrize(
    "number", [pytest.param(3, id="some"), pytest.param(150, id="many", marks=pytest.mark.soak)]
)
def test_promise_1_one_that_is_killed(bench, recorded, tmp_path, number):
    base, head = recorded
    identity = tmp_path / "identity.txt"
    identity.write_text(bench.identity)
    identity.chmod(0o600)
    variables = {
        "BACKSTAY_REPO": bench.store.url,
        "BACKSTAY_SPOOL_DIR": str(bench.spool),
        "BACKSTAY_IDENTITY": str(identity),
    }
    words = ("consolidate", "--cluster", "prod")
    kept = paths(bench)
    began = time.monotonic()
    process.start(words, tmp_path, variables).communicate()
    took = time.monotonic() - began
    assert [entry.manifest.revision for entry in made(bench, base)] == [head]
    clear(bench, base, kept)
    chance = random.Random(number)
    for _ in range(number):
        running = process.start(words, tmp_path, variables)
        time.sleep(chance.uniform(0.3, 1.05) * took)
        process.stop(running, signal.SIGKILL)
        assert not list(bench.spool.iterdir())
        made(bench, base)
        run(bench)
        assert [entry.manifest.revision for entry in made(bench, base)] == [head]
        clear(bench, base, kept)


class Meanwhile(FaultyStore):
    """Something happens when the new snapshot is stored."""

    def __init__(self, store, what):
        super().__init__(store, self._look)
        self._what = what

    def _look(self, operation):
        if operation.name == "publish" and self._what:
            what, self._what = self._what, None
            what()


@pytest.mark.usefixtures("recorded")
def test_another_lineage_that_begins_meanwhile_stays_the_latest(bench, cluster):
    with Client(cluster.access) as other:
        store = Meanwhile(bench.store, lambda: bench.back_up_by(other))
        with pytest.raises(RefusedError, match="has begun another lineage meanwhile"):
            run(bench, store)
    assert len(bench.listed) == 2
    assert all(entry.manifest.base is None for entry in bench.listed)


def test_a_base_that_goes_meanwhile_is_not_missed(bench, recorded):
    base, head = recorded
    path = f"clusters/prod/backups/{base.name.name}.json"
    run(bench, Meanwhile(bench.store, lambda: bench.store.delete(path)))
    [entry] = bench.listed
    assert entry.manifest.revision == head
    assert entry.verified
