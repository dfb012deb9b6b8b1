"""The delta format: what is written is read; what is cut, changed or hostile is refused."""

import hashlib
import json
import random
import tracemalloc

import msgspec
import pytest
from google_crc32c import extend
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import BackstayError, DamagedError, FormatError
from backstay.mvcc import deltawriter
from backstay.mvcc.delta import (
    BLOCK,
    CHECKED,
    MAGIC,
    MAX_BLOCK,
    MAX_MARKS,
    MAX_REVISIONS,
    Mark,
    Position,
    Proof,
)
from backstay.mvcc.deltawriter import DeltaWriter
from backstay.mvcc.revision import element_key
from kit import deltas, fixtures
from kit.deltas import ORIGIN, changes, read
from kit.snapfile import keyvalue


def some(number=10, size=20):
    """Puts of two keys a transaction, and a delete in each third."""
    found = []
    for main in range(5, 5 + number):
        found.append((element_key(main, 0), keyvalue(b"a", main, main, 1, b"x" * size)))
        delete = main % 3 == 0
        value = keyvalue(b"b") if delete else keyvalue(b"b", main, main, 1, b"y" * size)
        found.append((element_key(main, 1, tombstone=delete), value))
    return found


def whole(**more):
    return b"".join(deltas.written(some(), (5,), **more).parts)


def sealed(*blocks, magic=MAGIC):
    """A delta of given blocks, with right checksums and the right digest."""
    data = magic
    for kind, count, body in blocks:
        checked = CHECKED.pack(kind, count, len(body))
        data += BLOCK.pack(kind, count, len(body), extend(extend(0, checked), body)) + body
    done = hashlib.sha256(data).digest()
    checked = CHECKED.pack(b"DONE", 1, 32)
    return data + BLOCK.pack(b"DONE", 1, 32, extend(extend(0, checked), done)) + done


def header(**changed):
    fields = {
        "format": 1,
        "cluster": "prod",
        "lineage": deltas.LINEAGE,
        "begin": [5, 0],
        "end": [6, 0],
        "changes": 0,
        "writer": "w",
        "number": 0,
        "previous": "",
        "backstay_version": "1",
    }
    return (b"HEAD", 1, json.dumps(fields | changed).encode())


TIME = (b"TIME", 1, (5).to_bytes(8, "little") + (10).to_bytes(8, "little"))


def test_what_is_written_is_read(monkeypatch):
    monkeypatch.setattr(deltawriter, "_BLOCK", 100)
    writer = DeltaWriter(ORIGIN, Position(5), number=3, previous="ab" * 32)
    for key, value in some():
        deltas.add(writer, key, value)
    writer.mark(14, 1234)
    writer.lease(-7, 60)
    writer.lease(1 << 62, 3600)
    writer.prove(Proof(14, -1, 0xFFFFFFFF))
    found = read(data := b"".join(writer.finish().parts))
    assert changes(data) == some()
    assert len(found.blocks) > 5
    assert (found.begin, found.end) == ((5, 0), (15, 0))
    assert found.times == (Mark(14, 1234),)
    assert dict(found.leases) == {-7: 60, 1 << 62: 3600}
    assert found.proofs == (Proof(14, -1, 0xFFFFFFFF),)
    assert (found.header.number, found.header.previous) == (3, "ab" * 32)
    assert found.digest == hashlib.sha256(data[: -BLOCK.size - 32]).hexdigest()


@pytest.mark.parametrize("name", ["etcd3516-plain", "kube-plain"])
def test_real_elements_come_out_byte_for_byte(tmp_path, name):
    elements = deltas.elements_of(fixtures.write(name, tmp_path))
    begin = fixtures.facts(name)["compact_revision"] + 1
    made = deltas.chain(elements, begin, 100)
    assert len(made) > 2
    came = [pair for one in made for pair in changes(b"".join(one.parts))]
    assert came == [pair for pair in elements if pair[0] >= element_key(begin, 0)]


def test_a_transaction_may_go_on_in_the_next_delta():
    pairs = [(element_key(9, sub), keyvalue(b"k%d" % sub, 9, 9, 1)) for sub in range(10)]
    first = deltas.written(pairs[:4], (9,), whole=False)
    second = deltas.written(pairs[4:], (9, 4))
    assert (read(b"".join(first.parts)).begin, read(b"".join(first.parts)).end) == ((9, 0), (9, 4))
    assert (read(b"".join(second.parts)).begin, second.header.end) == ((9, 4), (10, 0))
    assert changes(b"".join(first.parts)) + changes(b"".join(second.parts)) == pairs


def test_an_idle_etcd_has_deltas_without_changes():
    writer = DeltaWriter(ORIGIN, Position(9))
    for second in range(1000):
        writer.mark(8, 1000 * second)
    found = read(b"".join(writer.finish().parts))
    assert found.begin == found.end == (9, 0)
    assert found.times == (Mark(8, 0), Mark(8, 999_000))


@pytest.mark.parametrize(
    ("before", "then"),
    [([], (6, 0)), ([], (5, 1)), ([(5, 0)], (5, 2)), ([(5, 0)], (7, 0)), ([(5, 0)], (5, 0))],
)
def test_a_hole_in_a_watch_is_never_written(before, then):
    writer = DeltaWriter(ORIGIN, Position(5))
    for main, sub in before:
        writer.put(main, sub, b"")
    with pytest.raises(DamagedError, match=rf"revision {then[0]}.* came"):
        writer.put(*then, b"")


def test_a_time_ends_its_revision():
    writer = DeltaWriter(ORIGIN, Position(5))
    writer.put(5, 0, b"")
    writer.mark(5, 1)
    with pytest.raises(DamagedError, match="revision 6 was to come"):
        writer.put(5, 1, b"")
    with pytest.raises(DamagedError, match="can't be dated"):
        writer.mark(6, 2)
    with pytest.raises(DamagedError, match="needs a time"):
        DeltaWriter(ORIGIN, Position(5)).finish()


def test_a_delta_spans_so_many_revisions_and_no_more():
    writer = DeltaWriter(ORIGIN, Position(5))
    for main in range(5, 5 + MAX_REVISIONS):
        writer.put(main, 0, b"")
    assert writer.full
    with pytest.raises(DamagedError, match="at most"):
        writer.put(5 + MAX_REVISIONS, 0, b"")
    writer.mark(4 + MAX_REVISIONS, 1)
    assert read(b"".join(writer.finish().parts)).header.changes == MAX_REVISIONS


def test_what_is_cut_anywhere_is_told():
    data = whole()
    for end in range(len(data)):
        with pytest.raises(DamagedError, match="no whole delta"):
            read(data[:end] or b"\0")


def test_one_changed_bit_anywhere_is_told():
    data = whole()
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 1 << random.Random(place).randrange(8)
        with pytest.raises((DamagedError, FormatError)):
            read(bytes(broken))


def test_what_goes_on_after_the_end_is_told():
    with pytest.raises(DamagedError, match="goes on after its end"):
        read(whole() + b"\0")


def test_a_later_version_is_not_read():
    with pytest.raises(FormatError, match="format 2"):
        read(sealed(header(format=2, begin="new"), TIME))
    with pytest.raises(FormatError, match="requires wings"):
        read(sealed(header(requires=["wings"]), TIME))
    assert read(sealed(header(wings=True), TIME)).header.writer == "w"


@pytest.mark.parametrize(
    ("blocks", "what"),
    [
        ([TIME], "header is not where"),
        ([header(), header(), TIME], "header is not where"),
        ([header()], "no time"),
        ([header(), (b"WHAT", 1, b"")], "of kind"),
        ([header(changes=1), TIME], "not all there"),
        ([header(begin=[7, 0]), TIME], "claims to go"),
        ([header(begin=[0, 0], end=[1, 0]), TIME], "claims to go"),
        ([header(end=[6 + MAX_REVISIONS, 0]), TIME], "claims to go"),
        ([header(begin=[1 << 63, 0]), TIME], "no sense"),
        ([header(begin=[-1, 0]), TIME], "no sense"),
        ([header(begin=[5]), TIME], "no sense"),
        ([header(lineage="../../../../etc/p"), TIME], "its lineage"),
        ([header(previous="x"), TIME], "its predecessor"),
        ([(b"HEAD", 1, b"[" * 60_000), TIME], "no sense"),
        ([(b"HEAD", 1, b'{"a":' * 10_000), TIME], "no sense"),
        ([(b"HEAD", 1, b" " * 70_000), TIME], "too large"),
        ([header(), (b"TIME", 2, TIME[2])], "block of marks"),
        ([header(), (b"TIME", 0, b""), (b"TIME", 1, b"\xff" * 16)], "not of its range"),
        ([header(), (b"TIME", 1, (9).to_bytes(8, "little") + bytes(8))], "not of its range"),
        ([header(changes=1), (b"CHNG", 1 << 30, bytes(40)), TIME], "fewer changes"),
        ([header(changes=1), (b"CHNG", 1, bytes(40)), TIME], "other sizes"),
        ([header(changes=1), (b"CHNG", 1, b"\xff" * 40), TIME], "other sizes"),
        ([header(), (b"CHNG", 0, b""), TIME], "fewer changes"),
        ([header(), (b"CHNG", 2, bytes(MAX_BLOCK + 1)), TIME], "a block of"),
        ([header(), *[(b"LEAS", 60_000, bytes(960_000))] * 3, TIME], "block of marks"),
    ],
)
def test_what_contradicts_itself_is_refused(blocks, what):
    with pytest.raises(DamagedError, match=what):
        read(sealed(*blocks))


@given(st.binary(max_size=400), st.integers(0, 400))
def test_any_bytes_are_an_error_of_ours(junk, place):
    data = whole()
    for bytes_ in (junk or b"\0", data[:place] + junk + data[place:], MAGIC + junk):
        try:
            read(bytes_)
        except BackstayError:
            continue
        assert bytes_ == data


def test_reading_takes_little_memory():
    value = bytes(1 << 20)
    writer = DeltaWriter(ORIGIN, Position(5))
    for main in range(5, 45):
        writer.put(main, 0, value)
    writer.mark(44, 1)
    data = b"".join(writer.finish().parts)
    view = deltas.mapped(data)
    tracemalloc.start()
    deltas.read_delta(view, 0, len(data), "a delta")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_marks_are_bounded_when_written_too():
    writer = DeltaWriter(ORIGIN, Position(5))
    for number in range(MAX_MARKS // 2):
        writer.lease(number, 1)
    assert writer.full
    writer.mark(4, 1)
    assert len(read(b"".join(writer.finish().parts)).leases) == MAX_MARKS // 2


def test_the_header_is_a_plain_document():
    data = whole()
    _, _, size, _ = BLOCK.unpack_from(data, len(MAGIC))
    start = len(MAGIC) + BLOCK.size
    said = msgspec.json.decode(data[start : start + size])
    assert said["begin"] == [5, 0]
    assert said["end"] == [15, 0]
    assert said["lineage"] == deltas.LINEAGE
