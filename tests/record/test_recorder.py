"""The recorder on real etcds: nothing is lost, nothing is doubled, no two lives are mixed."""

import os
import random
import shutil
import signal
import threading
import time
from dataclasses import replace

import pytest

from backstay.client.answer import Put
from backstay.client.etcd import Etcd as Client
from backstay.errors import EtcdError, GapError
from backstay.flows.fetch import BackupSubject
from backstay.flows.timeline import look
from backstay.flows.timetravel import Target, at_point
from backstay.mvcc.lease import parse_lease
from backstay.repo.delta import list_deltas
from backstay.report import Report
from kit.etcd import Etcd, EtcdCluster
from kit.faulty_store import TOLD, FaultyStore
from kit.histories import Player
from kit.recording import Recording, at, hashkv_at


def leases_of(snapshot):
    return [parse_lease(key, value) for key, value in snapshot.bucket(b"lease").items()]


@pytest.fixture
def plain(tmp_path):
    """An etcd without TLS, for its JSON gateway."""
    with Etcd.start(tmp_path / "plain", tls=None) as etcd:
        yield etcd


def test_promise_8_what_was_recorded_is_what_the_server_said_at_every_revision(bench, plain):
    player = Player(plain, seed=7)
    player.play(20)
    said = {}
    with Client(plain.access) as client:
        with Recording.start(bench, plain.access) as recording:
            recording.until(lambda f: f.fulls)
            for _ in range(8):
                player.play(12)
                found = client.hashkv(client.endpoints[0], player.revision)
                said[player.revision] = found
                if len(said) == 4:
                    client.compact(player.revision - 5)
            recording.until(lambda f: f.sealed >= player.revision)
        assert recording.whole
        (entry,) = bench.listed
        base = entry.manifest.revision
        assert base < min(said)
        for revision, found in said.items():
            with at(bench, revision) as (snapshot, point):
                assert point.deltas
                assert snapshot.revision == revision
                first = entry.manifest.snapshots[0].compact_revision
                # As compacted where the server was: what is older counts as that leaves it.
                assert found.compact_revision >= first
                assert hashkv_at(snapshot, found.compact_revision) == found.hash


def write(etcd, number, value=b"value", prefix=b"key"):
    """So many revisions; gives the last."""
    with Client(etcd.access) as client:
        for index in range(number):
            head = client.txn([Put(prefix + b"/%d" % index, value), Put(prefix + b"/n", value)])
        return head


def hashes(etcd, revisions):
    """What a live server says of some revisions."""
    with Client(etcd.access) as client:
        return {r: client.hashkv(client.endpoints[0], r) for r in revisions}


def assert_history(bench, said, entry=None):
    """Each revision can be made, and is what the server said."""
    for revision, found in said.items():
        with at(bench, revision, entry=entry) as (snapshot, _):
            assert snapshot.revision == revision
            assert hashkv_at(snapshot, found.compact_revision) == found.hash


def lives(bench):
    return look(bench.repository, "prod").lives


@pytest.fixture
def etcd(tmp_path):
    with Etcd.start(tmp_path / "etcd") as etcd:
        write(etcd, 20)
        yield etcd


def wipe(etcd):
    etcd.kill()
    shutil.rmtree(etcd.data_dir)
    etcd.launch()


@pytest.mark.parametrize("running", [True, False])
def test_an_etcd_that_was_wiped_and_written_past_the_old_head_is_another_lineage(
    bench, etcd, running
):
    """The same URLs, cluster id, member id and term; while it is recorded, and while it is not."""
    first = Recording.start(bench, etcd.access)
    with first as recording:
        recording.until(lambda f: f.fulls)
        head = write(etcd, 10)
        recording.until(lambda f: f.sealed >= head)
        before = hashes(etcd, range(15, head + 1))
        if not running:
            recording.stop()
        wipe(etcd)
        write(etcd, 40, b"other")
        if running:
            recording.until(lambda f: f.lineages == 2 and f.fulls == 2)
            last = write(etcd, 5, b"later")
            recording.until(lambda f: f.sealed == last)
    if not running:
        with Recording.start(bench, etcd.access) as recording:
            recording.until(lambda f: f.fulls)
            last = write(etcd, 5, b"later")
            recording.until(lambda f: f.sealed >= last)
    old, new = bench.listed
    lineages = [entry.manifest.snapshots[0].lineage for entry in (old, new)]
    assert lineages[0] != lineages[1]
    assert new.manifest.snapshots[0].predecessor == lineages[0]
    assert_history(bench, before, old)
    assert_history(bench, hashes(etcd, range(last - 4, last + 1)), new)
    assert [life.windows[-1].last for life in lives(bench)] == [head, last]


def test_a_restore_in_place_begins_a_lineage_and_both_can_be_restored(bench, etcd, tmp_path):
    with Recording.start(bench, etcd.access) as recording:
        recording.until(lambda f: f.fulls)
        head = write(etcd, 10)
        etcd.ctl("snapshot", "save", str(tmp_path / "saved.db"))
        head = write(etcd, 10, b"lost")
        recording.until(lambda f: f.sealed >= head)
        before = hashes(etcd, range(head - 15, head + 1))
        etcd.put_back(tmp_path / "saved.db")
        last = write(etcd, 30, b"after")
        recording.until(lambda f: f.lineages == 2 and f.fulls == 2)
        last = write(etcd, 3, b"later")
        recording.until(lambda f: f.sealed == last)
    old, new = bench.listed
    assert_history(bench, before, old)
    assert_history(bench, hashes(etcd, range(last - 2, last + 1)), new)
    # It is seen as soon as it serves, or when it has gone past the old head.
    reason = new.manifest.snapshots[0].lineage_reason
    assert "others than those" in reason or "went back" in reason


def test_an_etcd_that_is_compacted_past_a_stopped_recorder_leaves_a_gap_that_is_named(bench, etcd):
    with Recording.start(bench, etcd.access) as recording:
        recording.until(lambda f: f.fulls)
        head = write(etcd, 5)
        recording.until(lambda f: f.sealed >= head)
    late = write(etcd, 30, b"unseen")
    with Client(etcd.access) as client:
        client.compact(late - 2)
    with Recording.start(bench, etcd.access) as recording:
        recording.until(lambda f: f.fulls)
        assert recording.figures.gaps == 1
        assert recording.figures.lost == late - 2 - 1 - head
        told = f"revisions {head + 1} to {late - 3} were not recorded"
        assert any(told in words for words in recording.words)
    (_, life) = lives(bench)
    assert [(one.first, one.last) for one in life.missing] == [(head + 1, late - 3)]
    with pytest.raises(GapError, match=f"revision {head + 3} is missing"), at(bench, head + 3):
        pass


def test_a_member_that_dies_or_hangs_is_left_for_another(bench, tmp_path):
    with EtcdCluster.start(tmp_path / "three", 3) as cluster:
        with Client(cluster.access) as client:
            for number in range(10):
                head = client.put(b"k/%d" % number, b"before")
            with Recording.start(bench, cluster.access, patience=3.0) as recording:
                recording.until(lambda f: f.sealed >= head or f.fulls)
                watched = next(w for w in reversed(recording.words) if "watching" in w)
                first = next(m for m in cluster.members if m.endpoint in watched)
                first.kill()
                others = replace(
                    cluster.access,
                    endpoints=tuple(
                        e for e in cluster.access.endpoints if str(e) != first.endpoint
                    ),
                )
                with Client(others) as rest:
                    for number in range(10):
                        head = _put(rest, b"k/%d" % number, b"dead")
                    recording.until(lambda f: f.sealed >= head)
                    first.restart()
                    leader = cluster.leader()
                    os.kill(leader.pid, signal.SIGSTOP)
                    try:
                        alive = [m for m in cluster.members if m is not leader]
                        with Client(alive[0].access) as one:
                            for number in range(10):
                                head = _put(one, b"k/%d" % number, b"hung")
                        recording.until(lambda f: f.sealed >= head)
                    finally:
                        os.kill(leader.pid, signal.SIGCONT)
            assert recording.figures.lineages == 1
            assert recording.figures.restarts >= 2
        (entry,) = bench.listed
        assert_history(bench, hashes(cluster.members[0], range(entry.manifest.revision, head + 1)))


def _put(client, key, value):
    """Write, through an election."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return client.put(key, value)
        except EtcdError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_two_recorders_at_once_do_no_harm(bench, etcd):
    with Recording.start(bench, etcd.access) as one:
        one.until(lambda f: f.fulls)
        with Recording.start(bench, etcd.access, every=0.3) as other:
            other.until(lambda f: f.restarts)
            for _ in range(5):
                head = write(etcd, 5)
            one.until(lambda f: f.sealed >= head)
            other.until(lambda f: f.sealed >= head)
    (life,) = lives(bench)
    assert life.windows[0].last == head
    assert not life.missing
    assert_history(bench, hashes(etcd, range(head - 24, head + 1)))


def test_a_store_that_fails_is_waited_for_and_nothing_is_lost(bench, etcd):
    broken = threading.Event()

    def plan(operation):
        path = operation.path
        if broken.is_set() and path.startswith(("deltas/", "tips/")):
            return random.choice(TOLD)
        return None

    store = FaultyStore(bench.store, plan)
    with Recording.start(bench, etcd.access, store=store, max_bytes=20_000) as recording:
        recording.until(lambda f: f.fulls)
        broken.set()
        head = write(etcd, 100, b"v" * 2000)
        recording.until(lambda f: f.store_errors >= 3)
        assert recording.figures.waiting < 100_000
        broken.clear()
        recording.until(lambda f: f.sealed >= head)
        assert any("can't be stored" in words for words in recording.words)
    assert recording.whole
    assert_history(bench, hashes(etcd, range(head - 99, head + 1, 9)))


def test_an_idle_etcd_is_known_to_have_been_idle(bench, etcd, monkeypatch):
    monkeypatch.setattr("backstay.flows.recording.plan.IDLE_EVERY", 1.0)
    with Recording.start(bench, etcd.access) as recording:
        recording.until(lambda f: f.fulls)
        head = write(etcd, 1)
        recording.until(lambda f: f.sealed >= head)
        deltas, known = recording.figures.deltas, recording.figures.known_at
        recording.until(lambda f: f.known_at > known + 2)
        assert recording.figures.deltas > deltas
    (life,) = lives(bench)
    assert life.windows[0].last == head
    assert life.windows[0].until.timestamp() >= known + 2


def test_leases_keep_the_ttl_that_they_were_granted(bench, etcd):
    with Recording.start(bench, etcd.access) as recording, Client(etcd.access) as client:
        recording.until(lambda f: f.fulls)
        short, long = client.lease_grant(2).id, client.lease_grant(5000).id
        client.put(b"short", b"v", lease=short)
        head = client.put(b"long", b"v", lease=long)
        recording.until(lambda f: f.sealed >= head)
        # It expires, which is a delete as any other.
        recording.until(lambda f: f.sealed >= head + 1)
        said = hashes(etcd, [head, head + 1])
    assert_history(bench, said)
    with at(bench, head) as (snapshot, _):
        found = {lease.id: lease.ttl for lease in leases_of(snapshot)}
        assert found[short] == 2
        assert found[long] == 5000


@pytest.mark.parametrize("which", ["middle", "last"])
def test_a_delta_that_is_missing_is_found(bench, etcd, which):
    with Recording.start(bench, etcd.access, every=0.2) as recording:
        recording.until(lambda f: f.fulls)
        for _ in range(4):
            head = write(etcd, 3)
            recording.until(lambda f, head=head: f.sealed >= head)
    (entry,) = bench.listed
    lineage = entry.manifest.snapshots[0].lineage
    deltas = [d for d in list_deltas(bench.repository, "prod", lineage) if d.begin != d.end]
    gone = deltas[-1] if which == "last" else deltas[-2]
    for delta in list_deltas(bench.repository, "prod", lineage):
        if delta.end == gone.end:
            bench.store.delete(delta.path)
    with pytest.raises(GapError, match=str(gone.begin.main)), at(bench, head):
        pass
    # Whoever records next fills it where it is the end; else a full backup goes over it.
    with Recording.start(bench, etcd.access) as recording:
        recording.until(lambda f: f.sealed >= head and f.fulls == (which == "middle"))
        assert not recording.figures.lineages
    assert_history(bench, hashes(etcd, [gone.begin.main, head]))


def test_a_member_is_asked_for_its_hash_and_exports_are_held_to_it(bench, etcd):
    with Recording.start(bench, etcd.access, prove_every=0.5) as recording:
        recording.until(lambda f: f.fulls)
        head = write(etcd, 5)
        recording.until(lambda f: f.proofs >= 2 and f.sealed >= head)
    said = []
    (entry,) = bench.listed
    name = entry.manifest.id
    subject = BackupSubject(bench.repository, entry, name, bench.identities, bench.spool)
    point = at_point(subject, Target(revision=head), bench.spool, Report(said.append))
    with point.opened(Report(said.append)):
        pass
    assert any("HashKV" in getattr(event, "text", "") for event in said), said


def test_a_fresh_cluster_on_an_old_clusters_prefix_is_another_lineage(bench, etcd, tmp_path):
    with Recording.start(bench, etcd.access) as recording:
        recording.until(lambda f: f.fulls)
        head = write(etcd, 5)
        recording.until(lambda f: f.sealed >= head)
    with Etcd.start(tmp_path / "fresh", name="fresh") as fresh:
        write(fresh, 3, b"new")
        with Recording.start(bench, fresh.access) as recording:
            recording.until(lambda f: f.fulls)
            last = write(fresh, 3, b"newer")
            recording.until(lambda f: f.sealed >= last)
        said = hashes(fresh, range(last - 2, last + 1))
    old, new = bench.listed
    assert "cluster id" in new.manifest.snapshots[0].lineage_reason
    assert_history(bench, hashes(etcd, [head]), old)
    assert_history(bench, said, new)
