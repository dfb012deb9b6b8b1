"""What can be asked of an etcd, compared with what etcdctl says."""

import json

import pytest

from backstay.client.answer import Delete, Put
from backstay.client.etcd import Etcd
from backstay.errors import CompactedError, EtcdError
from kit import needs
from kit.etcd import Etcd as Server
from kit.faulty import faulty, none


@pytest.fixture(scope="module", params=["3.5", "3.4", "plain"])
def server(request, tmp_path_factory):
    binary = needs.debian("etcd") if request.param == "3.4" else needs.binary("etcd")
    tls = request.param != "plain"
    with Server.start(tmp_path_factory.mktemp("etcd"), tls=tls, binary=binary) as etcd:
        yield etcd


@pytest.fixture
def etcd(server):
    with Etcd(server.access) as client:
        yield client


def asked_at_rest(server, etcd):
    """What etcdctl and we hear of one state: a member that has just begun still has work to do."""
    for _ in range(50):
        (before,) = server.ctl_json("endpoint", "status")
        ours = etcd.status(etcd.endpoints[0])
        (after,) = server.ctl_json("endpoint", "status")
        if before["Status"] == after["Status"]:
            return before["Status"], ours
    raise AssertionError("it never comes to rest")


def test_status_and_members_are_what_etcdctl_says(server, etcd):
    status, ours = asked_at_rest(server, etcd)
    assert ours.version == status["version"]
    assert ours.db_size == status["dbSize"]
    assert ours.raft_applied_index == status["raftAppliedIndex"]
    assert ours.header.cluster_id == status["header"]["cluster_id"]
    assert ours.header.raft_term == status["header"]["raft_term"]
    assert ours.is_leader
    assert (ours.quota, ours.storage_version, ours.is_learner) == (None, "", False)
    (member,) = server.ctl_json("member", "list")["members"]
    (our_member,) = etcd.members()
    assert our_member.id == member["ID"] == ours.header.member_id
    assert our_member.client_urls == tuple(member["clientURLs"]) == (server.endpoint,)


def test_hashkv_is_what_etcdctl_says_before_and_after_a_compaction(server, etcd):
    endpoint = etcd.endpoints[0]
    for number in range(5):
        etcd.put(b"hash", str(number).encode())
    for number in range(2):
        etcd.put(b"hash", b"again %d" % number)
        said = server.ctl_json("endpoint", "hashkv")[0]["HashKV"]
        ours = etcd.hashkv(endpoint)
        assert (ours.hash, ours.compact_revision) == (said["hash"], said.get("compact_revision"))
        assert ours.revision == said["header"]["revision"]
        at = ours.revision - 1
        older = etcd.hashkv(endpoint, at)
        assert older.revision == at
        assert older.hash != ours.hash
        etcd.compact(at - 1)
    with pytest.raises(CompactedError):
        etcd.hashkv(endpoint, at - 3)


def test_an_empty_answer_is_no_hash_of_zero(tmp_path):
    """Else it would be a member that disagrees."""
    with (
        Server.start(tmp_path) as server,
        faulty(server, none, calls=lambda path, ask, ended: b"") as dialer,
        Etcd(server.access, dialer) as etcd,
        pytest.raises(EtcdError, match="without saying who it is"),
    ):
        etcd.hashkv(etcd.endpoints[0])


def test_keys_are_written_read_and_deleted(server, etcd):
    first = etcd.put(b"a/1", b"one")
    second = etcd.txn([Put(b"a/2", b"two"), Put(b"a/3", b"three"), Delete(b"a/1")])
    assert second == first + 1
    found = etcd.range(b"a/", b"a0")
    assert [(kv.key, kv.value, kv.mod_revision) for kv in found.kvs] == [
        (b"a/2", b"two", second),
        (b"a/3", b"three", second),
    ]
    assert (found.count, found.more) == (2, False)
    assert etcd.range(b"a/", b"a0", revision=first).kvs[0].value == b"one"
    limited = etcd.range(b"a/", b"a0", limit=1, keys_only=True)
    assert (limited.kvs[0].value, limited.more, limited.count) == (b"", True, 2)
    counted = etcd.range(b"a/", b"a0", count_only=True)
    assert (counted.kvs, counted.count) == ((), 2)
    assert json.loads(server.ctl("get", "a/2", "-w", "json"))["kvs"][0]["version"] == 1
    assert etcd.delete(b"a/", b"a0") == 2
    assert etcd.range(b"a/", b"a0").count == 0


def test_a_scan_reads_page_by_page_as_of_one_revision(etcd):
    keys = [f"s/{number:03}".encode() for number in range(25)]
    etcd.txn([Put(key, b"v") for key in keys])
    pages = etcd.scan(b"s/", b"s0", page=10)
    head = [next(pages).key for _ in range(3)]
    etcd.delete(b"s/", b"s0")
    assert head + [kv.key for kv in pages] == keys
    assert list(etcd.scan(b"s/", b"s0", page=10)) == []


def test_a_revision_that_is_gone_or_not_there_yet(etcd):
    revision = etcd.put(b"gone", b"1")
    etcd.put(b"gone", b"2")
    etcd.compact(revision + 1)
    with pytest.raises(CompactedError, match="has been compacted"):
        etcd.range(b"gone", revision=revision)
    with pytest.raises(CompactedError):
        etcd.compact(revision)
    with pytest.raises(EtcdError, match="future revision") as caught:
        etcd.range(b"gone", revision=revision + 1000)
    assert type(caught.value) is EtcdError


def test_leases(etcd):
    lease = etcd.lease_grant(600, 0x1234)
    assert (lease.id, lease.ttl) == (0x1234, 600)
    etcd.put(b"leased", b"v", lease=lease.id)
    assert lease.id in etcd.leases()
    found = etcd.lease_ttl(lease.id, keys=True)
    assert found.keys == (b"leased",)
    assert 590 <= found.ttl <= 600 == found.granted_ttl
    assert etcd.lease_ttl(999).ttl == -1
    etcd.put(b"leased", b"w", ignore_lease=True)
    assert etcd.range(b"leased").kvs[0].lease == lease.id
    with pytest.raises(EtcdError, match="lease already exists"):
        etcd.lease_grant(600, lease.id)


def test_alarms(tmp_path):
    with (
        Server.start(tmp_path, flags=("--quota-backend-bytes", "65536")) as server,
        Etcd(server.access) as etcd,
    ):
        with pytest.raises(EtcdError, match="space exceeded"):
            # It knows its size at its next commit, a tenth of a second later or more.
            for number in range(10_000):
                etcd.put(b"k%d" % number, b"x" * 10_000)
        status = etcd.status(etcd.endpoints[0])
        (alarm,) = etcd.alarms()
    assert (alarm.member_id, alarm.kind) == (status.header.member_id, "NOSPACE")
    assert any("NOSPACE" in words for words in status.errors)
