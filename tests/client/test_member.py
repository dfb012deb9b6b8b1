"""The throw-away member: it serves, nobody else reaches it, and nothing of it stays."""

import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from backstay.client import member as member_module
from backstay.client.etcd import Etcd
from backstay.client.member import last_words, scratch, serving
from backstay.client.tools import Membership, find_etcd, find_restorer, restore
from backstay.errors import ToolError
from backstay.report import Report, Said
from kit import needs
from kit.etcd import Etcd as Server


@pytest.fixture(params=["3.5", "3.4"])
def tool(request):
    binary = needs.debian("etcd") if request.param == "3.4" else needs.binary("etcd")
    return find_etcd(binary)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """A snapshot, and the hash that its own etcd gave."""
    folder = tmp_path_factory.mktemp("snapshot")
    with Server.start(folder) as server, Etcd(server.access) as etcd:
        for number in range(20):
            etcd.put(b"key-%d" % (number % 7), b"%d" % number)
        server.ctl("snapshot", "save", str(folder / "db"))
        return folder / "db", etcd.hashkv(etcd.endpoints[0])


def listening_ports(pid):
    """TCP ports on which a process listens."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return [line[1] for line in lines if line[9] in inodes and line[3] == "0A"]


def pid_of(data_dir):
    """The etcd that runs on a data directory."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(data_dir) in words and b"--" not in words:
            return int(path.parent.name)
    return None


def test_promise_5_a_restored_copy_is_served_on_no_port_and_leaves_nothing(snapshot, tool):
    file, hash_of_the_original = snapshot
    said = []
    with scratch() as place:
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        data = place / "data"
        restore(find_restorer(needs.binary("etcdutl")), file, data, Membership())
        with serving(data, tool, Report(said.append)) as member:
            with Etcd(member.access) as etcd:
                (endpoint,) = etcd.endpoints
                assert etcd.status(endpoint).version == ".".join(map(str, tool.version))
                assert etcd.hashkv(endpoint) == hash_of_the_original
                assert etcd.put(b"new", b"v") == hash_of_the_original.revision + 1
            socket = Path(member.access.endpoints[0].host)
            assert stat.S_ISSOCK(socket.stat().st_mode)
            assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
            assert stat.S_IMODE(member.log.stat().st_mode) == 0o600
            pid = pid_of(data)
            assert listening_ports(pid) == []
    assert not Path(f"/proc/{pid}").exists()
    assert not place.exists()
    assert not socket.parent.exists()
    assert said == [Said(f"a throw-away member serves: {tool}")]


def test_the_port_test_above_does_see_ports(tmp_path):
    with Server.start(tmp_path) as server:
        assert len(listening_ports(server.pid)) == 1


def test_an_empty_etcd_for_a_demonstration(tool):
    with (
        scratch() as place,
        serving(place / "new", tool, Report()) as member,
        Etcd(member.access) as etcd,
    ):
        assert etcd.put(b"k", b"v") == 2


def test_the_quota_is_above_what_the_file_has(tmp_path, tool):
    snap = tmp_path / "member" / "snap"
    snap.mkdir(parents=True)
    assert member_module._ample(tmp_path) == 2 << 30
    with (snap / "db").open("wb") as file:
        file.truncate(5 << 30)
    assert member_module._ample(tmp_path) > 10 << 30
    arguments = member_module._arguments(tmp_path, tool, 123)
    assert arguments[arguments.index("--quota-backend-bytes") + 1] == "123"


def test_an_error_inside_the_block_leaves_nothing(tool):
    with (
        pytest.raises(ZeroDivisionError),
        scratch() as place,
        serving(place / "data", tool, Report()),
    ):
        pid = pid_of(place / "data")
        raise ZeroDivisionError
    assert not place.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_data_that_etcd_does_not_take_is_told_in_its_words(tool):
    with scratch() as place:
        for folder in ("snap", "wal"):
            (place / "data" / "member" / folder).mkdir(parents=True)
        (place / "data" / "member" / "snap" / "db").write_bytes(b"x" * 8192)
        (place / "data" / "member" / "wal" / f"{0:016x}-{0:016x}.wal").write_bytes(b"y" * 100)
        with (
            pytest.raises(ToolError, match=r"does not start: .*database") as caught,
            serving(place / "data", tool, Report()),
        ):
            pass
    assert str(tool) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_member_that_never_serves_is_given_up(monkeypatch, tool):
    monkeypatch.setattr(member_module, "_serves", lambda access: False)
    with (
        scratch() as place,
        pytest.raises(ToolError, match="does not serve in time"),
        serving(place / "data", tool, Report(), patience=0.5),
    ):
        pass
    assert pid_of(place / "data") is None


def test_the_environment_does_not_reach_it(monkeypatch, tool):
    monkeypatch.setenv("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1")
    monkeypatch.setenv("ETCD_NAME", "other")
    monkeypatch.setenv("ETCD_AUTO_TLS", "true")
    with (
        scratch() as place,
        serving(place / "data", tool, Report()) as member,
        Etcd(member.access) as etcd,
    ):
        assert [m.name for m in etcd.members()] == ["default"]


def test_a_long_temporary_directory_is_no_hindrance(monkeypatch, tmp_path, tool):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr(member_module.tempfile, "gettempdir", lambda: str(deep))
    with scratch() as place, serving(place / "data", tool, Report()) as member:
        assert place.parent == deep
        with Etcd(member.access) as etcd:
            assert etcd.members()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_when_we_are_killed(tool, number):
    program = (
        "import sys, time, pathlib\n"
        "from backstay.client.member import scratch, serving\n"
        "from backstay.client.tools import find_etcd\n"
        "from backstay.report import Report\n"
        "tool = find_etcd(pathlib.Path(sys.argv[1]))\n"
        "with scratch() as place, serving(place / 'data', tool, Report()) as member:\n"
        "    print(place, member.log.parent, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tool.path], stdout=subprocess.PIPE, text=True
    ) as process:
        place, sockets = map(Path, process.stdout.readline().split())
        pid = pid_of(place / "data")
        process.send_signal(number)
    left = [place, sockets, Path(f"/proc/{pid}")]
    deadline = time.monotonic() + 15
    while any(path.exists() for path in left) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [path for path in left if path.exists()] == []


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "it said nothing"),
        ('{"level":"info","msg":"a"}\n{"level":"fatal","msg":"b","error":"c"}\nstack\n', "b: c"),
        ("2026 I | a\n2026 C | etcdmain: bad\n", "2026 C | etcdmain: bad"),
        ("one\ntwo\x1b[31m\n", "two [31m"),
        ("[1, 2]\n", "[1, 2]"),
    ],
)
def test_last_words(tmp_path, log, words):
    (tmp_path / "log").write_text(log)
    assert last_words(tmp_path / "log") == words
