"""Lineages of real etcds: what continues one, and what must not."""

import shutil
from datetime import UTC, datetime

import pytest

from backstay.client.answer import Put
from backstay.client.etcd import Etcd as Client
from backstay.clock import SystemClock
from backstay.mvcc.export import Edits, export
from backstay.mvcc.snapshot import Snapshot
from kit.etcd import Etcd, EtcdCluster
from kit.faulty_store import Fault, FaultyStore


@pytest.fixture
def server(tmp_path):
    """An etcd with a little history, for one test."""
    with Etcd.start(tmp_path / "server") as server:
        write(server, 20)
        yield server


def write(server, number, value=b"value"):
    """So many revisions; gives the last."""
    with Client(server.access) as client:
        for index in range(number):
            head = client.txn([Put(b"key/%d" % index, value), Put(b"count/%d" % index, value)])
        return head


def compact(server, revision):
    with Client(server.access) as client:
        client.compact(revision)


def back_up(bench, server, **more):
    with Client(server.access) as client:
        return bench.back_up_by(client, **more).snapshots[0]


def save(server, path):
    server.ctl("snapshot", "save", str(path))
    return path


#: Of lineages that begin although nothing speaks against the one before.
NO_PROOF = ("compacted away", "nothing to know it by")


def assert_continued(later, earlier):
    assert later.lineage == earlier.lineage
    assert later.predecessor == earlier.predecessor
    assert later.root == earlier.root


def assert_another(later, earlier, words):
    assert later.lineage != earlier.lineage
    assert later.predecessor == earlier.lineage
    assert words in later.lineage_reason
    assert later.root == (earlier.root if words in NO_PROOF else later.lineage)


def latest(bench):
    return bench.repository.find("prod/latest").manifest.snapshots[0]


def test_an_etcd_that_goes_on_continues_its_lineage(bench, server):
    first = back_up(bench, server)
    assert first.predecessor is None
    second = back_up(bench, server)
    head = write(server, 5)
    third = back_up(bench, server)
    compact(server, head)
    fourth = back_up(bench, server)
    for later in (second, third, fourth):
        assert_continued(later, first)
    assert latest(bench) == fourth
    server.restart()
    assert_continued(back_up(bench, server), first)


def test_what_is_compacted_past_begins_a_lineage_that_names_its_predecessor(bench, server):
    first = back_up(bench, server)
    # All that was there is overwritten: nothing of the first backup outlives the compaction.
    compact(server, write(server, 30, b"other"))
    second = back_up(bench, server)
    assert_another(second, first, "compacted away")
    write(server, 2)
    third = back_up(bench, server)
    assert_continued(third, second)
    assert latest(bench) == third


@pytest.mark.parametrize("number", [3, 100])
def test_an_etcd_that_was_wiped_and_made_again_is_another(bench, server, number):
    """Below the old head, and above it: the same URLs, cluster id, member id and term."""
    first = back_up(bench, server)
    server.kill()
    shutil.rmtree(server.data_dir)
    server.launch()
    write(server, number, b"new")
    second = back_up(bench, server)
    assert second.cluster_id == first.cluster_id
    words = "went back" if number == 3 else "HashKV"
    assert_another(second, first, words)
    assert latest(bench) == second


def test_one_that_was_made_again_and_compacted_is_another_by_its_entry(bench, server):
    first = back_up(bench, server)
    server.kill()
    shutil.rmtree(server.data_dir)
    server.launch()
    compact(server, write(server, 19, b"new"))
    write(server, 30, b"new")
    second = back_up(bench, server)
    assert first.compact_revision < second.compact_revision < first.revision < second.revision
    assert_another(second, first, f"its changes at revision {first.revision} are others")


def test_what_was_restored_in_place_and_written_past_the_old_head_is_another(
    bench, server, tmp_path
):
    file = save(server, tmp_path / "file.db")
    write(server, 10)
    first = back_up(bench, server)
    server.put_back(file)
    write(server, 60, b"other")
    second = back_up(bench, server)
    assert second.cluster_id == first.cluster_id
    assert second.revision > first.revision
    assert second.raft_index > first.raft_index
    assert second.raft_term >= first.raft_term
    assert_another(second, first, "HashKV")


def test_what_was_restored_twice_is_another_even_where_the_last_entries_are_alike(
    bench, server, tmp_path
):
    file = save(server, tmp_path / "file.db")
    server.put_back(file)
    write(server, 1, b"one life")
    write(server, 40)
    first = back_up(bench, server)
    server.put_back(file)
    write(server, 1, b"another life")
    # The same last transactions, at the same revisions.
    write(server, 40)
    write(server, 20)
    second = back_up(bench, server)
    assert second.cluster_id == first.cluster_id
    assert second.raft_index > first.raft_index
    assert_another(second, first, "HashKV")


def test_the_mark_of_a_bump_alone_proves_nothing(bench, server, tmp_path):
    """Each restore with a bump has the same last element, whatever it was made from."""
    file = save(server, tmp_path / "file.db")
    bumped = tmp_path / "bumped.db"
    bump(file, bumped)
    server.put_back(bumped)
    first = back_up(bench, server)
    assert first.tip is None
    # Nothing was written: what it has is what is stored.
    assert_continued(back_up(bench, server), first)
    head = write(server, 30, b"new")
    compact(server, head)
    second = back_up(bench, server)
    assert_another(second, first, "nothing to know it by")
    assert_continued(back_up(bench, server), second)


def bump(source, target):
    with Snapshot.open(source) as snapshot, target.open("wb") as sink:
        export(snapshot, sink, Edits(bump=1000, mark_compacted=True))


def test_members_that_come_and_go_do_not_end_a_lineage(bench, tmp_path):
    with EtcdCluster.start(tmp_path / "members", 3) as cluster:
        write(cluster, 20)
        first = back_up(bench, cluster)
        gone = cluster.followers()[0]
        cluster.add(learner=True)
        write(cluster, 5)
        second = back_up(bench, cluster)
        member = gone.ctl_json("endpoint", "status")[0]["Status"]["header"]["member_id"]
        gone.kill()
        # Not by any member: one of them is a learner, which answers no such question.
        cluster.leader().ctl("member", "remove", f"{member:x}")
        write(cluster, 5)
        third = back_up(bench, cluster)
    assert_continued(second, first)
    assert_continued(third, first)


class Set(SystemClock):
    """A clock that somebody has set."""

    def __init__(self, year):
        self._year = year

    def now(self):
        return datetime(self._year, 1, 1, tzinfo=UTC)


def test_clocks_decide_nothing(bench, server):
    first = back_up(bench, server, clock=Set(2099))
    write(server, 5)
    second = back_up(bench, server, clock=Set(1970))
    assert_continued(second, first)
    assert latest(bench) == second
    compact(server, write(server, 30, b"other"))
    third = back_up(bench, server, clock=Set(1980))
    assert_another(third, second, "compacted away")
    assert latest(bench) == third


def test_a_failed_backup_is_not_what_the_next_one_is_held_against(bench, server):
    first = back_up(bench, server)
    write(server, 3)
    short = FaultyStore(bench.store, lambda o: Fault.SHORT if o.name == "piece" else None)
    with Client(server.access) as client:
        bench.back_up_by(client, short)
    assert [entry.failed for entry in bench.listed] == [False, True]
    third = back_up(bench, server)
    assert_continued(third, first)
    assert f"revision {first.revision}," in third.lineage_reason
