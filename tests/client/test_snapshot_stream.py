"""Snapshots from real members, over a network that damages them in every way we could think of."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import pytest

from backstay.client import snapshot
from backstay.client.answer import Put
from backstay.client.etcd import Etcd
from backstay.client.health import choose, survey
from backstay.client.snapshot import fetch, receive
from backstay.errors import BackstayError, EtcdError, SpaceError, StreamError
from backstay.report import Advanced, Finished, Report, Said, Started
from kit import faulty as faults
from kit import needs
from kit.etcd import Etcd as Server
from kit.etcd import EtcdCluster
from kit.faulty import faulty
from kit.sink import Memory

SIZE = 3_000_000


def fill(access, size=SIZE):
    """Put random values of so many bytes in all."""
    with Etcd(access) as etcd:
        for number in range(0, size, 100_000):
            etcd.put(b"fill/%d" % number, os.urandom(min(100_000, size)))


@pytest.fixture(scope="module", params=["3.5", "3.4"])
def server(request, tmp_path_factory):
    binary = needs.debian("etcd") if request.param == "3.4" else needs.binary("etcd")
    with Server.start(tmp_path_factory.mktemp("etcd"), binary=binary) as etcd:
        fill(etcd.access)
        yield etcd


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with EtcdCluster.start(tmp_path_factory.mktemp("etcd"), 3) as cluster:
        fill(cluster.access)
        yield cluster


def patient(access, stall=1.0):
    return replace(access, timeouts=replace(access.timeouts, stall=stall))


def take(etcd, sink, report=None):
    (endpoint,) = etcd.endpoints
    return receive(etcd, etcd.status(endpoint), sink, report or Report())


def assert_stock(path, received):
    """etcd's own tool takes the file, and knows the revision in it."""
    data = path.read_bytes()
    assert received.size == len(data)
    assert received.sha256 == hashlib.sha256(data).hexdigest()
    assert received.db_sha256 == hashlib.sha256(data[:-32]).hexdigest() == data[-32:].hex()
    command = [needs.binary("etcdutl"), "snapshot", "restore", path]
    done = subprocess.run(
        [*command, "--data-dir", path.with_suffix(".dir")], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_snapshot_is_what_etcd_has(server, tmp_path):
    events = []
    with Etcd(server.access) as etcd, (tmp_path / "snapshot.db").open("wb") as file:
        file.reset = file.truncate
        received = take(etcd, Sink(file), Report(events.append))
    assert_stock(tmp_path / "snapshot.db", received)
    assert received.source.endpoint == etcd.endpoints[0]
    assert received.source.version.startswith("3.")
    assert received.attempts == 1
    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert (started.total, started.unit) == (received.size, "bytes")
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == received.size
    assert finished == Finished(started.task, ok=True)


class Sink:
    """A file as a sink."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        self.file.write(data)

    def reset(self):
        self.file.seek(0)
        self.file.truncate()


BROKEN = {
    "cut": (faults.cut(after=1_500_000), "was cut: .*the network went away"),
    "cut at once": (faults.cut(after=0), "the network went away"),
    "ends early": (faults.end(after=1_500_000), "ended after .* of "),
    "empty": (faults.empty, "is empty"),
    "no trailer": (faults.no_trailer, "ended after .* of "),
    "one bit": (faults.flip(after=1_000_001), "does not match the SHA-256 at its end"),
    "one bit of the trailer": (faults.flip_trailer, "does not match the SHA-256 at its end"),
    "over-full": (faults.overfill, "sends more than the .* bytes that it promised"),
    "promises more": (faults.lie(by=1), "contradicts itself|ended after"),
    "promises less": (faults.lie(by=-1), "contradicts itself|sends more"),
    "promises a little at first": (faults.promise(10), "contradicts itself|sends more"),
    "promises the moon": (faults.promise(1 << 62), "more than the .* allowed"),
    "stalls": (faults.stall(after=1_500_000), "stalled: nothing came for 1 s"),
    "stalls at once": (faults.stall(after=0), "stalled: nothing came for 1 s"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_stream_is_an_error(server, name):
    fault, words = BROKEN[name]
    with (
        faulty(server, fault) as dialer,
        Etcd(patient(server.access), dialer) as etcd,
        pytest.raises(StreamError, match=words) as caught,
    ):
        take(etcd, Memory())
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_the_detour_alone_does_no_harm(server):
    sink = Memory()
    with faulty(server, faults.none) as dialer, Etcd(server.access, dialer) as etcd:
        received = take(etcd, sink)
    assert hashlib.sha256(sink.data).hexdigest() == received.sha256


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_stream_is_taken_again_whole_from_the_next_member(cluster, name):
    fault, _ = BROKEN[name]
    events = []
    with Etcd(cluster.access) as etcd:
        first = choose(survey(etcd).members).best
    broken = next(m for m in cluster.members if m.endpoint == str(first.endpoint))
    sink = Memory()
    with faulty(broken, fault) as dialer, Etcd(patient(cluster.access), dialer) as etcd:
        choice = choose(survey(etcd).members)
        assert choice.best.endpoint == first.endpoint
        received = fetch(etcd, choice, sink, Report(events.append))
    assert received.attempts == 2
    assert received.source.endpoint == choice.order[1].endpoint
    assert sink.resets == 1
    assert hashlib.sha256(sink.data).hexdigest() == received.sha256
    assert len(sink.data) == received.size
    (warning,) = [e.text for e in events if isinstance(e, Said) and e.warning]
    assert str(choice.order[1].endpoint) in warning
    tasks = [e.ok for e in events if isinstance(e, Finished)]
    assert tasks[-1] is True


def test_a_single_member_gets_a_second_chance_and_then_the_error_tells_all(server):
    events = []
    with faulty(server, faults.cut(after=100_000)) as dialer, Etcd(server.access, dialer) as etcd:
        choice = choose(survey(etcd).members)
        with pytest.raises(StreamError, match=r"no snapshot after 2 tries: .*went away"):
            fetch(etcd, choice, Memory(), Report(events.append))
    assert [e.ok for e in events if isinstance(e, Finished)] == [False, False]


def test_a_member_that_dies_in_the_middle_is_replaced(tmp_path):
    with EtcdCluster.start(tmp_path, 3) as cluster:
        fill(cluster.access, 30_000_000)
        with Etcd(cluster.access) as etcd:
            choice = choose(survey(etcd).members)
            victim = next(m for m in cluster.members if m.endpoint == str(choice.best.endpoint))
            sink = Killing(victim)
            received = fetch(etcd, choice, sink, Report())
    assert received.attempts == 2
    assert hashlib.sha256(sink.data).hexdigest() == received.sha256


class Killing(Memory):
    """Kills a member when the first bytes have come."""

    def __init__(self, victim):
        super().__init__()
        self.victim = victim

    def write(self, data):
        if not self.data:
            self.victim.kill()
        super().write(data)


def test_a_member_that_freezes_is_noticed(server):
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        access = replace(server.access, timeouts=replace(server.access.timeouts, dial=0.5))
        with Etcd(access) as etcd:
            (endpoint,) = etcd.endpoints
            began = time.monotonic()
            with pytest.raises(EtcdError):
                etcd.status(endpoint)
            assert time.monotonic() - began < 20
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_sinks_own_error_comes_out_as_it_is_and_nothing_is_tried_again(cluster):
    with Etcd(cluster.access) as etcd:
        sink = Full()
        with pytest.raises(SpaceError, match="disk full"):
            fetch(etcd, choose(survey(etcd).members), sink, Report())
    assert sink.resets == 0


class Full(Memory):
    def write(self, data):
        raise SpaceError("disk full")


def test_a_slow_sink_is_no_stall(server):
    with Etcd(patient(server.access, stall=0.2)) as etcd:
        assert take(etcd, Slow()).size > SIZE


class Slow(Memory):
    def write(self, data):
        time.sleep(0.5)
        super().write(data)


def test_an_interrupt_ends_the_stream_at_the_server_too(server):
    streams = []

    def watched(messages, gone):
        streams.append(gone)
        return messages

    with faulty(server, watched) as dialer, Etcd(server.access, dialer) as etcd:
        with pytest.raises(KeyboardInterrupt):
            take(etcd, Interrupted())
        (gone,) = streams
        assert gone.wait(10)
    names = [thread.name for thread in threading.enumerate()]
    assert "backstay-stall" not in names


class Interrupted(Memory):
    def write(self, data):
        raise KeyboardInterrupt


def test_more_than_the_allowed_size_is_refused(server):
    with (
        Etcd(server.access) as etcd,
        pytest.raises(StreamError, match="more than the 1000 allowed"),
    ):
        (endpoint,) = etcd.endpoints
        receive(etcd, etcd.status(endpoint), Memory(), Report(), max_size=1000)


def test_nobody_to_ask(server):
    with Etcd(server.access) as etcd, pytest.raises(BackstayError, match="no member is fit"):
        fetch(etcd, choose([]), Memory(), Report())


def test_memory_is_bounded(tmp_path):
    """A stream of 30 MB leaves no more than a few MB in Python's hands at any time."""
    with Server.start(tmp_path) as server:
        with Etcd(server.access) as etcd:
            for number in range(30):
                etcd.txn([Put(b"%d" % number, os.urandom(1_000_000))])
        with Etcd(server.access) as etcd, (tmp_path / "out").open("wb") as file:
            tracemalloc.start()
            try:
                received = take(etcd, Sink(file))
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert received.size > 30_000_000
    assert peak < 6_000_000


@pytest.mark.soak
@pytest.mark.parametrize("pause", [0, 0.01])
def test_the_process_stays_small_however_large_the_snapshot_and_slow_the_sink(tmp_path, pause):
    program = (
        "import resource, sys, time\n"
        "from pathlib import Path\n"
        "from backstay.client.access import Access, read_tls\n"
        "from backstay.client.endpoint import parse_endpoints\n"
        "from backstay.client.etcd import Etcd\n"
        "from backstay.client.snapshot import receive\n"
        "from backstay.report import Report\n"
        "class Sink:\n"
        "    def write(self, data): time.sleep(float(sys.argv[3]))\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "files = Path(sys.argv[1])\n"
        "tls = read_tls(ca=files / 'ca.crt', certificate=files / 'client.crt',"
        " key=files / 'client.key')\n"
        "endpoints = parse_endpoints(sys.argv[2])\n"
        "with Etcd(Access(endpoints=endpoints, tls=tls)) as etcd:\n"
        "    status = etcd.status(endpoints[0])\n"
        "    before = peak()\n"
        "    size = receive(etcd, status, Sink(), Report()).size\n"
        "    print(size, peak() - before)\n"
    )
    with Server.start(tmp_path) as server:
        with Etcd(server.access) as etcd:
            for number in range(200):
                etcd.txn([Put(b"%d" % number, os.urandom(1_000_000))])
        server.ctl("get", "k")  # writes the certificates down
        command = [sys.executable, "-c", program, tmp_path / "ctl", server.endpoint, str(pause)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    size, grown = map(int, done.stdout.split())
    assert size > 200_000_000
    assert grown < 32 << 10  # KiB


def test_progress_is_told_in_useful_steps(server):
    events = []
    with Etcd(server.access) as etcd:
        received = take(etcd, Memory(), Report(events.append))
    steps = [e.amount for e in events if isinstance(e, Advanced)]
    assert sum(steps) == received.size
    assert all(a >= snapshot._CHUNK for a, _ in pairwise(steps))
