"""HashKV by exec: etcdctl in the pods of a real cluster says what the snapshot is held against."""

import json

import pytest

from backstay.client.endpoint import parse_endpoint
from backstay.client.etcd import Etcd
from backstay.client.hashing import Budget, poll
from backstay.clock import SystemClock
from backstay.errors import CompactedError, EtcdError
from backstay.kinds.hosted.reach.exec_hashing import PodMembers, parse_hashkv
from kit.etcd import EtcdCluster
from kit.pods import container, within_reach

CLOCK = SystemClock()
ENDPOINT = parse_endpoint("https://etcd-0:2379")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with EtcdCluster.start(tmp_path_factory.mktemp("etcd"), 3) as cluster:
        with Etcd(cluster.access) as client:
            for number in range(20):
                head = client.put(b"key/%d" % (number % 5), b"%d" % number)
            client.compact(head - 5)
        yield cluster


@pytest.fixture
def pods(cluster, tmp_path):
    folders = [tmp_path / member.name for member in cluster.members]
    for folder in folders:
        folder.mkdir()
    made = map(container, folders, cluster.members)
    with within_reach(*made) as (source, _):
        yield PodMembers(source, 3, None, CLOCK)


def test_pods_say_what_members_say(pods, cluster):
    found = poll(pods, 0, Budget(), CLOCK)
    assert not found.silent
    assert found.voters == 3
    with Etcd(cluster.access) as client:
        expected = [client.hashkv(endpoint) for endpoint in client.endpoints]
        leader = next(s for s in map(client.status, client.endpoints) if s.is_leader)
    assert {one.hash for one in found.answered} == set(expected)
    assert found.answered[-1].id == leader.header.member_id
    assert {one.name for one in found.answered} == {"etcd-0", "etcd-1", "etcd-2"}
    assert 0 < found.seconds < 10


def test_a_revision_that_is_gone_is_told_apart(pods):
    healths, _ = pods.look()
    with pytest.raises(CompactedError):
        pods.hashkv(healths[0].status.endpoint, 2)
    with pytest.raises(EtcdError, match="future"):
        pods.hashkv(healths[0].status.endpoint, 1 << 40)


GOOD = {"HashKV": {"header": {"revision": 9, "member_id": 5}, "hash": 7, "compact_revision": -1}}


def printed(document):
    return b"begins\n" + json.dumps(document).encode()


@pytest.mark.parametrize(("asked", "at"), [(0, 9), (5, 5)])
def test_an_answer_without_its_revision_is_of_the_one_that_was_asked_for(asked, at):
    found = parse_hashkv(printed([GOOD]), ENDPOINT, asked)
    assert (found.hash, found.revision, found.compact_revision) == (7, at, -1)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"begins\n",
        b"begins\n" + b"[" * 100_000,
        b"begins\n\xff",
        printed([]),
        printed([GOOD, GOOD]),
        printed(GOOD),
        printed([{"HashKV": 1}]),
        printed([{"HashKV": {"header": 1}}]),
        printed([{"HashKV": {**GOOD["HashKV"], "hash": 1 << 32}}]),
        printed([{"HashKV": {**GOOD["HashKV"], "hash": True}}]),
        printed([{"HashKV": {**GOOD["HashKV"], "compact_revision": -2}}]),
        printed([{"HashKV": {**GOOD["HashKV"], "hash_revision": 1 << 63}}]),
        printed([{"HashKV": {**GOOD["HashKV"], "header": {"member_id": 5, "revision": "9"}}}]),
        printed([{"HashKV": {**GOOD["HashKV"], "header": {"revision": 9}}}]),
    ],
)
def test_what_is_no_answer_is_refused(output):
    with pytest.raises(EtcdError, match="https://etcd-0:2379"):
        parse_hashkv(output, ENDPOINT, 0)
