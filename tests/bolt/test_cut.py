"""Buckets that are cut off and go on: rewinding and appending, page by page."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.bolt import patch as patch_module
from backstay.bolt import sweep
from backstay.bolt.check import check
from backstay.bolt.file import BoltFile
from backstay.bolt.packed import Packed
from backstay.bolt.page import PAGE_HEADER
from backstay.bolt.patch import Append, Patch, Replace
from backstay.bolt.tree import PageWriter, TreeWriter
from backstay.bolt.write import NewBucket, write_all, write_file
from backstay.errors import DamagedError

PAGE_SIZES = [512, 4096]


@pytest.fixture(autouse=True, params=["page by page", "many pages at a time"])
def way(request, monkeypatch):
    """Small files go both ways."""
    monkeypatch.setattr(patch_module, "BLOCK_SIZE", 1 << 17)
    if request.param != "page by page":
        monkeypatch.setattr(sweep, "_BULK_BYTES", 0)


def write(path, elements, page_size=4096):
    with path.open("w+b") as target:
        buckets = [NewBucket(b"key", elements, 7), NewBucket(b"other", [(b"k", b"v")])]
        write_file(target, buckets, page_size=page_size)
    return path


def patched(source, target, changes):
    with BoltFile.open(source) as bolt, target.open("wb") as out:
        patch = Patch(bolt, changes)
        for block in patch.blocks():
            write_all(out, block)
        assert out.tell() == patch.size
    return target


def items(path, name=b"key"):
    with BoltFile.open(path) as bolt:
        return list(bolt.bucket(name).items())


def packed(elements):
    """Elements as a delta has them."""
    data = b"junk" + b"".join(key + value for key, value in elements)
    sizes = np.array([(len(k), len(v)) for k, v in elements], np.int64).reshape(-1, 2)
    return Packed(memoryview(data), 4, sizes[:, 0], sizes[:, 1])


def check_shape(path, page_size):
    """What nothing reaches is zero, and each branch has two children at least, as bbolt wants."""
    data = path.read_bytes()
    with BoltFile.open(path) as bolt:
        check(bolt)
        visited = patch_module.Visited(bolt.image)
        for _, bucket in bolt.buckets(visited):
            for _ in bucket.items(visited):
                pass
        seen = bytes(visited.seen)
    for number in range(2, len(seen)):
        page = data[number * page_size : (number + 1) * page_size]
        said, flags, count, _ = PAGE_HEADER.unpack_from(page)
        if not seen[number]:
            assert not any(page)
        elif said == number and flags == 1:
            assert count > 1


def numbered(count, size=50, first=0):
    return [(n.to_bytes(8, "big"), b"%d" % n * (size // 4)) for n in range(first, first + count)]


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("count", [0, 1, 9, 300, 3000])
def test_a_bucket_can_be_cut_anywhere(tmp_path, page_size, count):
    elements = numbered(count)
    source = write(tmp_path / "source", elements, page_size)
    places = sorted({0, 1, 2, count, count // 2, *random.Random(1).choices(range(count + 1), k=6)})
    for place in places:
        upto = (place - 1).to_bytes(8, "big") if place else b""
        for more in ([], numbered(1, first=1 << 40), numbered(100, first=1 << 40)):
            change = Append(more.copy, upto)
            target = patched(source, tmp_path / "target", {b"key": change})
            assert items(target) == elements[:place] + more
            assert items(target, b"other") == [(b"k", b"v")]
            check_shape(target, page_size)


SIZES = st.integers(0, 30) | st.sampled_from([200, 480, 500, 4000, 4100, 9000])


@given(
    old=st.lists(SIZES, max_size=60),
    new=st.lists(SIZES, max_size=60),
    cut=st.integers(0, 60),
    packs=st.lists(st.integers(0, 40), max_size=4),
    page_size=st.sampled_from(PAGE_SIZES),
)
def test_what_is_kept_and_what_is_added_come_out(tmp_path, old, new, cut, packs, page_size):
    elements = [(n.to_bytes(2, "big"), b"a" * size) for n, size in enumerate(old)]
    more = [(b"\xff" + n.to_bytes(2, "big"), b"b" * size) for n, size in enumerate(new)]
    source = write(tmp_path / "source", elements, page_size)

    def parts():
        rest = more
        for size in packs:
            yield packed(rest[:size])
            rest = rest[size:]
        yield from rest

    target = patched(source, tmp_path / "target", {b"key": Append(parts, cut.to_bytes(2, "big"))})
    assert items(target) == elements[: cut + 1] + more
    check_shape(target, page_size)
    again = patched(target, tmp_path / "again", {b"key": Append(list, b"\xff" + bytes(2))})
    assert items(again) == elements[: cut + 1] + more[:1]
    check_shape(again, page_size)


@given(st.lists(SIZES, min_size=1, max_size=80), st.integers(0, 80), st.sampled_from(PAGE_SIZES))
def test_packed_elements_make_the_same_leaves(sizes, first, page_size):
    elements = [(n.to_bytes(3, "big"), bytes([n % 256]) * size) for n, size in enumerate(sizes)]
    found = []
    for many in (False, True):
        pages = []
        writer = PageWriter(pages.append, page_size, 2)
        tree = TreeWriter(writer)
        tree.extend(elements[:first])
        if many:
            tree.extend_packed(packed(elements[first:]))
        else:
            tree.extend(elements[first:])
        tree.finish()
        writer.flush()
        found.append(leaves(b"".join(map(bytes, pages)), page_size))
    assert found[0] == found[1]


def leaves(data, page_size):
    """The leaves of some pages, without their ids."""
    found, at = [], 0
    while at < len(data):
        _, flags, _, overflow = PAGE_HEADER.unpack_from(data, at)
        end = at + (overflow + 1) * page_size
        if flags == 2:
            found.append(data[at + 8 : end])
        at = end
    return found


def test_keys_that_do_not_rise_are_refused():
    tree = TreeWriter(PageWriter(None, 512, 2))
    tree.extend([(b"b", b"")])
    with pytest.raises(DamagedError, match="order"):
        tree.extend_packed(packed([(b"b", b"")]))
    tree = TreeWriter(PageWriter(None, 512, 2))
    tree.extend([(b"b", b"x" * 490)])
    with pytest.raises(DamagedError, match="order"):
        tree.extend_packed(packed([(b"a", b"x" * 100)]))
    with pytest.raises(DamagedError, match="more than"):
        tree.extend_packed(packed([(b"c" * 40_000, b"")]))


def test_what_is_cut_off_is_not_looked_at_and_gone(tmp_path):
    secret = b"a secret that was rewound away"
    elements = numbered(2000) + [(b"\xff" + key, secret) for key, _ in numbered(2000)]
    source = write(tmp_path / "source", elements)
    data = bytearray(source.read_bytes())
    at = data.rindex(secret) // 4096 * 4096
    data[at + 8 : at + 16] = b"\xee" * 8
    source.write_bytes(data)
    target = patched(source, tmp_path / "target", {b"key": Append(list, b"\xfe")})
    assert items(target) == elements[:2000]
    assert secret not in target.read_bytes()
    with pytest.raises(DamagedError):
        patched(source, tmp_path / "whole", {b"key": Append(list)})


def test_damage_in_what_is_kept_is_told(tmp_path):
    source = write(tmp_path / "source", numbered(2000))
    data = bytearray(source.read_bytes())
    at = data.index(b"100010001000") // 4096 * 4096
    data[at + 8 : at + 10] = b"\xee\xee"
    source.write_bytes(data)
    for upto in (None, (1001).to_bytes(8, "big")):
        with pytest.raises(DamagedError):
            patched(source, tmp_path / "target", {b"key": Append(list, upto)})


def test_a_bucket_that_is_not_there_is_made(tmp_path):
    source = write(tmp_path / "source", numbered(5))
    more = numbered(1000)
    change = {b"new": Append(lambda: [packed(more)], b"x"), b"other": Replace(list)}
    target = patched(source, tmp_path / "target", change)
    assert items(target, b"new") == more
