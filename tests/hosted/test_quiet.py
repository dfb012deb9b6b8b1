"""Quietness of a real etcd: puts and deletes disturb it, leases that run out do not."""

import time
from contextlib import ExitStack

import pytest

from backstay.client.etcd import Etcd
from backstay.clock import SystemClock
from backstay.errors import EtcdError
from backstay.kinds.hosted.quiescing.quiet import (
    Drained,
    Event,
    Stillness,
    place,
    watch_all,
    watch_etcd,
)
from kit import needs, process
from kit.etcd import Etcd as Server

CLOCK = SystemClock()


@pytest.fixture(scope="module", params=["3.5", "3.4"])
def server(request, tmp_path_factory):
    binary = needs.debian("etcd") if request.param == "3.4" else needs.binary("etcd")
    with Server.start(tmp_path_factory.mktemp("etcd"), binary=binary) as etcd:
        yield etcd


@pytest.fixture
def etcd(server):
    with Etcd(server.access) as client:
        yield client


def drained(watched, stillness=None):
    done = Drained.of(watched, stillness or Stillness(0.0), CLOCK, 20)
    assert done.complete
    return done.stillness


def test_puts_and_deletes_disturb(etcd):
    etcd.put(b"/k/pods/a/b", b"before")
    with watch_etcd(etcd)() as watched:
        assert watched.settled()
        assert drained(watched).writes == 0
        etcd.put(b"/k/pods/a/b", b"1")
        etcd.delete(b"/k/pods/a/b")
        assert not watched.settled()
        still = drained(watched)
    assert still.writes == 2
    assert still.places == ("/k/pods/...",)
    assert still.since > 0


def test_a_lease_that_runs_out_does_not(etcd):
    lease = etcd.lease_grant(1).id
    for number in range(20):
        etcd.put(b"/k/events/a/%d" % number, b"x", lease=lease)
    with watch_etcd(etcd)() as watched:
        process.wait_until(lambda: etcd.range(b"/k/events/", b"/k/events0").count == 0, 30)
        assert not watched.settled()
        still = drained(watched)
    assert still.writes == 0
    assert still.since == 0.0


def test_a_put_with_a_lease_and_a_delete_of_a_key_that_had_one_once_do(etcd):
    lease = etcd.lease_grant(600).id
    etcd.put(b"/k/a/1", b"x", lease=lease)
    etcd.put(b"/k/a/1", b"x")
    with watch_etcd(etcd)() as watched:
        etcd.put(b"/k/b/2", b"x", lease=lease)
        assert drained(watched).writes == 1
        etcd.delete(b"/k/a/1")
        assert drained(watched).writes == 1


def test_all_shards_have_to_be_quiet(etcd, tmp_path):
    with (
        Server.start(tmp_path / "other", tls=None) as other,
        Etcd(other.access) as second,
        watch_all([watch_etcd(etcd), watch_etcd(second)])() as watched,
    ):
        assert watched.settled()
        second.put(b"/k/events/x/y", b"1")
        assert not watched.settled()
        assert drained(watched).writes == 1
        etcd.put(b"/k/pods/x/y", b"1")
        assert drained(watched).writes == 1


def test_a_watch_that_tells_nothing_proves_nothing(etcd):
    """It is open and silent, but etcd has gone on: that is not quiet."""
    with watch_etcd(etcd)() as watched:
        watched._watch.cancel()
        etcd.put(b"/k/pods/x/y", b"1")
        done = Drained.of(watched, Stillness(0.0), CLOCK, 0.5)
    assert not done.complete


def test_a_member_that_restarts_is_asked_on_from_where_it_was(tmp_path):
    with (
        Server.start(tmp_path, tls=None) as server,
        Etcd(server.access) as etcd,
        ExitStack() as stack,
    ):
        watched = stack.enter_context(watch_etcd(etcd)())
        server.restart()
        etcd.put(b"/k/pods/x/y", b"1")
        deadline = time.monotonic() + 20
        found = []
        while not found and time.monotonic() < deadline:
            try:
                found += watched.next(0.2)
            except EtcdError:
                break
        assert [event.key for event in found] == [b"/k/pods/x/y"]
        server.kill()
        with pytest.raises(EtcdError):
            watched.settled()


def test_how_long_it_has_been_quiet():
    quiet = Stillness(10.0)
    assert quiet.has_lasted(5, 15.0)
    assert not quiet.has_lasted(5, 14.9)
    expired = [Event(b"/k/events/a", delete=True, lease=7)]
    assert quiet.after(expired, 14.0) == quiet
    moved = quiet.after([*expired, Event(b"/k/pods/a/b", delete=False, lease=7)], 14.0)
    assert (moved.since, moved.writes) == (14.0, 1)
    assert quiet.after([Event(b"/k/pods/a/b", delete=True)], 14.0).writes == 1


def test_at_most_three_places_are_named_the_last_ones():
    still = Stillness(0.0)
    for name in (b"a", b"b", b"c", b"d", b"b"):
        still = still.after([Event(b"/k/" + name + b"/x", delete=False)], 1.0)
    assert still.places == ("/k/c/...", "/k/d/...", "/k/b/...")
    assert still.writes == 5


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (b"/kubernetes.io/secrets/ns/password-of-bob", "/kubernetes.io/secrets/..."),
        (b"/kubernetes.io/namespaces/mine", "/kubernetes.io/namespaces/..."),
        (b"/registry/name", "/registry/..."),
        (b"compact_rev_key", "compact_rev_key"),
        (b"", ""),
        (b"/", "/..."),
        (b"/a\x1b[2J\xff/b/c", "/a?[2J\ufffd/b/..."),
        (b"x" * 500, "x" * 60),
        (b"/" + b"x" * 500 + b"/secret/name", "/..."),
        (b"/k/" + b"x" * 100 + b"/secret/name", "/k/" + "x" * 57),
    ],
)
def test_a_place_is_no_key(key, shown):
    assert place(key) == shown
