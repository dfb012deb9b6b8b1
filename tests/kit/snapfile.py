"""Snapshot files made from a list of changes, right or wrong: what no etcd would write too.

data = snapshot([put(2, b"a"), delete(3, b"a")], compacted=2)
"""

from dataclasses import dataclass

from kit.boltbytes import Pages, bucket, inline, with_trailer


def varint(number: int) -> bytes:
    number %= 1 << 64
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def keyvalue(
    key: bytes = b"",
    create: int = 0,
    mod: int = 0,
    version: int = 0,
    value: bytes = b"",
    lease: int = 0,
) -> bytes:
    """The message as etcd writes it: fields in order, none that is zero."""
    out = b""
    for tag, part in ((0x0A, key), (0x10, create), (0x18, mod), (0x20, version)):
        if part:
            more = varint(len(part)) + part if isinstance(part, bytes) else varint(part)
            out += bytes([tag]) + more
    if value:
        out += b"\x2a" + varint(len(value)) + value
    return out + (b"\x30" + varint(lease) if lease else b"")


def element_key(main: int, sub: int = 0, *, tombstone: bool = False) -> bytes:
    return b"%b_%b" % (main.to_bytes(8, "big"), sub.to_bytes(8, "big")) + b"t" * tombstone


@dataclass(frozen=True)
class Change:
    key: bytes
    value: bytes


def put(main: int, key: bytes, sub: int = 0, **more) -> Change:
    fields = {"create": main, "mod": main, "version": 1, **more}
    return Change(element_key(main, sub), keyvalue(key, **fields))


def delete(main: int, key: bytes, sub: int = 0) -> Change:
    return Change(element_key(main, sub, tombstone=True), keyvalue(key))


def bump(main: int) -> Change:
    return Change(element_key(main), b"")


def snapshot(
    changes,
    *,
    compacted: int | None = None,
    scheduled: int | None = None,
    page_size: int = 4096,
    trailer: bool = True,
    **buckets,
) -> bytes:
    """A file with those changes in bucket `key`; `buckets` are dicts for the others, or None."""
    pages = Pages(page_size)
    meta = {b"consistent_index": bytes(7) + b"\x09", **buckets.pop("meta", {})}
    if compacted is not None:
        meta[b"finishedCompactRev"] = element_key(compacted)
        meta[b"scheduledCompactRev"] = element_key(compacted)
    if scheduled is not None:
        meta[b"scheduledCompactRev"] = element_key(scheduled)
    root = tree(pages, [(change.key, change.value) for change in changes], 3)
    small = {"meta": meta, "lease": {}, "auth": {}, "alarm": {}, "members": {}, **buckets}
    top = [
        (name.encode(), inline(sorted(items.items())))
        for name, items in small.items()
        if items is not None
    ]
    pages.leaf(2, sorted([*top, (b"key", bucket(root))]), flags=1, overflow=0)
    assert len(pages.pages[2]) <= page_size, "the small buckets are too large"
    image = pages.image()
    return with_trailer(image) if trailer else image


def tree(pages: Pages, items, number: int) -> int:
    """Put items into leaves from page `number` on; gives the root."""
    room = pages.size - 300
    leaves: list[list] = [[]]
    used = 0
    for key, value in items:
        size = 16 + len(key) + len(value)
        if leaves[-1] and used + size > room:
            leaves.append([])
            used = 0
        leaves[-1].append((key, value))
        used += size
    level = []
    for leaf in leaves:
        pages.leaf(number, leaf)
        level.append((leaf[0][0] if leaf else b"", number))
        number += -(-len(pages.pages[number]) // pages.size)
    while len(level) > 1:
        above = []
        for start in range(0, len(level), 8):
            pages.branch(number, level[start : start + 8])
            above.append((level[start][0], number))
            number += 1
        level = above
    return level[0][1]
