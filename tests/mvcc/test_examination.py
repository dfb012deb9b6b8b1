"""The examination of whole files: good, damaged on purpose, and damaged at random."""

import hashlib
import threading
import time
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.bolt import sweep
from backstay.bolt.check import Structure
from backstay.errors import DamagedError
from backstay.mvcc.content import Content
from backstay.mvcc.examination import examine, work
from backstay.mvcc.hashkv import compute_hashkv
from backstay.mvcc.live import count_live, sample_live
from backstay.mvcc.snapshot import Snapshot, Trailer
from backstay.mvcc.status import read_status
from kit import fixtures
from kit.boltbytes import meta, with_trailer
from kit.snapfile import put, snapshot


@pytest.fixture(params=[0, 1 << 62], ids=["fast", "slow"])
def way(request, monkeypatch):
    monkeypatch.setattr(sweep, "_BULK_BYTES", request.param)


@pytest.mark.parametrize("name", [*fixtures.NAMES, "valid"])
def test_real_files_are_whole(way, tmp_path, name):
    facts = fixtures.facts(name)
    with Snapshot.open(fixtures.write(name, tmp_path)) as file:
        found = examine(file)
        assert found.trailer is Trailer.MATCHES
        assert found.sha256 == hashlib.sha256(fixtures.data(name)[:-32]).digest()
        assert isinstance(found.structure, Structure)
        assert isinstance(found.content, Content)
        assert found.status == read_status(file)
        assert found.status.hash == facts["snapshot_status"]["hash"]
        assert found.structure.elements == facts["snapshot_status"]["totalKey"]
        assert found.content.revision == facts["revision"]


class TestDamagedOnPurpose:
    """What the fixtures' own README requires of a good tool."""

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("truncated", "cut short"),
            ("truncated-page", "cut short"),
            ("bad-both-metas", "meta page 0 .* meta page 1"),
            ("zero-length", "is empty"),
            ("not-a-db", "no bolt file"),
        ],
    )
    def test_what_does_not_open(self, tmp_path, name, what):
        assert fixtures.facts(name)["verdict"] == "refuse"
        with pytest.raises(DamagedError, match=what):
            Snapshot.open(fixtures.write(name, tmp_path))

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("bad-leaf-count", r"page \d+ of bucket key claims \d+ elements"),
            ("cycle", r"page \d+ of bucket key is reached twice"),
        ],
    )
    def test_what_opens_and_is_damaged_inside(self, way, tmp_path, name, what):
        assert fixtures.facts(name)["verdict"] == "refuse"
        with Snapshot.open(fixtures.write(name, tmp_path)) as file:
            found = examine(file)
            assert found.trailer is Trailer.MATCHES
            assert isinstance(found.structure, DamagedError)
            with pytest.raises(DamagedError, match=what):
                raise found.structure
            assert found.content is None
            assert found.status is None
            for ask in (read_status, compute_hashkv, count_live, sample_live):
                with pytest.raises(DamagedError, match=what):
                    ask(file)

    def test_a_bit_that_only_the_trailer_tells_of(self, tmp_path):
        with Snapshot.open(fixtures.write("trailer-mismatch", tmp_path)) as file:
            found = examine(file)
            assert found.trailer is Trailer.MISMATCH
            assert isinstance(found.structure, Structure)

    def test_no_trailer_is_no_damage_and_no_proof(self, tmp_path):
        facts = fixtures.facts("no-trailer")["same_content_as_valid"]
        with Snapshot.open(fixtures.write("no-trailer", tmp_path)) as file:
            found = examine(file)
            assert found.trailer is Trailer.ABSENT
            assert isinstance(found.structure, Structure)
            assert found.content.revision == facts["revision"]
            assert found.status.hash == facts["snapshot_status"]["hash"]

    def test_one_broken_meta_is_a_warning(self, tmp_path):
        with Snapshot.open(fixtures.write("bad-meta0", tmp_path)) as file:
            found = examine(file)
            assert found.trailer is Trailer.MATCHES
            assert found.content.revision == 315
            assert len(file.bolt.warnings) == 1


def test_wrong_content_in_a_sound_structure(way, tmp_path):
    path = tmp_path / "snapshot.db"
    path.write_bytes(snapshot([put(2, b"a"), put(4, b"b")]))
    with Snapshot.open(path) as file:
        found = examine(file)
        assert isinstance(found.structure, Structure)
        assert found.status == read_status(file)
        assert isinstance(found.content, DamagedError)
        assert "revision 4, change 0" in str(found.content)


def test_a_damaged_meta_bucket_is_wrong_content(tmp_path):
    path = tmp_path / "snapshot.db"
    path.write_bytes(snapshot([put(2, b"a")], meta={b"finishedCompactRev": b"?"}))
    with Snapshot.open(path) as file:
        found = examine(file)
        assert isinstance(found.structure, Structure)
        assert "finishedCompactRev" in str(found.content)


def test_a_last_key_that_is_no_revision_leaves_no_status(tmp_path):
    path = tmp_path / "snapshot.db"
    data = snapshot([put(2, b"a")])[:-32]
    path.write_bytes(with_trailer(data.replace(b"\2_", b"\2x", 1)))
    with Snapshot.open(path) as file:
        found = examine(file)
        assert found.trailer is Trailer.MATCHES
        assert "no revision" in str(found.content)


def test_progress_adds_up(way, tmp_path):
    done = []
    with Snapshot.open(fixtures.write("etcd36-plain", tmp_path)) as file:
        examine(file, done.append)
        assert 0.7 * work(file) < sum(done) <= work(file)


def test_an_error_on_the_way_ends_the_thread_too(tmp_path):
    before = threading.active_count()
    with Snapshot.open(fixtures.write("no-trailer", tmp_path)) as file:
        for fails in (threading.main_thread(), None):

            def interrupted(_, fails=fails):
                if (threading.current_thread() is threading.main_thread()) == bool(fails):
                    raise KeyboardInterrupt

            # Also where it happens in the other thread: half a sum is no mismatch.
            with pytest.raises(KeyboardInterrupt):
                examine(file, interrupted)
            assert threading.active_count() == before


def answers(path) -> None:
    """Ask everything; nothing but `DamagedError` may come out, and soon."""
    start = time.monotonic()
    with suppress(DamagedError), Snapshot.open(path) as file:
        examine(file)
        for ask in (
            read_status,
            compute_hashkv,
            count_live,
            sample_live,
            lambda one: compute_hashkv(one, compact_revision=one.revision),
            lambda one: (list(one.members()), list(one.leases()), list(one.alarms())),
            lambda one: (one.users, one.auth_enabled, one.term, one.consistent_index),
        ):
            with suppress(DamagedError):
                ask(file)
    assert time.monotonic() - start < 20


def repaired(data: bytearray) -> bytes:
    """The same, with metas and a trailer that match: only what is inside tells of the damage."""
    for number in (0, 1):
        at = number * 4096
        root, freelist, high_water, txid = (
            int.from_bytes(data[at + place : at + place + 8], "little")
            for place in (32, 48, 56, 64)
        )
        data[at : at + 80] = meta(
            number,
            page_size=4096,
            root=root,
            high_water=min(high_water, 36),
            txid=txid,
            freelist=freelist,
        )
    return with_trailer(bytes(data))


PLACES = st.tuples(
    st.integers(0, 35),
    st.one_of(st.integers(0, 80), st.integers(0, 4095)),
    st.binary(min_size=1, max_size=9),
)


@given(changes=st.lists(PLACES, min_size=1, max_size=5), repair=st.booleans())
@settings(max_examples=150)
def test_whatever_is_written_over_a_file_is_a_typed_error_or_none(way, tmp_path, changes, repair):
    data = bytearray(fixtures.data("valid")[:-32])
    for number, at, new in changes:
        data[number * 4096 + at : number * 4096 + at + len(new)] = new
    del data[36 * 4096 :]
    path = tmp_path / "snapshot.db"
    path.write_bytes(repaired(data) if repair else with_trailer(bytes(data)))
    answers(path)


@given(page=st.integers(2, 35), bit=st.integers(0, 8 * 4096 - 1))
@settings(max_examples=100)
def test_a_flipped_bit_never_passes(tmp_path, page, bit):
    data = bytearray(fixtures.data("valid"))
    data[page * 4096 + bit // 8] ^= 1 << bit % 8
    path = tmp_path / "snapshot.db"
    path.write_bytes(data)
    with Snapshot.open(path) as file:
        assert examine(file).trailer is Trailer.MISMATCH
    answers(path)


@pytest.mark.parametrize("seed", range(8))
def test_pages_in_the_wrong_places(way, tmp_path, seed):
    random = Random(seed)
    data = bytearray(fixtures.data("kube-secretbox")[:-32])
    pages = len(data) // 4096
    for _ in range(3):
        one, other = random.randrange(2, pages), random.randrange(2, pages)
        copy = data[one * 4096 : (one + 1) * 4096]
        # Its own id is put right, so that only the tree tells.
        copy[:8] = other.to_bytes(8, "little")
        data[other * 4096 : (other + 1) * 4096] = copy
    path = tmp_path / "snapshot.db"
    path.write_bytes(with_trailer(bytes(data)))
    answers(path)


@given(data=st.binary(max_size=9000))
def test_garbage(tmp_path, data):
    path = tmp_path / "snapshot.db"
    path.write_bytes(data)
    answers(path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(300))
def test_many_changes_to_larger_files(way, tmp_path, seed):
    random = Random(seed)
    data = bytearray(fixtures.data(random.choice(["kube-plain", "etcd3530-auth"]))[:-32])
    for _ in range(random.randrange(1, 6)):
        at = random.randrange(2, len(data) // 4096) * 4096 + random.choice(
            [random.randrange(80), random.randrange(4096)]
        )
        data[at : at + 4] = random.randbytes(4)
    path = tmp_path / "snapshot.db"
    path.write_bytes(with_trailer(bytes(data)))
    answers(path)
