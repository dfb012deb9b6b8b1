"""Backups that are killed, or told to stop, at any moment: what is listed afterwards is whole."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.report import Verdict
from kit import process, s3, wire
from kit.cli import etcd_variables
from kit.etcd import Etcd
from kit.wire import Break

SIZE = 16 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """An etcd whose snapshot takes a moment."""
    with Etcd.start(tmp_path_factory.mktemp("large")) as etcd:
        with Client(etcd.access) as client:
            for number in range(SIZE >> 20):
                client.put(b"fill/%d" % number, os.urandom(1 << 20))
        yield etcd


@pytest.fixture
def variables(bench, large, tmp_path):
    """What the program needs to back it up into the bench's repository."""
    return etcd_variables(large, tmp_path / "pki") | {
        "BACKSTAY_REPO": bench.store.url,
        "BACKSTAY_SPOOL_DIR": str(bench.spool),
    }


def start(bench, variables, *words):
    command = ("backup", "etcd", "--cluster", "prod", *words)
    return process.start(command, bench.spool.parent, variables)


def spooled(pid, spool):
    """Bytes in the nameless file of a process, if it has one."""
    for fd in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            if str(fd.readlink()).startswith(str(spool)):
                return fd.stat().st_size
        except OSError:
            continue
    return 0


def assert_all_whole(bench, proven):
    """Every backup that is listed can be read to its end; `proven` ones are not read again."""
    for entry in bench.listed:
        if entry.manifest.id not in proven:
            assert set(bench.prove(entry).values()) == {Verdict.PASS}
            proven.add(entry.manifest.id)


def kill_at(bench, variables, moments, proven):
    for moment in moments:
        running = start(bench, variables)
        time.sleep(moment)
        process.stop(running, signal.SIGKILL)
        assert running.returncode in {0, -signal.SIGKILL}
        assert not list(bench.spool.iterdir())
        assert_all_whole(bench, proven)


def duration(bench, variables):
    """Seconds of a backup that nobody disturbs."""
    began = time.monotonic()
    running = start(bench, variables)
    _, err = running.communicate()
    assert running.returncode == 0, err
    return time.monotonic() - began


@pytest.mark.soak
def test_promise_1_whenever_a_backup_is_killed_what_is_listed_is_whole(bench, variables):
    took = duration(bench, variables)
    proven = set()
    # Before the first quarter the program loads its own modules.
    kill_at(bench, variables, [took * part / 12 for part in range(3, 13)], proven)
    duration(bench, variables)
    assert_all_whole(bench, proven)
    assert len(proven) >= 2


@pytest.mark.soak
def test_promise_1_hundreds_of_kills(bench, variables):
    took = max(duration(bench, variables) for _ in range(3))
    chance = random.Random(20261120)
    proven = set()
    kill_at(bench, variables, [chance.uniform(0.2, 1.1) * took for _ in range(300)], proven)
    duration(bench, variables)
    assert_all_whole(bench, proven)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGHUP, 129),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_promise_1_what_is_stopped_while_the_stream_comes_leaves_nothing(
    bench, variables, large, number, code
):
    running = start(bench, variables)
    process.wait_until(lambda: spooled(running.pid, bench.spool))
    os.kill(large.pid, signal.SIGSTOP)
    try:
        _, err, took = process.stop(running, number)
    finally:
        os.kill(large.pid, signal.SIGCONT)
    assert running.returncode == code
    assert took < 8
    assert "Traceback" not in err
    if number != signal.SIGKILL:
        assert err.splitlines()[-1] in {
            "backstay: stopped",
            "backstay: interrupted",
            "backstay: the terminal has gone",
        }
    assert bench.listed == []
    assert bench.objects == []
    assert not [path for path in bench.files if path.name.startswith(".")]
    assert not list(bench.spool.iterdir())
    duration(bench, variables)
    assert len(bench.listed) == 1


def stalling(at):
    """What a store is that falls silent when the first request with these words comes."""
    return lambda line: Break.STALL if at in line else Break.NOTHING


def test_a_store_that_hangs_keeps_nobody_who_is_told_to_stop(large, variables, tmp_path):
    with (
        s3.plain(tmp_path / "s3") as server,
        wire.to(server.endpoint, stalling("HEAD /backups/x/clusters")) as between,
    ):
        variables |= server.environment
        variables |= {"BACKSTAY_REPO": "s3://backups/x", "AWS_ENDPOINT_URL_S3": between.url}
        made = process.start(("init", "--no-encryption", "--allow-http"), tmp_path, variables)
        assert made.wait(30) == 0, made.communicate()
        made.communicate()
        running = process.start(
            ("backup", "etcd", "--cluster", "prod", "--allow-http"), tmp_path, variables
        )
        process.wait_until(
            lambda: any("HEAD /backups/x/clusters" in line for line in between.requests)
        )
        running.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        running.send_signal(signal.SIGINT)
        _, err, took = process.stop(running, signal.SIGTERM)
    assert running.returncode == 143
    assert took < 12
    assert err.splitlines()[-1].startswith("backstay: stopped")
    assert "Traceback" not in err


def test_nothing_that_is_ignored_stops_it(bench, variables, large):
    """nohup means that the terminal may go."""
    running = process.start(
        ("backup", "etcd", "--cluster", "prod"),
        bench.spool.parent,
        variables,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    process.wait_until(lambda: spooled(running.pid, bench.spool))
    process.stop(running, signal.SIGHUP)
    assert running.returncode == 0
    assert len(bench.listed) == 1
