"""Commands on one etcd, killed at every operation: on a store in a directory, and on a real S3.

What is listed afterwards is whole, where a restore goes there is all or nothing, and the next run
works and sweeps.
"""

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from backstay.repo import leftovers
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry
from backstay.repo.url import open_store
from kit.cli import Cli, environment
from kit.disk_steps import run_killed
from kit.dying import dying
from kit.killing import Killing
from kit.scenes import Scene, scene

KILLED = -signal.SIGKILL
#: Everything that is there, as the store tells the time: none of it is too young to be swept.
ALL = timedelta(minutes=-5)
#: One in so many is tried in a moment; all of them take longer.
some = pytest.mark.parametrize(
    "step", [pytest.param(9, id="some"), pytest.param(1, id="all", marks=pytest.mark.soak)]
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with scene("etcd", tmp_path_factory.mktemp("etcd")) as place:
        yield place


def moments(step):
    """Numbers of moments, a few or all; a run that lives ends them."""
    return range(1 + step // 2, 9999, step)


# On a store in a directory.


def kill_in_data(place: Scene, command, step, record_property):
    """Kill a command at its steps in the repository; gives how many backups were listed then."""
    found = []
    for at in moments(step):
        died = dying(
            place.words(command), place.folder, place.folder / "data", at, **variables(place)
        )
        found.append(len(place.listed()))
        # A command that is no more has no exit code of its own: what it left is what counts.
        place.judge(command, 1 if died.code == KILLED else died.code)
        place.mend(command)
        place.reset()
        if died.code != KILLED:
            assert died.code == 0, died.told
            record_property("kills", len(found) - 1)
            return found
    raise AssertionError("it never came to its end")


def variables(place):
    return {name: str(value) for name, value in place.cli.variables.items()}


@some
def test_promise_1_a_backup_into_a_directory(place, step, record_property):
    found = kill_in_data(place, "backup", step, record_property)
    assert len(found) > 2
    assert found == sorted(found)
    assert {found[0], found[-1]} == {2, 3}


@some
def test_promise_7_a_prune_of_a_directory(place, step, record_property):
    found = kill_in_data(place, "prune", step, record_property)
    assert len(found) > 2
    assert {found[0], found[-1]} == {2, 1}


@some
def test_promise_6_a_restore(place, step, record_property):
    """Killed before each name that it makes, and before each file that it brings to the disk."""
    for at in moments(step):
        code = run_killed(variables(place), place.words("restore"), at)
        seen = {name: data for name, data in place.left().items() if not name.startswith(".")}
        assert seen in ({}, place.clean["restore"][0])
        if seen:
            place.clear()
        # What a killed one left goes with the next to the same place.
        place.cli(*place.words("restore"))
        assert place.left() == place.clean["restore"][0]
        assert os.listdir(place.out) == ["restored"]
        place.clear()
        if code != KILLED:
            assert (code, bool(seen)) == (0, True)
            assert at > 10
            record_property("kills", at // step)
            return
    raise AssertionError("it never came to its end")


# On a real S3 server.


@dataclass
class Bucket:
    """A repository in a bucket, and the program that is killed over it."""

    killing: Killing
    cli: Cli
    variables: dict
    empty: set

    @property
    def repository(self):
        with environment(self.killing.variables):
            return Repository.open(open_store(self.killing.variables["BACKSTAY_REPO"]))

    def entries(self):
        found = self.repository.backups()
        assert all(isinstance(entry, Entry) for entry in found), found
        return found

    def named(self):
        """The objects of what is listed, by bucket and path."""
        return {
            f"backups/hosted/{path}"
            for entry in self.entries()
            for path in (
                *(item.path for item in entry.manifest.objects),
                f"clusters/prod/backups/{entry.manifest.name.name}.json",
            )
        }


@contextmanager
def bucket(place, folder):
    with Killing.start(folder / "killing") as killing:
        cli = Cli(place.cli.folder, {**place.cli.variables, **killing.variables})
        with (place.cli.folder / "identity.txt").open() as file:
            recipient = next(line.split()[-1] for line in file if "age1" in line)
        cli("init", "--recipient", recipient)
        mine = {name: text for name, text in variables(place).items() if name.startswith("ETCD")}
        mine["BACKSTAY_IDENTITY"] = place.cli.variables["BACKSTAY_IDENTITY"]
        yield Bucket(killing, cli, mine, killing.objects())


@some
def test_promise_1_a_backup_into_a_bucket(place, tmp_path, step, record_property):
    with bucket(place, tmp_path) as there:
        listed = []
        for at in moments(step):
            run = there.killing.run(place.backup, at, **there.variables)
            left, named = there.killing.objects() - there.empty, there.named()
            assert named <= left
            for entry in there.entries():
                there.cli("verify", entry.manifest.id, "--read-data")
                listed.append(entry)
            there.killing.clear(there.empty | left)  # nothing: it waits until rclone sees all
            swept = {
                f"backups/hosted/{path}" for path in leftovers.sweep(there.repository, ALL).paths
            }
            assert left == named | swept
            assert not named & swept
            assert there.killing.temporary == []
            there.killing.clear(there.empty)
            if not run.killed:
                assert run.code == 0, run.told
                record_property("kills", at // step)
                break
            assert run.code == KILLED
        assert listed


@some
def test_promise_6_a_restore_from_a_bucket(place, tmp_path, step, record_property):
    with bucket(place, tmp_path) as there:
        there.cli(*place.backup)
        target = tmp_path / "restored"
        for at in moments(step):
            words = ("restore", "etcd", place.latest, "--data-dir", target)
            run = there.killing.run(words, at, **there.variables)
            if not run.killed:
                assert run.code == 0, run.told
                assert (target / "member/snap/db").exists()
                record_property("kills", at // step)
                return
            # All is read before anything is published.
            assert not target.exists()
            assert not [path for path in there.killing.temporary if "restored" in path.name]
        raise AssertionError("it never came to its end")
