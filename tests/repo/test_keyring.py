"""Keyrings: sealed, matched in the clear, and never with the data."""

import base64
import contextlib
import hashlib
import io
import json
import os
import random
import sys
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backstay.errors import (
    BackstayError,
    DamagedError,
    FormatError,
    NotFoundError,
    RefusedError,
    SealError,
    StoreError,
)
from backstay.kubedata.keyname import data_hash, key_name
from backstay.repo import leftovers
from backstay.repo.catalogue import Repository
from backstay.repo.config import Encryption, Role, new_config
from backstay.repo.document import encode
from backstay.repo.entry import Unreadable
from backstay.repo.identity import Identities, generate
from backstay.repo.keyring import (
    Keyring,
    KeyringHeader,
    Kms,
    Saved,
    SavedKey,
    find,
    headers,
    load,
    of_runs,
    remove,
    save,
    sweep,
)
from backstay.repo.keyring_document import MAX_KEYRING, parse_header, parse_keyring
from backstay.repo.manifest import KeyringEntry
from backstay.repo.name import Run
from backstay.repo.sealing import seal
from backstay.repo.stores.file import FileStore
from kit.faulty_store import TOLD, FaultyStore
from kit.manifests import manifest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
DATA = "d" * 32
CLUSTER = "clusters.prod"
VALUE = bytes(range(7, 39))
PULL = "pull-secret-that-nobody-may-see"
KMS = Kms(provider="AWS", state="Completed", active={"arn": "arn:aws:kms:eu-west-1:1:key/a"})


def keyring(*values, cluster=CLUSTER, **more):
    keys = tuple(
        SavedKey.of(role, "clusters", f"key-{role}", value)
        for role, value in zip(("active", "target", "backup"), values or (VALUE,), strict=False)
    )
    fields = {"kind": "hosted", "made_at": NOW, "manifests": f"password: {PULL}\n", **more}
    return Keyring(cluster=cluster, keys=keys, **fields)


@pytest.fixture(scope="session")
def owner():
    text, recipient = generate(NOW)
    return Identities.parse(text.encode(), "identity.txt"), recipient


@pytest.fixture
def identities(owner):
    return owner[0]


@pytest.fixture
def keys(tmp_path, owner):
    """An empty repository for keys."""
    config = new_config(Role.KEYS, [owner[1]], {}, NOW)
    return Repository.init(FileStore(tmp_path / "keys"), config)


def kept(repository, made=None, at=NOW, data=DATA):
    """A keyring that is there, as its backup knows it."""
    made = made or keyring()
    run = Run.begin(made.cluster, at)
    return save(repository, made, run, data=data), run.backup(2001)


def files(repository, ending=""):
    root = repository.store._root
    return sorted(p for p in (root / "clusters").rglob(f"*{ending}") if p.is_file())


def flip(path, place=0.5):
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x10
    path.write_bytes(data)


def rewrite(path, **fields):
    """Change fields of a header as someone who can write to the store would."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def age(path, hours=25):
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


def test_what_was_saved_comes_back(keys, identities):
    made = keyring(VALUE, VALUE[::-1], kms=KMS, rotating=True)
    entry, backup = kept(keys, made)
    assert entry.repository == keys.config.repository
    saved = find(keys, entry, backup)
    assert saved.entry == entry
    found = load(keys, saved, identities)
    assert replace(found, nonce="") == made
    assert found.keys[1].value == VALUE[::-1]
    assert found.manifests == f"password: {PULL}\n"
    assert saved.header.data == DATA
    assert saved.header.recipients == keys.config.recipients


def test_the_clear_has_what_matching_takes(keys):
    entry, backup = kept(keys, keyring(VALUE, VALUE[::-1], kms=KMS))
    header = find(keys, entry, backup).header
    assert [(key.role, key.key_name, key.data_hash) for key in header.keys] == [
        ("active", key_name(VALUE), hashlib.sha256(VALUE).hexdigest()),
        ("target", key_name(VALUE[::-1]), hashlib.sha256(VALUE[::-1]).hexdigest()),
    ]
    assert header.kms == KMS


def test_promise_5_no_secret_lies_in_the_clear(keys):
    kept(keys)
    assert len(files(keys)) == 2
    secrets = [VALUE, base64.b64encode(VALUE), VALUE.hex().encode(), PULL.encode()]
    for path in files(keys):
        data = path.read_bytes()
        assert not any(secret in data for secret in secrets)
        assert path.stat().st_mode & 0o077 == 0


def test_promise_5_the_hash_in_the_clear_tells_nothing(keys):
    """Two keyrings that say the same have different hashes: nobody can guess and compare."""
    found = [find(keys, *kept(keys)).header.object for _ in range(2)]
    assert found[0].sha256 != found[1].sha256


def test_promise_5_no_secret_is_shown(keys):
    made = keyring()
    for shown in (repr, str, lambda thing: repr(thing.__rich_repr__())):
        for thing in (made, made.keys[0]):
            assert "keys" in shown(thing) or "key-" in shown(thing)
            assert PULL not in shown(thing)
            assert repr(VALUE)[2:-1] not in shown(thing)
            assert base64.b64encode(VALUE).decode() not in shown(thing)


def test_promise_2_age_and_zstd_open_it(keys, identities):
    kept(keys)
    [sealed] = files(keys, ".zst.age")
    clear = zstd.decompress(pyrage.decrypt(sealed.read_bytes(), list(identities.keys)))
    assert base64.b64decode(json.loads(clear)["keys"][0]["value"]) == VALUE


def test_promise_5_only_a_repository_for_keys_takes_keys(tmp_path, owner, keys):
    config = new_config(Role.DATA, [owner[1]], {}, NOW)
    data = Repository.init(FileStore(tmp_path / "data"), config)
    entry, backup = kept(keys)
    for attempt in (
        lambda: kept(data),
        lambda: headers(data),
        lambda: sweep(data),
        lambda: of_runs(data, DATA, []),
        lambda: find(data, replace(entry, repository=config.repository), backup),
    ):
        with pytest.raises(RefusedError, match="a repository for data"):
            attempt()
    assert not (tmp_path / "data" / "clusters").exists()


def test_promise_5_nor_one_without_encryption(keys):
    """`init` makes none; somebody might write one by hand."""
    naked = replace(keys.config, encryption=Encryption.NONE, recipients=())
    with pytest.raises(RefusedError, match="not encrypted"):
        kept(Repository(keys.store, naked))


def test_promise_5_the_backups_own_repository_is_no_place_for_keys(keys):
    with pytest.raises(RefusedError, match="where the backup goes"):
        kept(keys, data=keys.config.repository)


def test_a_keyring_that_contradicts_itself_is_not_saved(keys):
    with pytest.raises(FormatError, match="is of"):
        save(keys, keyring(cluster="other"), Run.begin(CLUSTER, NOW), data=DATA)
    one = keyring().keys[0]
    for wrong in (
        {"key_name": key_name(b"x")},
        {"data_hash": data_hash(b"x")},
        {"value": bytes([VALUE[0] ^ 1]) + VALUE[1:]},
    ):
        with pytest.raises(FormatError, match="key 1 is not what its name and hash say"):
            kept(keys, replace(keyring(), keys=(replace(one, **wrong),)))
    with pytest.raises(FormatError):
        kept(keys, replace(keyring(), keys=(one,) * 17))
    with pytest.raises(FormatError):
        kept(keys, replace(keyring(), made_at=NOW.replace(tzinfo=None)))
    assert not files(keys)


def test_other_kinds_number_their_keys():
    one = replace(keyring().keys[0], key_name="1")
    made = replace(keyring(), kind="okd", keys=(one,))
    assert parse_keyring(msgspec.json.encode(made), "x").keys[0].key_name == "1"
    wrong = replace(made, keys=(replace(one, data_hash=data_hash(b"x")),))
    with pytest.raises(FormatError):
        parse_keyring(msgspec.json.encode(wrong), "x")


def test_a_cluster_without_keys_has_a_keyring_too(keys, identities):
    entry, backup = kept(keys, replace(keyring(), keys=()))
    assert load(keys, find(keys, entry, backup), identities).keys == ()


def test_the_manifest_says_which_repository(tmp_path, owner, keys):
    entry, backup = kept(keys)
    other = Repository.init(
        FileStore(tmp_path / "other"), new_config(Role.KEYS, [owner[1]], {}, NOW)
    )
    with pytest.raises(RefusedError, match=entry.repository):
        find(other, entry, backup)


def test_a_keyring_that_is_gone_is_told(keys):
    entry, backup = kept(keys)
    [header] = files(keys, ".json")
    header.unlink()
    with pytest.raises(NotFoundError, match=f"no keys of {backup}"):
        find(keys, entry, backup)


def test_a_sealed_object_that_is_gone_is_told(keys, identities):
    saved = find(keys, *kept(keys))
    files(keys, ".zst.age")[0].unlink()
    with pytest.raises(NotFoundError):
        load(keys, saved, identities)


def test_swapped_keyrings_are_found(keys):
    """Each is whole, and says the name of the other's backup."""
    (one, first), (other, second) = kept(keys), kept(keys, keyring(VALUE[::-1]))
    with pytest.raises(DamagedError, match="not the keyring that the manifest means"):
        find(keys, other, first)
    paths = files(keys, ".json")
    texts = [path.read_bytes() for path in paths]
    for path, text in zip(paths, reversed(texts), strict=True):
        path.write_bytes(text)
    for entry, backup in ((one, first), (other, second)):
        with pytest.raises(DamagedError, match="not the keyring that the manifest means"):
            find(keys, entry, backup)
    assert all(isinstance(found, Unreadable) for found in headers(keys))


def test_swapped_objects_are_found(keys, identities):
    found = [find(keys, *kept(keys, keyring(value))) for value in (VALUE, VALUE[::-1])]
    one, other = files(keys, ".zst.age")
    text = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(text)
    for saved in found:
        with pytest.raises(DamagedError):
            load(keys, saved, identities)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.99])
def test_a_flipped_bit_is_found(keys, identities, place):
    entry, backup = kept(keys)
    saved = find(keys, entry, backup)
    flip(files(keys, ".zst.age")[0], place)
    with pytest.raises(DamagedError):
        load(keys, saved, identities)
    flip(files(keys, ".json")[0], place)
    with pytest.raises(DamagedError):
        find(keys, entry, backup)


@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_a_cut_keyring_is_found(keys, identities, left):
    saved = find(keys, *kept(keys))
    [path] = files(keys, ".zst.age")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DamagedError):
        load(keys, saved, identities)


def test_another_identity_does_not_open_it(keys):
    saved = find(keys, *kept(keys))
    stranger = Identities.parse(generate(NOW)[0].encode(), "stranger.txt")
    with pytest.raises(SealError, match="stranger"):
        load(keys, saved, stranger)
    with pytest.raises(SealError, match="identity"):
        load(keys, saved, None)


def forge(keys, content, header=None, **fields):
    """A keyring that somebody made who knows the format: sealed, with a header that fits it."""
    entry, backup = kept(keys)
    saved = find(keys, entry, backup)
    path = saved.header.object.path
    keys.store.delete(path)
    data = content if isinstance(content, bytes) else msgspec.json.encode(content)
    found = seal(io.BytesIO(data), keys.store, path, keys.config.recipients)
    sizes = {name: getattr(found, name) for name in found.__slots__}
    stored = {"path": path, "role": "keyring", **sizes}
    [name] = files(keys, ".json")
    rewrite(name, **{"object": stored, **fields})
    digest = hashlib.sha256(name.read_bytes()).hexdigest()
    return KeyringEntry(repository=keys.config.repository, digest=digest), backup


@pytest.mark.parametrize(
    "content",
    [
        keyring(VALUE[::-1]),
        keyring(cluster="other.cluster"),
        replace(keyring(), made_at=NOW + timedelta(1)),
        replace(keyring(), rotating=True),
        replace(keyring(), kms=KMS),
        replace(keyring(), kind="okd"),
        replace(keyring(), keys=()),
    ],
)
def test_a_header_that_says_other_than_the_keyring_is_found(keys, identities, content):
    entry, backup = forge(keys, content)
    with pytest.raises(DamagedError, match="than its header says"):
        load(keys, find(keys, entry, backup), identities)


def wrong_key(**fields):
    document = msgspec.to_builtins(keyring())
    return document | {"keys": [document["keys"][0] | fields]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff" * 100,
        {"format": 2},
        {**msgspec.to_builtins(keyring()), "requires": ["magic"]},
        {**msgspec.to_builtins(keyring()), "keys": "all"},
        {**msgspec.to_builtins(keyring()), "cluster": "../.."},
        wrong_key(value="?"),
        wrong_key(value=""),
        wrong_key(value=base64.b64encode(b"x" * 2000).decode()),
        wrong_key(role="spare"),
        wrong_key(data_hash="00"),
    ],
)
def test_hostile_content_is_told_without_its_words(keys, identities, content):
    entry, backup = forge(keys, content)
    with pytest.raises(FormatError) as caught:
        load(keys, find(keys, entry, backup), identities)
    assert PULL not in str(caught.value)
    assert base64.b64encode(VALUE).decode() not in str(caught.value)


def test_a_keyring_that_unpacks_to_more_than_it_says_is_stopped(keys, identities):
    saved = find(keys, *kept(keys))
    stored = saved.header.object
    keys.store.delete(stored.path)
    found = seal(io.BytesIO(bytes(8 << 20)), keys.store, stored.path, keys.config.recipients)
    lying = replace(
        stored,
        stored_size=found.stored_size,
        stored_sha256=found.stored_sha256,
        sha256=found.sha256,
    )
    header = replace(saved.header, object=lying)
    with pytest.raises(DamagedError, match="more than"):
        load(keys, Saved(header, saved.digest, saved.written), identities)


def changed_object(**fields):
    def change(header):
        return {"object": header["object"] | fields}

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda _: {"name": "20261120T231000Z-zzzz"},
        lambda _: {"name": "../../../etc/passwd"},
        lambda _: {"cluster": "other"},
        lambda _: {"cluster": "../.."},
        lambda _: {"repository": "e" * 32},
        lambda _: {"repository": "short"},
        lambda _: {"format": 2},
        lambda _: {"requires": ["magic"]},
        lambda _: {"recipients": []},
        lambda _: {"keys": [{}]},
        lambda _: {"made_at": "yesterday"},
        lambda _: {"made_at": "0001-01-01T00:00:00Z"},
        lambda _: {"kms": 7},
        changed_object(path="backstay.json"),
        changed_object(path="../../identity.txt"),
        changed_object(size=MAX_KEYRING + 1),
        changed_object(stored_size=MAX_KEYRING + 1),
        changed_object(sha256="0"),
    ],
)
def test_hostile_headers_are_listed_as_unreadable(keys, change):
    kept(keys)
    [path] = files(keys, ".json")
    rewrite(path, **change(json.loads(path.read_text())))
    [found] = headers(keys)
    assert isinstance(found, Unreadable)
    assert path.name in found.path
    assert found.reason
    assert found.do


def test_unknown_fields_are_ignored(keys, identities):
    entry, backup = forge(keys, {**msgspec.to_builtins(keyring()), "later": 1}, later=[1])
    assert load(keys, find(keys, entry, backup), identities).keys[0].value == VALUE


def test_a_header_that_was_copied_is_not_believed(tmp_path, owner, keys):
    kept(keys)
    other = Repository.init(
        FileStore(tmp_path / "other"), new_config(Role.KEYS, [owner[1]], {}, NOW)
    )
    for path in files(keys):
        other.store.put_new(str(path.relative_to(keys.store._root)), path.read_bytes())
    [found] = headers(other)
    assert "copied from another repository" in found.reason


@given(st.data())
def test_no_mutation_of_a_document_gets_past_typed_errors(data):
    """Bytes of a good document, changed; what comes of it is a document or one kind of error."""
    header = KeyringHeader(
        repository="a" * 32,
        data=DATA,
        cluster=CLUSTER,
        name="20261120T231000Z-abcd",
        kind="hosted",
        made_at=NOW,
        object=manifest().objects[0],
        recipients=("age1",),
        keys=(keyring().keys[0].label,),
        kms=KMS,
    )
    parse, good = data.draw(
        st.sampled_from([(parse_keyring, keyring(kms=KMS)), (parse_header, header)])
    )
    text = bytearray(encode(good))
    chance = random.Random(data.draw(st.integers(0, 1 << 32)))
    for _ in range(data.draw(st.integers(1, 6))):
        start = chance.randrange(len(text))
        piece = chance.choice([b"", b"0", b'"', b"{", b"null", b"-1", b"1e999", b"\xff", b"}"])
        text[start : start + chance.randrange(12)] = piece
    with contextlib.suppress(FormatError):
        assert parse(bytes(text), "the document").cluster


def test_headers_come_newest_first(keys):
    made = [kept(keys, keyring(os.urandom(32)))[0].digest for _ in range(5)]
    for hours, digest in zip((3, 1, 5, 2, 4), made, strict=True):
        path = next(
            p for p in files(keys, ".json") if hashlib.sha256(p.read_bytes()).hexdigest() == digest
        )
        age(path, hours)
    found = [one.digest for one in headers(keys)]
    assert found == [made[n] for n in (1, 3, 0, 4, 2)]
    kept(keys, keyring(cluster="other"))
    assert len(headers(keys)) == 6
    assert len(headers(keys, CLUSTER)) == 5


@pytest.mark.parametrize("fault", TOLD)
def test_promise_1_whatever_fails_a_keyring_is_listed_whole_or_not_at_all(keys, identities, fault):
    """Every operation of a save fails once; what is there then opens, or is swept."""
    number, done = 0, False
    while not done:
        number += 1
        store = FaultyStore(keys.store, {number: fault})
        try:
            kept(Repository(store, keys.config))
            done = len(store.operations) < number
        except StoreError:
            assert len(store.operations) >= number
        for saved in headers(keys):
            assert load(keys, saved, identities).keys[0].value == VALUE
    assert number > 4
    whole = {saved.header.object.path for saved in headers(keys)}
    for path in files(keys):
        age(path)
    sweep(keys)
    left = {str(path.relative_to(keys.store._root)) for path in files(keys, ".zst.age")}
    assert left == whole


def test_promise_1_half_a_keyring_is_swept_when_it_is_old(keys):
    kept(keys)
    kept(keys)
    young, old = files(keys, ".json")
    young.unlink()
    old.unlink()
    age(old.with_name(old.name.replace(".json", ".zst.age")))
    kept(keys)
    for path in files(keys):
        if path.name.startswith(files(keys, ".json")[0].name.removesuffix(".json")):
            age(path)
    stranger = old.with_name("notes.txt")
    stranger.write_text("mine")
    age(stranger)
    found = sweep(keys)
    assert found.paths == (f"clusters/{CLUSTER}/keyrings/{old.name.replace('.json', '.zst.age')}",)
    assert found.size > 0
    assert stranger.exists()
    assert len(headers(keys)) == 1
    assert young.with_name(young.name.replace(".json", ".zst.age")).exists()


class Forgetful(FaultyStore):
    """A store that lists no headers."""

    def list(self, prefix="", *, after=""):
        return (
            info for info in super().list(prefix, after=after) if not info.path.endswith(".json")
        )


def test_a_keyring_is_not_half_written_because_its_header_is_not_listed(keys, identities):
    entry, backup = kept(keys)
    for path in files(keys):
        age(path)
    assert sweep(Repository(Forgetful(keys.store), keys.config)).paths == ()
    assert load(keys, find(keys, entry, backup), identities).keys


def test_the_sweep_of_backups_leaves_keyrings_alone(keys, identities):
    entry, backup = kept(keys)
    for path in files(keys):
        age(path, 24 * 365)
    assert leftovers.sweep(keys).paths == ()
    assert keys.backups() == ()
    assert keys.clusters() == (CLUSTER,)
    assert load(keys, find(keys, entry, backup), identities).keys


def run_of(backup):
    return backup.cluster, f"{backup.name.split('-')[0]}-{backup.random}"


def test_the_keys_of_dead_runs_are_found_and_no_others(keys):
    listed, dead = (kept(keys)[1] for _ in range(2))
    foreign = kept(keys, data="e" * 32)[1]
    found = of_runs(keys, DATA, [run_of(dead), run_of(foreign)])
    assert [one.header.name for one in found] == [run_of(dead)[1]]
    # The same moment and random part of another cluster is another run.
    assert of_runs(keys, DATA, [("other", run_of(listed)[1])]) == ()


def test_promise_1_keys_of_a_backup_whose_manifest_is_gone_are_never_swept(keys):
    kept(keys)
    for path in files(keys):
        age(path, 24 * 365)
    sweep(keys)
    assert of_runs(keys, DATA, []) == ()
    assert len(headers(keys)) == 1


def test_what_cannot_be_read_is_not_found(keys):
    backup = kept(keys)[1]
    [path] = files(keys, ".json")
    path.write_text("{}")
    assert of_runs(keys, DATA, [run_of(backup)]) == ()


def test_a_keyring_goes_header_first(keys):
    saved = find(keys, *kept(keys))
    store = FaultyStore(keys.store, {2: TOLD[0]})
    with pytest.raises(BackstayError):
        remove(Repository(store, keys.config), saved)
    assert headers(keys) == ()
    remove(keys, saved)
    assert not files(keys)
