"""Pins: what keeps a backup, whoever else is at work."""

from datetime import UTC, datetime, timedelta

import pytest

from backstay.clock import SystemClock
from backstay.errors import NotFoundError, NotVerifiedError
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config
from backstay.repo.name import removals_of
from backstay.repo.pin import folder, pin, unpin
from backstay.repo.stores.file import FileStore
from kit.clocks import SetClock
from kit.manifests import manifest

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)


@pytest.fixture
def repository(tmp_path):
    return Repository.init(FileStore(tmp_path / "repo"), new_config(Role.DATA, [], {}, NOW))


@pytest.fixture
def made(repository):
    made = manifest(repository=repository.config.repository)
    repository.publish(made)
    return made


def pinned(repository, made, reason="why", by="me@here", clock=None):
    return pin(repository.store, made.name, by=by, reason=reason, clock=clock or SystemClock())


def announce(repository, made):
    path = f"{removals_of('prod')}{made.name.name}/20261120T231000Z-aaaa.json"
    repository.store.put_new(path, b"{}")
    return path


def test_a_pin_says_who_and_why(repository, made):
    assert repository.find(made.id).pins == ()
    pinned(repository, made, "before the upgrade", "root@host", SetClock(NOW))
    [found] = repository.find(made.id).pins
    assert str(found) == "pinned by root@host at 2026-11-20 23:10:00Z: before the upgrade"
    assert repository.backups()[0].pins == (found,)


def test_each_pin_counts_and_an_unpin_takes_what_it_saw(repository, made):
    one = pinned(repository, made, "one")
    seen = repository.find(made.id).pins
    two = pinned(repository, made, "two")
    assert set(repository.find(made.id).pins) == {one, two}
    unpin(repository.store, seen)
    unpin(repository.store, seen)
    assert repository.find(made.id).pins == (two,)


def test_what_is_not_there_is_not_pinned(repository, made):
    gone = manifest(repository=repository.config.repository)
    with pytest.raises(NotFoundError, match="has no backup"):
        pinned(repository, gone)
    assert not list(repository.store.list(folder(gone.name)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b'{"format": 2}',
        b'{"backup": "other/20261120T231000Z-r1-aaaa", "at": "2026-11-20T00:00:00Z", "by": "x"}',
        b'{"requires": ["later"], "backup": "x", "at": "2026-11-20T00:00:00Z", "by": "x"}',
    ],
)
@pytest.mark.parametrize("name", ["x.json", "deep/er/x.json", "x"])
def test_what_cannot_be_read_pins_all_the_same(repository, made, data, name):
    repository.store.put_new(f"{folder(made.name)}{name}", data)
    [found] = repository.find(made.id).pins
    assert "can't be read" in str(found)
    unpin(repository.store, (found,))
    assert repository.find(made.id).pins == ()


class Busy(SetClock):
    """Something happens while a pin waits."""

    def __init__(self, now, then=lambda: None):
        super().__init__(now)
        self.then = then

    def sleep(self, seconds):
        super().sleep(seconds)
        self.then()


def test_promise_7_a_pin_waits_for_a_removal_that_gives_way(repository, made):
    path = announce(repository, made)
    clock = Busy(NOW, lambda: repository.store.delete(path))
    pinned(repository, made, clock=clock)
    assert clock.slept > 0
    assert repository.find(made.id).pins


def test_promise_7_a_pin_that_comes_too_late_says_so(repository, made):
    path = announce(repository, made)
    manifest_path = f"clusters/prod/backups/{made.name.name}.json"
    clock = Busy(NOW, lambda: [repository.store.delete(p) for p in (manifest_path, path)])
    with pytest.raises(NotFoundError, match="not any more"):
        pinned(repository, made, clock=clock)
    assert not list(repository.store.list("clusters/prod/pins"))


def test_promise_7_a_removal_that_does_not_end_leaves_the_pin_and_says_so(repository, made):
    announce(repository, made)
    clock = Busy(NOW)
    with pytest.raises(NotVerifiedError, match="does not come to an end"):
        pinned(repository, made, clock=clock)
    assert clock.slept >= 60
    assert repository.find(made.id).pins


def test_a_removal_that_died_long_ago_holds_nobody_up(repository, made, tmp_path):
    import os

    path = tmp_path / "repo" / announce(repository, made)
    then = path.stat().st_mtime - timedelta(minutes=11).total_seconds()
    os.utime(path, (then, then))
    clock = Busy(NOW)
    pinned(repository, made, clock=clock)
    assert clock.slept == 0
