"""A throw-away member: an etcd that lives for one block, on a data directory that we made.

It holds every secret of the cluster that it is a copy of, so nobody else may reach it: it listens
on sockets in a directory of mode 0700, never on a port. It ends with the block, and with our
process, however that ends; see keeper.py.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from backstay.client import keeper
from backstay.client.access import Access, Timeouts
from backstay.client.endpoint import MAX_SOCKET_PATH, Endpoint, Scheme
from backstay.client.etcd import Etcd
from backstay.client.text import one_line
from backstay.client.tools import Tool, Version
from backstay.errors import AuthenticationError, EtcdError, ToolError
from backstay.files import explained
from backstay.report import Report

START_SECONDS = 120.0
#: etcd wants HOST:PORT in a URL, and makes it the name of a socket in its working directory.
_CLIENT, _PEER = "client:0", "peer:0"
_LOG = "etcd.log"
_LOG_TAIL = 64 << 10
#: Room to write in, beside what the file has already.
_SPARE = 1 << 30
_DEFAULT_QUOTA = 2 << 30
_NO_FSYNC: Version = (3, 5, 0)
#: etcd 3.4 insists on this one where its processor is not x86.
_KEPT_VARIABLE = "ETCD_UNSUPPORTED_ARCH"


@dataclass(frozen=True, slots=True)
class Member:
    """A running throw-away member.

    Attributes:
        access: how to enter it; without a user.
        tool: the etcd that it is.
        log: what it says.
    """

    access: Access
    tool: Tool
    log: Path


@contextmanager
def scratch(parent: Path | None = None) -> Iterator[Path]:
    """Give a private directory (0700) that is removed at the end, even when we are killed.

    Args:
        parent: where it is made; default: the system's place for temporary files.

    Raises:
        BackstayError: it can't be made.
    """
    place = parent or Path(tempfile.gettempdir())
    with explained(place):
        directory = Path(tempfile.mkdtemp(prefix="backstay-", dir=place))
    with _kept(["--remove", str(directory)], directory=None):
        yield directory


@contextmanager
def serving(
    data_dir: Path,
    tool: Tool,
    report: Report,
    *,
    quota: int | None = None,
    patience: float = START_SECONDS,
) -> Iterator[Member]:
    """Serve a data directory until the block ends.

    Args:
        data_dir: made by `etcdutl snapshot restore` for a cluster of one; or absent, for an
            empty etcd.
        tool: which etcd; see `tools.find_etcd`.
        report: is told which one runs.
        quota: bytes that its file may have; default: well above what it has.
        patience: seconds until it serves.

    Raises:
        ToolError: it does not start, in its own last words.
    """
    with _sockets() as place:
        arguments = _arguments(data_dir.absolute(), tool, quota or _ample(data_dir))
        with _kept(["--", str(tool.path), *arguments], directory=place) as process:
            member = Member(_access(place), tool, place / _LOG)
            _wait(process, member, time.monotonic() + patience)
            report.say(f"a throw-away member serves: {tool}")
            yield member


@contextmanager
def _sockets() -> Iterator[Path]:
    """Give a private directory whose name is short enough for a socket's path."""
    usual = Path(tempfile.gettempdir())
    room = MAX_SOCKET_PATH - len("/backstay-12345678/") - len(_CLIENT)
    with scratch(usual if len(os.fsencode(usual)) <= room else Path("/tmp")) as place:  # noqa: S108 - mkdtemp makes a private name in it
        yield place


def _access(place: Path) -> Access:
    endpoint = Endpoint(Scheme.UNIX, str(place / _CLIENT), 0)
    return Access(endpoints=(endpoint,), timeouts=Timeouts(dial=2.0, command=30.0))


def _ample(data_dir: Path) -> int:
    file = data_dir / "member" / "snap" / "db"
    with explained(data_dir):
        size = file.stat().st_size if file.exists() else 0
    return max(_DEFAULT_QUOTA, 2 * size + _SPARE)


def _arguments(data_dir: Path, tool: Tool, quota: int) -> list[str]:
    options = {
        "--name": "default",
        "--data-dir": str(data_dir),
        "--listen-client-urls": f"unix://{_CLIENT}",
        "--advertise-client-urls": f"unix://{_CLIENT}",
        "--listen-peer-urls": f"unix://{_PEER}",
        "--initial-advertise-peer-urls": f"unix://{_PEER}",
        "--initial-cluster": f"default=unix://{_PEER}",
        "--quota-backend-bytes": str(quota),
        "--auto-compaction-retention": "0",
        "--max-request-bytes": str(16 << 20),
        # One voter: nobody disputes an election, so it may come soon.
        "--heartbeat-interval": "20",
        "--election-timeout": "200",
    }
    words = [word for pair in options.items() for word in pair]
    # Nothing in it is to outlive us.
    return [*words, "--unsafe-no-fsync"] if tool.version >= _NO_FSYNC else words


@contextmanager
def _kept(arguments: Sequence[str], *, directory: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a keeper until the block ends; what it runs writes its log into `directory`."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ETCD", "PYTHON")) or name == _KEPT_VARIABLE
    }
    log = os.open(directory / _LOG if directory else os.devnull, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, *arguments],
            cwd=directory or "/",
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            # A Ctrl-C is for us alone: we may still want an answer from it.
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(f"{sys.executable} does not run: {error.strerror}") from error
    finally:
        os.close(log)
    try:
        yield process
    finally:
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
        process.wait()


def _wait(process: subprocess.Popen[bytes], member: Member, deadline: float) -> None:
    """Wait until it serves.

    Raises:
        ToolError: it ended, or does not within the time.
    """
    socket = Path(member.access.endpoints[0].host)
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ToolError(
                f"{member.tool} does not start: {last_words(member.log)}",
                "try another version with --etcd",
            )
        if socket.exists() and _serves(member.access):
            return
        time.sleep(0.02)
    raise ToolError(
        f"{member.tool} does not serve in time: {last_words(member.log)}",
        "look at the load of this machine",
    )


def _serves(access: Access) -> bool:
    try:
        with Etcd(access) as etcd:
            etcd.range(b"\0", count_only=True)
    except AuthenticationError:
        # It answers; who asks is the caller's matter.
        return True
    except EtcdError:
        return False
    return True


def last_words(log: Path) -> str:
    """Find the line of an etcd's log that says why it ended; one line, shortened."""
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    grave = [line for line in lines if _is_grave(line)]
    return one_line(_plain((grave or lines or ["it said nothing"])[-1]))


def _is_grave(line: str) -> bool:
    signs = ('"level":"fatal"', '"level":"panic"', "panic:", " C | ", "flag provided but", "error ")
    return any(sign in line for sign in signs)


def _plain(line: str) -> str:
    """Take the words out of a log line in JSON, as etcd 3.5 and later write them."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict):
        return line
    return ": ".join(str(entry[key]) for key in ("msg", "error") if entry.get(key))
