"""The archive beside a keyring: sealed, bound to its header, and swept with it."""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import tracemalloc
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from backstay.errors import DamagedError, FormatError, NotFoundError, SealError, StoreError
from backstay.kubedata.keyname import data_hash
from backstay.repo import archive as archives
from backstay.repo.archive import fetch_archive
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config
from backstay.repo.entry import Unreadable
from backstay.repo.identity import Identities, generate
from backstay.repo.keyring import Keyring, find, headers, load, of_runs, remove, save, sweep
from backstay.repo.name import Run
from backstay.repo.stores.file import FileStore
from kit import needs, openshift
from kit.faulty_store import TOLD, Fault, FaultyStore

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
DATA = "d" * 32
CLUSTER = "okd-7x2kf"
TAR = os.urandom(300_000)
CONFIGURATION = openshift.configuration(openshift.KUBE, 2, 1).decode()


@pytest.fixture(scope="module")
def owner():
    text, recipient = generate(NOW)
    return text, recipient


@pytest.fixture
def identities(owner):
    return Identities.parse(owner[0].encode(), "identity.txt")


@pytest.fixture
def keys(store, owner):
    """An empty repository for keys, in a store of each kind."""
    return Repository.init(store, new_config(Role.KEYS, [owner[1]], {}, NOW))


@pytest.fixture
def local(tmp_path, owner):
    config = new_config(Role.KEYS, [owner[1]], {}, NOW)
    return Repository.init(FileStore(tmp_path / "keys"), config)


def keyring(configuration=CONFIGURATION):
    return Keyring(
        cluster=CLUSTER, kind="okd", made_at=NOW, keys=(), encryption_configuration=configuration
    )


def kept(repository, made=None, tar=TAR):
    run = Run.begin(CLUSTER, NOW)
    entry = save(repository, made or keyring(), run, data=DATA, archive=tar and io.BytesIO(tar))
    return find(repository, entry, run.backup(2001))


def fetched(repository, saved, identities):
    sink = io.BytesIO()
    fetch_archive(repository, saved.header, sink, identities)
    return sink.getvalue()


def files(repository, ending=""):
    folder = repository.store._root / "clusters"
    return sorted(path for path in folder.rglob(f"*{ending}") if path.is_file())


def age(path, hours=25):
    then = path.stat().st_mtime - hours * 3600
    os.utime(path, (then, then))


def test_what_was_saved_comes_back(keys, identities):
    saved = kept(keys)
    assert fetched(keys, saved, identities) == TAR
    assert load(keys, saved, identities).encryption_configuration == CONFIGURATION
    archive = saved.header.archive
    assert (archive.size, archive.sha256) == (len(TAR), hashlib.sha256(TAR).hexdigest())
    assert archive.path == f"clusters/{CLUSTER}/keyrings/{saved.header.name}.tar.gz.zst.age"


def test_promise_2_stock_programs_open_it(local, owner, tmp_path):
    kept(local)
    [path] = files(local, ".tar.gz.zst.age")
    (tmp_path / "identity.txt").write_text(owner[0])
    age_command = [needs.binary("age"), "-d", "-i", tmp_path / "identity.txt", path]
    packed = subprocess.run(age_command, capture_output=True, check=True).stdout
    found = subprocess.run(
        [needs.binary("zstd"), "-d"], input=packed, capture_output=True, check=True
    ).stdout
    assert found == TAR


def test_promise_5_nothing_of_it_lies_in_the_clear(local):
    kept(local, tar=b"-----BEGIN PRIVATE KEY-----" * 1000)
    secret = openshift.raw(openshift.KUBE, 1)
    for path in files(local):
        data = path.read_bytes()
        assert b"PRIVATE KEY" not in data
        assert secret not in data
        assert b"apiserver.config.k8s.io" not in data
        assert path.stat().st_mode & 0o077 == 0


def test_the_clear_names_the_keys_of_the_configuration(local):
    header = kept(local).header
    assert [(key.role, key.provider, key.key_name, key.data_hash) for key in header.keys] == [
        ("active", "aescbc", "2", data_hash(openshift.raw(openshift.KUBE, 2))),
        ("backup", "aescbc", "1", data_hash(openshift.raw(openshift.KUBE, 1))),
    ]


@pytest.mark.parametrize("text", ["", "kind: Later\n", "{"])
def test_a_configuration_that_cannot_be_read_is_kept_and_names_nothing(local, identities, text):
    saved = kept(local, keyring(text))
    assert saved.header.keys == ()
    assert load(local, saved, identities).encryption_configuration == text


def test_promise_5_no_configuration_is_shown():
    assert CONFIGURATION not in repr(keyring())
    assert "secret" not in repr(keyring())


def test_a_keyring_may_have_none(local, identities):
    saved = kept(local, tar=None)
    assert saved.header.archive is None
    with pytest.raises(NotFoundError, match="no archive"):
        fetched(local, saved, identities)


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_a_flipped_bit_is_found(local, identities, place):
    saved = kept(local)
    [path] = files(local, ".tar.gz.zst.age")
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError):
        fetched(local, saved, identities)


def test_a_cut_a_lost_or_a_swapped_archive_is_found(local, identities):
    one, other = kept(local), kept(local, tar=TAR[::-1])
    paths = [local.store._root / saved.header.archive.path for saved in (one, other)]
    texts = [path.read_bytes() for path in paths]
    paths[0].write_bytes(texts[1])
    with pytest.raises(DamagedError):
        fetched(local, one, identities)
    paths[0].write_bytes(texts[0][:-1])
    with pytest.raises(DamagedError):
        fetched(local, one, identities)
    paths[0].unlink()
    with pytest.raises(NotFoundError):
        fetched(local, one, identities)


def test_another_identity_does_not_open_it(local):
    saved = kept(local)
    stranger = Identities.parse(generate(NOW)[0].encode(), "stranger.txt")
    for wrong in (stranger, None):
        with pytest.raises(SealError):
            fetched(local, saved, wrong)


class Endless:
    """Zeros for ever."""

    def read(self, size):
        return bytes(size)


def test_an_archive_without_end_is_refused(local, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ARCHIVE", 10 << 20)
    with pytest.raises(FormatError, match="more than"):
        save(local, keyring(), Run.begin(CLUSTER, NOW), data=DATA, archive=Endless())
    assert headers(local) == ()


def test_it_is_never_whole_in_memory(local, identities):
    class Source:
        left = 96

        def read(self, size):
            self.left -= 1
            return os.urandom(1 << 20) if self.left >= 0 else b""

    class Nowhere:
        size = 0

        def write(self, data):
            self.size += len(data)

    run, nowhere = Run.begin(CLUSTER, NOW), Nowhere()
    tracemalloc.start()
    try:
        entry = save(local, keyring(), run, data=DATA, archive=Source())
        saved = find(local, entry, run.backup(1))
        fetch_archive(local, saved.header, nowhere, identities)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert nowhere.size == 96 << 20


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "backstay.json"},
        {"path": f"clusters/{CLUSTER}/keyrings/20261120T231000Z-zzzz.tar.gz.zst.age"},
        {"size": archives.MAX_ARCHIVE + 1},
        {"stored_size": archives.MAX_ARCHIVE * 2},
        {"sha256": "0"},
    ],
)
def test_hostile_headers_are_listed_as_unreadable(local, fields):
    kept(local)
    [path] = files(local, ".json")
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"archive": document["archive"] | fields}))
    [found] = headers(local)
    assert isinstance(found, Unreadable)


@pytest.mark.parametrize("fault", TOLD)
def test_promise_1_whatever_fails_it_is_listed_whole_or_not_at_all(local, identities, fault):
    """Every operation of a save fails once; what is there then opens, or is swept."""
    number, done = 0, False
    while not done:
        number += 1
        store = FaultyStore(local.store, {number: fault})
        try:
            kept(Repository(store, local.config))
            done = len(store.operations) < number
        except StoreError:
            assert len(store.operations) >= number
        for saved in headers(local):
            assert fetched(local, saved, identities) == TAR
    whole = {
        path
        for saved in headers(local)
        for path in (saved.header.object.path, saved.header.archive.path)
    }
    for path in files(local):
        age(path)
    sweep(local)
    left = {str(path.relative_to(local.store._root)) for path in files(local, ".zst.age")}
    assert left == whole


def test_a_store_that_keeps_half_and_says_nothing_is_found(local, identities):
    number, done = 0, False
    while not done:
        number += 1
        store = FaultyStore(local.store, {number: Fault.SHORT})
        # The reading at its end can be what is cut.
        with contextlib.suppress(StoreError, DamagedError):
            kept(Repository(store, local.config))
            done = len(store.operations) < number
        for saved in headers(local):
            assert fetched(local, saved, identities) == TAR
    assert number > 8


def test_promise_1_an_archive_without_a_header_is_swept_when_it_is_old(local):
    listed, dead = kept(local), kept(local)
    [header] = [path for path in files(local, ".json") if dead.header.name in path.name]
    header.unlink()
    sweep(local)
    assert len(files(local, ".tar.gz.zst.age")) == 2
    for path in files(local):
        age(path)
    found = sweep(local)
    assert set(found.paths) == {dead.header.object.path, dead.header.archive.path}
    left = [str(p.relative_to(local.store._root)) for p in files(local, ".tar.gz.zst.age")]
    assert left == [listed.header.archive.path]


def test_it_goes_with_its_keyring(local):
    saved = kept(local)
    [found] = of_runs(local, DATA, [(CLUSTER, saved.header.name)])
    remove(local, found)
    assert not files(local)


def test_a_header_that_says_other_keys_than_the_configuration_has_is_found(local, identities):
    saved = kept(local)
    wrong = replace(saved.header, keys=saved.header.keys[:1])
    with pytest.raises(DamagedError, match="other keys"):
        load(local, replace_header(saved, wrong), identities)


def replace_header(saved, header):
    return type(saved)(header, saved.digest, saved.written)
