"""Prunes while a store fails, or while they are killed, at every operation; and many at once."""

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from backstay.clock import SystemClock
from backstay.errors import BackstayError, NotFoundError
from backstay.flows.prune import Fate
from backstay.repo import leftovers
from backstay.repo.name import removals_of
from backstay.repo.pin import pin
from backstay.repo.retention import Policy
from backstay.repo.stores.s3 import Bucket, Limits, S3Store
from kit import s3
from kit.faulty_store import Fault, FaultyStore
from kit.killing import Killing, writes
from kit.shelf import CLOCK, Shelf

POLICY = Policy(last=1)


def fill(shelf):
    """Six backups; the pinned one, the needed one and what needs it stay, and the newest."""
    made = [shelf.add(days=9 - n, revision=n + 1, keyring=n % 2 == 0) for n in range(5)]
    made.append(shelf.add(days=1.5, revision=9, needs=(made[2].id,), keyring=True))
    pin(shelf.repository.store, made[1].name, by="me", reason="why", clock=CLOCK)
    return [one.id for one in made]


def stays(made):
    return {made[1], made[2], made[5]}


@pytest.fixture
def memory(tmp_path):
    """A directory in memory where there is one: hundreds of repositories are brought to a disk."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="backstay-", dir=shared) as folder:
        yield Path(folder)


class Counted(FaultyStore):
    """One of two stores that are counted together."""

    def __init__(self, store, together):
        super().__init__(store)
        self.operations = together.operations
        self._lock = together._lock
        self._plan = together._plan


def pair(shelf, plan=None):
    """Both stores, with one count over them."""
    data = FaultyStore(shelf.repository.store, plan)
    return data, Counted(shelf.keys.store, data)


def number_of_operations(tmp_path):
    """What a prune asks that nobody disturbs; each is killed, or fails, in turn."""
    shelf = Shelf.make(tmp_path / "counted")
    fill(shelf)
    data, keys = pair(shelf)
    shelf.prune(POLICY, data=data, keys=keys)
    names = set(data.names)
    assert {"now", "list", "read", "put_new", "delete", "stat", "clear_partial"} <= names
    return len(data.operations)


class Turn:
    """Repositories, one after another, each like the first."""

    def __init__(self, tmp_path):
        self.folder = tmp_path
        self.first = Shelf.make(tmp_path / "first")
        self.made = fill(self.first)
        self.number = 0

    def next(self):
        self.number += 1
        return self.first.copy(self.folder / str(self.number)), self.made


#: One in so many is tried in a moment; all of them take longer.
STEPS = [pytest.param(4, id="some"), pytest.param(1, id="all", marks=pytest.mark.soak)]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
def test_promise_1_and_7_whatever_the_store_does_at_any_step_of_a_prune(memory, fault, step):
    turns = Turn(memory)
    first = 1 + fault.value % step
    for number in range(first, number_of_operations(memory) + 1, step):
        shelf, made = turns.next()
        data, keys = pair(shelf, {number: fault})
        try:
            done = shelf.prune(POLICY, data=data, keys=keys)
        except BackstayError:
            done = None  # nothing was begun
            assert set(shelf.listed) == set(made)
        where = (
            f"{fault.name} at {data.operations[number - 1]}"
            if number <= len(data.operations)
            else "beyond"
        )
        assert stays(made) <= set(shelf.listed), where
        if done is not None:
            removed = {one.id for one in done.outcomes if one.fate is Fate.REMOVED}
            assert not removed & set(shelf.listed), where
        shelf.assert_whole()
        again = shelf.prune(POLICY)
        assert not again.failed, where
        assert set(shelf.listed) == stays(made), where
        shelf.assert_whole()
        assert_tidy_but_for_late_finds(shelf)


def assert_tidy_but_for_late_finds(shelf):
    """What an announcement left that removed nothing is swept when it is old."""
    store = shelf.repository.store
    names = {name.partition("/")[2] for name in shelf.listed}
    for info in list(store.list(removals_of("prod"))):
        assert info.path.split("/")[3] in names, "only of what is still there"
        store.delete(info.path)
    shelf.assert_tidy()


class KilledError(BaseException):
    """The program is no more."""


class Mortal(FaultyStore):
    """A store whose user dies at a moment; what it still tries then is not done."""

    def __init__(self, store, at, count):
        super().__init__(store)
        self._at = at
        self._count = count

    def _begin(self, name, path):
        self._die()
        return super()._begin(name, path)

    def _end(self, fault, path):
        self._die()

    def _die(self):
        with self._count["lock"]:
            self._count["now"] += 1
            if self._count["now"] >= self._at:
                raise KilledError


def mortal(shelf, at):
    count = {"now": 0, "lock": threading.Lock()}
    return (
        Mortal(shelf.repository.store, at, count),
        Mortal(shelf.keys.store, at, count),
        count,
    )


@pytest.mark.parametrize("step", STEPS)
def test_promise_1_and_7_a_prune_that_dies_before_or_after_any_operation(memory, step):
    turns = Turn(memory)
    shelf, made = turns.next()
    data, keys, count = mortal(shelf, 1 << 30)
    shelf.prune(POLICY, data=data, keys=keys)
    moments = count["now"]
    assert moments > 100
    seen = set()
    for at in range(1, moments + 1, step):
        shelf, made = turns.next()
        data, keys, _ = mortal(shelf, at)
        with pytest.raises(KilledError):
            shelf.prune(POLICY, data=data, keys=keys)
        listed = set(shelf.listed)
        assert stays(made) <= listed
        seen.add(frozenset(listed - stays(made)))
        shelf.assert_whole()
        done = shelf.prune(POLICY)
        assert not done.failed
        assert set(shelf.listed) == stays(made)
        shelf.assert_whole()
        assert_tidy_but_for_late_finds(shelf)
    assert len(seen) == 4, "none, one, two, three have gone"


def test_promise_1_a_backup_alone_sweeps_what_a_dead_prune_left(memory):
    """Nobody prunes again: the sweep of the next backup does what can be done without keys."""
    turns = Turn(memory)
    shelf, _ = turns.next()
    data, keys, count = mortal(shelf, 1 << 30)
    shelf.prune(POLICY, data=data, keys=keys)
    for at in range(1, count["now"] + 1, 9):
        shelf, _ = turns.next()
        data, keys, _ = mortal(shelf, at)
        with pytest.raises(KilledError):
            shelf.prune(POLICY, data=data, keys=keys)
        leftovers.sweep(shelf.repository)
        shelf.assert_whole()
        named = {o.path for e in shelf.listed.values() for o in e.manifest.objects}
        store = shelf.repository.store
        assert {info.path for info in store.list("clusters/prod/objects")} == named


# A process of its own, and kill -9.


@pytest.fixture
def killing(tmp_path):
    with Killing.start(tmp_path / "killing") as killing:
        yield killing


def in_bucket(killing, number):
    """A repository in the bucket that the program is killed over; seen from beside the gate."""
    server = killing.server
    store = s3_store(server, f"n{number}")
    root = server.root / "backups" / f"n{number}"
    shelf = Shelf.make(killing.folder / f"n{number}", store, root)
    time.sleep(0.15)  # rclone remembers a directory for 100 ms
    return shelf, fill(shelf)


def s3_store(server, prefix):
    limits = Limits(connect=5, answer=10, part=30, silence=10, patience=2, perseverance=5)
    return S3Store(
        Bucket(
            name=s3.BUCKET,
            prefix=prefix,
            endpoint=server.endpoint,
            allow_http=server.endpoint.startswith("http:"),
        ),
        limits,
    )


def kill_at(killing, moments: Callable, only):
    words = ("prune", "--keep-last", 1, "--yes")

    def variables(shelf, number):
        return {
            "BACKSTAY_REPO": f"s3://backups/n{number}",
            "BACKSTAY_KEYS_REPO": shelf.keys.store.url,
        }

    time.sleep(0.15)
    shelf, made = in_bucket(killing, 0)
    time.sleep(0.15)
    clean = killing.run(words, only=only, **variables(shelf, 0))
    assert clean.code == 0, clean.told
    assert set(shelf.listed) == stays(made)
    killed = 0
    for at in moments(len(clean.moments)):
        shelf, made = in_bucket(killing, at)
        time.sleep(0.15)
        run = killing.run(words, at, only=only, **variables(shelf, at))
        killed += run.code == -9
        time.sleep(0.15)
        assert stays(made) <= set(shelf.listed), run.killed
        shelf.assert_whole()
        shelf.prune(POLICY)
        time.sleep(0.15)
        assert set(shelf.listed) == stays(made), run.killed
        shelf.assert_whole()
        assert_tidy_but_for_late_finds(shelf)
    assert killed


@pytest.mark.soak
def test_promise_1_and_7_a_prune_that_is_killed_over_a_real_store(killing, monkeypatch):
    use(killing, monkeypatch)
    chance = random.Random(20261125)
    kill_at(killing, lambda n: sorted(chance.sample(range(1, n + 1), 5)), writes)


@pytest.mark.soak
def test_promise_1_and_7_a_prune_that_is_killed_at_every_moment(killing, monkeypatch):
    use(killing, monkeypatch)
    kill_at(killing, lambda n: range(1, n + 1), bool)


def use(killing, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", killing.server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", killing.server.secret_key)


# Many at once.


@pytest.fixture(params=["file", "s3"])
def shelves(request, tmp_path, monkeypatch):
    """Makes repositories in a store of each kind."""
    number = iter(range(1000))
    if request.param == "file":
        yield lambda: Shelf.make(tmp_path / str(next(number)))
        return
    with s3.plain(tmp_path / "s3") as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)

        def make():
            name = f"n{next(number)}"
            root = server.root / "backups" / name
            return Shelf.make(tmp_path / name, s3_store(server, name), root)

        yield make


def at_once(*works):
    """Do several things in threads that begin together; the first error is raised."""
    ready = threading.Barrier(len(works))

    def begin(work):
        ready.wait(20)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(begin, work) for work in works]]


class Hasty(SystemClock):
    """A clock by which nobody waits for long."""

    def sleep(self, seconds):
        super().sleep(min(seconds, 0.01))


def hold(shelf, name, delay):
    """Pin a backup a moment later; gives its ID where that holds."""
    time.sleep(delay)
    try:
        pin(shelf.repository.store, name, by="me", reason="", clock=Hasty())
    except NotFoundError:
        return None
    return str(name)


def round_of_pins(shelf, chance):
    """Two prunes, pins and a new backup, all at once."""
    made = fill(shelf)
    ids = [entry.manifest.name for entry in shelf.listed.values()]
    held = chance.sample([name for name in ids if str(name) not in stays(made)], 2)
    first, second, *pins, new = at_once(
        lambda: shelf.prune(POLICY),
        lambda: shelf.prune(Policy(last=2)),
        *(partial(hold, shelf, name, chance.uniform(0, 0.4)) for name in held),
        lambda: shelf.add(days=0, revision=50, noted=False, lineage="bb"),
    )
    listed = set(shelf.listed)
    assert stays(made) <= listed
    assert new.id in listed
    assert {name for name in pins if name} <= listed
    assert not first.failed
    assert not second.failed
    shelf.assert_whole()
    shelf.prune(POLICY)
    assert set(shelf.listed) == stays(made) | {new.id} | {name for name in pins if name}
    shelf.assert_whole()
    assert_tidy_but_for_late_finds(shelf)
    return len([name for name in pins if name])


def test_promise_7_prunes_pins_and_a_backup_at_once(shelves):
    chance = random.Random(7)
    held = [round_of_pins(shelves(), chance) for _ in range(6)]
    assert len(held) == 6


@pytest.mark.soak
def test_promise_7_prunes_pins_and_a_backup_at_once_many_times_over(shelves):
    chance = random.Random(77)
    held = [round_of_pins(shelves(), chance) for _ in range(200)]
    assert 0 < sum(held) < 400, "both happen: a pin that is in time, and one that is not"
