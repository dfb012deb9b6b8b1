"""Patched files: the new contents, what is kept in place, what is wiped, what is refused."""

import io
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.bolt import patch as patch_module
from backstay.bolt.bucket import Visited
from backstay.bolt.file import BoltFile
from backstay.bolt.page import BUCKET_HEADER, LEAF_PAGE, PAGE_HEADER
from backstay.bolt.patch import Append, Patch, Replace
from backstay.bolt.tree import PageWriter, TreeWriter
from backstay.bolt.write import NewBucket, metas, write_all, write_file
from backstay.errors import BackstayError, DamagedError
from backstay.mvcc.revision import element_key
from kit import needs

PAGE_SIZES = [512, 4096, 65536]
JUNK = b"a deleted secret"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let pages of small files, too, lie in several blocks."""
    monkeypatch.setattr(patch_module, "BLOCK_SIZE", 1 << 17)


def write(path, contents, page_size=4096):
    with path.open("w+b") as target:
        write_file(
            target,
            [NewBucket(name, sorted(elements.items()), 7) for name, elements in contents.items()],
            page_size=page_size,
        )
    return path


def patched(source, target, changes):
    """Patch a file; says what came out is what was planned."""
    with BoltFile.open(source) as bolt, target.open("wb") as out:
        patch = Patch(bolt, changes)
        for block in patch.blocks():
            write_all(out, block)
        assert out.tell() == patch.size
    return target


def read(path):
    with BoltFile.open(path) as bolt:
        assert bolt.warnings == ()
        return {name: dict(bucket.items()) for name, bucket in bolt.buckets()}


def reached(path):
    """Which pages something reaches, by the reader's walks."""
    with BoltFile.open(path) as bolt:
        visited = Visited(bolt.image)
        for _, bucket in bolt.buckets(visited):
            for _ in bucket.items(visited):
                pass
        return bytes(visited.seen)


def soiled(path):
    """Fill the pages that nothing reaches, and 50 more behind all, with what must not come out."""
    size = page_size(path)
    data = bytearray(path.read_bytes())
    for number, seen in enumerate(reached(path)):
        if number > 1 and not seen:
            data[number * size : (number + 1) * size] = JUNK * (size // len(JUNK))
    data += JUNK * (50 * size // len(JUNK))
    path.write_bytes(data)
    return path


def page_size(path):
    return struct.unpack_from("<I", path.read_bytes(), 24)[0]


def numbered(count, value=b"x" * 90, first=0):
    return {number.to_bytes(8, "big"): value for number in range(first, first + count)}


KEYS = st.binary(min_size=1, max_size=30) | st.integers(1, 2000).map(lambda n: b"k" * n)
VALUES = st.binary(max_size=60) | st.integers(0, 9000).map(lambda n: b"v" * n)
CONTENTS = st.dictionaries(KEYS, VALUES, max_size=50)
NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])


@st.composite
def cases(draw):
    before = draw(st.dictionaries(NAMES, CONTENTS, max_size=4))
    changes, after = {}, dict(before)
    for name, (append, elements) in draw(
        st.dictionaries(NAMES, st.tuples(st.booleans(), CONTENTS), min_size=1, max_size=4)
    ).items():
        if append:
            old = before.get(name, {})
            above = max(old, default=b"")[:2500]
            new = {above + b"\xff" + key: value for key, value in elements.items()}
            new = {key: value for key, value in new.items() if key > max(old, default=b"")}
            changes[name] = Append(sorted(new.items()).copy)
            after[name] = {**old, **new}
        else:
            changes[name] = Replace(sorted(elements.items()).copy)
            after[name] = elements
    return dict(sorted(before.items())), changes, after


@given(case=cases(), page_size=st.sampled_from(PAGE_SIZES))
def test_changes_come_out_and_nothing_else_changes(tmp_path, case, page_size):
    before, changes, after = case
    source = write(tmp_path / "source", before, page_size)
    target = patched(source, tmp_path / "target", changes)
    assert read(target) == after
    with BoltFile.open(target) as bolt:
        assert {name: bucket.sequence for name, bucket in bolt.buckets()} == {
            name: 7 if name in before else 0 for name in after
        }
    # Once more, now from a file with free pages.
    again = patched(soiled(target), tmp_path / "again", {b"z": Replace(list)})
    assert read(again) == {**after, b"z": {}}
    assert JUNK not in again.read_bytes()


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_what_nothing_reaches_is_zero(tmp_path, page_size):
    source = write(
        tmp_path / "source",
        {b"big": numbered(3000), b"gone": numbered(500, b"old" * 400), b"small": numbered(3)},
        page_size,
    )
    changes = {b"gone": Replace(list), b"big": Append(numbered(1, first=5000).items)}
    target = patched(soiled(source), tmp_path / "target", changes)
    data = target.read_bytes()
    seen = reached(target)
    assert seen.count(0) > 5
    for number in range(2, len(seen)):
        if not seen[number]:
            assert not any(data[number * page_size : (number + 1) * page_size])
    assert JUNK not in data
    assert b"oldold" not in data


def test_what_is_kept_stays_in_place(tmp_path):
    source = write(tmp_path / "source", {b"big": numbered(20_000), b"other": numbered(100)})
    target = patched(source, tmp_path / "target", {b"big": Append(lambda: [(b"\xff", b"new")])})
    old, new = source.read_bytes(), target.read_bytes()
    pages = range(2 * 4096, len(old), 4096)
    changed = [at for at in pages if old[at : at + 4096] != new[at : at + 4096]]
    # The rightmost leaf, the two branches above it, and the bucket of buckets.
    assert len(changed) == 4
    assert not any(any(new[at : at + 4096]) for at in changed)
    assert len(new) == len(old) + 4 * 4096


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_without_changes_every_byte_comes_out(tmp_path, page_size):
    source = write(tmp_path / "source", {b"a": numbered(3000), b"b": {}}, page_size)
    source = soiled(patched(source, tmp_path / "dirty", {b"b": Replace(numbered(9).items)}))
    assert JUNK in source.read_bytes()
    target = patched(source, tmp_path / "target", {})
    assert target.read_bytes() == source.read_bytes()


def with_inline(path, inline, page_size=4096):
    """A file with one bucket on pages and one inside the bucket of buckets."""
    held = io.BytesIO()
    writer = PageWriter(lambda data: write_all(held, data), page_size, 2)
    tree = TreeWriter(writer)
    tree.extend(numbered(100).items())
    image = io.BytesIO()
    inner = TreeWriter(PageWriter(lambda data: write_all(image, data), 16, 0))
    inner._capacity = 1 << 30
    inner.extend(sorted(inline.items()))
    inner.finish()
    inner._pages.flush()
    names = TreeWriter(writer, 1)
    names.extend(
        [
            (b"in", BUCKET_HEADER.pack(0, 3) + image.getvalue()),
            (b"on", BUCKET_HEADER.pack(tree.finish(), 4)),
        ]
    )
    root = names.finish()
    writer.flush()
    path.write_bytes(
        metas(page_size=page_size, root=root, high_water=writer.next) + held.getvalue()
    )
    return path


@pytest.mark.parametrize("inline", [{}, {b"a": b"1"}, {b"a": b"1", b"bb": b"2" * 300}])
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_inline_buckets(tmp_path, inline, page_size):
    source = with_inline(tmp_path / "source", inline, page_size)
    assert read(source)[b"in"] == inline
    more = numbered(200, first=1 << 63)
    for number, (change, expected) in enumerate(
        [
            (Append(more.items), {**inline, **more}),
            (Replace(more.items), more),
            (None, inline),
        ]
    ):
        changes = {b"in": change} if change else {b"on": Append(list)}
        target = patched(source, tmp_path / f"target{number}", changes)
        assert read(target) == {b"in": expected, b"on": numbered(100)}
        with BoltFile.open(target) as bolt:
            assert [b.sequence for _, b in bolt.buckets()] == [3, 4]


def test_a_damaged_inline_bucket_is_refused(tmp_path):
    source = with_inline(tmp_path / "source", {b"mark": b"1"})
    data = bytearray(source.read_bytes())
    at = data.index(b"mark") - 16
    data[at + 4] += 1
    source.write_bytes(data)
    for changes in ({}, {b"on": Append(list)}, {b"in": Append(list)}):
        with pytest.raises(DamagedError):
            patched(source, tmp_path / "target", changes)


@pytest.mark.parametrize("count", [1, 40, 41, 3000])
def test_many_appended_elements_keep_the_tree_in_bolts_rules(tmp_path, count):
    source = write(tmp_path / "source", {b"a": numbered(1500)}, 512)
    target = patched(source, tmp_path / "target", {b"a": Append(numbered(count, first=1500).items)})
    assert read(target)[b"a"] == numbered(1500 + count)
    data, seen = target.read_bytes(), reached(target)
    for number in range(2, len(seen)):
        said, flags, children, _ = PAGE_HEADER.unpack_from(data, number * 512)
        if seen[number] and said == number and flags == 1:
            assert children > 1


def test_an_empty_leaf_at_the_edge_is_no_obstacle(tmp_path):
    source = write(tmp_path / "source", {b"a": numbered(1500)})
    data = bytearray(source.read_bytes())
    with BoltFile.open(source) as bolt:
        edge = bolt.bucket(b"a").edge()[-1]
        lost = len(list(bolt.image.elements(bolt.image.page(edge, "a"), "a")))
    struct.pack_into("<H", data, edge * 4096 + 10, 0)
    source.write_bytes(data)
    more = numbered(5, first=5000)
    target = patched(source, tmp_path / "target", {b"a": Append(more.items)})
    assert read(target)[b"a"] == {**numbered(1500 - lost), **more}
    target = patched(source, tmp_path / "again", {b"a": Append(list)})
    assert read(target)[b"a"] == numbered(1500 - lost)
    last = (1500 - lost - 1).to_bytes(8, "big")
    with pytest.raises(DamagedError, match="order"):
        patched(source, tmp_path / "none", {b"a": Append(lambda: [(last, b"")])})


def test_new_keys_below_the_last_are_refused(tmp_path):
    source = write(tmp_path / "source", {b"a": numbered(1500)})
    for key in ((1499).to_bytes(8, "big"), b"\0"):
        with pytest.raises(DamagedError, match="order"):
            patched(source, tmp_path / "target", {b"a": Append(lambda key=key: [(key, b"")])})


def test_a_change_that_is_another_the_second_time_is_noticed(tmp_path):
    source = write(tmp_path / "source", {b"a": numbered(10)})
    calls = iter([numbered(10), numbered(1000)])
    with pytest.raises(DamagedError, match="changed while it was read"):
        patched(source, tmp_path / "target", {b"a": Replace(lambda: next(calls).items())})


def test_the_count_of_transactions_may_be_at_its_end(tmp_path):
    source = write(tmp_path / "source", {b"a": numbered(10)})
    data = source.read_bytes()
    with BoltFile.open(source) as bolt:
        meta = bolt.meta
    top = metas(
        page_size=4096, root=meta.root, high_water=meta.high_water, txid=(1 << 64) - 1, sequence=5
    )
    source.write_bytes(top + data[len(top) :])
    target = patched(source, tmp_path / "target", {b"b": Replace(list)})
    assert read(target) == {b"a": numbered(10), b"b": {}}
    with BoltFile.open(target) as bolt:
        assert bolt.meta.sequence == 5


def test_bbolt_accepts_a_patched_file(tmp_path):
    history = {element_key(n, 0): b"v" * (n % 6000) for n in range(2, 4000)}
    source = write(tmp_path / "source", {b"key": history, b"meta": numbered(10)})
    target = patched(
        source,
        tmp_path / "target",
        {
            b"key": Append(lambda: [(element_key(9000, 0), b"")]),
            b"meta": Replace(numbered(11).items),
        },
    )
    done = subprocess.run(
        [needs.binary("etcdutl"), "snapshot", "status", target, "-w", "simple"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split(", ")[1:3] == ["9000", str(len(history) + 1 + 11)]


# Damage. `key` has two levels of branches, leaves of several pages, and free pages between.


@pytest.fixture(scope="module")
def damageable(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damageable")
    values = {n.to_bytes(8, "big") * 3: b"v" * (n * 97 % 2000) for n in range(400)}
    write(folder / "first", {b"a": values, b"b": numbered(5)}, 512)
    return soiled(
        patched(folder / "first", folder / "db", {b"b": Replace(numbered(20).items)})
    ).read_bytes()


CHANGES = {b"a": Append(lambda: [(b"\xff" * 9, b"new")])}


def outcome(folder, data):
    """Whether the patch is refused; what is not refused must read well."""
    source = folder / "source"
    source.write_bytes(data)
    try:
        target = patched(source, folder / "target", CHANGES)
    except BackstayError:
        return "refused"
    read(target)
    return "made"


def parts(data):
    """Offsets of the headers of the leaves and of the branches of a file."""
    leaves, branches = [], []
    at = 2
    while at * 512 < len(data):
        number, flags, _, overflow = PAGE_HEADER.unpack_from(data, at * 512)
        if number != at:
            at += 1
            continue
        (leaves if flags == LEAF_PAGE else branches).append(at * 512)
        at += overflow + 1
    return leaves, branches


@given(chosen=st.data())
def test_flipped_bits_are_refused_or_harmless(tmp_path, damageable, chosen):
    data = bytearray(damageable)
    leaves, branches = parts(data)
    for _ in range(chosen.draw(st.integers(1, 3))):
        page = chosen.draw(st.sampled_from(leaves) | st.sampled_from(branches))
        byte = page + chosen.draw(st.integers(0, 80))
        data[byte] ^= 1 << chosen.draw(st.integers(0, 7))
    outcome(tmp_path, bytes(data))


def put(data, at, layout, *values):
    data = bytearray(data)
    struct.pack_into(layout, data, at, *values)
    return bytes(data)


@pytest.mark.parametrize(
    ("layout", "offset", "value"),
    [
        ("<Q", 0, 3),  # another id
        ("<Q", 0, 1 << 63),
        ("<H", 8, 1),  # a branch
        ("<H", 8, 0x12),  # leaf and freelist
        ("<H", 10, 0xFFFF),  # more elements than fit
        ("<H", 10, 40),
        ("<I", 12, 0xFFFFFFFF),  # more pages than there are
        ("<I", 12, 500),  # pages of others
        ("<I", 16, 1),  # a bucket
        ("<I", 16, 2),
        ("<I", 20, 0),  # where its key begins
        ("<I", 20, 0xFFFFFFFF),
        ("<I", 24, 0xFFFFFFFF),  # how long it is
        ("<I", 28, 0xFFFFFFFF),
        ("<I", 28, 0x7FFFFFFF),
    ],
)
def test_a_leaf_that_is_none_is_refused(tmp_path, damageable, layout, offset, value):
    leaves, _ = parts(damageable)
    with BoltFile.open(write_bytes(tmp_path / "db", damageable)) as bolt:
        leaf = next(bolt.bucket(b"a").leaves())
    assert leaf.start in leaves
    assert outcome(tmp_path, put(damageable, leaf.start + offset, layout, value)) == "refused"


def write_bytes(path, data):
    path.write_bytes(data)
    return path


def test_a_branch_that_leads_astray_is_refused(tmp_path, damageable):
    _, branches = parts(damageable)
    with BoltFile.open(write_bytes(tmp_path / "db", damageable)) as bolt:
        root, middle, *_ = bolt.bucket(b"a").edge()
        leaf = bolt.bucket(b"a").edge()[-1]
        high_water = bolt.high_water
    assert root * 512 in branches
    for page in (root, middle):
        # Its first child becomes the metas, itself, its parent, another leaf, none at all.
        for child in (0, 1, root, middle, leaf, high_water, 1 << 63):
            data = put(damageable, page * 512 + 16 + 8, "<Q", child)
            assert outcome(tmp_path, data) == "refused", (page, child)
        for offset, layout, value in [(8, "<H", 2), (8, "<H", 4), (10, "<H", 0), (10, "<H", 999)]:
            data = put(damageable, page * 512 + offset, layout, value)
            assert outcome(tmp_path, data) == "refused", (page, offset, value)


def test_leaves_that_overlap_are_refused(tmp_path, damageable):
    # One more overflow page is harmless for the elements of a leaf; that it is another's is not.
    leaves, _ = parts(damageable)
    with BoltFile.open(write_bytes(tmp_path / "db", damageable)) as bolt:
        for leaf in list(bolt.bucket(b"a").leaves())[:30]:
            if leaf.end in leaves:
                data = put(damageable, leaf.start + 12, "<I", leaf.overflow + 1)
                assert outcome(tmp_path, data) == "refused"
