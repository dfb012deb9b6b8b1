"""Watches on a real etcd: every event in order, with patience, ended from either side."""

import threading
import time

import pytest

from backstay.client.answer import Delete, Put
from backstay.client.etcd import Etcd
from backstay.client.watch import AHEAD
from backstay.errors import CompactedError, EtcdError
from backstay.mvcc.keyvalue import parse_keyvalue
from kit import needs
from kit.etcd import Etcd as Server


@pytest.fixture(scope="module", params=["3.5", "3.4"])
def server(request, tmp_path_factory):
    binary = needs.debian("etcd") if request.param == "3.4" else needs.binary("etcd")
    with Server.start(tmp_path_factory.mktemp("etcd"), binary=binary) as etcd:
        yield etcd


@pytest.fixture
def etcd(server):
    with Etcd(server.access) as client:
        yield client


def collect(watch, number):
    """Read so many changes."""
    changes = []
    while len(changes) < number:
        message = watch.next(10)
        assert message is not None
        changes += message.changes
    return changes


def test_events_come_in_order_with_the_bytes_that_etcd_stores(etcd):
    first = etcd.put(b"w/1", b"one")
    etcd.txn([Put(b"w/2", b"two"), Delete(b"w/1"), Put(b"w/3", b"three")])
    with etcd.watch(b"w/", b"w0", start_revision=first) as watch:
        changes = collect(watch, 4)
        etcd.put(b"w/4", b"live")
        changes += collect(watch, 1)
    parsed = [(c.delete, parse_keyvalue(c.keyvalue)) for c in changes]
    assert [(d, kv.key, kv.value) for d, kv in parsed] == [
        (False, b"w/1", b"one"),
        (False, b"w/2", b"two"),
        (True, b"w/1", b""),
        (False, b"w/3", b"three"),
        (False, b"w/4", b"live"),
    ]
    assert [kv.mod_revision - first for _, kv in parsed] == [0, 1, 1, 1, 2]


def test_a_change_tells_what_was_there_before(etcd):
    lease = etcd.lease_grant(600).id
    first = etcd.put(b"before", b"one", lease=lease)
    etcd.put(b"before", b"two")
    etcd.delete(b"before")
    with etcd.watch(b"before", start_revision=first, previous=True) as watch:
        put, changed, deleted = collect(watch, 3)
    assert put.previous == b""
    assert parse_keyvalue(changed.previous).lease == lease
    assert parse_keyvalue(deleted.previous).value == b"two"
    assert parse_keyvalue(deleted.previous).lease == 0
    with etcd.watch(b"before", start_revision=first) as watch:
        assert [change.previous for change in collect(watch, 3)] == [b"", b"", b""]


def test_nothing_comes_in_time(etcd):
    with etcd.watch(b"silent") as watch:
        began = time.monotonic()
        assert watch.next(0.3) is None
        assert 0.25 < time.monotonic() - began < 5
        watch.ask_progress()
        message = watch.next(10)
        assert message.changes == ()
        assert message.revision == etcd.range(b"silent").header.revision


def test_a_compacted_start_is_told(etcd):
    revision = etcd.put(b"old", b"1")
    etcd.put(b"old", b"2")
    etcd.compact(revision + 1)
    with (
        etcd.watch(b"old", start_revision=revision) as watch,
        pytest.raises(CompactedError, match=f"before revision {revision + 1}"),
    ):
        watch.next(10)


def test_a_watch_is_cancelled_from_another_thread(etcd):
    with etcd.watch(b"silent") as watch:
        timer = threading.Timer(0.2, watch.cancel)
        timer.start()
        assert list(watch) == []
        timer.join()
        assert watch.next(1) is None
    assert not watch._reader.is_alive()


def test_a_slow_reader_does_not_fill_the_memory_and_misses_nothing(etcd):
    etcd.put(b"slow", b"")
    with etcd.watch(b"slow") as watch:
        for number in range(AHEAD * 4):
            etcd.put(b"slow", b"%d" % number)
        time.sleep(0.3)
        assert len(watch._ready) <= AHEAD
        values = [parse_keyvalue(c.keyvalue).value for c in collect(watch, AHEAD * 4)]
    assert values == [b"%d" % number for number in range(AHEAD * 4)]
    # A reader that stops in the middle is let go.
    with etcd.watch(b"slow", start_revision=1) as watch:
        pass
    assert not watch._reader.is_alive()


def test_a_large_transaction_comes_in_parts_that_say_so(etcd):
    revision = etcd.txn([Put(f"big/{n}".encode(), b"x" * 30_000) for n in range(40)])
    for _ in range(2):
        etcd.txn([Put(f"big/{n}".encode(), b"y" * 30_000) for n in range(40)])
    with etcd.watch(b"big/", b"big0", start_revision=revision) as watch:
        changes, parts = 0, []
        while changes < 120:
            message = watch.next(10)
            changes += len(message.changes)
            parts.append(message.more)
    assert True in parts
    assert parts[-1] is False


def test_the_end_of_the_server_ends_the_watch(tmp_path):
    with (
        Server.start(tmp_path) as server,
        Etcd(server.access) as etcd,
        etcd.watch(b"k") as watch,
    ):
        server.kill()
        with pytest.raises(EtcdError):
            watch.next(20)
        with pytest.raises(EtcdError):
            watch.next(1)
