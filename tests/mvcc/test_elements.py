"""Elements read by columns are what they are one by one, and odd ones are found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.bolt import sweep
from backstay.errors import DamagedError
from backstay.mvcc.elements import read_elements
from backstay.mvcc.keyset import KeyTable, fingerprint, tail
from backstay.mvcc.keyvalue import parse_keyvalue
from backstay.mvcc.revision import parse_revision
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.wire import MalformedError
from kit import fixtures
from kit.boltbytes import Pages
from kit.snapfile import Change, bump, delete, element_key, keyvalue, put, snapshot, varint

NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 1), st.sampled_from([1, 127, 128]))
KEYVALUES = st.builds(
    keyvalue,
    key=st.binary(max_size=200),
    create=NUMBERS,
    mod=NUMBERS,
    version=NUMBERS,
    value=st.binary(max_size=300),
    lease=NUMBERS,
)


def write(tmp_path, changes, **more):
    path = tmp_path / "snapshot.db"
    path.write_bytes(snapshot(changes, **more))
    return path


def compare(path) -> int:
    """Compare columns with single elements; how many were read one by one."""
    odd = 0
    with Snapshot.open(path) as file:
        items = iter(file.bucket(b"key").items())
        for elements in read_elements(file):
            data = file.bolt.image.data
            keys = elements.keys(data, 0, len(elements))
            odd += len(elements.odd)
            for index in range(len(elements)):
                key, value = next(items)
                one = parse_keyvalue(value)
                revision = parse_revision(key)
                assert revision == (
                    elements.mains[index],
                    elements.subs[index],
                    elements.tombstones[index],
                )
                assert keys[index] == elements.key(data, index) == one.key
                assert elements.tails[index] == tail(one.key)
                assert elements.name_sizes[index] == len(one.key)
                assert elements.creates[index] == one.create_revision
                assert elements.mods[index] == one.mod_revision
                assert elements.versions[index] == one.version
                assert elements.bumps[index] == (not value)
                start, stop = elements.starts[index], elements.stops[index]
                assert data[start:stop] == key + value
        assert next(items, None) is None
    return odd


@pytest.mark.parametrize("name", fixtures.NAMES)
@pytest.mark.parametrize("threshold", [0, 1 << 62])
def test_real_elements_are_all_plain(monkeypatch, tmp_path, name, threshold):
    monkeypatch.setattr(sweep, "_BULK_BYTES", threshold)
    assert compare(fixtures.write(name, tmp_path)) == 0


@given(values=st.lists(KEYVALUES, max_size=40))
def test_values_as_etcd_writes_them_are_plain(tmp_path, values):
    changes = [Change(element_key(n + 2), value) for n, value in enumerate(values)]
    assert compare(write(tmp_path, changes)) == 0


ODD = {
    "another order": b"\x18\x02" + keyvalue(b"k", 2),
    "twice": keyvalue(b"k", 2) + keyvalue(b"key"),
    "an unknown field": keyvalue(b"k", 2, 2, 1) + b"\x3a\x01x",
    "unknown fixed fields": keyvalue(b"k") + b"\x41" + bytes(8) + b"\x4d" + bytes(4),
    "a zero": b"\x0a\x01k\x10\x00",
    "a number longer than needed": b"\x0a\x01k\x10\x82\x00",
    "a negative number": keyvalue(b"k", 2, 2, 1, b"v", -5),
    "no key": keyvalue(b"", 2, 2, 1, b"v"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_read_as_etcd_reads_them(tmp_path, name):
    changes = [put(2, b"before"), Change(element_key(3), ODD[name]), put(4, b"after")]
    assert compare(write(tmp_path, changes)) <= 1


def test_the_largest_numbers(tmp_path):
    top = 2**63 - 1
    changes = [
        Change(element_key(top, top), keyvalue(b"k", top, top, top, b"v", top)),
    ]
    assert compare(write(tmp_path, changes)) == 0


MALFORMED = {
    "cut in a tag's number": b"\x0a\x01k\x10",
    "cut in a number": b"\x0a\x01k\x10\x80",
    "a number without end": b"\x0a\x01k\x10" + b"\x80" * 10 + b"\x01",
    "a number of 65 bits": b"\x0a\x01k\x10" + b"\xff" * 9 + b"\x02",
    "key beyond the end": b"\x0a\x05key",
    "value beyond the end": keyvalue(b"k", 2, 2, 1) + b"\x2a\x05v",
    "a length of all bits": b"\x0a" + varint(2**64 - 1) + b"k",
    "a length that wraps around": b"\x0a" + varint(2**63) + b"k",
    "key as a number": b"\x08\x01",
    "create as bytes": b"\x0a\x01k\x12\x01x",
    "a group": b"\x0a\x01k\x0b",
    "field 0": b"\x02\x00",
    "just text": b"value",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_values_are_refused_and_named(tmp_path, name):
    with pytest.raises(MalformedError):
        parse_keyvalue(MALFORMED[name])
    # What follows would make the value whole: it must not be looked at.
    changes = [put(2, b"before"), Change(element_key(3), MALFORMED[name]), put(4, b"k" * 30)]
    with pytest.raises(DamagedError, match=r"revision 3 in bucket key is no KeyValue"):
        compare(write(tmp_path, changes))


@given(value=st.binary(max_size=60))
@settings(max_examples=300)
def test_any_bytes_are_read_alike_or_refused_alike(tmp_path, value):
    path = write(tmp_path, [put(2, b"a"), Change(element_key(3), value), put(4, b"b")])
    try:
        parse_keyvalue(value)
    except MalformedError:
        with pytest.raises(DamagedError, match="no KeyValue"):
            compare(path)
    else:
        compare(path)


@given(
    values=st.lists(KEYVALUES, min_size=1, max_size=3),
    at=st.integers(0),
    new=st.binary(min_size=1, max_size=3),
)
@settings(max_examples=300)
def test_changed_bytes_are_read_alike_or_refused_alike(tmp_path, values, at, new):
    last = bytearray(values[-1])
    place = at % (len(last) + 1)
    last[place : place + len(new)] = new
    changes = [Change(element_key(n + 2), value) for n, value in enumerate([*values[:-1], last])]
    path = write(tmp_path, changes)
    try:
        for change in changes:
            parse_keyvalue(bytes(change.value))
    except MalformedError:
        with pytest.raises(DamagedError, match="no KeyValue"):
            compare(path)
    else:
        compare(path)


@pytest.mark.parametrize("last", [bump(9), delete(9, b"k"), put(9, b"k"), put(9, b"k", lease=9)])
@pytest.mark.parametrize("spare", range(0, 26, 5))
def test_elements_at_the_very_end_of_the_file(tmp_path, last, spare):
    """Reading ahead must not go beyond the end, nor make a good element a bad one."""
    room = 4096 - 16 - 2 * 16 - len(last.key) - len(last.value) - 17 - spare
    value = keyvalue(b"k", 2, 2, 1, b"x" * (room - 12))
    assert len(value) == room
    pages = Pages()
    pages.leaf(3, [(element_key(2), value), (last.key, last.value)])
    pages.top(2, key=3)
    path = tmp_path / "snapshot.db"
    path.write_bytes(pages.image())
    assert path.stat().st_size == 4 * 4096
    assert path.read_bytes()[: 4 * 4096 - spare].endswith(last.key + last.value)
    compare(path)


KEYS = {
    "short": b"short",
    "16 bytes": element_key(3)[:-1],
    "19 bytes": element_key(3) + b"tt",
    "no t": element_key(3) + b"x",
    "no underscore": element_key(3).replace(b"_", b"-"),
    "negative main": b"\x80" + element_key(3)[1:],
    "negative sub": element_key(3)[:9] + b"\xff" + element_key(3)[10:],
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_that_are_no_revisions_are_refused(tmp_path, name):
    changes = sorted([Change(KEYS[name], keyvalue(b"k")), put(2, b"a")], key=lambda one: one.key)
    with pytest.raises(DamagedError, match=KEYS[name].hex()):
        compare(write(tmp_path, changes))


def test_fingerprints_of_different_keys_differ():
    keys = [b"k" * n for n in range(60)] + [bytes([n]) * 40 for n in range(100)]
    assert len({fingerprint(key) for key in keys}) == len(keys)
    assert max(len(fingerprint(key)) for key in keys) == 25
    assert fingerprint(b"k" * 24) == b"k" * 24


@given(keys=st.lists(st.binary(max_size=12), max_size=50))
def test_a_table_has_all_keys_of_its_set(keys):
    table = KeyTable()
    tails = np.array([tail(key) for key in keys], np.uint64)
    assert not table.may_have(tails).any()
    table.add(tails)
    assert table.may_have(tails).all()


def test_a_table_has_few_others():
    table = KeyTable()
    table.add(np.array([tail(b"name-%06d" % n) for n in range(1000)], np.uint64))
    others = np.array([tail(b"name-%06d" % n) for n in range(1000, 100_000)], np.uint64)
    assert table.may_have(others).mean() < 0.01


def test_until_counts_elements(tmp_path):
    changes = [put(2, b"a"), put(5, b"a"), put(5, b"b", 1), put(9, b"c")]
    with Snapshot.open(write(tmp_path, changes)) as file:
        elements = next(iter(read_elements(file)))
        assert [elements.until(r) for r in (-1, 1, 2, 4, 5, 8, 9, 2**62)] == [
            *(0, 0, 1, 1, 3, 3, 4, 4)
        ]
        assert elements.mains.dtype == np.int64
