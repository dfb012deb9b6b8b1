"""The status of a file is what etcdutl says, byte for byte, however it is computed."""

import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.bolt import sweep
from backstay.errors import DamagedError
from backstay.mvcc.fork import can_fork, forked
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.status import FORMS, Status, read_status, render
from kit import fixtures, needs
from kit.boltbytes import Pages
from kit.snapfile import Change, element_key, put, snapshot


def status(path) -> Status:
    with Snapshot.open(path) as file:
        return read_status(file)


@pytest.mark.parametrize("threshold", [0, 1 << 62])
@pytest.mark.parametrize("name", [*fixtures.NAMES, "valid", "bad-meta0", "no-trailer"])
def test_status_is_what_four_versions_said(monkeypatch, tmp_path, name, threshold):
    monkeypatch.setattr(sweep, "_BULK_BYTES", threshold)
    facts = fixtures.facts(name)
    facts = facts.get("same_content_as_valid", facts)
    theirs = facts["snapshot_status"]
    found = status(fixtures.write(name, tmp_path))
    assert found == Status(
        theirs["hash"], theirs["revision"], theirs["totalKey"], theirs["totalSize"]
    )


def etcdutl(path, form: str) -> str:
    command = [needs.binary("etcdutl"), "snapshot", "status", path, "-w", form]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def same_as_etcdutl(path) -> None:
    found = status(path)
    for form in FORMS:
        assert render(found, form) == etcdutl(path, form)


@pytest.mark.parametrize("page_size", [2048, 4096, 65536])
@pytest.mark.parametrize("keys", [0, 1, 60])
def test_small_files_are_shown_as_by_etcdutl(tmp_path, page_size, keys):
    path = tmp_path / "snapshot.db"
    # bbolt refuses a file of less than two of the system's pages, so 512 is too small here.
    changes = [put(n + 2, b"k%d" % n) for n in range(keys)]
    path.write_bytes(snapshot(changes, page_size=page_size))
    same_as_etcdutl(path)


@pytest.mark.parametrize("revision", [2, 12345678, 123456789012, 2**62])
def test_long_revisions_widen_the_table(tmp_path, revision):
    path = tmp_path / "snapshot.db"
    path.write_bytes(snapshot([Change(element_key(revision), b"")]))
    same_as_etcdutl(path)


@pytest.mark.parametrize(("key", "digits"), [(b"92", 7), (b"586", 6), (b"1300", 5), (b"95519", 3)])
def test_short_hashes_are_shown_as_by_etcdutl(tmp_path, key, digits):
    """Leading zeros are left out, and the column gets narrower. The keys were looked for."""
    path = tmp_path / "snapshot.db"
    path.write_bytes(snapshot([put(2, key)]))
    assert len(f"{status(path).hash:x}") == digits
    same_as_etcdutl(path)


@pytest.mark.parametrize("pages", [4, 7, 100, 243, 244, 245, 2441, 2442, 30000])
def test_sizes_are_shown_as_by_etcdutl(tmp_path, pages):
    made = Pages()
    made.leaf(2, [])
    path = tmp_path / "snapshot.db"
    path.write_bytes(made.image(high_water=pages))
    same_as_etcdutl(path)


@given(
    hash_=st.integers(0, 2**32 - 1),
    revision=st.integers(0, 2**63 - 1),
    keys=st.integers(0, 2**40),
    size=st.integers(0, 2**62),
)
@settings(max_examples=50)
def test_the_table_is_a_table(hash_, revision, keys, size):
    lines = render(Status(hash_, revision, keys, size), "table").splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[3].strip("|").split("|")][:3] == [
        *(f"{hash_:x}", str(revision), str(keys))
    ]


def test_an_empty_file_and_one_without_bucket_key(tmp_path):
    pages = Pages()
    pages.leaf(2, [])
    path = tmp_path / "snapshot.db"
    path.write_bytes(pages.image())
    assert status(path) == Status(0, 0, 0, 3 * 4096)
    path.write_bytes(snapshot([]))
    assert status(path).revision == 0


def test_progress_adds_up(tmp_path):
    done = []
    with Snapshot.open(fixtures.write("etcd36-plain", tmp_path)) as file:
        read_status(file, done.append)
        assert 0 < sum(done) <= file.size
        assert sum(done) > file.size // 2


SCRIPT = """
    import sys
    from pathlib import Path
    from backstay.bolt import sweep
    from backstay.mvcc import fork, status
    from backstay.mvcc.snapshot import Snapshot

    sweep._BULK_BYTES = status._WORTH_A_FORK = 0
    forks = []
    before = status.forked
    status.forked = lambda job: forks.append(job) or before(job)
    {extra}
    with Snapshot.open(Path(sys.argv[1])) as file:
        try:
            print(status.read_status(file))
        except Exception as error:
            print(type(error).__name__, error)
    print(len(forks), "forks")
"""


def in_two_processes(path, extra: str = "") -> list[str]:
    script = textwrap.dedent(SCRIPT).format(extra=extra)
    command = [sys.executable, "-c", script, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert not done.stderr
    return done.stdout.splitlines()


needs_two = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")


@needs_two
class TestTwoProcesses:
    """In a process of their own: a test runner has threads, and such a process does not fork."""

    @pytest.mark.parametrize("name", ["etcd36-plain", "kube-plain", "valid"])
    def test_they_find_what_one_finds(self, tmp_path, name):
        path = fixtures.write(name, tmp_path)
        assert in_two_processes(path) == [str(status(path)), "1 forks"]

    def test_a_second_process_that_dies_is_replaced(self, tmp_path):
        path = fixtures.write("etcd36-plain", tmp_path)
        extra = "status._sum_apart = lambda bucket: 1 / 0"
        assert in_two_processes(path, extra)[0].startswith("Traceback") is False
        assert in_two_processes(path, extra) == [str(status(path)), "1 forks"]

    def test_damage_is_found_wherever_it_is(self, tmp_path):
        whole = fixtures.data("etcd36-plain")
        path = tmp_path / "snapshot.db"
        path.write_bytes(whole)
        with Snapshot.open(path) as file:
            leaves = [page.number for page in file.bucket(b"key").leaves()]
        for number in (leaves[1], leaves[-2]):
            data = bytearray(whole)
            data[number * 4096 + 10 : number * 4096 + 12] = b"\xff\xff"
            path.write_bytes(data)
            with pytest.raises(DamagedError, match=f"page {number} of bucket key") as caught:
                status(path)
            assert in_two_processes(path)[0] == f"DamagedError {caught.value}"

    def test_a_page_that_both_reach_is_found(self, tmp_path):
        changes = [put(n + 2, b"k%d" % n, value=b"v" * 700) for n in range(200)]
        data = bytearray(snapshot(changes))
        path = tmp_path / "snapshot.db"
        path.write_bytes(data)
        with Snapshot.open(path) as file:
            key = file.bucket(b"key")
            root = file.bolt.image.page(key.root, "")
            pages = [number for _, number in file.bolt.image.children(root, "")]
        # The last branch below the root becomes a copy of the first, but for its own id.
        first, last = pages[0] * 4096, pages[-1] * 4096
        data[last + 8 : last + 4096] = data[first + 8 : first + 4096]
        path.write_bytes(data)
        assert in_two_processes(path)[0].startswith("DamagedError")
        with pytest.raises(DamagedError):
            status(path)

    def test_a_thread_forbids_it(self, tmp_path):
        path = fixtures.write("valid", tmp_path)
        extra = "import threading; threading.Thread(target=sys.stdin.read, daemon=True).start()"
        script = textwrap.dedent(SCRIPT).format(extra=extra)
        with subprocess.Popen(
            [sys.executable, "-c", script, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            lines = [process.stdout.readline().rstrip() for _ in range(2)]
            process.stdin.close()
        assert lines == [str(status(path)), "0 forks"]


def test_a_fork_that_is_given_up_is_no_zombie(tmp_path):
    script = """
        import os, time
        from backstay.mvcc.fork import forked
        try:
            with forked(lambda: time.sleep(60) or b"") as result:
                raise KeyError
        except KeyError:
            pass
        try:
            print(os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            print("no children")
        with forked(lambda: b"x" * 300_000) as result:
            print(len(result()))
        with forked(lambda: 1 / 0) as result:
            print(result())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.split("\n") == ["no children", "300000", "None", ""]


def test_this_process_may_not_fork_when_it_has_threads():
    import threading

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert not can_fork()
    finally:
        stop.set()
        thread.join()
    assert callable(forked)
