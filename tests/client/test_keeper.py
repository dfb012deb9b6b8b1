"""Whatever ends us, what we started ends too, and its directory goes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backstay.client import keeper

KEEPER = [sys.executable, "-I", "-S", keeper.__file__]


def gone(test, seconds=10.0):
    """Wait until something is no longer so."""
    deadline = time.monotonic() + seconds
    while test() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not test()


def child_of(process):
    deadline = time.monotonic() + 10
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (pids := children.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return Path(f"/proc/{pids[0]}")


def start(*arguments):
    return subprocess.Popen([*KEEPER, *arguments], stdin=subprocess.PIPE, start_new_session=True)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "scratch"
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "file").write_text("secret")
    return path


def test_the_program_ends_and_the_directory_goes_when_the_pipe_closes(folder):
    with start("--remove", str(folder), "--", "sleep", "60") as process:
        child = child_of(process)
        process.stdin.close()
        assert process.wait(10) == 128 + signal.SIGTERM
    assert not child.exists()
    assert not folder.exists()


def test_a_program_that_does_not_heed_is_killed(tmp_path):
    program = (
        "import signal,time;signal.signal(15,signal.SIG_IGN);print(1,flush=True);time.sleep(60)"
    )
    command = [*KEEPER, "--patience", "0.3", "--", sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        child = child_of(process)
        assert process.stdout.readline()
        process.stdin.close()
        assert process.wait(10) == 128 + signal.SIGKILL
    assert not child.exists()


@pytest.mark.parametrize("code", [0, 3])
def test_the_programs_own_end_is_passed_on(folder, code):
    with start("--remove", str(folder), "--", "sh", "-c", f"exit {code}") as process:
        assert process.wait(10) == code
    assert not folder.exists()


def test_a_directory_is_kept_without_a_program_until_the_pipe_closes(folder):
    with start("--remove", str(folder)) as process:
        time.sleep(0.3)
        assert folder.exists()
        process.stdin.close()
        assert process.wait(10) == 0
    assert not folder.exists()


def test_signals_meant_for_the_group_do_not_end_it(folder):
    with start("--remove", str(folder), "--", "sleep", "60") as process:
        child = child_of(process)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        time.sleep(0.3)
        assert process.poll() is None
        assert child.exists()
        process.stdin.close()
        process.wait(10)


def test_the_kernel_ends_the_program_where_the_keeper_is_killed():
    with start("--", "sleep", "60") as process:
        child = child_of(process)
        process.kill()
    assert gone(child.exists)
