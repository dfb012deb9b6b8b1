"""The servers that all tests use: they start, fail loudly, and never stay behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit import needs
from kit.etcd import Etcd, EtcdCluster


@pytest.mark.parametrize("tls", [True, None])
def test_a_member_serves_and_keeps_its_data_through_a_crash(tmp_path, tls):
    with Etcd.start(tmp_path, tls=tls) as etcd:
        etcd.ctl("put", "k", "v")
        pid = etcd.pid
        etcd.kill()
        assert not Path(f"/proc/{pid}").exists()
        etcd.restart()
        assert etcd.ctl("get", "k").splitlines() == ["k", "v"]


def test_an_old_member_serves_with_auth(tmp_path):
    with Etcd.start(tmp_path, binary=needs.debian("etcd")) as etcd:
        etcd.enable_auth()
        etcd.ctl("put", "k", "v")
        etcd.user = None
        assert etcd.ctl("get", "k", check=False) == ""


def test_a_taken_port_is_left_for_another(tmp_path):
    with Etcd.start(tmp_path / "a") as first:
        second = Etcd._new(
            tmp_path / "b", "b", tls=True, binary=None, flags=(), peers="b=unix://b:0"
        )
        second.port = first.port
        try:
            second.launch()
            assert second.port != first.port
        finally:
            second.kill()


def test_a_member_that_can_not_start_says_why(tmp_path):
    with (
        pytest.raises(AssertionError, match="no-such-flag"),
        Etcd.start(tmp_path, flags=("--no-such-flag",)),
    ):
        pass


def test_a_cluster_has_a_leader_and_survives_its_loss(tmp_path):
    with EtcdCluster.start(tmp_path, 3) as cluster:
        cluster.leader().kill()
        assert len(cluster.followers()) == 1
        cluster.ctl("put", "k", "v")


def test_a_server_ends_with_the_process_that_started_it(tmp_path):
    program = (
        "import pathlib, sys, time\nfrom kit.etcd import Etcd\n"
        "with Etcd.start(pathlib.Path(sys.argv[1])) as e: print(e.pid, flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, stdout=subprocess.PIPE
    ) as process:
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
