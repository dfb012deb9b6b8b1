"""What a directory has of backups: by names, without following anything out of it."""

import os
import zipfile
from datetime import UTC, datetime

import pytest

from backstay.client.answer import Header, Status
from backstay.client.endpoint import Endpoint, Scheme
from backstay.errors import BackstayError, DamagedError, FormatError
from backstay.kinds.foreign import scan as scanning
from backstay.kinds.foreign.names import is_pair, moment_of, read_name
from backstay.kinds.foreign.scan import open_inside, scan
from backstay.kinds.foreign.source import FileSource
from backstay.kinds.foreign.unzip import unzip
from backstay.report import Report


@pytest.mark.parametrize(
    ("name", "tool", "taken_at"),
    [
        ("snapshot_2021-06-25_190035.db", "cluster-backup.sh", "2021-06-25T19:00:35"),
        ("snapshot_2021-06-25_190035__POSSIBLY_DIRTY__.db", "cluster-backup.sh", "2021-06-25"),
        ("snapshot_2021-13-45_996699.db", "cluster-backup.sh", None),
        ("static_kuberesources_2021-06-25_190035.tar.gz", "cluster-backup.sh", "2021-06-25"),
        ("etcd-snapshot-node-1-1624647635", "k3s", "2021-06-25T19:00:35"),
        ("on-demand-node-1624647635.zip", "k3s", "2021-06-25T19:00:35"),
        ("on-demand-node-99999999999", "k3s", "5138-11-16"),
        ("snapshot.db", "etcdctl", None),
        ("snapshot_2021.db", "etcdctl", None),
    ],
)
def test_names_tell_tool_and_time(name, tool, taken_at):
    found = read_name(name)
    assert found.tool == tool
    assert (found.taken_at is None) == (taken_at is None)
    assert found.taken_at is None or found.taken_at.isoformat().startswith(taken_at)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".db.swp", ".hidden.db", "snapshot.DB", "etcd-snapshot-", "etcd-snapshot-node"),
        *("static_kuberesources_x.tar.gz", "snapshot_2021-06-25_190035.db.part", "a.zip"),
        *("etcd-snapshot-node-\u0661624647635", "snapshot_2021-06-25_190035.db\n"),
    ],
)
def test_other_names_tell_nothing(name):
    assert read_name(name) is None


def test_a_pair_has_one_stamp():
    one, other = "2021-06-25_190035", "2021-06-26_190035"
    assert is_pair(f"snapshot_{one}.db", f"static_kuberesources_{one}.tar.gz")
    for snapshot, archive in (
        (f"snapshot_{one}.db", f"static_kuberesources_{other}.tar.gz"),
        (f"snapshot_{one}__POSSIBLY_DIRTY__.db", f"static_kuberesources_{one}.tar.gz"),
        (f"static_kuberesources_{one}.tar.gz", f"snapshot_{one}.db"),
        (f"snapshot_{one}.db", f"snapshot_{one}.db"),
        ("a.db", "b.db"),
    ):
        assert not is_pair(snapshot, archive)


@pytest.mark.parametrize("seconds", [-1e9, 1e18, 1e300, -1e300])
def test_a_date_that_no_manifest_takes_is_the_first(seconds):
    assert moment_of(seconds) == datetime.fromtimestamp(0, UTC)


def test_what_was_swapped_for_a_link_is_not_opened(tmp_path):
    (tmp_path / "secret").write_text("not yours")
    folder = tmp_path / "backups"
    (folder / "below").mkdir(parents=True)
    path = folder / "below" / "a.db"
    path.write_text("x")
    with open_inside(path, folder) as file:
        assert file.read() == b"x"
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(BackstayError):
        open_inside(path, folder)
    # The folder in which it was found is another one now.
    path.unlink()
    (folder / "below").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.db").write_text("not yours")
    (folder / "below").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackstayError, match="not the file any more"):
        open_inside(path, folder)


def test_what_became_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.db")
    with pytest.raises(BackstayError, match="not the file any more"):
        open_inside(tmp_path / "a.db", tmp_path)


def test_a_directory_of_all_files_there_are_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(scanning, "MOST", 3)
    for number in range(4):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(FormatError, match="more than 3 files"):
        scan(tmp_path)
    with pytest.raises(BackstayError):
        scan(tmp_path / "none")


class Sink(bytearray):
    def write(self, data):
        self.extend(data)

    def reset(self):
        self.clear()


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path):
    path = tmp_path / "a.db"
    path.write_bytes(bytes(5000))
    status = Status(
        endpoint=Endpoint(Scheme.UNIX, "file", 0),
        header=Header(0, 0, 1, 1),
        version="",
        db_size=0,
        db_size_in_use=0,
        quota=None,
        leader=0,
        is_learner=False,
        raft_index=0,
        raft_applied_index=0,
        storage_version="",
        errors=(),
    )
    with path.open("rb") as file:
        source = FileSource(
            kind="etcd", fd=file.fileno(), size=5000, sha256="0" * 64, status=status, name="a.db"
        )
        with pytest.raises(DamagedError, match="changed while it was imported"):
            source.fetch(Sink(), Report())


def test_the_names_of_many_members_are_not_even_read(tmp_path, monkeypatch):
    path = tmp_path / "etcd-snapshot-n-1624647635.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(9):
            archive.writestr(str(number), b"x")

    def untouched(*_):
        raise AssertionError

    monkeypatch.setattr("backstay.kinds.foreign.unzip.zipfile.ZipFile", untouched)
    with path.open("rb") as file, pytest.raises(DamagedError, match="9 members"):
        unzip(file, path, tmp_path)
