"""Keyrings that are sealed anew while the store fails, or the program dies, at any step."""

import io
import os
import shutil
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from backstay.clock import SystemClock
from backstay.errors import BackstayError, FormatError, SealError
from backstay.flows.keyrewrap import all_keyrings, rewrap_keyring
from backstay.flows.rewrap import Fate, Options
from backstay.repo import generation
from backstay.repo.archive import fetch_archive
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config, with_recipients
from backstay.repo.identity import Identities, generate
from backstay.repo.keyring import Keyring, SavedKey, find, headers, load, remove, save, sweep
from backstay.repo.name import Run
from backstay.repo.sealing import Sealing
from backstay.repo.stores.file import FileStore
from backstay.repo.stores.s3 import Bucket, S3Store
from backstay.report import Report
from kit import s3
from kit.faulty_store import Fault, FaultyStore

CLOCK = SystemClock()
CLUSTER, DATA = "okd-7x2kf", "d" * 32
TAR = os.urandom(120_000)
VALUE = bytes(range(7, 39))
NOW_ALL = timedelta(seconds=-5)


class _KilledError(BaseException):
    """What a program that is dead does: nothing more."""


class Scene:
    """A keyring with an archive, sealed to a recipient that is one no more."""

    def __init__(self, store, spool):
        self.store, self.spool = store, spool
        spool.mkdir()
        (self.first, recipient), (self.second, other) = (generate(CLOCK.now()) for _ in range(2))
        config = new_config(Role.KEYS, [recipient], {}, CLOCK.now())
        self.keys = Repository.init(store, config)
        self.run_ = Run.begin(CLUSTER, CLOCK.now())
        key = SavedKey.of("active", "clusters", "key", VALUE)
        ring = Keyring(cluster=CLUSTER, kind="okd", made_at=CLOCK.now(), keys=(key,))
        self.entry = save(self.keys, ring, self.run_, data=DATA, archive=io.BytesIO(TAR))
        self.old = self.saved.header
        generation.publish(store, config, with_recipients(config, [other], CLOCK.now()))
        self.keys = Repository.open(store)

    @property
    def saved(self):
        """As the manifest of its backup leads to it, by the digest."""
        return find(self.keys, self.entry, self.run_.backup(2001))

    @property
    def paths(self):
        return [info.path for info in self.store.list("clusters")]

    def identities(self, text):
        return Identities.parse(text.encode(), "identity")

    def run(self, store=None, identity=None, saved=None):
        used = Repository(store or self.store, self.keys.config)
        options = Options(
            identities=self.identities(identity or self.first),
            spool_dir=self.spool,
            sealing=Sealing(threads=1),
        )
        found = saved or find(used, self.entry, self.run_.backup(2001))
        return rewrap_keyring(used, found, options, clock=CLOCK, report=Report())

    def assert_opens(self, identity):
        """Keyring and archive come back, however they are looked for."""
        [listed] = headers(self.keys)
        saved, identities = self.saved, self.identities(identity)
        assert (listed.header, listed.notes) == (saved.header, saved.notes)
        assert saved.digest == self.entry.digest
        assert load(self.keys, saved, identities).keys[0].value == VALUE
        sink = io.BytesIO()
        fetch_archive(self.keys, saved.header, sink, identities)
        assert sink.getvalue() == TAR

    def assert_finished(self):
        """A later run does what is left; nothing lies about that a sweep does not find."""
        self.run(identity=self.first + self.second)
        self.assert_opens(self.second)
        with pytest.raises(SealError):
            load(self.keys, self.saved, self.identities(self.first))
        sweep(self.keys, NOW_ALL)
        parts = [part.path for part in self.saved.header.parts]
        there = [path for path in self.paths if path.endswith(".age")]
        assert there == sorted(parts)
        assert not set(there) & {part.path for part in self.old.parts}
        assert not list(self.spool.iterdir())


@pytest.fixture
def scene(tmp_path):
    return Scene(FileStore(tmp_path / "keys"), tmp_path / "spool")


class Again:
    """The repository as it was, as often as it is wanted."""

    def __init__(self, tmp_path):
        self.root, self.copy = tmp_path / "keys", tmp_path / "copy"
        shutil.copytree(self.root, self.copy)

    def back(self):
        shutil.rmtree(self.root)
        shutil.copytree(self.copy, self.root)


def count(scene, again):
    store = FaultyStore(scene.store)
    assert scene.run(store).fate is Fate.REWRAPPED
    again.back()
    return len(store.operations)


def test_promise_5_after_a_rewrap_the_new_identity_alone_opens_the_keys(scene):
    scene.assert_opens(scene.first)
    done = scene.run()
    assert (done.id, done.fate, done.locked) == (scene.old.id, Fate.REWRAPPED, ())
    assert sorted(done.removed) == sorted(part.path for part in scene.old.parts)
    scene.assert_finished()
    assert scene.saved.header.recipients == scene.keys.config.recipients
    assert scene.run(identity=scene.second).fate is Fate.KEPT
    # Back again: the second note counts.
    config = scene.keys.config
    back = Identities.parse(scene.first.encode(), "x").recipients
    generation.publish(scene.store, config, with_recipients(config, back, CLOCK.now()))
    scene.keys = Repository.open(scene.store)
    assert scene.run(identity=scene.second).fate is Fate.REWRAPPED
    scene.assert_opens(scene.first)
    assert len([path for path in scene.paths if path.endswith(".age")]) == 2


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
def test_promise_1_whatever_the_store_does_at_any_step_the_keys_are_there(scene, tmp_path, fault):
    again = Again(tmp_path)
    for step in range(1, count(scene, again) + 1):
        try:
            scene.run(FaultyStore(scene.store, {step: fault}))
        except BackstayError as error:
            assert error.exit_code in {1, 3}  # noqa: PT017 - or it ends well, see below
        scene.assert_opens(scene.first + scene.second)
        scene.assert_finished()
        again.back()


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_promise_1_killed_before_or_after_any_step_the_keys_are_there(scene, tmp_path, done):
    again = Again(tmp_path)
    for step in range(1, count(scene, again) + 1):

        def plan(operation, step=step):
            if operation.number > step or (operation.number == step and not done):
                raise _KilledError

        with pytest.raises(_KilledError):
            scene.run(FaultyStore(scene.store, plan))
            raise _KilledError  # it was done with its last step
        scene.assert_opens(scene.first + scene.second)
        # Before anybody has run it again a sweep may come.
        sweep(scene.keys, NOW_ALL)
        scene.assert_opens(scene.first + scene.second)
        scene.assert_finished()
        again.back()


def test_of_two_rewraps_at_the_same_time_one_counts(scene):
    slow = scene.saved
    scene.run()
    with pytest.raises(BackstayError):
        scene.run(saved=slow)
    scene.assert_finished()


def test_an_identity_that_does_not_open_it_changes_nothing(scene):
    before = scene.paths
    with pytest.raises(SealError, match="holds the key of none"):
        scene.run(identity=scene.second)
    assert scene.paths == before


def test_one_that_is_damaged_stays_as_it_is(scene):
    path = scene.store._root / scene.old.archive.path
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(BackstayError):
        scene.run()
    assert scene.saved.header == scene.old


def test_old_parts_that_are_locked_stay_and_it_says_until_when(scene):
    until = CLOCK.now() + timedelta(days=1)
    old = scene.old.archive.path

    class Locking(FaultyStore):
        def locked_until(self, path):
            return until if path == old else None

    assert scene.run(Locking(scene.store)).locked == ((old, until),)
    assert old in scene.paths
    assert scene.run(identity=scene.second).removed == (old,)


@pytest.mark.parametrize("rewrapped", [False, True])
def test_it_goes_as_a_whole(scene, rewrapped):
    if rewrapped:
        scene.run()
    remove(scene.keys, scene.saved)
    assert scene.paths == []


def test_a_removal_that_died_is_swept(scene):
    scene.run()
    scene.store.delete(f"clusters/{CLUSTER}/keyrings/{scene.run_.name}.json")
    sweep(scene.keys)
    assert len(scene.paths) == 3  # it is young
    sweep(scene.keys, NOW_ALL)
    assert scene.paths == []


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one["resealed"]["objects"][0].update(now="clusters/other/keyrings/x/y.zst.age"),
        lambda one: one["resealed"]["objects"][0].update(
            now=one["resealed"]["objects"][0]["now"].replace("keyrings/2", "keyrings/../2")
        ),
        lambda one: one["resealed"]["objects"][0].update(path="backstay.json"),
        lambda one: one["resealed"]["objects"].pop(),
        lambda one: one["resealed"]["objects"][1].update(stored_size=1 << 40),
        lambda one: one["resealed"].update(recipients=[]),
        lambda one: one.update(digest="0" * 64),
        lambda one: one.update(keyring="other/20261120T231000Z-k3f9"),
        lambda one: one.update(requires=["moon"]),
    ],
)
def test_a_hostile_note_is_told(scene, change):
    scene.run()
    [path] = [path for path in scene.paths if path.count("/") == 4 and path.endswith(".json")]
    file = scene.store._root / path
    document = msgspec.json.decode(file.read_bytes())
    change(document)
    file.write_bytes(msgspec.json.encode(document))
    with pytest.raises(FormatError):
        _ = scene.saved
    [one] = all_keyrings(scene.keys)
    assert isinstance(one, tuple)
    # What can't be read keeps all of it: no sweep takes anything.
    before = scene.paths
    sweep(scene.keys, NOW_ALL)
    assert scene.paths == before


def test_names_that_are_none_are_passed_over(scene):
    scene.run()
    folder = scene.saved.header.object.path.rpartition("/")[0]
    for strange in ("README", "x.json", "20261120T231000Z-k3f9.txt"):
        scene.store.put_new(f"{folder}/{strange}", b"{")
    scene.assert_opens(scene.second)


@pytest.mark.parametrize("kind", ["plain", "conditional"])
def test_in_a_bucket(tmp_path, monkeypatch, kind):
    """The same where the store is a server."""
    with s3.conditional() if kind == "conditional" else s3.plain(tmp_path / "s3") as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        bucket = Bucket(name=s3.BUCKET, prefix="k", endpoint=server.endpoint, allow_http=True)
        scene = Scene(S3Store(bucket), tmp_path / "spool")
        assert scene.run().fate is Fate.REWRAPPED
        scene.assert_finished()


def test_a_keyring_without_an_archive(tmp_path):
    scene = Scene(FileStore(tmp_path / "keys"), tmp_path / "spool")
    ring = Keyring(cluster=CLUSTER, kind="hosted", made_at=CLOCK.now(), keys=())
    run = replace(scene.run_, random="zzzz")
    save(scene.keys, ring, run, data=DATA)
    found = {one.header.name: one for one in all_keyrings(scene.keys)}
    assert scene.run(saved=found[run.name]).fate is Fate.KEPT  # made after the change
    assert scene.run(saved=found[scene.run_.name]).fate is Fate.REWRAPPED
