"""Backups of an OKD control plane into two buckets, killed at every moment: what is left then."""

import io
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from backstay.repo import keyring as keyrings
from backstay.repo import leftovers
from backstay.repo.archive import fetch_archive
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry
from backstay.repo.identity import Identities
from backstay.repo.keyring import Saved
from backstay.repo.url import open_store
from kit.cli import Cli, environment
from kit.killing import Killing, writes
from kit.okd_host import INFRASTRUCTURE

#: Everything that is there, as the store tells the time: none of it is too young to be swept.
ALL = timedelta(minutes=-5)
KILLED, UNVERIFIED = -9, 4


@dataclass
class Scene:
    """A host, and two buckets that its backups go to."""

    killing: Killing
    cli: Cli
    words: tuple
    empty: set

    def repository(self, which):
        with environment(self.killing.variables):
            return Repository.open(open_store(self.killing.variables[which]))

    @property
    def data(self):
        return self.repository("BACKSTAY_REPO")

    @property
    def keys(self):
        return self.repository("BACKSTAY_KEYS_REPO")


@contextmanager
def scene(folder, host):
    with Killing.start(folder / "killing") as killing:
        (folder / "home").mkdir()
        cli = Cli(folder / "home", killing.variables)
        recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
        cli("init", "--recipient", recipient)
        keys = killing.variables["BACKSTAY_KEYS_REPO"]
        cli("init", "--repo", keys, "--role", "keys", "--recipient", recipient)
        # Without an API no Lease is left to a dead holder, for which the next run would wait.
        words = ("backup", "okd", "--host-root", host.root, "--force")
        yield Scene(killing, cli, words, killing.objects())


def named_by(scene, entry):
    """The objects of a backup that is listed; each of them is there, and is opened."""
    manifest, keys = entry.manifest, scene.keys
    saved = keyrings.find(keys, manifest.keyring, manifest.name)
    identities = Identities.read(scene.cli.folder / "identity.txt")
    keyrings.load(keys, saved, identities)
    sink = io.BytesIO()
    fetch_archive(keys, saved.header, sink, identities)
    assert len(sink.getvalue()) == manifest.okd.archive_size
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as tar:
        assert len(tar.getnames()) > 20
    folder = f"backups/hosted/clusters/{INFRASTRUCTURE}"
    path = saved.header.object.path
    return {
        f"{folder}/backups/{manifest.name.name}.json",
        *(f"backups/hosted/{item.path}" for item in manifest.objects),
        *(f"keys/hosted/{item.path}" for item in (saved.header.object, saved.header.archive)),
        f"keys/hosted/{path.removesuffix('.zst.age')}.json",
    }


def swept(scene):
    """Delete what dead runs left, as the next run does, however young; give the names."""
    data, keys = scene.data, scene.keys
    before = scene.killing.objects()
    keyrings.sweep(keys, ALL)
    for lost in keyrings.of_runs(keys, data.config.repository, leftovers.dead_runs(data, ALL)):
        keyrings.remove(keys, lost)
    leftovers.sweep(data, ALL)
    return before - scene.killing.objects()


def judge(scene):
    """Hold what a killed backup left to the promises; gives how much was listed and swept."""
    entries = scene.data.backups()
    assert all(isinstance(entry, Entry) for entry in entries), entries
    assert all(isinstance(one, Saved) for one in keyrings.headers(scene.keys))
    theirs = {name for entry in entries for name in named_by(scene, entry)}
    left = scene.killing.objects() - scene.empty
    dead = swept(scene)
    assert left == theirs | dead
    assert not theirs & dead
    assert scene.killing.temporary == []
    scene.killing.clear(scene.empty)
    return {"listed": len(entries), "left": len(dead)}


def kill_backups(scene, moments, **more):
    found = []
    for at in moments:
        run = scene.killing.run(scene.words, at, **more)
        found.append(judge(scene))
        if not run.killed:
            assert run.code == UNVERIFIED, run.told
            assert found[-1] == {"listed": 1, "left": 0}
            return found
        assert run.code == KILLED
    raise AssertionError("it never came to its end")


def test_promise_1_killed_at_some_writes_what_is_listed_has_its_partner(tmp_path, host):
    with scene(tmp_path, host) as place:
        found = kill_backups(place, range(3, 999, 7), only=writes)
        assert sum(one["left"] > 0 for one in found) >= 1


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_promise_1_killed_at_every_moment_what_is_listed_has_its_partner(tmp_path, host):
    with scene(tmp_path, host) as place:
        found = kill_backups(place, range(1, 9999))
        assert max(one["left"] for one in found) >= 4
        assert len(found) > 20
