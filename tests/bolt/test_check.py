"""The check of a whole bolt file, by the fast way and by the slow one: always the same answer."""

import struct
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.bolt import sweep
from backstay.bolt.check import Structure, check
from backstay.bolt.file import BoltFile
from backstay.errors import DamagedError
from kit import fixtures
from kit.boltbytes import Pages, bucket, inline, meta, page

#: Both ways are tried on everything: small files go the slow one by themselves.
WAYS = {"slow": 1 << 62, "fast": 0}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    monkeypatch.setattr(sweep, "_BULK_BYTES", WAYS[request.param])


@pytest.fixture
def checked(tmp_path):
    def checks(data: bytes) -> Structure:
        path = tmp_path / "bolt.db"
        path.write_bytes(data)
        with BoltFile.open(path) as file:
            return check(file)

    return checks


def sound(page_size: int = 4096, leaves: int = 9) -> Pages:
    """Two levels under `key`, and an inline bucket."""
    pages = Pages(page_size)
    children = []
    for number in range(leaves):
        items = [(b"%05d-%d" % (number, i), b"value %d" % i) for i in range(4)]
        pages.leaf(10 + number, items)
        children.append((items[0][0], 10 + number))
    pages.branch(3, children)
    pages.leaf(2, [(b"a", inline([(b"x", b"y")])), (b"key", bucket(3))], flags=1)
    return pages


@pytest.mark.parametrize("page_size", [512, 4096, 1 << 16])
def test_a_sound_file_is_counted(way, checked, page_size):
    # 2 metas, the bucket of buckets, a branch, 9 leaves; pages 4 to 9 are free.
    assert checked(sound(page_size).image()) == Structure(2, 37, 13, None)


@pytest.mark.parametrize("name", fixtures.NAMES)
def test_real_files_are_sound(way, tmp_path, name):
    facts = fixtures.facts(name)["snapshot_status"]
    with BoltFile.open(fixtures.write(name, tmp_path), size=facts["totalSize"]) as file:
        found = check(file)
        assert (
            found.elements
            == facts["totalKey"]
            == sum(1 for _, one in file.buckets() for _ in one.items())
        )
        assert found.pages <= file.high_water
        assert found.free is None


def test_runs_are_the_bytes_of_the_elements(way, tmp_path):
    size = fixtures.facts("etcd36-plain")["snapshot_status"]["totalSize"]
    with BoltFile.open(fixtures.write("etcd36-plain", tmp_path), size=size) as file:
        data, key = file.image.data, file.bucket(b"key")
        runs = list(sweep.Sweep(key).runs())
        joined = [data[a:b] for run in runs for a, b in zip(run.starts, run.ends, strict=True)]
        assert b"".join(joined) == b"".join(k + v for k, v in key.items())
        assert [
            (data[k:v], data[v:end])
            for run in runs
            for k, v, end in zip(run.keys, run.values, run.stops, strict=True)
        ] == list(key.items())


@pytest.mark.parametrize("name", ["etcd36-plain", "valid"])
def test_the_halves_of_a_sweep_are_the_whole(monkeypatch, tmp_path, name):
    monkeypatch.setattr(sweep, "_BULK_BYTES", 0)
    size = fixtures.facts(name)["snapshot_status"]["totalSize"]
    with BoltFile.open(fixtures.write(name, tmp_path), size=size) as file:
        key = file.bucket(b"key")

        def starts(half):
            visited = sweep.Visited(file.image)
            runs = sweep.Sweep(key, visited).runs(half)
            return [start for run in runs for start in run.starts], visited

        whole, all_pages = starts(None)
        (first, one), (second, other) = starts(0), starts(1)
        assert first + second == whole
        assert first
        assert second
        one.merge(bytes(other.seen))
        assert one.seen == all_pages.seen
        with pytest.raises(DamagedError, match="reached twice"):
            one.merge(bytes(other.seen))


def broken(name: str) -> bytes:
    pages = sound()
    match name:
        case "page twice":
            pages.branch(3, [(b"00000-0", 10), (b"00001-0", 10)])
        case "branch in itself":
            pages.branch(3, [(b"00000-0", 10), (b"00001-0", 3)])
        case "cycle":
            pages.branch(4, [(b"00001-0", 3)])
            pages.branch(3, [(b"00000-0", 10), (b"00001-0", 4)])
        case "page of another bucket":
            pages.leaf(2, [(b"key", bucket(3)), (b"other", bucket(12))], flags=1)
        case "page of a meta":
            pages.branch(3, [(b"00000-0", 1)])
        case "page beyond the file":
            pages.branch(3, [(b"00000-0", 10), (b"00001-0", 2**63)])
        case "a root beyond the file":
            pages.leaf(2, [(b"key", bucket(2**63))], flags=1)
        case "a root beyond all numbers":
            pages.leaf(2, [(b"key", bucket(2**64 - 1))], flags=1)
        case "other id":
            pages.put(12, b"\x0d" + pages.pages[12][1:])
        case "kind":
            pages.put(12, pages.pages[12][:8] + b"\x10" + pages.pages[12][9:])
        case "too many elements":
            pages.put(12, pages.pages[12][:10] + b"\xff\x03" + pages.pages[12][12:])
        case "overflow beyond the file":
            pages.put(18, pages.pages[18][:12] + b"\x01\0\0\0" + pages.pages[18][16:])
        case "overflow over the next page":
            pages.put(12, pages.pages[12][:12] + b"\x01\0\0\0" + pages.pages[12][16:])
        case "no children":
            pages.put(3, page(3, 1, 0, 0, b""))
        case "children that do not rise":
            pages.branch(3, [(b"00001-0", 11), (b"00000-0", 10)])
        case "equal children":
            pages.branch(3, [(b"00000-0", 10), (b"00000-0", 11)])
        case "key below its branch":
            pages.branch(3, [(b"00000-1", 10), (b"00001-0", 11)])
        case "key above its branch":
            pages.branch(3, [(b"00000-0", 10), (b"00000-2", 11)])
        case "branch outside the one above":
            pages.branch(4, [(b"00000-0", 10), (b"00002-0", 12)])
            pages.branch(3, [(b"00000-0", 4), (b"00001-0", 11)])
        case "keys that do not rise":
            pages.leaf(12, [(b"00002-1", b""), (b"00002-0", b"")])
        case "equal keys":
            pages.leaf(12, [(b"00002-0", b""), (b"00002-0", b"")])
        case "a bucket inside":
            pages.leaf(12, [(b"00002-0", bucket(30))], flags=1)
        case "unknown flags":
            pages.leaf(12, [(b"00002-0", b"")], flags=6)
        case "a gap":
            at = 16 + 16 + 4  # the position of the second element
            body = pages.pages[12]
            pages.put(12, body[:at] + bytes([body[at] + 1]) + body[at + 1 :])
        case "overlapping":
            at = 16 + 2 * 16 + 4
            body = pages.pages[12]
            pages.put(12, body[:at] + bytes([body[at] - 1]) + body[at + 1 :])
        case "a huge key" | "a huge value" | "a huge position":
            at = 16 + 3 * 16 + {"position": 4, "key": 8, "value": 12}[name.removeprefix("a huge ")]
            body = pages.pages[12]
            pages.put(12, body[:at] + b"\xf0\xff\xff\xff" + body[at + 4 :])
        case "sizes that wrap around":
            at = 16 + 3 * 16 + 8
            body = pages.pages[12]
            old = struct.unpack("<II", body[at : at + 8])
            new = struct.pack("<II", old[0] + 2**31, (old[1] - 2**31) % 2**32)
            pages.put(12, body[:at] + new + body[at + 8 :])
        case "a branch key that leaves its page":
            at = 16 + 8 * 16 + 4
            body = pages.pages[3]
            pages.put(3, body[:at] + b"\xff\xff\0\0" + body[at + 4 :])
        case "the last value leaves the page":
            at = 16 + 3 * 16 + 12
            body = pages.pages[18]
            pages.put(18, body[:at] + struct.pack("<I", 4096) + body[at + 4 :])
        case _:
            raise AssertionError(name)
    return pages.image()


BROKEN = {
    "page twice": "page 10 of bucket key is reached twice",
    "branch in itself": "page 3 of bucket key is reached twice",
    "cycle": "page 3 of bucket key is reached twice",
    "page of another bucket": "page 12 of bucket other is reached twice",
    "page of a meta": "refers to page 1, and",
    "page beyond the file": "refers to page 9223372036854775808",
    "a root beyond the file": "bucket key refers to page 9223372036854775808",
    "a root beyond all numbers": "bucket key refers to page 18446744073709551615",
    "other id": "page 12 of bucket key says that it is page 13",
    "kind": "page 12 of bucket key is of kind 0x10",
    "too many elements": "page 12 of bucket key claims 1023 elements",
    "overflow beyond the file": "page 18 of bucket key claims 1 overflow pages",
    "overflow over the next page": "page 13 of bucket key is reached twice",
    "no children": "page 3 of bucket key is a branch without children",
    "children that do not rise": "page 3 of bucket key do not rise",
    "equal children": "page 3 of bucket key do not rise",
    "key below its branch": "element 0 of page 10 of bucket key breaks the order",
    "key above its branch": "element 2 of page 10 of bucket key breaks the order",
    "branch outside the one above": "page 4 of bucket key has keys outside",
    "keys that do not rise": "element 1 of page 12 of bucket key breaks the order",
    "equal keys": "element 1 of page 12 of bucket key breaks the order",
    "a bucket inside": "is a bucket inside it",
    "unknown flags": "is of unknown kind",
    "a gap": "element 1 of page 12 of bucket key lies at",
    "overlapping": "element 2 of page 12 of bucket key lies at",
    "a huge key": "element 3 of page 12 of bucket key lies at",
    "a huge value": "element 3 of page 12 of bucket key lies at",
    "a huge position": "element 3 of page 12 of bucket key lies at",
    "sizes that wrap around": "element 3 of page 12 of bucket key lies at",
    "a branch key that leaves its page": "page 3 of bucket key are not in their places",
    "the last value leaves the page": "element 3 of page 18 of bucket key lies at",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(way, checked, name):
    with pytest.raises(DamagedError) as caught:
        checked(broken(name))
    assert BROKEN[name] in str(caught.value)
    assert "bolt.db" in str(caught.value)


def test_pages_that_overlap_take_no_memory(way, tmp_path):
    """Each of many pages claims all that follow it."""
    pages = Pages()
    numbers = range(600, 2500)
    for number in numbers:
        pages.leaf(number, [(b"%05d" % number, b"")], overflow=20_000 - number)
    pages.branch(10, [(b"%05d" % number, number) for number in numbers])
    pages.top(2, key=10)
    path = tmp_path / "bolt.db"
    data = pages.image(high_water=20_001)
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with BoltFile.open(path) as file, pytest.raises(DamagedError, match="reached twice"):
            check(file)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_a_tree_that_is_too_deep(way, checked):
    pages = Pages()
    pages.top(2, key=3)
    for number in range(3, 60):
        pages.branch(number, [(b"k", number + 1)])
    pages.leaf(60, [(b"k", b"v")])
    with pytest.raises(DamagedError, match="more than 24 levels deep"):
        checked(pages.image())


def test_empty_leaves_are_no_damage(way, checked):
    pages = sound()
    pages.leaf(13, [])
    assert checked(pages.image()) == Structure(2, 33, 13, None)


def test_keys_too_long_for_the_fast_way_are_compared_all_the_same(way, checked):
    pages = sound()
    items = [(b"00004" + b"x" * n, b"") for n in range(1, 50)]
    pages.leaf(14, items)
    assert checked(pages.image()).elements == 33 + len(items)
    pages.leaf(14, [*items[:-2], items[-1], items[-2]])
    with pytest.raises(DamagedError, match="element 48 of page 14"):
        checked(pages.image())


@given(keys=st.sets(st.binary(min_size=1, max_size=26), min_size=2, max_size=40), data=st.data())
@settings(max_examples=150)
def test_order_is_that_of_bytes(tmp_path, keys, data):
    """Zeros at the end, prefixes, all sizes: both ways compare keys as bytes."""
    keys = sorted(keys)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(keys) - 2))
        keys[at], keys[at + 1] = keys[at + 1], keys[at]
    pages = Pages()
    pages.leaf(3, [(key, b"") for key in keys])
    pages.top(2, key=3)
    path = tmp_path / "bolt.db"
    path.write_bytes(pages.image() + bytes(4096))
    assert answer(path, "fast") == answer(path, "slow")
    assert (keys == sorted(keys)) == isinstance(answer(path, "fast"), Structure)


def answer(path, way: str):
    """What the check says, whichever it is."""
    before, sweep._BULK_BYTES = sweep._BULK_BYTES, WAYS[way]
    try:
        with BoltFile.open(path) as file:
            return check(file)
    except DamagedError as error:
        return str(error)
    finally:
        sweep._BULK_BYTES = before


@st.composite
def flips(draw):
    """Places in a page that is in use, and bytes to write there; headers come up most."""
    where = st.one_of(st.integers(0, 80), st.integers(0, 4095))
    return [
        (draw(st.integers(0, 35)), draw(where), draw(st.binary(min_size=1, max_size=8)))
        for _ in range(draw(st.integers(1, 4)))
    ]


@given(changes=flips())
@settings(max_examples=300)
def test_whatever_is_written_over_a_file_both_ways_say_the_same(tmp_path, changes):
    data = bytearray(fixtures.data("valid")[:-32])
    for number, at, new in changes:
        place = number * 4096 + at
        data[place : place + len(new)] = new
    del data[36 * 4096 :]
    path = tmp_path / "bolt.db"
    path.write_bytes(data)
    assert answer(path, "fast") == answer(path, "slow")


@given(changes=flips(), seed=st.integers(0, 2**32))
@settings(max_examples=150)
def test_trees_of_small_pages_with_changes_both_ways_say_the_same(tmp_path, changes, seed):
    data = bytearray(sound(512, leaves=12 + seed % 5).image())
    for number, at, new in changes:
        place = (number % (len(data) // 512)) * 512 + at % 512
        data[place : place + len(new)] = new[: len(data) - place]
    path = tmp_path / "bolt.db"
    path.write_bytes(data)
    assert answer(path, "fast") == answer(path, "slow")


class TestFreelist:
    def with_list(self, ids, *, number: int = 9, count: int | None = None, kind: int = 0x10):
        pages = sound()
        body = struct.pack(f"<{len(ids)}Q", *ids)
        pages.put(number, page(number, kind, len(ids) if count is None else count, 0, body))
        return pages.image(freelist=9)

    def test_a_sound_one_is_counted(self, checked):
        assert checked(self.with_list([4, 5, 6, 7, 8])) == Structure(2, 37, 14, 5)
        assert checked(self.with_list([])).free == 0

    def test_many_have_their_number_in_front(self, checked):
        assert checked(self.with_list([3, 4, 5, 6], count=0xFFFF)).free == 3

    @pytest.mark.parametrize(
        ("ids", "more", "what"),
        [
            ([4, 12], {}, "page 12 is in use and listed as free"),
            ([4, 9], {}, "page 9 is in use and listed as free"),
            ([1, 4], {}, "has ids of no pages"),
            ([4, 19], {}, "has ids of no pages"),
            ([4, 2**64 - 1], {}, "has ids of no pages"),
            ([5, 4], {}, "do not rise"),
            ([4, 4], {}, "do not rise"),
            ([4], {"count": 511}, "claims 511 of them"),
            ([2**63], {"count": 0xFFFF}, "claims 9223372036854775808 of them"),
            ([4], {"kind": 2}, "should be the list of free pages"),
            ([4], {"number": 8}, "should be the list of free pages"),
        ],
    )
    def test_a_wrong_one_is_refused(self, checked, ids, more, what):
        with pytest.raises(DamagedError, match=what):
            checked(self.with_list(ids, **more))

    def test_one_that_is_not_there_or_in_use(self, checked):
        with pytest.raises(DamagedError, match="which there is not"):
            checked(sound().image(freelist=5000))
        pages = sound()
        pages.put(12, page(12, 0x10, 0, 0, b""))
        pages.branch(3, [(b"00000-0", 10)])
        pages.leaf(2, [(b"key", bucket(3))], flags=1)
        data = bytearray(pages.image(freelist=12))
        assert checked(bytes(data)).free == 0
        for number in (0, 1):
            facts = {"page_size": 4096, "root": 2, "high_water": 19, "txid": 9, "freelist": 10}
            data[number * 4096 : number * 4096 + 80] = meta(number, **facts)
        with pytest.raises(DamagedError, match="page 10 should be the list of free pages"):
            checked(bytes(data))


def test_what_each_raises_goes_through(tmp_path):
    with BoltFile.open(fixtures.write("valid", tmp_path)) as file:

        def each(name, run):
            raise KeyError(name)

        with pytest.raises(KeyError), suppress(DamagedError):
            check(file, each=each)
