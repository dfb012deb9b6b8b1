"""`python -m benchmarks`: run all rows, or some, and write RESULTS.md.

The page has sections, each with the time and the machine of its own measurement. A section is
written there by a run of all its rows at full size; what was not run stays as it was. Other runs
print, unless -o names a file.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import HERE
from benchmarks.backup import backup
from benchmarks.files import status, verify, version
from benchmarks.footprint import memory
from benchmarks.history import apply, rewind
from benchmarks.hosted import ABOUT, downtime, hosted_memory, restoring, transports
from benchmarks.recording import record
from benchmarks.results import HEADINGS, Row, Section, command_line, facts, page
from benchmarks.workshop import Workshop

_Rows = dict[str, Callable[[Workshop], Iterator[Row]]]
SECTIONS: dict[str, tuple[str, _Rows]] = {
    "Files, and one etcd": (
        "",
        {
            "status": status,
            "verify": verify,
            "backup": backup,
            "memory": memory,
            "version": version,
        },
    ),
    "Points in time": (
        "",
        {
            "rewind": rewind,
            "apply": apply,
            "record": record,
        },
    ),
    "Hosted control planes": (
        ABOUT,
        {
            "hosted-downtime": downtime,
            "hosted-transports": transports,
            "hosted-restore": restoring,
            "hosted-memory": hosted_memory,
        },
    ),
}
ROWS = [name for _, rows in SECTIONS.values() for name in rows]
_QUICK = 0.1


def main(words: list[str] | None = None) -> None:
    """Run what the command line names."""
    options = _parser().parse_args(words)
    names = options.only or ROWS
    scale = options.scale or (_QUICK if options.quick else 1.0)
    cache = HERE / ".cache"
    cache.mkdir(exist_ok=True)
    sections = []
    with TemporaryDirectory(dir=cache) as folder:
        kept = options.keep_data
        if kept:
            kept.mkdir(parents=True, exist_ok=True)
        shop = Workshop(Path(folder), kept or Path(folder), scale, options.repetitions)
        shop.say(f"| {' | '.join(HEADINGS)} |")
        for title, (about, rows) in SECTIONS.items():
            wanted = [name for name in rows if name in names]
            if wanted:
                machine = facts()
                found = [row for name in wanted for row in _run(shop, rows[name])]
                about_run = {"words": command_line(), "machine": machine, "about": about}
                section = Section.of(title, found, **about_run)
                sections.append((section, len(wanted) == len(rows)))
    _write(sections, options, full=scale == 1 and not options.repetitions)


def _run(shop: Workshop, rows: Callable[[Workshop], Iterator[Row]]) -> Iterator[Row]:
    for row in rows(shop):
        shop.say("\n".join([row.line, *row.notes]))
        yield row


def _write(sections, options, *, full: bool) -> None:
    """Keep what was found: in the file that was named, or what is whole in RESULTS.md."""
    if options.output:
        options.output.write_text(page([section for section, _ in sections]))
        return
    whole = [section for section, is_whole in sections if is_whole]
    if full and whole:
        results = HERE / "RESULTS.md"
        results.write_text(page(whole, results.read_text() if results.exists() else ""))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=ROWS, help="one row; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes: a try")
    parser.add_argument("--scale", type=float, help="another part of the sizes")
    parser.add_argument("--repetitions", type=int, help="how often each thing is timed")
    parser.add_argument(
        "--keep-data", type=Path, metavar="DIR", help="keep the snapshots there, and use them again"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the page there")
    return parser


if __name__ == "__main__":
    main()
