import errno
import os
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from backstay.errors import AlreadyExistsError, BackstayError, SpaceError
from backstay.files import (
    explained,
    free_space,
    is_there,
    new_file,
    read_private,
    rename_new,
    unnamed_file,
)


def test_a_new_file_is_whole_and_private(tmp_path):
    path = tmp_path / "a"
    with new_file(path) as file:
        file.write(b"data")
        assert not list(tmp_path.iterdir())
    assert path.read_bytes() == b"data"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_umask_does_not_touch_the_mode(tmp_path):
    old = os.umask(0o777)
    try:
        with new_file(tmp_path / "a", mode=0o640) as file:
            file.write(b"data")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_promise_6_a_new_file_never_replaces(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(AlreadyExistsError), new_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"


def test_promise_6_a_file_that_comes_meanwhile_stays(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(AlreadyExistsError), new_file(path) as file:
        file.write(b"new")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"


def test_promise_6_a_dangling_link_is_something_too(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AlreadyExistsError), new_file(tmp_path / "a"):
        pass


def test_nothing_stays_of_a_file_that_failed(tmp_path):
    with pytest.raises(RuntimeError), new_file(tmp_path / "a") as file:
        file.write(b"half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_nothing_stays_of_a_file_whose_writer_is_killed(tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from backstay.files import new_file
        with new_file(Path(sys.argv[1])) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "a"], check=False)
    assert done.returncode == -9
    assert not list(tmp_path.iterdir())


def test_where_unnamed_files_are_missing_a_hidden_name_serves(tmp_path, monkeypatch):
    real = os.open

    def without_tmpfile(path, flags, mode=0o777, **more):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", without_tmpfile)
    with new_file(tmp_path / "a") as file:
        file.write(b"data")
    with unnamed_file(tmp_path) as file:
        file.write(b"spool")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"data"


def test_an_unnamed_file_has_no_name(tmp_path):
    with unnamed_file(tmp_path) as file:
        file.write(b"data")
        assert not list(tmp_path.iterdir())
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600


def test_promise_6_a_rename_never_replaces(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(AlreadyExistsError):
        rename_new(tmp_path / "a", tmp_path / "b")
    rename_new(tmp_path / "a", tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such(tmp_path, code):
    with pytest.raises(SpaceError, match="free some space"), explained(tmp_path):
        raise OSError(code, os.strerror(code))


def test_a_missing_directory_is_told_with_its_name(tmp_path):
    with pytest.raises(BackstayError, match="gone"), new_file(tmp_path / "gone" / "a"):
        pass


def test_small_files_are_bounded(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_private(tmp_path / "a", limit=5) == b"12345"
    with pytest.raises(BackstayError, match="more than 4 bytes"):
        read_private(tmp_path / "a", limit=4)
    with pytest.raises(BackstayError, match="directory"):
        read_private(tmp_path, limit=4)
    with pytest.raises(BackstayError, match="No such file"):
        read_private(tmp_path / "gone", limit=4)


def test_free_space_is_what_the_system_says(tmp_path):
    facts = os.statvfs(tmp_path)
    assert abs(free_space(tmp_path) - facts.f_bavail * facts.f_frsize) < 1 << 30


def test_a_pipe_is_read_to_its_end(tmp_path):
    """A shell's `<(...)` is one."""
    reading, writing = os.pipe()
    os.write(writing, b"1234")
    os.close(writing)
    try:
        assert read_private(Path(f"/dev/fd/{reading}"), limit=4) == b"1234"
    finally:
        os.close(reading)


def test_a_writer_of_a_pipe_may_take_its_time(tmp_path):
    reading, writing = os.pipe()
    late = threading.Timer(0.2, lambda: (os.write(writing, b"late"), os.close(writing)))
    late.start()
    try:
        assert read_private(Path(f"/dev/fd/{reading}"), limit=100) == b"late"
    finally:
        late.join()
        os.close(reading)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("backstay.files.PATIENCE", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BackstayError, match="nothing came"):
        read_private(tmp_path / "pipe", limit=4)


def test_what_has_no_end_is_read_no_further_than_allowed():
    with pytest.raises(BackstayError, match="more than 10 bytes"):
        read_private(Path("/dev/zero"), limit=10)


def test_names_that_no_file_can_have(tmp_path):
    assert not is_there(tmp_path / "gone")
    (tmp_path / "link").symlink_to("nowhere")
    assert is_there(tmp_path / "link")
    with pytest.raises(BackstayError, match="too long"):
        is_there(tmp_path / ("x" * 300))
    with pytest.raises(BackstayError, match="too long"), new_file(tmp_path / ("x" * 300)):
        raise AssertionError
