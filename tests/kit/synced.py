"""Whether what a program publishes is on the disk before, and its name right after: by strace.

    calls = traced(cli, words)                       # what it, and all that it started, asked
    assert unsynced(calls, folder) == []             # of what got a name below that folder

To publish is to give something its name: a link, or a rename. A file must have been fsynced since
the last write to it, a directory since the last name in it, and so must all that is below one; the
directory that gets the name must be fsynced afterwards. A symbolic link is nothing but a name, and
what goes on inside a hidden directory nobody sees.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kit import needs
from kit.cli import Cli
from kit.process import PROGRAM, environment

_WRITES = {"write", "pwrite64", "writev", "pwritev", "ftruncate", "copy_file_range", "sendfile"}
_SYNCS = {"fsync", "fdatasync"}
_NAMES = {"link", "linkat", "rename", "renameat", "renameat2", "symlink", "symlinkat"}
_MAKES = {"mkdir", "mkdirat", "openat"}
_ENDS = {"unlink", "unlinkat", "rmdir"}
_LINE = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<rest>.*)\) += (?P<result>-?\d+)(?P<more>.*)")
_FD = re.compile(r"(?P<fd>\d+|AT_FDCWD)<(?P<path>[^>]*)>")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OWN = re.compile(r"/proc/(?:self|\d+)/fd/(\d+)")


@dataclass(frozen=True)
class Call:
    """A call that did not fail.

    Attributes:
        pid: of the thread.
        name: of the call.
        paths: what it is about, in order; a descriptor stands for what it was opened for.
        new: whether it made the file that it opened.
    """

    pid: int
    name: str
    paths: tuple[str, ...]
    new: bool = False


def traced(cli: Cli, words: Sequence[object], expect: int = 0) -> list[Call]:
    """Run a command line under strace; gives what was asked for files."""
    trace = cli.folder / "calls.trace"
    folders = {needs.binary(name).parent for name in ("etcd", "etcdutl")}
    path = ":".join(map(str, [*folders, "/usr/bin", "/bin"]))
    watched = ",".join(sorted(_WRITES | _SYNCS | _NAMES | _MAKES | _ENDS))
    strace = (needs.binary("strace"), "-f", "--seccomp-bpf", "-y", "-s", "4096", "-o", trace)
    done = subprocess.run(
        [*strace, "-e", f"trace={watched}", *PROGRAM, *map(str, words)],
        cwd=cli.folder,
        env=environment(cli.variables | {"PATH": path}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return parsed(trace.read_text(errors="replace"))


def parsed(text: str) -> list[Call]:
    """Read what strace wrote."""
    begun: dict[str, str] = {}
    opened: dict[tuple[str, str], str] = {}
    calls = []
    for line in text.splitlines():
        pid = line.partition(" ")[0]
        if line.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>").rstrip()
            continue
        resumed = re.match(r"\d+ +<\.\.\. \w+ resumed>(.*)", line)
        whole = begun.pop(pid, "") + resumed[1] if resumed else line
        found = _LINE.fullmatch(whole)
        if found is None or int(found["result"]) < 0:
            continue
        for named in _FD.finditer(found["rest"] + found["result"] + found["more"]):
            opened[pid, named["fd"]] = named["path"]
        calls.append(_call(found, opened))
    return calls


def _call(found: re.Match, opened: dict[tuple[str, str], str]) -> Call:
    name, rest = found["name"], found["rest"]
    pid = found["pid"]
    if name in _WRITES | _SYNCS:
        return Call(int(pid), name, (_FD.match(rest)["path"],))
    if name == "openat":
        result = _FD.search(found["result"] + found["more"])
        new = "O_CREAT" in rest or "O_TMPFILE" in rest
        return Call(int(pid), name, (result["path"] if result else "",), new)
    places = [one["path"] for one in _FD.finditer(_TEXT.sub('""', rest))]
    texts = _TEXT.findall(rest)
    if name.startswith("symlink"):
        texts = texts[1:]  # what it says is no place
    # Calls with directories name one for each path.
    folders = places[-len(texts) :] if len(places) >= len(texts) else [""] * len(texts)
    paths = []
    for folder, path in zip(folders, texts, strict=True):
        own = _OWN.fullmatch(path)
        paths.append(opened[pid, own[1]] if own else os.path.normpath(Path(folder, path)))
    return Call(int(pid), name, tuple(paths))


@dataclass
class _Disk:
    """What is not on the disk yet."""

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    published: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def write(self, path: str) -> None:
        self.files.add(path)

    def name(self, path: str) -> None:
        self.folders.add(str(Path(path).parent))

    def forget(self, path: str) -> None:
        self.files.discard(path)
        self.folders.discard(path)

    def sync(self, path: str) -> None:
        self.forget(path)
        self.published = {name: folder for name, folder in self.published.items() if folder != path}

    def publish(self, source: str, target: str, *, moved: bool, seen: bool) -> None:
        below = f"{source}/"
        for path in sorted(self.files | self.folders):
            if seen and (path == source or path.startswith(below)):
                self.faults.append(f"{target} is published, and {path} is not on the disk")
        for kind in (self.files, self.folders):
            for path in [path for path in kind if path == source or path.startswith(below)]:
                kind.discard(path)
                kind.add(target + path.removeprefix(source))
        if moved:
            self.name(source)
        self.name(target)
        if seen:
            self.published[target] = str(Path(target).parent)


def unsynced(calls: Sequence[Call], folder: Path) -> list[str]:
    """Say of all that was published below a folder what was not on the disk in time."""
    disk, inside = _Disk(), f"{folder}/"
    for call in calls:
        first = call.paths[0]
        if call.name in _SYNCS:
            disk.sync(first)
        elif not call.paths[-1].startswith(inside):
            continue
        elif call.name in _WRITES:
            disk.write(first)
        elif call.name == "openat":
            if call.new:
                disk.write(first)
                disk.name(first)
        elif call.name in _ENDS:
            disk.forget(first)
        elif call.name.startswith(("mkdir", "symlink")):
            disk.name(call.paths[-1])
        else:
            moved = call.name.startswith("rename")
            disk.publish(first, call.paths[1], moved=moved, seen=_is_seen(call, inside))
    late = [f"{name} has a name that is not on the disk" for name in disk.published]
    return disk.faults + late


def _is_seen(call: Call, inside: str) -> bool:
    folders = call.paths[-1].removeprefix(inside).split("/")[:-1]
    return not any(name.startswith(".") for name in folders)


def published(calls: Sequence[Call], folder: Path) -> list[str]:
    """What got a name below a folder."""
    return [
        call.paths[-1]
        for call in calls
        if call.name in _NAMES
        and call.paths[-1].startswith(f"{folder}/")
        and _is_seen(call, f"{folder}/")
    ]
