"""Bolt files made page by page, right or wrong in any way that a test wants.

    pages = Pages(page_size=512)
    pages.leaf(3, [(b"k", b"v")])
    pages.leaf(2, [(b"name", bucket(3))], flags=1)
    pages.image(root=2)

Nothing here comes from the code that it tests: offsets are written out once more.
"""

import hashlib
import struct

NO_LIST = 0xFFFFFFFFFFFFFFFF


def fnv(data: bytes) -> int:
    value = 14695981039346656037
    for byte in data:
        value = (value ^ byte) * 1099511628211 % 2**64
    return value


def page(number: int, kind: int, count: int, overflow: int, body: bytes) -> bytes:
    return struct.pack("<QHHI", number, kind, count, overflow) + body


def leaf_body(items, flags: int = 0) -> bytes:
    headers = data = b""
    for index, (key, value) in enumerate(items):
        position = 16 * (len(items) - index) + len(data)
        headers += struct.pack("<IIII", flags, position, len(key), len(value))
        data += key + value
    return headers + data


def branch_body(children) -> bytes:
    headers = data = b""
    for index, (key, number) in enumerate(children):
        position = 16 * (len(children) - index) + len(data)
        headers += struct.pack("<IIQ", position, len(key), number)
        data += key
    return headers + data


def bucket(root: int, sequence: int = 0) -> bytes:
    return struct.pack("<QQ", root, sequence)


def inline(items) -> bytes:
    return bucket(0) + page(0, 2, len(items), 0, leaf_body(items))


def meta(
    number: int, *, page_size: int, root: int, high_water: int, txid: int, freelist: int = NO_LIST
) -> bytes:
    body = struct.pack(
        "<IIIIQQQQQ", 0xED0CDAED, 2, page_size, 0, root, 0, freelist, high_water, txid
    )
    return page(number, 4, 0, 0, body + struct.pack("<Q", fnv(body)))


def with_trailer(image: bytes) -> bytes:
    return image + hashlib.sha256(image).digest()


class Pages:
    def __init__(self, page_size: int = 4096):
        self.size = page_size
        self.pages: dict[int, bytes] = {}

    def put(self, number: int, data: bytes) -> None:
        self.pages[number] = data

    def leaf(self, number: int, items, *, flags: int = 0, overflow: int | None = None) -> None:
        body = leaf_body(items, flags)
        if overflow is None:
            overflow = (16 + len(body) - 1) // self.size
        self.put(number, page(number, 2, len(items), overflow, body))

    def branch(self, number: int, children) -> None:
        body = branch_body(children)
        overflow = (16 + len(body) - 1) // self.size
        self.put(number, page(number, 1, len(children), overflow, body))

    def top(self, number: int, **roots: int) -> None:
        """The bucket of buckets, with the root page of each."""
        self.leaf(number, [(k.encode(), bucket(r)) for k, r in sorted(roots.items())], flags=1)

    def image(
        self,
        root: int = 2,
        *,
        txid: int = 7,
        freelist: int = NO_LIST,
        high_water: int | None = None,
    ) -> bytes:
        used = max(
            (number + (len(data) - 1) // self.size + 1 for number, data in self.pages.items()),
            default=2,
        )
        high_water = used if high_water is None else high_water
        facts = {"page_size": self.size, "root": root, "high_water": high_water}
        facts["freelist"] = freelist
        out = bytearray(max(used, high_water) * self.size)
        metas = [(0, meta(0, txid=txid, **facts)), (1, meta(1, txid=txid - 1, **facts))]
        for number, data in [*self.pages.items(), *metas]:
            out[number * self.size : number * self.size + len(data)] = data
        return bytes(out)
