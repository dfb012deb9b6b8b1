"""Snapshots of real clusters, held against the HashKV of their members."""

import os
import signal
import threading
from dataclasses import replace

import pytest

from backstay.client import methods
from backstay.client.answer import Put
from backstay.client.etcd import Etcd as Client
from backstay.client.hashing import Budget, EtcdMembers, poll
from backstay.client.health import Choice
from backstay.client.proto import rpc_pb2 as pb
from backstay.clock import SystemClock
from backstay.flows.backup import NAME, Part
from backstay.kinds.etcd import EtcdSource, MemberPoller
from backstay.mvcc.elements import read_elements
from backstay.mvcc.snapshot import Snapshot
from backstay.report import Said, Verdict
from kit import needs
from kit.etcd import Etcd, EtcdCluster
from kit.faulty import CutError, faulty

CLOCK = SystemClock()
AUTO = Budget()


def fill(access, *, compact=True):
    """Changes, deletes and a compaction; gives the revision."""
    with Client(access) as client:
        for number in range(30):
            client.txn([Put(b"key/%d" % n, b"value %d" % number) for n in range(20)])
        client.delete(b"key/3")
        head = client.put(b"last", b"value")
        if compact:
            client.compact(head - 5)
        return head


@pytest.fixture
def three(tmp_path):
    """Three members over TLS, for one test."""
    with EtcdCluster.start(tmp_path / "three", 3) as cluster:
        fill(cluster.access)
        yield cluster


def back_up(bench, access, budget=AUTO, dialer=None, **more):
    with Client(access, dialer) as client:
        poller = MemberPoller.of(client, budget, CLOCK)
        return bench.back_up_by(client, poller=poller, **more)


def members(made):
    """The check, which there is once."""
    [found] = [check for check in made.checks if check.name == "members"]
    return found


def entries(made):
    return made.snapshots[0].members


def identify(member):
    return member.ctl_json("endpoint", "status")[0]["Status"]["header"]["member_id"]


def test_three_members_agree_before_and_after_the_leader_last(bench, cluster):
    # Milliseconds are what a manifest has: with a few keys only a member may take less than one.
    with Client(cluster.access) as client:
        for some in range(40):
            client.txn([Put(b"many/%d/%d" % (some, n), b"value") for n in range(120)])
    leader = identify(cluster.leader())
    made = back_up(bench, cluster.access)
    found = members(made)
    assert found.verdict is Verdict.PASS
    assert f"HashKV {made.hashkv.hash} at revision {made.revision} on 3 of 3" in found.detail
    asked = [entry.id for entry in entries(made)]
    assert len(asked) == 6
    assert asked[2] == asked[5] == f"{leader:x}"
    assert len(set(asked)) == 3
    assert {entry.hash for entry in entries(made)} == {made.hashkv.hash}
    assert {entry.name for entry in entries(made)} == {"m1", "m2", "m3"}
    assert all(0 < entry.seconds < 5 for entry in entries(made))


def test_nobody_is_asked_where_nobody_is_to_be(bench, cluster):
    made = back_up(bench, cluster.access, None)
    assert "members" not in [check.name for check in made.checks]
    assert entries(made) == ()


def test_members_agree_while_others_write_and_compact(bench, three):
    """At a revision of before, and at that of the snapshot: neither is the newest any more."""
    ended = threading.Event()
    # What a slow machine needs to ask three members: a shorter history is gone before the last.
    behind = 2000

    def write():
        with Client(three.access) as client:
            while not ended.wait(0.001):
                head = client.txn([Put(b"busy", b"1"), Put(b"other", b"2")])
                if head % 50 == 0:
                    client.compact(head - behind)

    with Client(three.access) as client:
        for _ in range(behind):
            client.put(b"busy", b"before")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            found = members(back_up(bench, three.access))
            assert found.verdict is Verdict.PASS, found.detail
            assert "on 3 of 3" in found.detail
    finally:
        ended.set()
        writer.join()


def test_a_stopped_member_is_named_and_the_others_agree(bench, three):
    gone = three.followers()[0]
    gone.kill()
    found = members(back_up(bench, three.access))
    assert found.verdict is Verdict.PASS
    assert "on 2 of 3" in found.detail
    assert f"{gone.endpoint} could not be asked" in found.detail


def test_promise_4_one_member_of_three_is_no_majority(bench, cluster):
    alone = cluster.followers()[0]
    found = members(back_up(bench, alone.access))
    assert found.verdict is Verdict.COULD_NOT_VERIFY
    assert "on 1 of 3" in found.detail
    assert "no majority" in found.detail


def test_a_member_that_hangs_meanwhile_has_agreed_before(bench, three):
    hung = three.followers()[1]
    access = replace(three.access, timeouts=replace(three.access.timeouts, command=1.0, dial=1.0))
    with Client(access) as client:
        poller = Hanging(MemberPoller.of(client, AUTO, CLOCK), hung)
        try:
            found = members(bench.back_up_by(client, poller=poller))
        finally:
            os.kill(hung.pid, signal.SIGCONT)
    assert found.verdict is Verdict.PASS
    assert "on 3 of 3" in found.detail
    assert f"{hung.endpoint} could not be asked" in found.detail


class Hanging:
    """Stops a member after it has been asked for the first time."""

    def __init__(self, poller, member):
        self._poller = poller
        self._member = member

    def poll(self, revision, **more):
        found = self._poller.poll(revision, **more)
        os.kill(self._member.pid, signal.SIGSTOP)
        return found


def test_promise_4_a_member_that_lags_is_waited_for_and_then_named(cluster):
    with Client(cluster.access) as client:
        head = client.put(b"key", b"value")
        began = CLOCK.monotonic()
        found = poll(EtcdMembers(client, CLOCK), head + 1, Budget(patience=0.5), CLOCK)
        assert not found.answered
        assert len(found.silent) == 3
        assert all(one.live for one in found.silent)
        assert all(f"lags: it is at revision {head}" in one.reason for one in found.silent)
        assert CLOCK.monotonic() - began >= 1.5
        late = threading.Timer(0.5, lambda: client.put(b"key", b"later"))
        late.start()
        found = poll(EtcdMembers(client, CLOCK), head + 1, Budget(patience=30), CLOCK)
        late.join()
        assert not found.silent
        assert {one.hash.revision for one in found.answered} == {head + 1}
        assert len({one.hash.hash for one in found.answered}) == 1


def test_a_follower_that_has_missed_changes_is_waited_for_and_agrees(bench, three):
    """It stood still while they came, and goes on when it is asked already."""
    slow = three.followers()[0]
    other = next(member for member in three.members if member is not slow)
    os.kill(slow.pid, signal.SIGSTOP)
    late = threading.Timer(1.0, lambda: os.kill(slow.pid, signal.SIGCONT))
    try:
        with Client(other.access) as client:
            for number in range(200):
                head = client.put(b"missed/%d" % number, b"value")
        late.start()
        made = back_up(bench, three.access)
    finally:
        os.kill(slow.pid, signal.SIGCONT)
    late.join()
    found = members(made)
    assert found.verdict is Verdict.PASS, found.detail
    assert "on 3 of 3" in found.detail
    assert {entry.revision for entry in entries(made) if entry.name == slow.name} == {head}


def test_a_learner_is_no_voter_and_is_named(bench, three):
    learner = three.add(learner=True)
    found = members(back_up(bench, three.access))
    assert found.verdict is Verdict.PASS
    assert "on 3 of 3" in found.detail
    assert f"m4 ({learner.endpoint}) could not be asked: only learns" in found.detail


def test_the_leader_killed_in_the_middle_of_its_stream(bench, three):
    """It agreed before; the others do so after it, too."""
    leader = three.leader()

    def die(messages, ended):
        yield next(messages)
        leader.kill()
        raise CutError("it was killed")

    with faulty(leader, die) as dialer, Client(three.access, dialer) as client:
        poller = MemberPoller.of(client, AUTO, CLOCK)
        made = bench.back_up_part(Part(NAME, LeaderFirst(client), poller))
    found = members(made)
    assert found.verdict is Verdict.PASS, found.detail
    assert "on 3 of 3" in found.detail
    assert f"{leader.endpoint} could not be asked" in found.detail
    assert any("taken again" in event.text for event in bench.said if isinstance(event, Said))


class LeaderFirst(EtcdSource):
    """Takes the snapshot from the leader where it can."""

    def choose(self, report):
        size = super().choose(report)
        self._choice = Choice(
            tuple(sorted(self._choice.opinions, key=lambda o: o.reason != "leads"))
        )
        return size


def change_offline(member, key=b"key/7"):
    """Change the last byte of the last value of a key, in a member's own file."""
    # What is written is in the file when a snapshot has been taken of it.
    member.ctl("snapshot", "save", str(member.folder / "committed.db"))
    member.kill()
    path = member.data_dir / "member" / "snap" / "db"
    with Snapshot.open(path) as snapshot:
        data = snapshot.bolt.image.data
        [*_, end] = [
            int(elements.stops[index])
            for elements in read_elements(snapshot)
            for index in range(len(elements))
            if elements.key(data, index) == key
        ]
    with path.open("r+b") as file:
        file.seek(end - 1)
        byte = file.read(1)
        file.seek(end - 1)
        file.write(bytes([byte[0] ^ 1]))
    member.launch()


@pytest.mark.parametrize("gives", [False, True], ids=["another", "the-one-that-is-backed-up"])
def test_a_member_whose_data_was_changed_is_named(bench, three, gives):
    changed = three.followers()[0]
    change_offline(changed)
    three.leader()
    [other] = [one for one in three.followers() if one is not changed]
    first = changed if gives else other
    endpoints = dict.fromkeys((*first.access.endpoints, *three.access.endpoints))
    made = back_up(bench, replace(three.access, endpoints=tuple(endpoints)))
    found = members(made)
    assert found.verdict is Verdict.FAIL
    assert bench.listed[0].failed
    different = [one for one in three.members if (one is changed) != gives]
    same = [one for one in three.members if one not in different]
    told, _, rest = found.detail.partition(" agree with the snapshot, which came from ")
    for one in different:
        assert f"{one.name} ({one.endpoint}) has HashKV" in told
    for one in same:
        assert f"{one.name} ({one.endpoint})" in told
        assert f"{one.name} ({one.endpoint}) has" not in told
    assert rest.startswith(first.name)


def raise_alarm(access, member):
    with Client(access) as client:
        question = pb.AlarmRequest(
            action=pb.AlarmRequest.ACTIVATE, memberID=member, alarm=pb.CORRUPT
        )
        client.session.call(client.endpoints[0], methods.ALARM, question)


def test_promise_4_a_member_with_an_alarm_is_named_though_it_agrees(bench, three):
    one = three.followers()[0]
    raise_alarm(three.access, identify(one))
    found = members(back_up(bench, three.access))
    assert found.verdict is Verdict.COULD_NOT_VERIFY
    assert "on 3 of 3" in found.detail
    assert f"{one.name} ({one.endpoint}) agrees, but has the alarm CORRUPT" in found.detail


def test_promise_4_whom_asking_would_hold_up_for_too_long_is_left_and_named(bench, cluster):
    nobody = back_up(bench, cluster.access, Budget(stall=1e-9))
    found = members(nobody)
    assert found.verdict is Verdict.COULD_NOT_VERIFY
    assert entries(nobody) == ()
    assert "could not write for about" in found.detail
    assert "leads, and could not write" in found.detail
    always = back_up(bench, cluster.access, Budget(stall=None))
    assert members(always).verdict is Verdict.PASS


def test_what_the_first_took_decides_about_the_next(cluster):
    """The estimate was low; one follower has shown what it takes, and the rest is left alone."""
    with Client(cluster.access) as client:
        slow = Slow(client, CLOCK)
        found = poll(slow, 0, Budget(stall=0.5), CLOCK, elements=1)
    assert len(found.answered) == 1
    assert found.seconds > 0.5
    assert len(found.silent) == 2
    assert "leads, and could not write for about" in found.silent[-1].reason


class Slow(EtcdMembers):
    """Members that take their time, as those of a large cluster do."""

    def hashkv(self, endpoint, revision):
        found, seconds = super().hashkv(endpoint, revision)
        return found, seconds + 0.6


def test_where_users_are_known_hashkv_needs_one(bench, tmp_path):
    with Etcd.start(tmp_path / "auth") as etcd:
        fill(etcd.access)
        etcd.enable_auth()
        assert members(back_up(bench, etcd.access)).verdict is Verdict.PASS


@pytest.mark.parametrize("compact", [True, False])
def test_the_oldest_release_that_is_served_agrees(bench, tmp_path, compact):
    """It refuses the revision of the compaction itself, and has no revision in its answer."""
    with Etcd.start(tmp_path / "old", binary=needs.debian("etcd")) as etcd:
        head = fill(etcd.access, compact=False)
        with Client(etcd.access) as client:
            if compact:
                client.compact(head)
        made = back_up(bench, etcd.access)
        found = members(made)
        assert found.verdict is Verdict.PASS, found.detail
        assert entries(made)[0].compact_revision == (head if compact else -1)


def test_asked_for_the_revision_of_the_compaction_itself(bench, tmp_path):
    with Etcd.start(tmp_path / "one") as etcd:
        fill(etcd.access, compact=False)
        with Client(etcd.access) as client:
            client.compact(client.put(b"key", b"value"))
        found = members(back_up(bench, etcd.access))
        assert found.verdict is Verdict.PASS, found.detail


def test_a_fresh_etcd_without_any_key_agrees(bench, tmp_path):
    with Etcd.start(tmp_path / "one") as etcd:
        assert members(back_up(bench, etcd.access)).verdict is Verdict.PASS
