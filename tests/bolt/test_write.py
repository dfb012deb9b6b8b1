"""Files that the writer made: read back by our reader, and judged by bbolt itself in etcdutl."""

import io
import json
import struct
import subprocess
from itertools import pairwise

import pytest
from google_crc32c import Checksum
from hypothesis import given
from hypothesis import strategies as st

from backstay.bolt.file import BoltFile
from backstay.bolt.page import BRANCH_PAGE, LEAF_PAGE, NO_FREELIST
from backstay.bolt.tree import MAX_KEY_SIZE, MAX_VALUE_SIZE, Edge, PageWriter, TreeWriter
from backstay.bolt.write import NewBucket, metas, write_all, write_file
from backstay.errors import BackstayError, DamagedError, UsageError
from backstay.mvcc.revision import element_key
from kit import needs

PAGE_SIZES = [512, 1024, 4096, 65536]

KEYS = st.binary(min_size=1, max_size=40) | st.integers(1, 3000).map(lambda n: b"k" * n)
VALUES = st.binary(max_size=60) | st.integers(0, 9000).map(lambda n: b"v" * n)
CONTENTS = st.dictionaries(KEYS, VALUES, max_size=60)


def write(path, buckets, **options):
    with path.open("w+b") as target:
        size = write_file(target, buckets, **options)
    assert path.stat().st_size == size
    return path


def read(path):
    with BoltFile.open(path) as bolt:
        return {name: (b.sequence, list(b.items())) for name, b in bolt.buckets()}


def numbered(count, value=b"x" * 90):
    return ((number.to_bytes(8, "big"), value) for number in range(count))


@given(
    contents=st.dictionaries(st.binary(min_size=1, max_size=20), CONTENTS, max_size=5),
    page_size=st.sampled_from(PAGE_SIZES),
    sequence=st.integers(0, (1 << 64) - 1),
)
def test_what_is_written_is_read(tmp_path, contents, page_size, sequence):
    path = write(
        tmp_path / "db",
        [
            NewBucket(name, sorted(elements.items()), sequence)
            for name, elements in sorted(contents.items())
        ],
        page_size=page_size,
    )
    assert read(path) == {
        name: (sequence, sorted(elements.items())) for name, elements in contents.items()
    }
    with BoltFile.open(path) as bolt:
        assert bolt.page_size == page_size
        assert bolt.warnings == ()
        assert bolt.high_water * page_size == bolt.size


def pages(path, page_size):
    """All pages by their headers, in the order of the file."""
    data = path.read_bytes()
    at = 2
    while at * page_size < len(data):
        number, flags, count, overflow = struct.unpack_from("<QHHI", data, at * page_size)
        assert number == at
        yield flags, count, data[at * page_size : (at + overflow + 1) * page_size]
        at += overflow + 1


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("key_size", [8, 100, 200, 3000])
def test_no_branch_has_a_lone_child(tmp_path, page_size, key_size):
    # bbolt panics when it deletes below such a branch, which etcd does at each compaction.
    for count in [*range(1, 12), 29, 30, 31, 250]:
        path = tmp_path / f"{count}"
        keys = (number.to_bytes(4, "big") + b"k" * key_size for number in range(count))
        write(path, [NewBucket(b"b", ((key, b"") for key in keys))], page_size=page_size)
        branches = [n for flags, n, _ in pages(path, page_size) if flags == BRANCH_PAGE]
        assert all(children > 1 for children in branches)
        assert len(read(path)[b"b"][1]) == count


def test_pages_are_filled_and_data_lies_without_gaps(tmp_path):
    path = write(tmp_path / "db", [NewBucket(b"b", numbered(10_000))])
    leaves = [(n, page) for flags, n, page in pages(path, 4096) if flags == LEAF_PAGE][:-2]
    assert len(leaves) > 100
    for count, page in leaves:
        end = 16 + 16 * count
        for index in range(count):
            at = 16 + 16 * index
            flags, pos, key, value = struct.unpack_from("<IIII", page, at)
            assert (flags, at + pos) == (0, end)
            end += key + value
        assert 4096 - end < 16 + 8 + 90
        assert not any(page[end:])
    branches = [page for flags, _, page in pages(path, 4096) if flags == BRANCH_PAGE]
    assert len(branches) == 3


def test_large_values_have_overflow_pages_and_share_the_last(tmp_path):
    sizes = [4096, 10, 4096 - 48, 4096 - 49, 1, 3_000_000, 5]
    elements = [(bytes([i]) * 16, bytes([i]) * size) for i, size in enumerate(sizes, 1)]
    path = write(tmp_path / "db", [NewBucket(b"b", elements)])
    assert read(path)[b"b"][1] == elements
    found = [(n, len(page) // 4096) for flags, n, page in pages(path, 4096) if flags == LEAF_PAGE]
    assert found == [(2, 2), (1, 1), (1, 1), (1, 1), (2, 733), (1, 1)]


def test_both_metas_are_whole_and_name_no_freelist(tmp_path):
    path = write(tmp_path / "db", [NewBucket(b"b", numbered(10))])
    with BoltFile.open(path) as bolt:
        first, second = bolt.metas
        assert (first.txid, second.txid) == (0, 1)
        assert first.freelist == second.freelist == NO_FREELIST
        assert first.root == second.root
        assert bolt.meta is second
    for broken in (0, 4096):
        data = bytearray(path.read_bytes())
        data[broken + 40] ^= 1
        (tmp_path / "broken").write_bytes(data)
        assert read(tmp_path / "broken") == read(path)


@pytest.mark.parametrize("txid", [1, 2, 1001, (1 << 64) - 1])
def test_the_meta_of_a_transaction_is_where_bolt_looks_for_it(tmp_path, txid):
    path = write(tmp_path / "db", [])
    with path.open("r+b") as file:
        file.write(metas(page_size=4096, root=2, high_water=3, txid=txid))
    with BoltFile.open(path) as bolt:
        assert bolt.meta.txid == txid
        assert bolt.meta.page == txid % 2
        assert {meta.txid for meta in bolt.metas} == {txid, txid - 1}


@pytest.mark.parametrize("page_size", [0, -4096, 256, 4095, 6144, 1 << 17])
def test_page_sizes_that_bolt_has_not_are_refused(page_size):
    with pytest.raises(UsageError, match="page size"):
        write_file(io.BytesIO(), [], page_size=page_size)


@pytest.mark.parametrize(
    "keys", [[b"b", b"a"], [b"a", b"a"], [b"aa", b"a"], [b""], [b"a", b"\xff", b"\x80"]]
)
def test_keys_out_of_order_are_refused(keys):
    with pytest.raises(DamagedError, match="order"):
        write_file(io.BytesIO(), [NewBucket(b"b", [(key, b"") for key in keys])])
    with pytest.raises(DamagedError, match="order"):
        write_file(io.BytesIO(), [NewBucket(key, []) for key in keys])


def test_elements_that_bolt_refuses_are_refused():
    key = b"k" * (MAX_KEY_SIZE + 1)
    with pytest.raises(DamagedError, match="32769"):
        write_file(io.BytesIO(), [NewBucket(b"b", [(key, b"")])])
    write_file(io.BytesIO(), [NewBucket(b"b", [(key[1:], b"")])])

    class Huge(bytes):
        def __len__(self):
            return MAX_VALUE_SIZE + 1

    with pytest.raises(DamagedError, match="2147483647"):
        write_file(io.BytesIO(), [NewBucket(b"b", [(b"k", Huge())])])


def test_errors_show_no_key_and_no_value():
    with pytest.raises(BackstayError) as caught:
        write_file(io.BytesIO(), [NewBucket(b"b", [(b"hunter2", b"pw"), (b"hunter1", b"pw")])])
    assert "hunter" not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_memory_holds_no_more_than_the_open_pages():
    sizes = []
    writer = PageWriter(lambda data: sizes.append(len(data)), 4096, 2)
    tree = TreeWriter(writer)
    tree.extend(numbered(200_000))
    held = writer.next * 4096 - 2 * 4096 - sum(sizes)
    assert held <= (1 << 20) + 4096
    assert max(sizes) <= (1 << 20) + 8192
    assert len(tree._keys) <= 4096 // 16
    assert all(len(branch.children) <= 4096 // 16 for branch in tree._branches)


def test_a_target_that_takes_a_little_at_a_time_gets_all():
    class Slow(io.BytesIO):
        def write(self, data):
            return super().write(bytes(data)[:1000])

    slow, fast = Slow(), io.BytesIO()
    for target in (slow, fast):
        write_file(target, [NewBucket(b"b", numbered(1000))])
    assert slow.getvalue() == fast.getvalue()
    write_all(slow, b"")


@given(
    elements=CONTENTS,
    cut=st.integers(0, 60),
    page_size=st.sampled_from([512, 4096]),
)
def test_a_tree_goes_on_from_its_right_edge(tmp_path, elements, cut, page_size):
    # A tree of two levels is built by hand around the cut; the writer must not notice.
    elements = sorted(elements.items())
    left, right = elements[:cut], elements[cut:]
    held = io.BytesIO(bytes(2 * page_size))
    held.seek(0, io.SEEK_END)
    writer = PageWriter(lambda data: write_all(held, data), page_size, 2)
    children = []
    for first, second in pairwise([*range(0, len(left), 3), len(left)]):
        tree = TreeWriter(writer)
        tree.extend(left[first:second])
        children.append((left[first][0], tree.finish()))
    for split in range(len(children) + 1):
        named = children[:split]
        leaf = left[3 * split :]
        tree = TreeWriter(writer, edge=Edge(leaf, [named]))
        tree.extend(right)
        root = tree.finish()
        names = TreeWriter(writer, 1)
        names.extend([(b"b", struct.pack("<QQ", root, 0))])
        top = names.finish()
        writer.flush()
        path = tmp_path / "db"
        path.write_bytes(
            metas(page_size=page_size, root=top, high_water=writer.next)
            + held.getvalue()[2 * page_size :]
        )
        assert read(path)[b"b"][1] == elements


def test_a_new_key_at_or_below_the_edge_is_refused():
    for key in (b"a", b"m"):
        tree = TreeWriter(PageWriter(len, 4096, 2), edge=Edge([(b"b", b""), (b"m", b"")]))
        with pytest.raises(DamagedError, match="order"):
            tree.extend([(key, b"")])


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_etcdutl_takes_the_file_and_has_the_same_hash(tmp_path, page_size):
    contents = {
        b"alarm": [],
        b"key": [(element_key(2 + n, 0), bytes([n & 0xFF]) * (n * 37 % 9001)) for n in range(3000)],
        b"lease": [(n.to_bytes(8, "big"), b"l") for n in range(1000)],
        b"meta": [(b"a" * 5000, b""), (b"b" * 30000, b"v" * 100_000), (b"c" * 30000, b"")],
    }
    path = write(
        tmp_path / "db",
        [NewBucket(name, elements) for name, elements in contents.items()],
        page_size=page_size,
    )
    crc = Checksum()
    for name, elements in contents.items():
        crc.update(name)
        for key, value in elements:
            crc.update(key)
            crc.update(value)
    done = subprocess.run(
        [needs.binary("etcdutl"), "snapshot", "status", path, "-w", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {
        "hash": int.from_bytes(crc.digest(), "big"),
        "revision": 3001,
        "totalKey": sum(map(len, contents.values())),
        "totalSize": path.stat().st_size,
    }
