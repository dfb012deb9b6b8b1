"""What `etcdutl snapshot status` says of a file: hash, revision, number of keys, size.

The hash is CRC-32C over the name of each bucket and all its keys and values. The trees are proven
on the way: bounds, the order of keys, no page twice. Not looked at are the trailer and what the
values mean: see `examination`.

Source: etcd 3.5, etcdutl/snapshot (v3_snapshot.go) and etcdutl/etcdutl (printer*.go). `revision`
is that of the last element, which is not always the one at which an etcd would stand: see
`Snapshot.revision`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct

from backstay.bolt.bucket import Bucket
from backstay.bolt.sweep import Run, Sweep
from backstay.bolt.visited import Visited
from backstay.mvcc.checksum import combine, extend, extend_ranges
from backstay.mvcc.fork import can_fork, forked
from backstay.mvcc.snapshot import Snapshot

#: Below this size a second process costs more than it brings.
_WORTH_A_FORK = 64 << 20
#: How the second process tells its part, and how many bytes of pages it was.
_RESULT = Struct("<IQQQ")


@dataclass(frozen=True, slots=True)
class Status:
    """A file's status.

    Attributes:
        hash: CRC-32C over all buckets.
        revision: main revision of the last element of bucket `key`; 0 where there is none.
        total_keys: number of elements in all buckets.
        total_size: bytes of the pages in use.
    """

    hash: int
    revision: int
    total_keys: int
    total_size: int


@dataclass(frozen=True, slots=True)
class _Part:
    """The sum of some elements that follow each other, begun at 0.

    Attributes:
        crc: CRC-32C over their keys and values.
        length: bytes of these.
        elements: how many they are.
    """

    crc: int
    length: int
    elements: int


def read_status(snapshot: Snapshot, progress: Callable[[int], None] | None = None) -> Status:
    """Compute a file's status.

    Args:
        snapshot: the file.
        progress: called with numbers of bytes that are done; their sum is at most the file's.

    Raises:
        DamagedError: a tree is damaged.
    """
    bolt = snapshot.bolt
    visited = Visited(bolt.image)
    advance = progress or (lambda _: None)
    crc = elements = 0
    for name, bucket in bolt.buckets(visited):
        crc = extend(crc, name)
        for part in _parts(bucket, visited, advance):
            crc = combine(crc, part.crc, part.length)
            elements += part.elements
    revision = snapshot.last_element_revision
    return Status(crc, revision, elements, bolt.high_water * bolt.page_size)


def _parts(bucket: Bucket, visited: Visited, progress: Callable[[int], None]) -> Iterator[_Part]:
    """Sum a bucket; a large one in two halves, one of them in a process of its own."""
    sweep = Sweep(bucket, visited)
    size = bucket.image.high_water * bucket.image.page_size
    if not sweep.is_large or size < _WORTH_A_FORK or not can_fork():
        yield _sum(bucket, sweep.runs(), progress)
        return
    # Before the fork, so that both have what it imports.
    first = sweep.runs(half=0)
    with forked(lambda: _sum_apart(bucket)) as result:
        yield _sum(bucket, first, progress)
        data = result()
    if data is None:
        yield _sum(bucket, sweep.runs(half=1), progress)
        return
    *part, pages = _RESULT.unpack_from(data)
    visited.merge(data[_RESULT.size :])
    progress(pages)
    yield _Part(*part)


def _sum_apart(bucket: Bucket) -> bytes:
    visited = Visited(bucket.image)
    pages: list[int] = []
    part = _sum(bucket, Sweep(bucket, visited).runs(half=1), pages.append)
    head = _RESULT.pack(part.crc, part.length, part.elements, sum(pages))
    return head + bytes(visited.seen)


def _sum(bucket: Bucket, runs: Iterator[Run], progress: Callable[[int], None]) -> _Part:
    crc = length = elements = 0
    with memoryview(bucket.image.data) as view:
        for run in runs:
            crc = extend_ranges(crc, view, run.starts, run.ends)
            length += sum(run.ends) - sum(run.starts)
            elements += run.elements
            progress(run.pages)
    return _Part(crc, length, elements)


def render(status: Status, form: str) -> str:
    """Write a status as etcdutl 3.5 prints it, the newline at the end included.

    Args:
        status: what to write.
        form: `table`, `json`, `fields` or `simple`.
    """
    return _FORMS[form](status)


def _json(status: Status) -> str:
    return (
        f'{{"hash":{status.hash},"revision":{status.revision},'
        f'"totalKey":{status.total_keys},"totalSize":{status.total_size}}}\n'
    )


def _fields(status: Status) -> str:
    return (
        f'"Hash" : {status.hash}\n"Revision" : {status.revision}\n'
        f'"Keys" : {status.total_keys}\n"Size" : {status.total_size}\n'
    )


def _cells(status: Status) -> list[str]:
    return [
        f"{status.hash:x}",
        str(status.revision),
        str(status.total_keys),
        _size(status.total_size),
    ]


def _simple(status: Status) -> str:
    return ", ".join(_cells(status)) + "\n"


def _table(status: Status) -> str:
    heads = ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"]
    cells = _cells(status)
    widths = [max(len(head), len(cell)) for head, cell in zip(heads, cells, strict=True)]
    rule = "+".join(["", *("-" * (width + 2) for width in widths), ""])
    top = [_centred(head, width) for head, width in zip(heads, widths, strict=True)]
    row = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
    lines = [rule, f"| {' | '.join(top)} |", rule, f"| {' | '.join(row)} |", rule]
    return "\n".join(lines) + "\n"


def _centred(text: str, width: int) -> str:
    """Centre as etcdutl's table writer does: the odd space goes to the right."""
    left = (width - len(text)) // 2
    return (" " * left + text).ljust(width)


def _size(number: int) -> str:
    """Write a size as etcdutl does: decimal units, one digit after the point below ten."""
    if number < 10:
        return f"{number} B"
    exponent = math.floor(math.log(number) / math.log(1000))
    value = math.floor(number / 1000**exponent * 10 + 0.5) / 10
    unit = ["B", "kB", "MB", "GB", "TB", "PB", "EB"][exponent]
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


_FORMS = {"table": _table, "json": _json, "fields": _fields, "simple": _simple}
#: What `render` can write.
FORMS = tuple(_FORMS)
