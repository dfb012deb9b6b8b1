"""Backups of one cluster at the same time, while others list, sweep and prune."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.clock import SystemClock
from backstay.flows.prune import Options, Prune
from backstay.repo import leftovers
from backstay.repo.catalogue import Repository
from backstay.repo.retention import Policy
from backstay.repo.stores.file import FileStore
from backstay.report import Report, Verdict

CLOCK = SystemClock()
KEPT = 3
DAY = 86_400


@pytest.fixture(scope="module")
def clients(etcd):
    """Two who make backups."""
    with Client(etcd.access) as one, Client(etcd.access) as other:
        yield one, other


class Watcher:
    """Lists, and asks for the newest, again and again: all that is listed can be read."""

    def __init__(self, bench):
        self.bench = bench
        self.ended = threading.Event()
        self.seen = []

    def watch(self):
        while not self.ended.is_set():
            listed = self.bench.listed
            if listed:
                newest = self.bench.repository.find("prod/latest")
                self.seen.append((len(listed), newest.manifest.id))
            time.sleep(0.005)


def prune(bench):
    """One that keeps the newest few."""
    repository = Repository(FileStore(bench.store._root), bench.repository.config)
    options = Options(policy=Policy(last=KEPT), cluster=None, by="me@here")
    work = Prune(repository, options, None, CLOCK, Report())
    return work.execute(work.plan())


def age(bench):
    """Let all that is there be of the day before."""
    for path in bench.files:
        facts = path.stat()
        os.utime(path, (facts.st_mtime - DAY, facts.st_mtime - DAY))


def round_of(bench, clients, *, pruning):
    """Two backups, a sweep and a prune at once; gives the new ones."""
    age(bench)
    before = {entry.manifest.id for entry in bench.listed}
    # What a dead run left is swept meanwhile, and nothing else.
    dead = f"clusters/prod/objects/20200101T000000Z-dead/{len(before)}.zst.age"
    bench.store.put_new(dead, b"left")
    os.utime(bench.store._root / dead, (0, 0))
    watcher = Watcher(bench)
    works = [lambda client=client: bench.back_up_by(client) for client in clients]
    works += [
        lambda: leftovers.sweep(bench.repository),
        *([lambda: prune(bench)] * 2 if pruning else []),
    ]
    with ThreadPoolExecutor(len(works) + 1) as pool:
        watching = pool.submit(watcher.watch)
        try:
            made = [future.result() for future in [pool.submit(work) for work in works]][:2]
        finally:
            watcher.ended.set()
        watching.result()
    assert watcher.seen or not before
    names = {one.id for one in made}
    listed = {entry.manifest.id: entry for entry in bench.listed}
    assert len(names) == 2
    assert names <= set(listed)
    assert bench.repository.find("prod/latest").manifest.id in names
    for name in names:
        assert set(bench.prove(listed[name]).values()) == {Verdict.PASS}
    assert set(bench.objects) == {e.manifest.objects[0].path for e in listed.values()}
    if not pruning:
        assert before <= set(listed)
    bench.assert_no_spool()
    return made


def hold(bench, clients, rounds):
    made = []
    for number in range(rounds):
        made += round_of(bench, clients, pruning=number % 2 == 1)
    # Two may each begin a lineage where nothing was; after that it goes on, on proof.
    lineages = [one.snapshots[0].lineage for one in made]
    assert set(lineages) == set(lineages[:2])
    prune(bench)
    assert len(bench.listed) <= KEPT * len(set(lineages))


def test_promise_1_and_7_two_backups_a_sweep_and_prunes_at_once(bench, clients):
    hold(bench, clients, 4)


@pytest.mark.soak
def test_promise_1_and_7_two_backups_a_sweep_and_prunes_many_times_over(bench, clients):
    hold(bench, clients, 150)
