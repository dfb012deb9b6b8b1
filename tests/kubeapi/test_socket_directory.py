"""A directory of a socket: private, gone with its block, and swept where its process was killed."""

import os
import stat
import subprocess
import sys
import time

import pytest

from backstay.errors import BackstayError
from backstay.kubeapi.socket_directory import PREFIX, SocketDirectory

HOLD = """
import sys, time
from pathlib import Path
from backstay.kubeapi.socket_directory import SocketDirectory
held = SocketDirectory(Path(sys.argv[1]))
(held.path / "s").touch()
print(held.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has one, and its path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def age(path):
    then = time.time() - 3600
    os.utime(path, (then, then))


def names(folder):
    return sorted(str(path) for path in folder.iterdir())


def test_it_is_private_and_gone_with_its_block(tmp_path):
    with SocketDirectory(tmp_path) as directory:
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
        (directory.path / "s").touch()
    directory.close()
    assert names(tmp_path) == []


def test_one_whose_process_was_killed_is_swept_by_the_next(tmp_path, holder):
    process, path = holder
    age(path)
    with SocketDirectory(tmp_path) as living:
        # However old it is, it stays for as long as its process does.
        assert names(tmp_path) == sorted([path, str(living.path)])
    process.kill()
    process.wait()
    with SocketDirectory(tmp_path) as next_one:
        assert names(tmp_path) == [str(next_one.path)]


def test_one_that_may_not_be_locked_yet_stays(tmp_path, holder):
    process, path = holder
    process.kill()
    process.wait()
    with SocketDirectory(tmp_path) as other:
        assert names(tmp_path) == sorted([path, str(other.path)])


def test_what_is_not_ours_stays(tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "file").touch()
    (tmp_path / "backstay-other").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(target)
    (tmp_path / f"{PREFIX}file").touch()
    for path in tmp_path.iterdir():
        age(path)
    before = names(tmp_path)
    SocketDirectory(tmp_path).close()
    assert names(tmp_path) == before
    assert (target / "file").exists()


def test_where_none_can_be_made_it_says_so(tmp_path):
    with pytest.raises(BackstayError, match="missing"):
        SocketDirectory(tmp_path / "missing")
