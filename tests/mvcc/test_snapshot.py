"""What a snapshot file says of itself, against what the servers said."""

import os
from pathlib import Path

import pytest

from backstay.errors import BackstayError, DamagedError
from backstay.mvcc.alarm import Alarm
from backstay.mvcc.lease import Lease
from backstay.mvcc.snapshot import Snapshot, Trailer
from kit import fixtures
from kit.boltbytes import Pages
from kit.etcd import Etcd
from kit.snapfile import bump, delete, element_key, keyvalue, put, snapshot, varint


@pytest.fixture
def opened(tmp_path):
    files = []

    def opens(data: bytes) -> Snapshot:
        path = tmp_path / f"snapshot-{len(files)}.db"
        path.write_bytes(data)
        files.append(Snapshot.open(path))
        return files[-1]

    yield opens
    for file in files:
        file.close()


@pytest.mark.parametrize("name", [*fixtures.NAMES, "valid"])
def test_it_says_what_the_server_said(opened, name):
    facts = fixtures.facts(name)
    file = opened(fixtures.data(name))
    assert file.check_trailer() is Trailer.MATCHES
    assert file.revision == facts["revision"]
    assert file.compact_revision == facts["compact_revision"]
    assert file.last_element_revision == facts["snapshot_status"]["revision"]
    assert {(lease.id, lease.ttl) for lease in file.leases()} == {
        (lease["id"], lease["granted_ttl"]) for lease in facts.get("leases", [])
    }
    assert [(m.id, m.name, list(m.peer_urls), m.is_learner) for m in file.members()] == [
        (m["id"], m["name"], m["peer_urls"], False) for m in facts["members"]
    ]
    assert list(file.alarms()) == [
        Alarm(alarm["member_id"], alarm["alarm"]) for alarm in facts.get("alarms", [])
    ]
    assert file.auth_enabled == (name == "etcd3530-auth")
    assert file.users == (len(facts["auth"]["users"]) if "auth" in facts else 0)
    older = facts["etcd_version"].startswith("3.4")
    assert file.term == (None if older else facts["raft_term"])
    assert file.consistent_index > 0
    assert file.storage_version == facts.get("etcd_storage_version", "")
    assert file.cluster_version == facts["etcd_cluster_version"]


def test_the_trailer_is_looked_at(opened):
    whole = fixtures.data("valid")
    assert opened(whole[:-1] + bytes([whole[-1] ^ 1])).check_trailer() is Trailer.MISMATCH
    assert opened(whole[:-32]).check_trailer() is Trailer.ABSENT
    assert opened(whole[:-32]).trailer is None
    assert opened(whole).trailer == whole[-32:]
    assert opened(whole).size == len(whole) - 32


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_every_page_size_has_its_trailer(opened, page_size):
    changes = [put(2, b"a"), put(3, b"b")]
    file = opened(snapshot(changes, page_size=page_size, meta={}))
    assert file.check_trailer() is Trailer.MATCHES
    assert file.bolt.page_size == page_size
    assert file.revision == 3


def test_progress_adds_up_to_the_database(opened):
    done = []
    file = opened(fixtures.data("etcd36-plain"))
    file.check_trailer(done.append)
    assert sum(done) == file.size


class TestOtherSizes:
    @pytest.mark.parametrize("cut", [1, 31, 32 + 1, 100, 512, 4000])
    def test_a_file_that_is_cut(self, opened, cut):
        with pytest.raises(DamagedError, match="cut short"):
            opened(fixtures.data("valid")[:-cut] if cut != 32 else b"")

    def test_a_file_that_is_cut_at_every_page(self, opened):
        whole = fixtures.data("valid")
        for size in range(4096, len(whole) - 32, 4096):
            with pytest.raises(DamagedError):
                opened(whole[:size])
            with pytest.raises(DamagedError):
                opened(whole[: size + 32])

    @pytest.mark.parametrize("more", [1, 33, 512, 544])
    def test_a_file_that_has_something_behind_it(self, opened, more):
        with pytest.raises(DamagedError, match="was added to"):
            opened(fixtures.data("valid") + bytes(more))

    def test_an_empty_file(self, opened):
        with pytest.raises(DamagedError, match="is empty"):
            opened(b"")

    def test_just_a_trailer(self, opened):
        with pytest.raises(DamagedError, match="no bolt file"):
            opened(bytes(32))


@pytest.mark.parametrize("name", fixtures.DAMAGED)
def test_damaged_files_open_as_they_should(tmp_path, name):
    """What the header tells; the rest is `examination`'s business."""
    path = fixtures.write(name, tmp_path)
    refused = {"truncated", "truncated-page", "bad-both-metas", "zero-length", "not-a-db"}
    if name in refused:
        with pytest.raises(DamagedError, match=path.name):
            Snapshot.open(path)
        return
    with Snapshot.open(path) as file:
        assert file.revision == 315
        assert file.compact_revision == 155
        warnings = file.bolt.warnings
        assert bool(warnings) == (name == "bad-meta0")
        assert all("meta page 0" in warning for warning in warnings)


class TestRevisions:
    def test_compaction_can_remove_the_last_element(self, tmp_path):
        """`snapshot status` says 2 here, and the etcd stands at 4."""
        with Etcd.start(tmp_path, tls=None) as etcd:
            etcd.ctl("put", "a", "1")
            etcd.ctl("put", "b", "1")
            etcd.ctl("del", "b")
            etcd.ctl("compact", "4", "--physical")
            etcd.ctl("snapshot", "save", str(tmp_path / "s.db"))
            head = etcd.ctl_json("get", "x")["header"]["revision"]
        with Snapshot.open(tmp_path / "s.db") as file:
            assert file.revision == head == 4
            assert file.last_element_revision == 2
            assert file.compact_revision == 4

    @pytest.mark.parametrize(
        ("more", "compacted"),
        [({}, -1), ({"compacted": 3}, 3), ({"compacted": 3, "scheduled": 5}, 5)],
    )
    def test_the_window_begins_where_a_compaction_may_have_been(self, opened, more, compacted):
        file = opened(snapshot([put(n, b"a") for n in range(2, 7)], **more))
        assert file.compact_revision == compacted
        assert file.revision == 6

    def test_a_scheduled_compaction_counts_for_the_head(self, opened):
        assert opened(snapshot([put(2, b"a")], scheduled=9)).revision == 9
        assert opened(snapshot([put(2, b"a"), bump(1002)], scheduled=1002)).revision == 1002

    def test_a_delete_at_the_end(self, opened):
        assert opened(snapshot([put(2, b"a"), delete(3, b"a")])).revision == 3

    def test_without_changes_an_etcd_stands_at_1(self, opened):
        pages = Pages()
        pages.leaf(2, [])
        for data in (snapshot([]), pages.image()):
            file = opened(data)
            assert (file.revision, file.last_element_revision, file.compact_revision) == (1, 0, -1)
            assert (list(file.leases()), list(file.members()), list(file.alarms())) == ([], [], [])
            assert (file.auth_enabled, file.users, file.term) == (False, 0, None)
            assert (file.storage_version, file.cluster_version) == ("", "")


class TestSmallBuckets:
    def test_leases(self, opened):
        def stored(number: int, **more) -> tuple[bytes, bytes]:
            number %= 2**64
            ttl = b"".join(bytes([8 * f]) + varint(v) for f, v in more.values())
            return number.to_bytes(8, "big"), b"\x08" + varint(number) + ttl

        entries = dict([stored(7, ttl=(2, 60)), stored(-2, ttl=(2, 5), left=(3, 4)), stored(2**62)])
        found = opened(snapshot([], lease=entries)).leases()
        assert set(found) == {Lease(7, 60, 0), Lease(-2, 5, 4), Lease(2**62, 0, 0)}

    @pytest.mark.parametrize(
        ("bucket", "key", "value", "what"),
        [
            ("lease", b"\0" * 7 + b"\7", b"\x08\x08", "says that its id is 8"),
            ("lease", b"\7", b"\x08\x07", "says that its id is 7"),
            ("lease", b"\0" * 7 + b"\7", b"\x08", "does not end"),
            ("lease", b"\0" * 7 + b"\7", b"\x0a\x01x", "wire type 2"),
            ("members", b"7", b"{", "is no JSON"),
            ("members", b"7", b"[" * 5000, "is no JSON"),
            ("members", b"7", b"\xff\xfe", "is no JSON"),
            ("members", b"7", b"[]", "is no JSON object"),
            ("members", b"7", b'{"id":8}', "has another id"),
            ("members", b"7", b'{"id":"7"}', "has another id"),
            ("members", b"7", b'{"id":7,"name":1}', "no text"),
            ("members", b"7", b'{"id":7,"peerURLs":"x"}', "no list"),
            ("members", b"7", b'{"id":7,"clientURLs":[1]}', "no text"),
            ("alarm", b"\x08", b"", "does not end"),
            ("alarm", b"\x12\x01x", b"", "wire type 2"),
        ],
    )
    def test_entries_that_can_not_be(self, opened, bucket, key, value, what):
        if len(value) > 2000:
            value = value[:2000]
        file = opened(snapshot([], **{bucket: {key: value}}))
        reads = {"lease": file.leases, "members": file.members, "alarm": file.alarms}[bucket]
        with pytest.raises(DamagedError, match=what) as caught:
            list(reads())
        assert f"bucket {bucket}" in str(caught.value)

    def test_an_alarm_of_a_kind_to_come(self, opened):
        file = opened(snapshot([], alarm={b"\x08\x05\x10\x09": b""}))
        assert list(file.alarms()) == [Alarm(5, "9")]

    @pytest.mark.parametrize(
        ("value", "enabled"), [(b"\x01", True), (b"\x00", False), (b"", False)]
    )
    def test_auth(self, opened, value, enabled):
        assert opened(snapshot([], auth={b"authEnabled": value})).auth_enabled is enabled

    def test_a_learner(self, opened):
        member = b'{"id":10,"name":"n","isLearner":true}'
        (found,) = opened(snapshot([], members={b"a": member})).members()
        assert found.is_learner
        assert found.peer_urls == ()

    @pytest.mark.parametrize("name", ["finishedCompactRev", "scheduledCompactRev"])
    @pytest.mark.parametrize(
        "value", [b"", b"9", element_key(9)[:-1], element_key(9) + b"t", b"\xff" + bytes(16)]
    )
    def test_a_compact_revision_that_is_none(self, opened, name, value):
        file = opened(snapshot([put(2, b"a")], meta={name.encode(): value}))
        with pytest.raises(DamagedError, match=name):
            _ = file.revision

    @pytest.mark.parametrize("value", [b"", bytes(7), bytes(9)])
    def test_numbers_that_are_none(self, opened, value):
        file = opened(snapshot([], meta={b"consistent_index": value, b"term": value}))
        with pytest.raises(DamagedError, match="consistent_index"):
            _ = file.consistent_index
        with pytest.raises(DamagedError, match="term"):
            _ = file.term

    def test_a_version_that_is_no_text(self, opened):
        file = opened(snapshot([], cluster={b"clusterVersion": b"\xff3.5"}))
        with pytest.raises(DamagedError, match="clusterVersion"):
            _ = file.cluster_version

    def test_a_last_key_that_is_no_revision(self, opened):
        changes = [put(2, b"a")]
        data = snapshot(changes).replace(element_key(2), element_key(2).replace(b"_", b"x"))
        file = opened(data)
        with pytest.raises(DamagedError, match="is no revision"):
            _ = file.last_element_revision
        assert keyvalue(b"a") in data


def test_a_descriptor_of_an_unnamed_file_will_do(tmp_path):
    fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    try:
        os.write(fd, fixtures.data("valid"))
        with Snapshot.open(fd, name="the spool") as file:
            assert file.check_trailer() is Trailer.MATCHES
            assert file.name == "the spool"
        assert os.fstat(fd).st_size == len(fixtures.data("valid"))
    finally:
        os.close(fd)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BackstayError, match="No such file"):
        Snapshot.open(tmp_path / "nothing")
    with pytest.raises(BackstayError, match="no regular file"):
        Snapshot.open(Path("/dev/null"))


def test_no_descriptor_is_left_open(tmp_path):
    path = fixtures.write("valid", tmp_path)
    bad = fixtures.write("bad-both-metas", tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with Snapshot.open(path) as file:
            list(file.members())
        with pytest.raises(DamagedError):
            Snapshot.open(bad)
    assert len(os.listdir("/proc/self/fd")) == before
