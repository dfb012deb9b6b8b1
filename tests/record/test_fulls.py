"""Full backups beside a watch: what fails is tried again, the later the more it costs."""

import threading
from datetime import UTC, datetime

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.errors import StoreError
from backstay.flows.ancestry import Watched
from backstay.flows.recording.fulls import Fulls
from backstay.flows.recording.tally import Figures, Tally
from backstay.repo.lineage import Lineage, Proof, Stored
from backstay.repo.manifest import Tip
from backstay.report import Report, Verdict
from kit import manifests
from kit.clocks import SetClock
from kit.etcd import Etcd

DAY = 86400.0
END = Stored(
    lineage="a" * 16,
    predecessor=None,
    root="a" * 16,
    revision=1,
    compact_revision=-1,
    cluster_id="cafe",
    raft_term=1,
    raft_index=0,
    hash=None,
    tip=Tip(salt="", digest="0" * 64),
)
WATCHED = Watched(Lineage("a" * 16, None, "a" * 16, Proof.FIRST, "it is the first"), END)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with (
        Etcd.start(tmp_path_factory.mktemp("etcd"), tls=None) as etcd,
        Client(etcd.access) as client,
    ):
        yield client


class Bench:
    """Full backups that end as a test wants it."""

    def __init__(self, client, outcome):
        self.clock = SetClock(datetime(2026, 11, 20, tzinfo=UTC))
        self.client = client
        self.outcome = outcome
        self.tally = Tally(Figures())
        self.said = []
        report = Report(self.said.append)
        self.fulls = Fulls(self._take, DAY, tally=self.tally, clock=self.clock, report=report)

    def _take(self, watched):
        assert watched.end.tip.salt, "its tip lies in the clear soon"
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return manifests.manifest(verdicts=manifests.checks(self.outcome))

    def once(self):
        """Make one, and look what came of it."""
        assert self.fulls.due
        self.fulls.begin(self.client, WATCHED, threading.Event())
        assert not self.fulls.due
        self.fulls.join(30)
        return self.fulls.ended()

    def wait(self):
        """Seconds until the next one is due."""
        before = self.clock.slept
        while not self.fulls.due:
            self.clock.sleep(0.25)
        return self.clock.slept - before


def test_one_that_is_good_is_the_last_for_a_day(client):
    bench = Bench(client, Verdict.PASS)
    made = bench.once()
    bench.fulls.accept(made)
    assert bench.tally.figures.fulls == 1
    assert bench.wait() == DAY


def test_what_cannot_be_made_is_tried_again_soon_and_then_each_five_minutes(client):
    bench = Bench(client, StoreError("the store is away", "wait"))
    waits = []
    for _ in range(14):
        assert bench.once() is None
        waits.append(bench.wait())
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == 300.0
    bench.outcome = Verdict.PASS
    bench.fulls.accept(bench.once())
    bench.wait()
    bench.outcome = StoreError("the store is away", "wait")
    bench.once()
    assert bench.wait() == 0.5


def test_one_that_a_check_has_failed_of_is_stored_so_there_are_few_of_them(client):
    bench = Bench(client, Verdict.FAIL)
    until = 0.0
    tries = 0
    while until < 2 * DAY:
        assert bench.once() is None
        tries += 1
        until += bench.wait()
    assert tries < 15
    assert any("a check of" in event.text for event in bench.said)


def test_those_of_strangers_have_an_end(client):
    bench = Bench(client, Verdict.PASS)
    waits = []
    for _ in range(12):
        assert bench.once() is not None
        bench.fulls.restart()
        bench.fulls.refuse()
        waits.append(bench.wait())
    assert waits[0] == 0.0
    assert sum(waits) > DAY / 2
    bench.fulls.accept(bench.once())
    bench.wait()
    bench.once()
    bench.fulls.restart()
    bench.fulls.refuse()
    assert bench.wait() == 0.0
