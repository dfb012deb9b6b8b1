"""How much memory of their own the commands need that touch a whole snapshot."""

import shutil
from collections.abc import Iterator

from benchmarks.memory import peak
from benchmarks.programs import BACKSTAY
from benchmarks.results import Row, limited
from benchmarks.servers import Servers, servers
from benchmarks.workshop import LITTLE, MUCH, Workshop, size_of

_GOAL_MB = 200
_LATEST = "bench/latest"


def memory(shop: Workshop) -> Iterator[Row]:
    """Peak memory of backup, verify, export and restore, on little and on much."""
    for data in (LITTLE, MUCH):
        file = shop.snapshot(data)
        folder = shop.folder / "memory"
        with servers(folder, file) as running:
            for command in _commands(running, file):
                words = [str(word) for word in command[1:]]
                most = peak(command, running.variables) / 1e6
                what = f"memory of `{_short(words, file)}`"
                yield limited(what, size_of(file), most, "MB", _GOAL_MB)
        shutil.rmtree(folder)


def _commands(running: Servers, file) -> Iterator[list[object]]:
    out = running.folder / "out"
    out.mkdir()
    yield running.backstay("backup", "etcd", "--cluster", "bench")
    yield [BACKSTAY, "verify", file, "--quiet"]
    yield running.backstay("verify", _LATEST, "--read-data")
    yield running.backstay("export", _LATEST, "-o", out / "exported.db")
    yield running.backstay("restore", "etcd", _LATEST, "--data-dir", out / "restored")


def _short(words: list[str], file) -> str:
    """Say a command as the table has room for it."""
    left = [w for w in words if w not in {"--quiet", "--allow-http", "--cluster", "bench"}]
    named = {str(file): "FILE", _LATEST: "ID"}
    kept = [named.get(word, word) for word in left if not word.startswith("/") or word in named]
    return " ".join(word for word in kept if word not in {"-o", "--data-dir"})
