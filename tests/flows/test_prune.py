"""Prunes of real repositories: what goes, what stays, and what else may happen meanwhile."""

import os
from datetime import timedelta

import pytest

from backstay.errors import NotFoundError, RefusedError
from backstay.flows.prune import Fate, Options, Prune
from backstay.repo import leftovers
from backstay.repo.catalogue import Repository
from backstay.repo.name import Run, removals_of
from backstay.repo.note import Note
from backstay.repo.pin import pin
from backstay.repo.retention import Policy
from backstay.repo.stores.file import FileStore
from backstay.report import Report, Said, Verdict
from kit.faulty_store import FaultyStore
from kit.manifests import checks
from kit.shelf import CLOCK, NOW, Shelf


@pytest.fixture
def shelf(tmp_path):
    return Shelf.make(tmp_path)


def fill(shelf, number=5, **more):
    """Backups of the last days, oldest first."""
    return [shelf.add(days=number - n + 1.5, revision=n + 1, **more) for n in range(number)]


def ids(made):
    return {one.id for one in made}


def pinned(shelf, made):
    return pin(shelf.repository.store, made.name, by="me", reason="why", clock=CLOCK)


class Meanwhile(FaultyStore):
    """Something happens right before the first removal is announced, or right after."""

    def __init__(self, store, what, when="after"):
        super().__init__(store)
        self.what = what
        self.when = when
        self.done = False

    def put_new(self, path, data):
        now = "/removals/" in path and not self.done
        self.done |= now
        if now and self.when == "before":
            self.what(path)
        super().put_new(path, data)
        if now and self.when == "after":
            self.what(path)


def test_what_no_rule_keeps_goes_with_all_that_belongs_to_it(shelf):
    made = fill(shelf, keyring=True)
    done = shelf.prune(Policy(last=2))
    assert set(shelf.listed) == ids(made[3:])
    assert {one.id: one.fate for one in done.outcomes} == dict.fromkeys(ids(made[:3]), Fate.REMOVED)
    assert not done.failed
    assert done.keys_left == ()
    shelf.assert_whole()
    shelf.assert_tidy()
    assert shelf.prune(Policy(last=2)).outcomes == ()


def test_a_plan_removes_nothing(shelf):
    made = fill(shelf, keyring=True)
    prune = Prune(shelf.repository, Options(policy=Policy(), by="me"), shelf.keys, CLOCK, Report())
    plan = prune.plan()
    assert [one.fact.id for one in plan.removed] == [one.id for one in made[:4]]
    assert plan.freed == sum(one.stored_size for one in made[:4])
    assert set(shelf.listed) == ids(made)
    shelf.assert_tidy()


def test_another_cluster_is_left_alone(shelf):
    made, others = fill(shelf), fill(shelf, cluster="other")
    shelf.prune(Policy(last=1), cluster="prod")
    assert set(shelf.listed) == ids([made[-1], *others])


def test_a_cluster_without_backups_is_told(shelf):
    fill(shelf)
    with pytest.raises(NotFoundError, match="has no backup of prid"):
        shelf.prune(cluster="prid")


def test_places_that_are_none(shelf):
    with pytest.raises(RefusedError, match="a repository for keys"):
        Prune(shelf.keys, Options(policy=Policy(), by="me"), None, CLOCK, Report()).plan()
    with pytest.raises(RefusedError, match="keys never lie there"):
        Prune(
            shelf.repository, Options(policy=Policy(), by="me"), shelf.repository, CLOCK, Report()
        ).plan()


def test_promise_7_pins_and_what_is_needed_stay(shelf):
    made = fill(shelf)
    needing = shelf.add(days=1.2, revision=50, needs=(made[1].id,))
    pinned(shelf, made[0])
    shelf.prune(Policy(last=1))
    assert set(shelf.listed) == ids([made[0], made[1], needing])


def test_promise_7_where_a_manifest_cannot_be_read_nothing_goes(shelf):
    made = fill(shelf)
    path = "clusters/prod/backups/20261120T231000Z-r1-aaaa.json"
    shelf.repository.store.put_new(path, b'{"format": 1, "requires": ["chains"]}')
    others = fill(shelf, cluster="other")
    done = shelf.prune(Policy(last=1))
    assert ids(one for one in done.outcomes) == ids(others[:-1])
    shelf.repository.store.delete(path)
    assert set(shelf.listed) == ids([*made, others[-1]])


# What comes between the plan and the removal.


@pytest.mark.parametrize("when", ["before", "after"])
def test_promise_7_a_pin_that_comes_meanwhile_is_seen(shelf, when):
    made = fill(shelf)

    def what(path):
        # By hand: `pin` would wait for this very prune.
        name = path.split("/")[3]
        shelf.repository.store.put_new(f"clusters/prod/pins/{name}/x.json", b"{}")

    done = shelf.prune(Policy(last=4), data=Meanwhile(shelf.repository.store, what, when))
    [outcome] = done.outcomes
    assert outcome.fate is Fate.KEPT
    assert "can't be read" in outcome.detail
    assert set(shelf.listed) == ids(made)
    shelf.assert_tidy()


@pytest.mark.parametrize("when", ["before", "after"])
def test_promise_7_a_backup_that_needs_it_and_comes_meanwhile_is_seen(shelf, when):
    made = fill(shelf)

    def what(path):
        shelf.add(days=0, revision=99, needs=(made[0].id,))

    done = shelf.prune(Policy(last=4), data=Meanwhile(shelf.repository.store, what, when))
    [outcome] = done.outcomes
    assert outcome.fate is Fate.KEPT
    assert "needed by" in outcome.detail
    assert made[0].id in shelf.listed


def test_promise_7_a_check_that_fails_meanwhile_changes_which_is_the_newest_verified(shelf):
    made = fill(shelf)

    def what(path):
        for one in made[1:]:
            shelf.repository.add(
                Note(
                    backup=one.id,
                    action="verify",
                    at=NOW,
                    seconds=1.0,
                    checks=checks(Verdict.FAIL, ("stored",)),
                )
            )

    done = shelf.prune(Policy(), data=Meanwhile(shelf.repository.store, what))
    fates = {one.id: one.fate for one in done.outcomes}
    assert fates[made[0].id] is Fate.KEPT
    assert made[0].id in shelf.listed
    assert shelf.listed[made[0].id].verified


def test_promise_7_a_manifest_of_a_later_version_that_comes_meanwhile_stops_it(shelf):
    made = fill(shelf)
    path = "clusters/prod/backups/20261120T231000Z-r1-aaaa.json"

    def what(_):
        shelf.repository.store.put_new(path, b'{"format": 2}')

    done = shelf.prune(Policy(), data=Meanwhile(shelf.repository.store, what))
    assert {one.fate for one in done.outcomes} == {Fate.KEPT}
    shelf.repository.store.delete(path)
    assert set(shelf.listed) == ids(made)


def test_what_another_prune_has_removed_is_gone(shelf):
    made = fill(shelf)
    data = Meanwhile(shelf.repository.store, lambda _: shelf.prune(Policy(last=2)), "before")
    done = shelf.prune(Policy(last=1), data=data)
    assert [one.fate for one in done.outcomes] == [Fate.GONE] * 3 + [Fate.REMOVED]
    assert set(shelf.listed) == ids(made[-1:])
    shelf.assert_tidy()


def test_a_removal_that_takes_too_long_is_given_up(shelf):
    made = fill(shelf)

    class Slow:
        """An hour passes between any two looks."""

        seconds = 0.0

        def monotonic(self):
            self.seconds += 3600
            return self.seconds

        now = CLOCK.now

    done = shelf.prune(Policy(last=1), clock=Slow())
    assert {one.fate for one in done.outcomes} == {Fate.FAILED}
    assert "took longer than 60 s" in done.outcomes[0].detail
    assert set(shelf.listed) == ids(made)
    shelf.assert_tidy()


# Keys.


def test_keyrings_stay_where_nobody_names_their_place_and_go_later(shelf):
    made = fill(shelf, keyring=True)
    before = [info.path for info in shelf.keys.store.list("clusters")]
    done = shelf.prune(Policy(last=1), keyless=True)
    assert set(done.keys_left) == ids(made[:-1])
    assert [info.path for info in shelf.keys.store.list("clusters")] == before
    again = shelf.prune(Policy(last=1), keyless=True)
    assert set(again.keys_left) == ids(made[:-1])
    done = shelf.prune(Policy(last=1))
    assert set(done.finished) == ids(made[:-1])
    assert done.keys_left == ()
    shelf.assert_whole()
    shelf.assert_tidy()


def test_promise_5_a_backup_of_a_hosted_cluster_does_not_sweep_keys_of_what_was_removed(shelf):
    """They are a prune's to remove, where it is asked to."""
    fill(shelf, keyring=True)

    class Dying(FaultyStore):
        """A prune dies when the manifest has gone."""

        def delete(self, path):
            super().delete(path)
            if "/backups/" in path:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.prune(Policy(), data=Dying(shelf.repository.store), keyless=True)
    assert leftovers.dead_runs(shelf.repository) == frozenset()
    store = shelf.repository.store
    for info in list(store.list(removals_of("prod"))):
        store.delete(info.path)
    assert len(leftovers.dead_runs(shelf.repository)) == 1


def test_promise_7_where_a_manifest_cannot_be_read_nothing_is_finished_either(shelf):
    """What that one names is not known: it may be what is left of the other."""
    made = fill(shelf)

    class Dying(FaultyStore):
        def delete(self, path):
            super().delete(path)
            if "/backups/" in path:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.prune(Policy(), data=Dying(shelf.repository.store))
    path = "clusters/prod/backups/20261120T231000Z-r1-aaaa.json"
    shelf.repository.store.put_new(path, b'{"format": 1, "requires": ["chains"]}')
    left = made[0].objects[0].path
    assert shelf.prune(Policy()).finished == ()
    assert shelf.repository.store.stat(left)
    shelf.repository.store.delete(path)
    assert shelf.prune(Policy()).finished == (made[0].id,)
    shelf.assert_tidy()


def test_keys_of_another_repository_are_not_touched(shelf, tmp_path):
    made = fill(shelf, keyring=True)
    other = Shelf.make(tmp_path / "other")
    prune = Prune(
        shelf.repository, Options(policy=Policy(last=1), by="me"), other.keys, CLOCK, Report()
    )
    done = prune.execute(prune.plan())
    assert set(done.keys_left) == ids(made[:-1])
    assert len(list(shelf.keys.store.list("clusters"))) == 2 * len(made)


def test_a_keyring_that_was_changed_is_told_and_stays_with_its_backup(shelf):
    made = fill(shelf, keyring=True)
    path = f"clusters/prod/keyrings/{made[0].name.run}.json"
    data = shelf.keys.store.read(path, 1 << 20)
    shelf.keys.store.delete(path)
    shelf.keys.store.put_new(path, data.replace(b"hosted", b"hostel"))
    done = shelf.prune(Policy(last=1))
    fates = {one.id: one for one in done.outcomes}
    assert fates[made[0].id].fate is Fate.FAILED
    assert "not the keyring that the manifest means" in fates[made[0].id].detail
    assert {one.fate for name, one in fates.items() if name != made[0].id} == {Fate.REMOVED}
    assert set(shelf.listed) == ids([made[0], made[-1]])
    assert done.failed


# What a store locks.


class Locking(FileStore):
    """A store that lets nothing be deleted that is listed here."""

    def __init__(self, root, locked):
        super().__init__(root)
        self.locked = locked

    def locked_until(self, path):
        return next((end for part, end in self.locked.items() if part in path), None)


@pytest.mark.parametrize("part", ["backups", "objects"])
def test_what_is_locked_stays_and_says_until_when(shelf, tmp_path, part):
    made = fill(shelf)
    name = made[1].name
    words = f"{part}/{name.name if part == 'backups' else name.run}"
    data = Locking(tmp_path / "repo", {words: NOW + timedelta(days=90)})
    prune = Prune(
        Repository(data, shelf.repository.config),
        Options(policy=Policy(last=1), by="me"),
        None,
        CLOCK,
        Report(),
    )
    plan = prune.plan()
    [locked] = [one for one in plan.decisions if one.fact.id == made[1].id]
    assert locked.reasons == ("locked until 2027-02-18 23:10:00Z",)
    prune.execute(plan)
    assert set(shelf.listed) == ids([made[1], made[-1]])


# What others leave.


def test_objects_that_another_backup_names_stay(shelf):
    from msgspec.structs import replace

    made = fill(shelf)
    shared = made[0].objects[0]
    [taken] = made[-1].snapshots
    new = Run.begin("prod", NOW)
    sharing = replace(
        made[-1],
        id=str(new.backup(made[-1].revision)),
        objects=(shared,),
        snapshots=(replace(taken, object=shared.path),),
    )
    shelf.repository.publish(sharing)
    shelf.prune(Policy(last=1))
    assert set(shelf.listed) >= ids([sharing])
    assert made[0].id not in shelf.listed
    shelf.assert_whole()


def test_promise_1_notes_and_pins_of_what_is_gone_are_swept_when_they_are_old(shelf):
    [made] = fill(shelf, 1)
    gone = Run.begin("prod", NOW).backup(7)
    store = shelf.repository.store
    paths = [f"clusters/prod/{kind}/{gone.name}/x.json" for kind in ("notes", "pins")]
    for path in paths:
        store.put_new(path, b"{}")
    pinned(shelf, made)
    kept = [info.path for info in store.list("clusters/prod/pins") if made.name.name in info.path]
    assert leftovers.sweep(shelf.repository).paths == ()
    for path in [*paths, *kept]:
        file = shelf.roots[store.url] / path
        when = file.stat().st_mtime - 25 * 3600
        os.utime(file, (when, when))
    assert set(leftovers.sweep(shelf.repository).paths) == set(paths)
    assert shelf.listed[made.id].pins


def test_a_forged_removal_removes_nothing_of_what_is_listed_or_just_being_made(shelf):
    made = fill(shelf, keyring=True)
    store = shelf.repository.store
    pinned(shelf, made[0])
    before = shelf.listed
    begun = Run.begin("prod", NOW)
    store.put_new(f"{begun.folder}snapshot.zst", b"half")
    keys = f'"repository": "{made[0].keyring.repository}", "digest": "{made[0].keyring.digest}"'
    for name, words in (
        (made[0].name.name, f'"backup": "{made[0].id}", "keyring": {{{keys}}}'),
        (begun.backup(3).name, f'"backup": "{begun.backup(3)}"'),
        (made[1].name.name, f'"backup": "{made[0].id}"'),
        ("no-name", '"backup": "prod/no-name"'),
    ):
        path = f"{removals_of('prod')}{name}/20261120T231000Z-{os.urandom(2).hex()}.json"
        store.put_new(path, f'{{{words}, "at": "2026-11-20T00:00:00Z", "by": "x"}}'.encode())
    store.put_new(f"{removals_of('prod')}x", b"\xff")
    done = shelf.prune(Policy(last=9))
    assert shelf.listed == before
    assert before[made[0].id].pins
    assert before[made[0].id].notes
    shelf.assert_whole()
    assert store.read(f"{begun.folder}snapshot.zst", 10) == b"half"
    assert not done.failed


def test_what_fails_is_told_and_does_not_stop_the_others(shelf):
    made = fill(shelf)

    class Stuck(FaultyStore):
        def delete(self, path):
            if made[1].name.name in path:
                raise RefusedError("this one can't be deleted")
            super().delete(path)

    done = shelf.prune(Policy(last=1), data=Stuck(shelf.repository.store))
    fates = {one.id: one.fate for one in done.outcomes}
    assert fates.pop(made[1].id) is Fate.FAILED
    assert set(fates.values()) == {Fate.REMOVED}
    assert done.failed
    assert any("can't be deleted" in said.text for said in shelf.said if isinstance(said, Said))
    assert set(shelf.listed) == ids([made[1], made[-1]])


@pytest.mark.parametrize("kind", ["backups", "keyrings"])
def test_promise_1_what_is_still_there_after_it_was_deleted_keeps_what_it_names(shelf, kind):
    made = fill(shelf, keyring=True)

    class Deaf(FaultyStore):
        """It says that it deletes, and does not."""

        def delete(self, path):
            if kind not in path or not path.endswith(".json"):
                super().delete(path)

    data, keys = Deaf(shelf.repository.store), Deaf(shelf.keys.store)
    done = shelf.prune(Policy(last=1), data=data, keys=keys)
    assert {one.fate for one in done.outcomes} == {Fate.FAILED}
    assert "still there" in done.outcomes[0].detail
    shelf.assert_whole()
    assert set(shelf.listed) == ids(made if kind == "backups" else made[-1:])
    assert not shelf.prune(Policy(last=1)).failed
    shelf.assert_whole()
    assert set(shelf.listed) == ids(made[-1:])
