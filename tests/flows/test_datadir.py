import os
import subprocess
import sys
import textwrap

import pytest

from backstay.errors import AlreadyExistsError, BackstayError
from backstay.flows.datadir import building, look_at, publish


def build(target):
    with building(target) as private:
        made = private / "data"
        (made / "member" / "snap").mkdir(parents=True)
        (made / "member" / "snap" / "db").write_bytes(b"db")
        publish(made, target)


def test_a_new_directory_appears_whole(tmp_path):
    build(look_at(tmp_path / "data"))
    assert (tmp_path / "data/member/snap/db").read_bytes() == b"db"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("there", [[], ["lost+found"]])
def test_an_empty_directory_is_filled(tmp_path, there):
    target = tmp_path / "mount"
    target.mkdir()
    for name in there:
        (target / name).mkdir()
    inode = target.stat().st_ino
    build(look_at(target))
    assert target.stat().st_ino == inode
    assert sorted(path.name for path in target.iterdir()) == sorted([*there, "member"])


@pytest.mark.parametrize("name", ["member", "file", ".hidden"])
def test_promise_6_what_stands_there_is_refused(tmp_path, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text("old")
    with pytest.raises(AlreadyExistsError, match="not empty"):
        look_at(tmp_path / "data")
    (tmp_path / "file").write_text("old")
    with pytest.raises(AlreadyExistsError):
        look_at(tmp_path / "file")


@pytest.mark.parametrize("exists", [True, False])
def test_promise_6_what_comes_meanwhile_stays(tmp_path, exists):
    path = tmp_path / "data"
    if exists:
        path.mkdir()
    target = look_at(path)
    theirs = path / "member" / "theirs"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    with pytest.raises(AlreadyExistsError):
        build(target)
    assert theirs.read_text() == "theirs"
    assert list(path.parent.glob(".*")) == list(path.glob(".*")) == []


def test_a_missing_parent_is_told(tmp_path):
    with pytest.raises(BackstayError, match="make it first"):
        look_at(tmp_path / "gone" / "data")


@pytest.mark.parametrize("exists", [True, False])
def test_what_a_killed_run_left_goes_with_the_next(tmp_path, exists):
    path = tmp_path / "data"
    if exists:
        path.mkdir()
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from backstay.flows.datadir import building, look_at
        with building(look_at(Path(sys.argv[1]))) as private:
            (private / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    subprocess.run([sys.executable, "-c", script, path], check=False)
    workplace = path if exists else tmp_path
    assert len(list(workplace.glob(".data.backstay-*"))) == 1
    build(look_at(path))
    assert not list(workplace.glob(".data.backstay-*"))


def test_a_run_that_still_works_is_left_alone(tmp_path):
    target = look_at(tmp_path / "data")
    with building(target) as first:
        with building(target) as second:
            assert first.is_dir()
        assert first.is_dir()
        assert not second.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_ownership_follows_the_parent(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 1234, 2345)
    build(look_at(home / "data"))
    for path in (home / "data", home / "data/member/snap/db"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)
