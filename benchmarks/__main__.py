"""`python -m benchmarks`: run all rows, or some, and write RESULTS.md.

Only a whole run at full size writes benchmarks/RESULTS.md; others print, unless -o names a file.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import HERE
from benchmarks.backup import backup
from benchmarks.files import status, verify, version
from benchmarks.footprint import memory
from benchmarks.results import HEADINGS, Row, command_line, facts, page
from benchmarks.workshop import Workshop

ROWS: dict[str, Callable[[Workshop], Iterator[Row]]] = {
    "status": status,
    "verify": verify,
    "backup": backup,
    "memory": memory,
    "version": version,
}
_QUICK = 0.1


def main(words: list[str] | None = None) -> list[Row]:
    """Run what the command line names."""
    options = _parser().parse_args(words)
    names = options.only or list(ROWS)
    scale = options.scale or (_QUICK if options.quick else 1.0)
    cache = HERE / ".cache"
    cache.mkdir(exist_ok=True)
    rows, machine = [], facts()
    with TemporaryDirectory(dir=cache) as folder:
        kept = options.keep_data
        if kept:
            kept.mkdir(parents=True, exist_ok=True)
        shop = Workshop(Path(folder), kept or Path(folder), scale, options.repetitions)
        shop.say(f"| {' | '.join(HEADINGS)} |")
        for name in names:
            for row in ROWS[name](shop):
                shop.say("\n".join([row.line, *row.notes]))
                rows.append(row)
    whole = scale == 1 and not options.only and not options.repetitions
    output = options.output or (HERE / "RESULTS.md" if whole else None)
    if output:
        output.write_text(page(rows, words=command_line(), machine=machine))
    return rows


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
