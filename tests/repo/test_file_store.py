"""What only a directory has: permissions, links, other processes, and disks that are full."""

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from backstay.errors import AlreadyExistsError, NotFoundError, SpaceError, StoreError
from backstay.repo.stores.file import FileStore

KINDS = pytest.mark.parametrize("unnamed", [True, False], ids=["unnamed", "hidden"])


@pytest.fixture
def root(tmp_path):
    return tmp_path / "some" / "repo"


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@KINDS
def test_promise_5_others_can_read_nothing(root, unnamed):
    before = os.umask(0)
    try:
        store = FileStore(root, unnamed=unnamed)
        store.put_new("a/b/small", b"1")
        with store.writer("a/c/large") as sink:
            sink.write(b"2")
            for path in root.rglob("*"):
                assert path.stat().st_mode & 0o077 == 0
    finally:
        os.umask(before)
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


@KINDS
def test_nothing_hidden_stays_behind(root, unnamed):
    store = FileStore(root, unnamed=unnamed)
    store.put_new("a/b", b"1")
    store.now()
    with pytest.raises(ValueError, match="given up"), store.writer("a/c") as sink:
        sink.write(b"2")
        raise ValueError("given up")
    assert everything(root) == ["a", "a/b"]


def test_a_name_that_is_taken_is_found_before_anything_is_written(root):
    store = FileStore(root)
    store.put_new("a", b"1")
    with pytest.raises(AlreadyExistsError), store.writer("a"):
        pytest.fail("gigabytes would be written here")


def test_a_link_out_of_the_repository_is_not_followed(root, tmp_path):
    store = FileStore(root)
    store.put_new("a/b", b"1")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("of someone else")
    (root / "out").symlink_to(outside)
    (root / "a" / "link").symlink_to(outside / "secret")
    for act in (
        lambda: store.read("out/secret", 100),
        lambda: store.stat("out/secret"),
        lambda: next(store.stream("out/secret")),
        lambda: store.put_new("out/new", b"1"),
        lambda: store.delete("out/secret"),
        lambda: list(store.list("out")),
        lambda: store.read("a/link", 100),
        lambda: next(store.stream("a/link")),
        lambda: store.stat("a/link"),
    ):
        with pytest.raises(StoreError, match="symbolic link"):
            act()
    assert [info.path for info in store.list()] == ["a/b"]
    assert everything(outside) == ["secret"]
    store.delete("a/link")  # the link goes, what it names stays
    assert (outside / "secret").exists()


def test_the_root_itself_may_be_a_link(root, tmp_path):
    FileStore(root).put_new("a", b"1")
    (tmp_path / "link").symlink_to(root)
    assert FileStore(tmp_path / "link").read("a", 1) == b"1"


def test_what_is_no_file_is_told(root):
    store = FileStore(root)
    store.put_new("a/b", b"1")
    os.mkfifo(root / "a" / "pipe")
    with pytest.raises(StoreError, match="no regular file"):
        store.read("a/pipe", 10)
    with pytest.raises(StoreError, match="no regular file"):
        store.stat("a")
    assert [info.path for info in store.list()] == ["a/b"]


def test_names_of_others_are_passed_over(root):
    store = FileStore(root)
    store.put_new("a/b", b"1")
    (root / "a" / "notes for me.txt").write_text("hello")
    (root / ".snapshot" / "a").mkdir(parents=True)
    (root / ".snapshot" / "a" / "b").write_text("an old version")
    (root / "lost+found").mkdir()
    assert [info.path for info in store.list()] == ["a/b"]


def test_a_root_that_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("hello")
    for act in (
        lambda: FileStore(tmp_path / "file").put_new("a", b"1"),
        lambda: FileStore(tmp_path / "file" / "below").put_new("a", b"1"),
    ):
        with pytest.raises(StoreError, match="directory"):
            act()
    with pytest.raises(NotFoundError):
        FileStore(tmp_path / "missing").read("a", 1)
    assert list(FileStore(tmp_path / "missing").list()) == []
    assert not (tmp_path / "missing").exists()


@KINDS
def test_a_full_disk_is_told_and_nothing_is_published(root, unnamed):
    """A limit on the size of files stands for the full disk: the same call fails."""
    store = FileStore(root, unnamed=unnamed)
    store.put_new("a/b", b"1")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(SpaceError, match="a/big"), store.writer("a/big") as sink:
            for _ in range(40):
                sink.write(b"x" * 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert everything(root) == ["a", "a/b"]


@KINDS
def test_promise_1_a_killed_write_is_never_listed_and_is_swept(root, unnamed):
    script = (
        "import pathlib, sys\n"
        "from backstay.repo.stores.file import FileStore\n"
        "store = FileStore(pathlib.Path(sys.argv[1]), unnamed=sys.argv[2] == 'True')\n"
        "store.put_new('a/b', b'1')\n"
        "with store.writer('a/half') as sink:\n"
        "    sink.write(b'x' * 1000000)\n"
        "    print('wrote', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(root), str(unnamed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"wrote\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    store = FileStore(root)
    assert [info.path for info in store.list()] == ["a/b"]
    left = [name for name in everything(root) if name.endswith(".part")]
    assert len(left) == (0 if unnamed else 1)
    # Young ones may belong to someone who still writes.
    assert store.clear_partial(store.now() - timedelta(hours=1)) == ()
    for name in left:
        old = time.time() - 7200
        os.utime(root / name, (old, old))
    assert store.clear_partial(store.now() - timedelta(hours=1)) == tuple(left)
    assert everything(root) == ["a", "a/b"]


def test_sweeping_takes_nothing_that_has_a_name(root):
    store = FileStore(root)
    store.put_new("a/b", b"1")
    (root / "a" / ".mine").write_text("hello")
    (root / "a" / ".b.part").write_text("hello")
    assert store.clear_partial(datetime.now(UTC) + timedelta(days=9)) == ()
    assert len(everything(root)) == 4


def test_what_is_written_is_on_the_disk_before_it_has_its_name(root, monkeypatch):
    """The order of the system's calls is what survives a power cut."""
    calls = []
    real_sync, real_link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), real_sync(fd))[1])
    monkeypatch.setattr(
        os, "link", lambda *args, **more: (calls.append("link"), real_link(*args, **more))[1]
    )
    store = FileStore(root)
    store.put_new("a", b"1")
    calls.clear()
    store.put_new("b", b"1")
    assert calls == ["fsync", "link", "fsync"]


def test_times_that_somebody_made_up(root):
    store = FileStore(root)
    store.put_new("a", b"1")
    os.utime(root / "a", ns=(0, 1 << 62))
    assert store.stat("a").modified.year > 2026
    os.utime(root / "a", ns=(0, -(10**9)))
    assert store.stat("a").modified.year == 1969
