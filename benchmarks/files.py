"""What works on a snapshot file alone: `status` and `verify`, and how long `--version` takes."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.programs import BACKSTAY, ETCDUTL, compile_ours, run
from benchmarks.results import Row, compared, limited
from benchmarks.timing import Times, by_turns
from benchmarks.workshop import LARGE_VALUES, SMALL_VALUES, Workshop, size_of

_KINDS = {"large": LARGE_VALUES, "small": SMALL_VALUES}
#: At most this many times what `etcdutl snapshot status` takes.
_STATUS = {"large": 0.7, "small": 0.12}
_VERIFY = {"large": 3.0, "small": 1.5}
_VERSION_MS = 120
_REPETITIONS = 5
_STARTS = 20


def status(shop: Workshop) -> Iterator[Row]:
    """`backstay status FILE`."""
    yield from _beside_etcdutl(shop, "status", _STATUS)


def verify(shop: Workshop) -> Iterator[Row]:
    """`backstay verify FILE`."""
    yield from _beside_etcdutl(shop, "verify", _VERIFY)


def _beside_etcdutl(shop: Workshop, command: str, goals: dict[str, float]) -> Iterator[Row]:
    compile_ours()
    for kind, goal in goals.items():
        data, file = _KINDS[kind], shop.snapshot(_KINDS[kind])
        if command == "status":
            _same_answer(file)
        times = by_turns(
            lambda file=file: run([BACKSTAY, command, file]),
            lambda file=file: run([ETCDUTL, "snapshot", "status", file]),
            shop.times(_REPETITIONS),
        )
        on = f"{size_of(file)}: values of {data.value_size} bytes"
        yield compared(f"`{command} FILE`", "`etcdutl snapshot status`", on, times=times, goal=goal)


def _same_answer(file: Path) -> None:
    """Speed counts for nothing where the answer is another one."""
    words = ("status", file, "-w", "json")
    ours, theirs = run([BACKSTAY, *words]).out, run([ETCDUTL, "snapshot", *words]).out
    if ours != theirs:
        raise SystemExit(f"etcdutl says of {file}: {theirs}\nbackstay says: {ours}")


def version(shop: Workshop) -> Iterator[Row]:
    """`backstay --version`."""
    compile_ours()
    runs = [run([BACKSTAY, "--version"]) for _ in range(1 + shop.times(_STARTS))]
    on = f"the median of {len(runs) - 1} starts"
    yield limited("`--version`", on, Times.of(runs[1:]).median * 1000, "ms", _VERSION_MS)
