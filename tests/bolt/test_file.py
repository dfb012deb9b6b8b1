"""Reading bolt files: real ones, ones of every page size, and ones that are wrong."""

import os
import struct
from collections import deque
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.bolt.file import BoltFile
from backstay.errors import BackstayError, DamagedError
from kit import fixtures
from kit.boltbytes import Pages, bucket, inline, leaf_body, meta, page

PAGE_SIZES = [512 << shift for shift in range(8)]


@pytest.fixture
def opened(tmp_path):
    files = []

    def opens(data: bytes, **more) -> BoltFile:
        path = tmp_path / f"{len(files)}.db"
        path.write_bytes(data)
        files.append(BoltFile.open(path, **more))
        return files[-1]

    yield opens
    for file in files:
        file.close()


def tree(page_size: int, number: int = 300) -> tuple[bytes, dict[bytes, bytes]]:
    """A bucket of two levels, one of overflowing leaves, one that is inline."""
    pages = Pages(page_size)
    items = [(b"key-%05d" % i, b"v" * (i % 40)) for i in range(number)]
    leaves = [items[i : i + 5] for i in range(0, number, 5)]
    at = 10
    children = []
    for leaf in leaves:
        pages.leaf(at, leaf)
        children.append((leaf[0][0], at))
        at += 1
    first, second = children[: len(children) // 2], children[len(children) // 2 :]
    for half in (first, second):
        pages.branch(at, half)
        at += -(-len(pages.pages[at]) // page_size)
    low, high = sorted(n for n, data in pages.pages.items() if data[8] == 1)
    root = at
    pages.branch(root, [(first[0][0], low), (second[0][0], high)])
    at += 1
    pages.leaf(at, [(b"large", b"x" * 3 * page_size), (b"small", b"y")])
    big = at
    pages.leaf(
        2,
        [
            (b"inline", inline([(b"a", b"1"), (b"b", b"")])),
            (b"key", bucket(root, 42)),
            (b"large", bucket(big)),
        ],
        flags=1,
    )
    return pages.image(), dict(items)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_every_page_size_is_read(opened, page_size):
    data, items = tree(page_size)
    file = opened(data)
    assert file.page_size == page_size
    assert file.high_water * page_size == len(data) == file.size
    assert not file.warnings
    buckets = dict(file.buckets())
    assert list(buckets) == [b"inline", b"key", b"large"]
    assert dict(buckets[b"key"].items()) == items
    assert dict(buckets[b"large"].items())[b"large"] == b"x" * 3 * page_size
    assert list(buckets[b"inline"].items()) == [(b"a", b"1"), (b"b", b"")]
    assert (buckets[b"inline"].inline, buckets[b"key"].inline) == (True, False)
    assert buckets[b"key"].sequence == 42


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_single_keys_are_found(opened, page_size):
    data, items = tree(page_size)
    found = opened(data).bucket(b"key")
    for key in [*list(items)[::7], max(items), min(items)]:
        assert found.get(key) == items[key]
    for key in (b"", b"key-00001a", b"zzz", b"key-"):
        assert found.get(key) is None
    assert found.last() == max(items.items())


def test_the_edge_is_the_way_to_the_last_leaf(opened):
    data, _ = tree(4096)
    file = opened(data)
    found = file.bucket(b"key")
    edge = found.edge()
    assert len(edge) == 3
    assert edge[0] == found.root
    assert edge[-1] == list(found.leaves())[-1].number
    assert file.bucket(b"inline").edge() == ()


def test_what_is_not_there_is_none(opened):
    file = opened(tree(4096)[0])
    assert file.bucket(b"nothing") is None
    assert file.bucket(b"ke") is None


def test_an_empty_file_has_no_buckets_and_an_empty_bucket_no_last(opened):
    pages = Pages()
    pages.leaf(2, [])
    assert list(opened(pages.image()).buckets()) == []
    pages.leaf(3, [])
    pages.top(2, key=3)
    found = opened(pages.image()).bucket(b"key")
    assert (list(found.items()), found.last(), found.get(b"x")) == ([], None, None)


def test_the_last_entry_is_found_behind_an_empty_leaf(opened):
    pages = Pages()
    pages.leaf(4, [(b"a", b"1")])
    pages.leaf(5, [])
    pages.branch(3, [(b"a", 4), (b"b", 5)])
    pages.top(2, key=3)
    assert opened(pages.image()).bucket(b"key").last() == (b"a", b"1")


@pytest.mark.parametrize("name", fixtures.NAMES)
def test_real_files_open_without_a_warning(tmp_path, name):
    path = fixtures.write(name, tmp_path)
    size = fixtures.facts(name)["snapshot_status"]["totalSize"]
    with BoltFile.open(path, size=size) as file:
        assert not file.warnings
        assert file.high_water * file.page_size == size
        total = sum(1 for _, found in file.buckets() for _ in found.items())
    assert total == fixtures.facts(name)["snapshot_status"]["totalKey"]


def test_a_descriptor_stays_open(tmp_path):
    path = fixtures.write("valid", tmp_path)
    fd = os.open(path, os.O_RDONLY)
    try:
        with BoltFile.open(fd) as file:
            assert file.bucket(b"key")
        assert os.fstat(fd).st_size
    finally:
        os.close(fd)


class TestMetas:
    def changed(self, number: int, at: int, value: int) -> bytearray:
        data = bytearray(tree(1024)[0])
        data[number * 1024 + at] ^= value
        return data

    @pytest.mark.parametrize("number", [0, 1])
    @pytest.mark.parametrize("at", [0, 8, 16, 20, 24, 32, 56, 64, 72])
    def test_one_broken_meta_is_a_warning(self, opened, number, at):
        file = opened(bytes(self.changed(number, at, 8)))
        assert len(file.warnings) == 1
        assert f"meta page {number}" in file.warnings[0]
        assert isinstance(file.metas[number], str)
        assert file.meta.page == 1 - number
        assert file.bucket(b"key").last()

    def test_two_broken_metas_are_an_error(self, opened):
        data = self.changed(0, 40, 1)
        data[1024 + 40] ^= 1
        with pytest.raises(DamagedError, match=r"meta page 0 .* meta page 1"):
            opened(bytes(data))

    def test_the_higher_transaction_counts(self, opened):
        pages = Pages()
        pages.leaf(3, [(b"old", b"")])
        pages.leaf(5, [(b"new", b"")])
        pages.top(2, key=3)
        pages.top(4, key=5)
        data = bytearray(pages.image(root=2, txid=7))
        data[4096 : 4096 + 80] = meta(1, page_size=4096, root=4, high_water=6, txid=8)
        assert opened(bytes(data)).bucket(b"key").last() == (b"new", b"")
        data[4096 : 4096 + 80] = meta(1, page_size=4096, root=4, high_water=6, txid=6)
        assert opened(bytes(data)).bucket(b"key").last() == (b"old", b"")

    @pytest.mark.parametrize("page_size", [0, 1, 256, 4095, 6144, 1 << 17, 1 << 31])
    def test_a_page_size_that_bolt_does_not_have(self, opened, page_size):
        data = bytearray(tree(4096)[0])
        data[:80] = meta(0, page_size=page_size, root=2, high_water=9, txid=9)
        file = opened(bytes(data))
        assert file.page_size == 4096
        assert f"{page_size} bytes" in file.warnings[0]

    @pytest.mark.parametrize("root", [0, 1, 100_000, 2**63, 2**64 - 1])
    def test_a_root_that_is_no_page(self, opened, root):
        pages = Pages()
        pages.leaf(2, [])
        with pytest.raises(DamagedError, match=f"root page is {root}"):
            opened(pages.image(root=root))

    def test_more_pages_in_use_than_there_are(self, opened):
        data, _ = tree(4096)
        with pytest.raises(DamagedError, match="cut short"):
            opened(data[:-4096])
        with pytest.raises(DamagedError, match="cut short"):
            opened(data, size=len(data) - 4096)
        pages = Pages()
        pages.leaf(2, [])
        whole = bytearray(pages.image(high_water=3))
        for number in (0, 1):
            whole[number * 4096 :][:80] = b""
            whole[number * 4096 : number * 4096 + 80] = meta(
                number, page_size=4096, root=2, high_water=2**61, txid=9
            )
        with pytest.raises(DamagedError, match="cut short"):
            opened(bytes(whole[: 3 * 4096]))


class TestWhatIsNoFile:
    def test_empty(self, opened):
        with pytest.raises(DamagedError, match="is empty"):
            opened(b"")

    @pytest.mark.parametrize("size", [1, 16, 79, 512, 4095, 8192, 100_000])
    def test_something_else(self, opened, size):
        with pytest.raises(DamagedError, match="no bolt file"):
            opened(b"text\n" * (size // 5 + 1))

    def test_a_directory(self, tmp_path):
        with pytest.raises(BackstayError, match="no regular file"):
            BoltFile.open(tmp_path)

    def test_a_pipe_does_not_hang(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BackstayError, match="no regular file"):
            BoltFile.open(tmp_path / "pipe")

    def test_nothing(self, tmp_path):
        with pytest.raises(BackstayError, match="No such file"):
            BoltFile.open(tmp_path / "nothing")

    def test_shorter_than_said(self, opened):
        with pytest.raises(DamagedError, match="not 99999999"):
            opened(tree(512)[0], size=99_999_999)

    @given(data=st.binary(max_size=3000))
    def test_garbage_is_refused(self, tmp_path, data):
        path = tmp_path / "garbage"
        path.write_bytes(data)
        with pytest.raises(DamagedError):
            BoltFile.open(path)

    @given(body=st.binary(max_size=3000), page_size=st.sampled_from(PAGE_SIZES[:4]))
    def test_garbage_behind_good_metas(self, tmp_path, body, page_size):
        high_water = max(-(-len(body) // page_size), 1) + 2
        data = bytearray(high_water * page_size)
        for number in (0, 1):
            at = number * page_size
            data[at : at + 80] = meta(
                number, page_size=page_size, root=2, high_water=high_water, txid=number
            )
        data[2 * page_size : 2 * page_size + len(body)] = body
        path = tmp_path / "garbage"
        path.write_bytes(data)
        # Bytes that happen to be a sound page are no damage; nothing else than that comes out.
        with BoltFile.open(path) as file, suppress(DamagedError):
            for _, found in file.buckets():
                deque(found.items())


def test_a_value_at_the_top_that_is_no_bucket(opened):
    pages = Pages()
    pages.leaf(2, [(b"plain", b"value")])
    with pytest.raises(DamagedError, match=r"'plain' at the top is no bucket"):
        list(opened(pages.image()).buckets())


@pytest.mark.parametrize("size", [0, 1, 15])
def test_a_bucket_header_that_is_cut(opened, size):
    pages = Pages()
    pages.leaf(2, [(b"key", bytes(size))], flags=1)
    with pytest.raises(DamagedError, match=f"header of {size} bytes"):
        list(opened(pages.image()).buckets())


def test_an_inline_bucket_that_is_cut_or_no_leaf(opened):
    bodies = {
        "no room": bucket(0) + bytes(15),
        "more than fit": bucket(0) + page(0, 2, 9, 0, b""),
        "no leaf": bucket(0) + page(0, 1, 0, 0, b""),
        "neither branch nor leaf": bucket(0) + page(0, 7, 0, 0, b""),
    }
    for reason, body in bodies.items():
        pages = Pages()
        pages.leaf(2, [(b"key", body)], flags=1)
        with pytest.raises(DamagedError, match=reason):
            list(opened(pages.image()).buckets())


def test_an_inline_bucket_can_not_reach_outside_itself(opened):
    pages = Pages()
    body = bytearray(leaf_body([(b"k", b"v")]))
    body[12:16] = struct.pack("<I", 200)
    pages.leaf(
        2, [(b"key", bucket(0) + page(0, 2, 1, 0, bytes(body))), (b"z", inline([]))], flags=1
    )
    with pytest.raises(DamagedError, match="inline page of bucket"):
        list(opened(pages.image()).bucket(b"key").items())


def test_a_file_that_is_closed_can_be_closed_again(tmp_path):
    file = BoltFile.open(fixtures.write("valid", tmp_path))
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        list(file.buckets())
