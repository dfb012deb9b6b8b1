"""`record etcd` and `timeline` from the command line, in a process of its own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from backstay.client.answer import Put
from backstay.client.etcd import Etcd as Client
from kit.cli import Cli, etcd_variables
from kit.etcd import Etcd, free_port


@pytest.fixture
def etcd(tmp_path):
    with Etcd.start(tmp_path / "etcd") as etcd:
        yield etcd


@pytest.fixture
def cli(tmp_path, etcd):
    """A user with a repository, beside an etcd over TLS."""
    cli = Cli(tmp_path, etcd_variables(etcd, tmp_path / "tls"))
    cli.variables["BACKSTAY_REPO"] = (tmp_path / "repo").as_uri()
    cli.variables["BACKSTAY_IDENTITY"] = str(tmp_path / "identity.txt")
    cli.variables["BACKSTAY_SPOOL_DIR"] = str(tmp_path)
    cli("keygen", "-o", "identity.txt")
    lines = (tmp_path / "identity.txt").read_text().splitlines()
    cli("init", "--recipient", next(x.split()[-1] for x in lines if "public key" in x))
    return cli


@contextmanager
def recording(cli, *words, lines="said.txt"):
    """Run `record etcd`; it is killed where the block did not end it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD", "BACKSTAY_"))}
    with (cli.folder / lines).open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "backstay.cli.main", "record", "etcd", "--cluster", "prod"]
            + [str(word) for word in words],
            cwd=cli.folder,
            env=environment | cli.variables,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
    process.said = cli.folder / lines
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for(condition, process=None, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        told = process.said.read_text() if process else ""
        assert time.monotonic() < deadline, told
        assert process is None or process.poll() is None, told
        time.sleep(0.05)
    return found


def write(etcd, number, prefix="key"):
    with Client(etcd.access) as client:
        for index in range(number):
            head = client.txn([Put(b"%s/%d" % (prefix.encode(), index), os.urandom(40))] * 1)
        return head


def last_of(cli):
    """The last revision that can be restored, as `timeline` says."""
    (found,) = cli("timeline", "--cluster", "prod", "--json").json
    windows = [one for life in found["lineages"] for one in life["windows"]]
    return windows[-1]["last"] if windows else 0


def metric(port, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert "version=0.0.4" in answer.headers["Content-Type"]
        lines = answer.read().decode().splitlines()
    return float(next(x.split()[-1] for x in lines if x.startswith(f"backstay_record_{name}{{")))


def test_a_recorder_is_stopped_goes_on_and_its_timeline_has_no_hole(cli, etcd):
    write(etcd, 10)
    with recording(cli, "--every", "500ms", "--json") as process:
        wait_for(lambda: last_of(cli) >= 11, process)
        head = write(etcd, 10)
        wait_for(lambda: last_of(cli) >= head, process)
        late = write(etcd, 5)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0, process.said.read_text()
    summary = json.loads(out)
    assert summary["whole"]
    assert summary["sealed"] == late == last_of(cli)
    assert summary["fulls"] == 1
    head = write(etcd, 7)
    with recording(cli, "--every", "500ms") as process:
        wait_for(lambda: last_of(cli) >= head, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 0, process.said.read_text()
    (found,) = cli("timeline", "--json").json
    (life,) = found["lineages"]
    assert [(one["first"], one["last"]) for one in life["windows"]] == [(1, head)]
    assert life["missing"] == []
    assert len(life["backups"]) == 1
    cli("export", "prod/latest", "--to-revision", late + 3, "-o", "there.db")
    assert cli("status", "there.db", "-w", "json").json["revision"] == late + 3
    drawn = cli("timeline").out
    assert f"1-{head}" in drawn
    assert "MISSING" not in drawn


def test_metrics_and_health_are_served(cli, etcd):
    port = free_port()
    head = write(etcd, 5)
    with recording(cli, "--every", "300ms", "--listen", f"127.0.0.1:{port}") as process:

        def sealed():
            try:
                return metric(port, "sealed_revision") >= head
            except urllib.error.URLError:
                return False

        wait_for(lambda: last_of(cli) >= head, process)
        head = write(etcd, 3)
        wait_for(sealed, process)
        assert metric(port, "deltas_total") >= 1
        assert metric(port, "lag_revisions") == 0
        assert metric(port, "full_backups_total") == 1
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            assert answer.read() == b"ok\n"
        # Who connects and says nothing keeps nobody from being told; nor do many.
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
                assert answer.read() == b"ok\n"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/else", timeout=5)


def test_what_makes_no_sense_is_refused(cli):
    assert "--every" in cli("record", "etcd", "--cluster", "prod", "--every", "0s", expect=2).err
    done = cli("record", "etcd", "--cluster", "prod", "--listen", "here", expect=2)
    assert "no address" in done.err
