"""Prunes of what is recorded: with the backups that it leads on from, and while stores fail."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from backstay.errors import BackstayError
from backstay.flows.prune import Options, Prune
from backstay.mvcc.delta import Position
from backstay.mvcc.deltawriter import DeltaWriter, Origin
from backstay.repo.catalogue import Repository
from backstay.repo.delta import list_all, list_deltas, put_delta
from backstay.repo.retention import Policy
from backstay.repo.roll import read_roll, recorded, roll_up, rolls_of
from backstay.report import Report
from kit import s3
from kit.faulty_store import Fault, FaultyStore
from kit.shelf import CLOCK, Shelf

LINEAGE, OTHER = "a" * 16, "b" * 16
DAY = timedelta(days=1)
STEPS = [pytest.param(13, id="some"), pytest.param(1, id="all", marks=pytest.mark.soak)]


@pytest.fixture
def shelf(tmp_path):
    return Shelf.make(tmp_path)


def record(shelf, begin, end, days, lineage=LINEAGE, cluster="prod"):
    """Put away a delta of deletes that is some days old."""
    writer = DeltaWriter(Origin(cluster, lineage, "w"), Position(begin))
    writer.mark(begin - 1, begin * 1000)
    for main in range(begin, end):
        writer.delete(main, 0, b"k")
    writer.mark(end - 1, end * 1000)
    stored = put_delta(shelf.repository, writer.finish())
    age(shelf, stored.path, days)
    return stored


def age(shelf, path, days):
    when = time.time() - days * 86400
    os.utime(shelf.roots[shelf.repository.store.url] / path, (when, when))


def fill(shelf):
    """Backups at 10, 20 and 30, and ten deltas from 11 up to 60; one younger than a day."""
    made = [
        shelf.add(days=20 - revision / 10, revision=revision, lineage=LINEAGE)
        for revision in (10, 20, 30)
    ]
    deltas = [record(shelf, 11 + 5 * n, 16 + 5 * n, 19 - 2 * n) for n in range(9)]
    deltas.append(record(shelf, 56, 61, 0))
    return made, deltas


def there(shelf):
    return [one.path for one in list_all(shelf.repository)]


def plan(shelf, policy, **more):
    options = Options(policy=policy, by="me", **more)
    return Prune(shelf.repository, options, None, CLOCK, Report()).plan()


def prune(shelf, policy, store=None, **more):
    repository = Repository(store or shelf.repository.store, shelf.repository.config)
    chosen = Prune(
        repository, Options(policy=policy, by="me", **more), None, CLOCK, Report(shelf.said.append)
    )
    return chosen.execute(chosen.plan())


def paths(deltas):
    return [one.path for one in deltas]


def test_promise_7_deltas_go_with_the_backup_that_they_go_on_from(shelf):
    made, deltas = fill(shelf)
    found = plan(shelf, Policy(last=1))
    assert [(one.revisions, one.deltas, one.keep) for one in found.recorded] == [
        ((11, 25), 3, False),
        ((26, 55), 6, True),
        ((56, 60), 1, True),
    ]
    assert found.recorded[0].reasons == (f"ends before {made[2].id}, the oldest of its lineage",)
    assert there(shelf) == paths(deltas), "a plan removes nothing"
    done = prune(shelf, Policy(last=1))
    assert (done.recorded.deltas, done.failed) == (3, False)
    assert done.recorded.size == sum(one.stored_size for one in deltas[:3])
    assert there(shelf) == paths(deltas[3:])
    again = prune(shelf, Policy(last=1))
    assert again.recorded.deltas == 0
    shelf.assert_whole()


def test_promise_7_a_backup_that_stays_after_all_keeps_its_deltas(shelf):
    """What was decided for the plan is decided again: a pin has come meanwhile."""
    made, deltas = fill(shelf)

    class Meanwhile(FaultyStore):
        def put_new(self, path, data):
            if "/removals/" in path:
                name = made[0].name.name
                self.store.put_new(f"clusters/prod/pins/{name}/{time.time_ns()}.json", b"{}")
            super().put_new(path, data)

    prune(shelf, Policy(last=1), Meanwhile(shelf.repository.store))
    assert made[0].id in shelf.listed
    assert there(shelf) == paths(deltas)


def test_promise_7_where_a_manifest_cannot_be_read_no_delta_goes(shelf):
    _, deltas = fill(shelf)
    path = "clusters/prod/backups/20261120T231000Z-r1-aaaa.json"
    shelf.repository.store.put_new(path, b'{"format": 1, "requires": ["chains"]}')
    assert prune(shelf, Policy(last=1)).recorded.deltas == 0
    assert there(shelf) == paths(deltas)


def test_a_time_may_be_given(shelf):
    _, deltas = fill(shelf)
    found = prune(shelf, Policy(last=9), recorded=DAY * 8)
    # Of the last eight days: from revision 41 on, and what leads there from the backup at 30.
    assert found.recorded.deltas == 3
    assert there(shelf) == paths(deltas[3:])


def test_other_clusters_and_lineages_are_judged_by_themselves(shelf):
    _, deltas = fill(shelf)
    orphan = record(shelf, 5, 9, 3, OTHER)
    young = record(shelf, 9, 12, 0, OTHER)
    elsewhere = record(shelf, 5, 9, 3, LINEAGE, "other")
    found = plan(shelf, Policy(last=9), cluster="prod")
    assert [(one.lineage, one.keep, one.reasons) for one in found.recorded[2:]] == [
        (OTHER, False, ("no backup of its lineage stays",)),
        (OTHER, True, ("younger than 24 h",)),
    ]
    assert prune(shelf, Policy(last=9), cluster="prod").recorded.deltas == 1
    assert set(there(shelf)) == {*paths(deltas), young.path, elsewhere.path}
    assert prune(shelf, Policy(last=9)).recorded.deltas == 1
    assert orphan.path not in there(shelf)
    assert elsewhere.path not in there(shelf)


def test_what_a_backup_was_made_from_is_not_kept_for_that(shelf):
    made, deltas = fill(shelf)
    whole = shelf.add(days=2, revision=44, lineage=LINEAGE, base=made[2].id)
    prune(shelf, Policy(last=1))
    assert set(shelf.listed) == {whole.id}
    assert there(shelf) == paths(deltas[6:])


def test_promise_7_rolls_go_before_and_what_stays_is_rolled_anew(shelf):
    _, deltas = fill(shelf)
    roll_up(shelf.repository, "prod", LINEAGE, least=1)
    before = recorded(shelf.repository, "prod")[LINEAGE]
    store = FaultyStore(shelf.repository.store)
    prune(shelf, Policy(last=1), store)
    asked = [one for one in store.operations if one.name in {"delete", "put_new"}]
    words = [
        (one.name, one.path.split("/")[0])
        for one in asked
        if one.path.startswith(("rolls/", "deltas/"))
    ]
    assert words == [("put_new", "rolls"), ("delete", "rolls"), *[("delete", "deltas")] * 3]
    [info] = list(shelf.repository.store.list(rolls_of("prod", LINEAGE)))
    named = [name for name, _ in read_roll(shelf.repository, info.path).deltas]
    assert named == [one.path.rpartition("/")[2] for one in deltas[3:]]
    [after] = recorded(shelf.repository, "prod")[LINEAGE]
    assert (before[0].begin.main, after.begin.main, after.end.main) == (11, 26, 61)
    assert after.deltas == 7


def whole(shelf, deltas):
    """No roll names what is not there; what it should cover it covers."""
    listed = {one.rpartition("/")[2] for one in there(shelf)}
    for info in list(shelf.repository.store.list("rolls/")):
        names = {name for name, _ in read_roll(shelf.repository, info.path).deltas}
        assert names <= listed
    assert set(paths(deltas)) <= set(there(shelf))


class KilledError(BaseException):
    """The program is no more."""


class Mortal(FaultyStore):
    """A store whose user dies at a moment."""

    def __init__(self, store, at):
        super().__init__(store)
        self._at = at
        self.moment = 0

    def _begin(self, name, path):
        self._die()
        return super()._begin(name, path)

    def _end(self, fault, path):
        self._die()

    def _die(self):
        with self._lock:
            self.moment += 1
            if self.moment >= self._at:
                raise KilledError


def turns(tmp_path):
    """Gives copies of one repository, with its deltas, rolled."""
    first = Shelf.make(tmp_path / "first")
    _, deltas = fill(first)
    roll_up(first.repository, "prod", LINEAGE, least=1)
    number = iter(range(10_000))
    return (lambda: first.copy(tmp_path / str(next(number)))), deltas


def finished(shelf, deltas):
    done = prune(shelf, Policy(last=1))
    assert not done.failed
    assert there(shelf) == paths(deltas[3:])
    whole(shelf, deltas[3:])
    [stretch] = recorded(shelf.repository, "prod")[LINEAGE]
    assert stretch.deltas == 7, "nothing is counted twice"
    shelf.assert_whole()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
def test_promise_7_whatever_the_store_does_at_any_step(tmp_path, fault, step):
    make, deltas = turns(tmp_path)
    counting = make()
    store = FaultyStore(counting.repository.store)
    prune(counting, Policy(last=1), store)
    for number in range(1 + fault.value % step, len(store.operations) + 1, step):
        shelf = make()
        try:
            prune(shelf, Policy(last=1), FaultyStore(shelf.repository.store, {number: fault}))
        except BackstayError:
            assert there(shelf) == paths(deltas)
        assert set(paths(deltas[3:])) <= set(there(shelf))
        if fault not in {Fault.SHORT, Fault.LATE}:  # rolls that a list lacks are not found
            whole(shelf, deltas[3:])
        finished(shelf, deltas)


@pytest.mark.parametrize("step", STEPS)
def test_promise_7_a_prune_that_dies_before_or_after_any_operation(tmp_path, step):
    make, deltas = turns(tmp_path)
    counting = make()
    store = Mortal(counting.repository.store, 1 << 30)
    prune(counting, Policy(last=1), store)
    for at in range(1, store.moment + 1, step):
        shelf = make()
        with pytest.raises(KilledError):
            prune(shelf, Policy(last=1), Mortal(shelf.repository.store, at))
        whole(shelf, deltas[3:])
        finished(shelf, deltas)


def test_one_that_dies_between_the_new_roll_and_the_old_leaves_nothing_twice(tmp_path):
    make, deltas = turns(tmp_path)
    shelf = make()

    class Dying(FaultyStore):
        def delete(self, path):
            if path.startswith("rolls/"):
                raise KilledError
            super().delete(path)

    with pytest.raises(KilledError):
        prune(shelf, Policy(last=1), Dying(shelf.repository.store))
    assert len(list(shelf.repository.store.list("rolls/"))) == 2
    assert there(shelf) == paths(deltas)
    # The old backups have gone by now: what is recorded is pruned all the same.
    finished(shelf, deltas)
    assert len(list(shelf.repository.store.list("rolls/"))) == 1


def test_it_is_the_same_in_a_bucket(tmp_path, monkeypatch):
    from backstay.repo.url import Access, open_store

    with s3.plain(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = open_store("s3://backups/n", Access(allow_http=True))
        shelf = Shelf.make(tmp_path, store, Path(server.root) / "backups" / "n")
        _, deltas = fill(shelf)
        roll_up(shelf.repository, "prod", LINEAGE, least=1)
        time.sleep(0.15)  # rclone remembers a directory for 100 ms
        assert prune(shelf, Policy(last=1)).recorded.deltas == 3
        time.sleep(0.15)
        assert there(shelf) == paths(deltas[3:])
        whole(shelf, deltas[3:])
        assert len(list(list_deltas(shelf.repository, "prod", LINEAGE))) == 7
