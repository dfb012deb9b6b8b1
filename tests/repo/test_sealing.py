"""Sealed objects: back as they were or refused, and open to anyone's age and zstd."""

import gc
import hashlib
import io
import random
import secrets
import subprocess
import sys
import weakref
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import count

import pyrage
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import DamagedError, NotFoundError, SealError, SpaceError, StoreError
from backstay.repo.config import Encryption
from backstay.repo.identity import Identities, generate
from backstay.repo.manifest import ObjectEntry
from backstay.repo.sealing import Sealing, seal, unseal
from backstay.repo.stores.file import FileStore
from kit import needs, s3
from kit.faulty_store import TOLD, Fault, FaultyStore

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
PATH = "clusters/prod/objects/x/snapshot"
AGE, NONE = Encryption.AGE, Encryption.NONE


@pytest.fixture(scope="module")
def keys():
    text, recipient = generate(NOW)
    return Identities.parse(text.encode(), "identity.txt"), recipient


@pytest.fixture
def folder(tmp_path):
    return FileStore(tmp_path / "repo")


def like_etcd(size, seed=1):
    """Bytes that compress like a database: repeated words between random ones."""
    rng = random.Random(seed)
    data = bytearray()
    while len(data) < size:
        data += b'/registry/pods/%d{"kind":"Pod","uid":"' % rng.randrange(500) + rng.randbytes(60)
    return bytes(data[:size])


def sealed(store, data, recipients=(), path=PATH, **how):
    made = seal(io.BytesIO(data), store, path, recipients, Sealing(**how))
    return ObjectEntry(path=path, role="snapshot", **asdict(made))


def opened(store, entry, identities, encryption=AGE, progress=None):
    sink = io.BytesIO()
    unseal(store, entry, sink, identities, encryption, progress)
    return sink.getvalue()


def stored_bytes(store, entry):
    return b"".join(store.stream(entry.path))


def tamper(store, entry, data, **fields):
    """Put other bytes in the object's place."""
    store.delete(entry.path)
    store.put_new(entry.path, data)
    values = {name: getattr(entry, name) for name in entry.__struct_fields__} | fields
    return ObjectEntry(**values)


def consistent(store, entry, data, **fields):
    """The same, with a manifest that says what is there now: as someone would who can write."""
    digest = hashlib.sha256(data).hexdigest()
    return tamper(store, entry, data, stored_size=len(data), stored_sha256=digest, **fields)


@pytest.mark.parametrize("size", [0, 1, 8192, 65_536, 300_000, (1 << 20) + 1, 9 << 20])
@pytest.mark.parametrize("encryption", [AGE, NONE])
def test_what_is_sealed_is_unsealed(folder, keys, size, encryption):
    data = like_etcd(size)
    recipients = [keys[1]] if encryption is AGE else []
    came = []
    entry = sealed(folder, data, recipients)
    assert opened(folder, entry, keys[0], encryption, came.append) == data
    assert sum(came) == entry.stored_size == folder.stat(PATH).size
    assert entry.size == size


@pytest.mark.parametrize("how", [{"level": 1}, {"level": 9, "threads": 1}, {"threads": 2}])
def test_any_level_and_number_of_threads(folder, keys, how):
    data = like_etcd(2_000_000)
    entry = sealed(folder, data, [keys[1]], **how)
    assert opened(folder, entry, keys[0]) == data
    assert entry.stored_size < entry.size


@given(
    st.lists(st.binary(max_size=3000), max_size=8),
    st.integers(1, 70_000),
)
def test_a_source_may_give_pieces_of_any_size(tmp_path, keys, pieces, most):
    """The pieces are what the source has at hand; zstd and age see others."""

    class Source:
        def __init__(self):
            self.left = [piece for piece in pieces if piece]

        def read(self, size):
            if not self.left:
                return b""
            piece = self.left.pop(0)
            take = min(size, most)
            if len(piece) > take:
                self.left.insert(0, piece[take:])
            return piece[:take]

    store = FileStore(tmp_path / secrets.token_hex(8))
    made = seal(Source(), store, PATH, [keys[1]], Sealing(threads=1))
    entry = ObjectEntry(path=PATH, role="snapshot", **asdict(made))
    assert opened(store, entry, keys[0]) == b"".join(pieces)


# Promise 2: the formats are open to other programs.


def run(*command, data=None):
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout


@pytest.fixture
def identity_file(tmp_path):
    text, recipient = generate(NOW)
    path = tmp_path / "identity.txt"
    path.touch(0o600)
    path.write_text(text)
    return path, Identities.parse(text.encode(), str(path)), recipient


def test_promise_2_age_and_zstd_open_what_is_stored(folder, identity_file):
    age, unpack = needs.binary("age"), needs.binary("zstd")
    path, _, recipient = identity_file
    data = like_etcd(3_000_000)
    sealed(folder, data, [generate(NOW)[1], recipient])
    stored = folder.url.removeprefix("file://") + "/" + PATH
    packed = run(age, "-d", "-i", path, stored)
    assert run(unpack, "-d", "-c", data=packed) == data


def test_promise_2_zstd_alone_opens_what_is_not_encrypted(folder):
    unpack = needs.binary("zstd")
    data = like_etcd(3_000_000)
    sealed(folder, data)
    stored = folder.url.removeprefix("file://") + "/" + PATH
    assert run(unpack, "-d", "-c", "--format=zstd", stored) == data
    assert b"XXH64" in run(unpack, "-lv", stored)  # so that zstd finds damage too


@pytest.mark.parametrize("level", ["-1", "-12"])
def test_promise_2_what_age_and_zstd_made_is_opened(folder, identity_file, tmp_path, level):
    age, pack = needs.binary("age"), needs.binary("zstd")
    _, identities, recipient = identity_file
    data = like_etcd(3_000_000)
    packed = run(pack, level, "-c", data=data)
    entry = sealed(folder, data)
    entry = consistent(folder, entry, run(age, "-r", recipient, data=packed))
    assert opened(folder, entry, identities) == data


# Promise 5: who can write can't read.


def test_promise_5_nothing_in_the_clear_is_stored(folder, keys):
    data = b"the-secret-of-the-cluster " * 5000 + secrets.token_bytes(50)
    entry = sealed(folder, data, [keys[1]])
    stored = stored_bytes(folder, entry)
    assert stored.startswith(b"age-encryption.org/v1\n")
    assert b"the-secret" not in stored
    assert b"\x28\xb5\x2f\xfd" not in stored  # no zstd frame either
    assert data[-50:] not in stored


def test_promise_5_reading_needs_an_identity_of_a_recipient(folder, keys):
    text, _ = generate(NOW)
    other = Identities.parse(text.encode(), "other.txt")
    entry = sealed(folder, b"data", [keys[1], generate(NOW)[1]])
    sink = io.BytesIO()
    with pytest.raises(SealError, match=r"2 recipients, and other.txt holds the key of none"):
        unseal(folder, entry, sink, other, AGE)
    with pytest.raises(SealError, match="--identity"):
        unseal(folder, entry, sink, None, AGE)
    assert sink.getvalue() == b""


def test_any_recipient_opens_and_an_identity_file_may_hold_several(folder):
    texts, recipients = zip(*(generate(NOW) for _ in range(3)), strict=True)
    entry = sealed(folder, b"data", recipients)
    for text in texts:
        assert opened(folder, entry, Identities.parse(text.encode(), "one")) == b"data"
    several = Identities.parse((generate(NOW)[0] + texts[1]).encode(), "several")
    assert opened(folder, entry, several) == b"data"


def test_two_sealings_of_one_thing_have_nothing_in_common(folder, keys):
    one = sealed(folder, b"data" * 1000, [keys[1]], path="a")
    two = sealed(folder, b"data" * 1000, [keys[1]], path="b")
    assert one.sha256 == two.sha256
    assert one.stored_sha256 != two.stored_sha256


def test_a_recipient_that_is_none_is_found_before_anything_is_written(folder):
    store = FaultyStore(folder)
    with pytest.raises(SealError):
        seal(io.BytesIO(b"data"), store, PATH, ["age1nonsense"])
    assert store.operations == []


# Damage.


@pytest.mark.parametrize("encryption", [AGE, NONE])
def test_a_cut_object_is_found_at_any_place(folder, keys, encryption):
    data = like_etcd(400_000)
    entry = sealed(folder, data, [keys[1]] if encryption is AGE else [])
    whole = stored_bytes(folder, entry)
    for keep in (0, 1, 20, 60, 200, 300, 65_800, len(whole) // 2, len(whole) - 1):
        for spoil in (tamper, consistent):
            cut = spoil(folder, entry, whole[:keep])
            with pytest.raises(DamagedError):
                opened(folder, cut, keys[0], encryption)


@pytest.mark.parametrize("encryption", [AGE, NONE])
def test_a_flipped_bit_never_gives_other_bytes(folder, keys, encryption):
    data = like_etcd(400_000)
    entry = sealed(folder, data, [keys[1]] if encryption is AGE else [])
    whole = stored_bytes(folder, entry)
    for place in (0, 5, 30, 70, 150, 250, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        broken = bytearray(whole)
        broken[place] ^= 0x10
        with pytest.raises((DamagedError, SealError)) as caught:
            opened(folder, tamper(folder, entry, bytes(broken)), keys[0], encryption)
        # A bit in what names the recipient looks like another recipient; no other does.
        assert isinstance(caught.value, DamagedError) or place < 200
        forged = consistent(folder, entry, bytes(broken))
        try:
            # A window's size may change without changing what comes out.
            assert opened(folder, forged, keys[0], encryption) == data
            assert encryption is NONE
        except (DamagedError, SealError):
            pass


def test_bytes_after_the_end_are_found(folder, keys):
    data = like_etcd(100_000)
    for recipients, encryption in (([keys[1]], AGE), ([], NONE)):
        entry = sealed(folder, data, recipients, path=f"x{encryption}")
        whole = stored_bytes(folder, entry)
        for spoil in (tamper, consistent):
            with pytest.raises(DamagedError):
                opened(folder, spoil(folder, entry, whole + b"x"), keys[0], encryption)
    more = zstd.compress(b"more")
    sealed_more = consistent(folder, entry, whole + more)
    with pytest.raises(DamagedError, match="goes on after its end"):
        opened(folder, sealed_more, None, NONE)


@pytest.mark.parametrize("encryption", [AGE, NONE])
def test_a_bomb_gives_no_more_than_the_manifest_says(folder, keys, encryption):
    """A gigabyte of zeros, in an object that claims to be small."""
    packer = zstd.ZstdCompressor(level=1)
    bomb = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(1024)), packer.flush()])
    if encryption is AGE:
        bomb = pyrage.encrypt(bomb, [pyrage.x25519.Recipient.from_str(keys[1])])
    entry = sealed(folder, b"x" * 5000)
    entry = consistent(folder, entry, bomb)
    sink = io.BytesIO()
    with pytest.raises(DamagedError, match="more than the 5000 bytes"):
        unseal(folder, entry, sink, keys[0], encryption)
    assert len(sink.getvalue()) <= 5000


def test_a_frame_that_asks_for_much_memory_is_refused(folder):
    options = {zstd.CompressionParameter.window_log: 26}  # zstd itself takes 27
    packer = zstd.ZstdCompressor(options=options)
    data = packer.compress(bytes(1 << 20)) + packer.flush()
    entry = consistent(folder, sealed(folder, bytes(1 << 20)), data)
    with pytest.raises(DamagedError, match="can't be unpacked"):
        opened(folder, entry, None, NONE)


def test_a_header_without_end_is_refused_at_once(folder, keys):
    """pyrage would take quadratic time over it."""
    endless = b"age-encryption.org/v1\n-> X a\n" + (b"A" * 64 + b"\n") * 100_000
    entry = consistent(folder, sealed(folder, b"x"), endless)
    with pytest.raises(DamagedError, match="no age file"):
        opened(folder, entry, keys[0])


@pytest.mark.parametrize(
    "data", [b"", b"x", b"hello world, I am no age file", b"age-encryption.org/v1\n", b"\0" * 9999]
)
def test_what_is_no_sealed_object(folder, keys, data):
    entry = consistent(folder, sealed(folder, b"x"), data)
    for encryption in (AGE, NONE):
        with pytest.raises(DamagedError):
            opened(folder, entry, keys[0], encryption)


def test_an_unencrypted_object_in_an_encrypted_repository_is_refused(folder, keys):
    """Who can write to the bucket could put a snapshot of their own there."""
    entry = sealed(folder, b"of someone else")
    with pytest.raises(DamagedError, match="no age file"):
        opened(folder, entry, keys[0], AGE)


@pytest.mark.parametrize("field", ["size", "sha256", "stored_size", "stored_sha256"])
def test_a_manifest_that_says_otherwise_is_found(folder, keys, field):
    entry = sealed(folder, like_etcd(10_000), [keys[1]])
    for other in (0, entry.size - 1, entry.stored_size + 1) if "size" in field else ("0" * 64,):
        wrong = tamper(folder, entry, stored_bytes(folder, entry), **{field: other})
        with pytest.raises(DamagedError, match=r"manifest says|that were stored"):
            opened(folder, wrong, keys[0])


def test_an_object_that_is_gone(folder, keys):
    entry = sealed(folder, b"x", [keys[1]])
    folder.delete(entry.path)
    with pytest.raises(NotFoundError):
        opened(folder, entry, keys[0])


# Errors on the way, of the store, the source and the sink.


@pytest.mark.parametrize("fault", TOLD)
def test_promise_1_whatever_fails_while_sealing_there_is_no_half_object(folder, keys, fault):
    data = secrets.token_bytes(400_000)
    for number in count(1):
        store = FaultyStore(folder, {number: fault})
        try:
            entry = sealed(store, data, [keys[1]])
        except StoreError:
            there = [info.path for info in folder.list()]
            if fault is Fault.ERROR and store.names[-1] == "publish":
                # It is there, whole, and nobody knows: without a manifest it is swept later.
                assert there == [PATH]
                folder.delete(PATH)
            else:
                assert there == []
        else:
            # The run ended before the fault was due: all operations have had theirs.
            assert len(store.operations) == number - 1 > 5
            assert opened(folder, entry, keys[0]) == data
            return


class Source(io.BytesIO):
    """One that can be seen to go."""


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.CUT])
def test_a_sealing_that_failed_keeps_nothing(folder, keys, fault):
    """What is sealed may be a file of gigabytes: it goes with the error, not some time later."""
    source = Source(like_etcd(300_000))
    gone = weakref.ref(source)
    store = FaultyStore(folder, lambda one: fault if one.name == "write" else None)
    gc.collect()
    gc.disable()
    try:
        with suppress(StoreError):
            seal(source, store, PATH, (keys[1],), Sealing())
        assert store.operations
        del source
        assert gone() is None
    finally:
        gc.enable()


def test_promise_1_whatever_fails_while_unsealing_it_does_not_return(folder, keys):
    data = secrets.token_bytes(2_500_000)
    entry = sealed(folder, data, [keys[1]])
    quiet = FaultyStore(folder)
    assert opened(quiet, entry, keys[0]) == data
    for number in range(1, len(quiet.operations) + 1):
        for fault in (*TOLD, Fault.SHORT):
            store = FaultyStore(folder, {number: fault})
            if fault is Fault.SHORT and quiet.operations[number - 1].name == "stream":
                continue  # a stream that begins can't be short
            with pytest.raises((StoreError, DamagedError)):
                opened(store, entry, keys[0])


@pytest.mark.parametrize("error", [SpaceError("full"), KeyboardInterrupt(), OSError(5, "broken")])
@pytest.mark.parametrize("encryption", [AGE, NONE])
def test_the_cause_is_what_is_raised(folder, keys, error, encryption):
    """pyrage would hand on its text alone."""

    class Broken:
        def __init__(self):
            self.left = 3

        def read(self, size):
            self.left -= 1
            if not self.left:
                raise error
            return secrets.token_bytes(100_000)

        def write(self, data):
            raise error

    recipients = [keys[1]] if encryption is AGE else []
    with pytest.raises(type(error)) as caught:
        seal(Broken(), folder, PATH, recipients)
    assert caught.value is error
    assert list(folder.list()) == []
    entry = sealed(folder, like_etcd(1_000_000), recipients)
    with pytest.raises(type(error)) as caught:
        unseal(folder, entry, Broken(), keys[0], encryption)
    assert caught.value is error


MEASURE = """
import os, re, sys
from datetime import UTC, datetime
from backstay.repo.config import Encryption
from backstay.repo.identity import Identities, generate
from backstay.repo.manifest import ObjectEntry
from backstay.repo.sealing import seal, unseal
from backstay.repo.url import Access, open_store

class Source:
    left = int(sys.argv[2])
    def read(self, size):
        self.left -= 1
        # Half of it compresses.
        return os.urandom(1 << 19) + bytes(1 << 19) if self.left >= 0 else b""

class Sink:
    def write(self, data):
        return len(data)

text, recipient = generate(datetime.now(UTC))
store = open_store(sys.argv[1], Access(allow_http=True))
made = seal(Source(), store, "x", [recipient])
entry = ObjectEntry(path="x", role="snapshot", size=made.size, sha256=made.sha256,
    stored_size=made.stored_size, stored_sha256=made.stored_sha256)
unseal(store, entry, Sink(), Identities.parse(text.encode(), "i"), Encryption.AGE)
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10)
"""


def test_memory_does_not_grow_with_the_object(tmp_path):
    with s3.plain(tmp_path / "s3") as server:
        peaks = [
            int(
                subprocess.run(
                    [sys.executable, "-c", MEASURE, f"s3://{s3.BUCKET}/{size}", str(size)],
                    env=server.environment,
                    capture_output=True,
                    check=True,
                    timeout=120,
                ).stdout
            )
            for size in (48, 160)
        ]
    assert peaks[1] < 200, peaks
    assert peaks[1] < peaks[0] + 40, peaks
