"""etcd's own programs: found where they are, unfit ones told with the reason."""

import os
import sys
from pathlib import Path

import pytest

from backstay.client import tools
from backstay.client.tools import (
    Membership,
    Tool,
    find_etcd,
    find_restorer,
    parse_version,
    restore,
)
from backstay.errors import ToolError
from kit import needs
from kit.etcd import Etcd as Server


def program(folder: Path, name: str, says: str, code: int = 0) -> Path:
    """A program that says one thing."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """Nothing but what the test puts into one folder is found."""
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/nonexistent")
    return folder


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snapshot")
    with Server.start(folder) as server:
        server.ctl("put", "k", "v")
        server.ctl("snapshot", "save", str(folder / "db"))
    return folder / "db"


def test_the_real_programs_are_found_and_say_their_versions():
    etcd = find_etcd(needs.binary("etcd"))
    restorer = find_restorer(needs.binary("etcdutl"))
    assert etcd.version == restorer.version == (3, 5, 1)
    assert (etcd.program, restorer.program) == ("etcd", "etcdutl")
    assert str(restorer) == f"etcdutl 3.5.1 ({restorer.path})"


def test_without_a_path_the_package_has_them(monkeypatch):
    wanted = needs.binary("etcdutl")
    monkeypatch.setenv("PATH", "")
    assert find_restorer().path == wanted


def test_a_broken_wrapper_before_the_real_one_is_passed_over(monkeypatch, tmp_path):
    program(tmp_path / "bin", "etcdutl", "Traceback", code=1)
    needs.binary("etcdutl")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_restorer().version >= (3, 5, 0)
    assert find_restorer().path.parent != tmp_path / "bin"


def test_the_named_program_is_taken_or_refused_but_never_replaced(tmp_path):
    with pytest.raises(ToolError, match="which does not run"):
        find_restorer(tmp_path / "etcdutl")


def test_debians_etcdctl_is_too_old_to_restore():
    old = needs.debian("etcdctl")
    with pytest.raises(ToolError) as caught:
        find_restorer(old)
    assert f"found etcdctl 3.4.23 ({old}), which is too old" in str(caught.value)
    assert "backstay export" in caught.value.do
    assert find_etcd(needs.debian("etcd")).version == (3, 4, 23)


@pytest.mark.parametrize(
    ("name", "says", "fits"),
    [
        ("etcdutl", "etcdutl version: 3.5.21\nAPI version: 3.5", True),
        ("etcdutl", "etcdutl version: 3.6.0-rc.1\nAPI version: 3.6", True),
        ("etcdutl", "etcdutl version: 3.4.9\nAPI version: 3.4", False),
        ("etcdctl", "etcdctl version: 3.5.9\nAPI version: 3.5", True),
        ("etcdctl", "etcdctl version: 3.6.1\nAPI version: 3.6", False),
        ("etcdctl", "etcdctl version: 3.4.23\nAPI version: 3.4", False),
        ("etcdutl", "hello", False),
    ],
)
def test_what_restores_is_told_by_name_and_version(alone, name, says, fits):
    path = program(alone, name, says)
    if fits:
        assert find_restorer().path == path
    else:
        with pytest.raises(ToolError, match=str(path)):
            find_restorer()


def test_etcdutl_is_preferred_to_etcdctl(alone, monkeypatch):
    other = alone.with_name("later")
    program(alone, "etcdctl", "etcdctl version: 3.5.9")
    wanted = program(other, "etcdutl", "etcdutl version: 3.5.9")
    monkeypatch.setenv("PATH", f"{alone}:{other}")
    assert find_restorer().path == wanted


def test_a_program_older_than_the_snapshot_is_refused(alone):
    program(alone, "etcdutl", "etcdutl version: 3.5.21")
    program(alone, "etcd", "etcd Version: 3.5.21")
    assert find_restorer(least=(3, 5, 30))  # the first two numbers decide
    with pytest.raises(ToolError, match=r"3\.6 or later is needed; found etcdutl 3\.5\.21"):
        find_restorer(least=(3, 6, 0))
    with pytest.raises(ToolError, match=r"etcd 3\.6 or later is needed; found etcd 3\.5\.21"):
        find_etcd(least=(3, 6, 0))


def test_nothing_there_says_what_to_install(alone):
    with pytest.raises(ToolError, match=r"^etcd 3\.4 or later is needed: install") as caught:
        find_etcd()
    assert caught.value.do == "install etcd 3.4 or later, or name it with --etcd"


def test_a_program_that_hangs_is_given_up(alone, monkeypatch):
    path = alone / "etcd"
    path.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    path.chmod(0o755)
    monkeypatch.setattr(tools, "_ASK_SECONDS", 0.3)
    with pytest.raises(ToolError, match="does not run"):
        find_etcd()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("3.5.1", (3, 5, 1)),
        ("v3.6.0-rc.1", (3, 6, 0)),
        ("3.6", (3, 6, 0)),
        ("", None),
        ("x", None),
        ("99999.1.1", None),
    ],
)
def test_versions_are_read(text, version):
    assert parse_version(text) == version


def test_a_data_directory_is_made_with_the_membership_that_was_asked_for(snapshot, tmp_path):
    tool = find_restorer(needs.binary("etcdutl"))
    membership = Membership(
        name="a",
        initial_cluster="a=http://127.0.0.1:1,b=http://127.0.0.1:2",
        token="token",
        peer_urls="http://127.0.0.1:1",
    )
    assert membership.size == 2
    assert Membership().size == 1
    restore(tool, snapshot, tmp_path / "data", membership)
    assert (tmp_path / "data" / "member" / "snap" / "db").is_file()
    assert b"http://127.0.0.1:2" in (tmp_path / "data" / "member" / "snap" / "db").read_bytes()


def test_a_failed_restore_speaks_in_the_tools_last_words(snapshot, tmp_path):
    tool = find_restorer(needs.binary("etcdutl"))
    damaged = tmp_path / "db"
    data = bytearray(snapshot.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ToolError, match="expected sha256") as caught:
        restore(tool, damaged, tmp_path / "data", Membership())
    assert "\n" not in str(caught.value)
    damaged.write_bytes(data[:-32])
    with pytest.raises(ToolError, match="snapshot missing hash"):
        restore(tool, damaged, tmp_path / "again", Membership())
    restore(tool, damaged, tmp_path / "unchecked", Membership(), skip_hash_check=True)
    assert (tmp_path / "unchecked" / "member").is_dir()
    with pytest.raises(ToolError, match="name"):
        other = Membership(name="x", initial_cluster="a=http://a:2380")
        restore(tool, snapshot, tmp_path / "more", other)


def test_promise_5_variables_for_etcds_client_are_not_handed_on(alone, monkeypatch, tmp_path):
    monkeypatch.setenv("ETCDCTL_PASSWORD", "hunter2")
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", "https://h:1")
    path = alone / "etcdutl"
    path.write_text(f"#!/bin/sh\n/usr/bin/env >> {tmp_path}/seen\necho 'etcdutl version: 3.5.9'\n")
    path.chmod(0o755)
    restore(find_restorer(), tmp_path / "x", tmp_path / "y", Membership())
    seen = (tmp_path / "seen").read_text()
    assert "PATH=" in seen
    assert "ETCDCTL" not in seen
    assert os.environ["ETCDCTL_PASSWORD"] == "hunter2"


def test_a_tool_is_a_value():
    assert Tool(Path("/a"), (3, 5, 1)) == Tool(Path("/a"), (3, 5, 1))
