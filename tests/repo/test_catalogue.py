import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from backstay.errors import AlreadyExistsError, FormatError, NotFoundError, StoreError, UsageError
from backstay.repo import leftovers
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config
from backstay.repo.entry import Entry, Unreadable
from backstay.repo.note import Note
from backstay.repo.stores.file import FileStore
from backstay.report import Verdict
from kit.faulty_store import Fault, FaultyStore
from kit.manifests import checks, manifest

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    return FileStore(tmp_path / "repo")


@pytest.fixture
def repository(store):
    return Repository.init(store, new_config(Role.DATA, [], {}, NOW))


def publish(repository, *, age=timedelta(), with_object=True, **fields):
    made = manifest(repository=repository.config.repository, **fields)
    if with_object:
        repository.store.put_new(made.objects[0].path, b"stored")
    path = repository.publish(made)
    grow_old(repository.store, path, age)
    return made


def grow_old(store, path, age):
    file = Path(store.url.removeprefix("file://")) / path
    when = file.stat().st_mtime - age.total_seconds()
    os.utime(file, (when, when))


def note(backup, verdict, names=("content",), at=NOW):
    entries = checks(verdict, names)
    return Note(backup=backup.id, action="verify", at=at, seconds=1.0, checks=entries)


def test_init_refuses_where_a_repository_is(repository, store):
    with pytest.raises(AlreadyExistsError, match="already"):
        Repository.init(store, new_config(Role.DATA, [], {}, NOW))
    assert Repository.open(store).config == repository.config


def test_a_place_without_a_repository_is_told(store):
    with pytest.raises(NotFoundError, match="backstay init"):
        Repository.open(store)


def test_what_is_published_is_found(repository):
    made = publish(repository)
    assert [entry.manifest for entry in repository.backups()] == [made]
    assert repository.find(made.id).manifest == made
    assert repository.find("prod/latest").manifest == made
    assert repository.clusters() == ("prod",)


def test_promise_1_without_a_manifest_nothing_is_listed(repository):
    made = manifest(repository=repository.config.repository)
    repository.store.put_new(made.objects[0].path, b"stored")
    assert repository.backups() == ()
    with pytest.raises(NotFoundError):
        repository.find(made.id)
    with pytest.raises(NotFoundError):
        repository.find("prod/latest")


def test_promise_1_a_failed_backup_is_listed_and_never_latest(repository):
    good = publish(repository, revision=1, age=timedelta(hours=1))
    bad = publish(repository, revision=2, verdicts=checks(Verdict.FAIL))
    assert {entry.manifest.id for entry in repository.backups("prod")} == {good.id, bad.id}
    assert repository.find("prod/latest").manifest == good
    assert repository.find(bad.id).failed


def test_promise_1_a_backup_that_failed_later_is_never_latest(repository):
    good = publish(repository, revision=1, age=timedelta(hours=1))
    bad = publish(repository, revision=2)
    assert repository.find("prod/latest").manifest == bad
    repository.add(note(bad, Verdict.FAIL))
    repository.add(note(bad, Verdict.PASS, at=NOW + timedelta(days=1)))
    assert repository.find("prod/latest").manifest == good
    assert repository.find("prod/latest-verified").manifest == good


def test_promise_4_what_could_not_be_verified_is_not_verified(repository):
    made = publish(repository, verdicts=checks(Verdict.COULD_NOT_VERIFY))
    assert not repository.find(made.id).verified
    assert repository.find("prod/latest").manifest == made
    with pytest.raises(NotFoundError, match="no verified backup of prod, 1 of other kinds"):
        repository.find("prod/latest-verified")


@pytest.mark.parametrize("missing", ["transfer", "stored", "structure", "content"])
def test_promise_4_a_check_that_was_not_run_is_not_passed(repository, missing):
    names = {"transfer", "stored", "structure", "content"} - {missing}
    made = publish(repository, verdicts=checks(names=tuple(names)))
    assert not repository.find(made.id).verified
    repository.add(note(made, Verdict.PASS, (missing,)))
    assert repository.find(made.id).verified


def test_latest_goes_by_the_stores_clock_not_by_the_writers(repository):
    publish(repository, revision=900, at=datetime(2099, 1, 1, tzinfo=UTC), age=timedelta(hours=1))
    made = publish(repository, revision=5, at=datetime(1970, 1, 1, tzinfo=UTC), lineage="bb")
    assert repository.find("prod/latest").manifest == made


def test_inside_a_lineage_latest_goes_by_the_revision(repository):
    made = publish(repository, revision=900, age=timedelta(hours=1))
    publish(repository, revision=800)
    assert repository.find("prod/latest").manifest == made


def test_clusters_do_not_mix(repository):
    one = publish(repository)
    two = publish(repository, cluster="prod.two")
    assert repository.find("prod/latest").manifest == one
    assert [entry.manifest for entry in repository.backups("prod.two")] == [two]


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"format": 2}'])
def test_one_bad_manifest_does_not_hide_the_others(repository, damage):
    good = publish(repository)
    path = "clusters/prod/backups/20261120T231000Z-r1-aaaa.json"
    repository.store.put_new(path, damage)
    bad, *_ = (e for e in repository.backups() if isinstance(e, Unreadable))
    assert bad.path == path
    assert bad.reason
    found = repository.find("prod/latest")
    assert (found.manifest, found.passed_over) == (good, (bad.reason,))
    assert not repository.find(good.id).passed_over
    with pytest.raises(FormatError):
        repository.find("prod/20261120T231000Z-r1-aaaa")


def test_a_manifest_under_another_name_is_not_believed(repository):
    made = publish(repository)
    data = repository.store.read(f"clusters/prod/backups/{made.name.name}.json", 1 << 20)
    path = "clusters/prod/backups/20991120T231000Z-r1-aaaa.json"
    repository.store.put_new(path, data)
    bad = [e for e in repository.backups() if isinstance(e, Unreadable)]
    assert [entry.path for entry in bad] == [path]


def test_a_manifest_from_another_repository_is_not_believed(repository):
    made = manifest(repository="f" * 32)
    repository.publish(made)
    assert isinstance(repository.backups()[0], Unreadable)


def test_a_damaged_note_is_not_passed_over(repository):
    made = publish(repository)
    folder = f"clusters/prod/notes/{made.name.name}"
    repository.store.put_new(f"{folder}/20261120T231000Z-verify-00.json", b"{")
    assert isinstance(repository.backups()[0], Unreadable)


def test_what_came_before_and_cannot_be_read_is_not_passed_over(repository):
    publish(repository)
    repository.store.put_new("clusters/prod/backups/20261120T231000Z-r1-aaaa.json", b"")
    publish(repository, revision=900)
    assert repository.find("prod/latest").passed_over == ()


def test_a_note_that_the_store_does_not_keep_is_none(repository):
    made = publish(repository)
    note = Note(backup=made.id, action="verify", at=NOW, seconds=1.0, checks=checks(Verdict.PASS))
    forgetful = FaultyStore(repository.store, {1: Fault.SHORT})
    with pytest.raises(StoreError, match="nothing was noted"):
        Repository(forgetful, repository.config).add(note)
    assert [entry.notes for entry in repository.backups()] == [()]
    repository.add(note)
    assert [entry.notes for entry in repository.backups()] == [(note,)]


@pytest.mark.parametrize("text", ["prod", "PROD/latest", "prod/newest", "../x/latest"])
def test_what_is_no_id_is_told(repository, text):
    with pytest.raises(UsageError):
        repository.find(text)


class TestSweep:
    def test_it_deletes_old_objects_without_a_manifest(self, repository):
        made = publish(repository)
        dead = manifest(repository=repository.config.repository).objects[0].path
        young = manifest(repository=repository.config.repository).objects[0].path
        for path in (dead, young):
            repository.store.put_new(path, b"stored")
        grow_old(repository.store, dead, timedelta(hours=25))
        grow_old(repository.store, made.objects[0].path, timedelta(hours=25))
        swept = leftovers.sweep(repository)
        assert swept.paths == (dead,)
        assert swept.size == 6
        left = {info.path for info in repository.store.list("clusters/prod/objects")}
        assert left == {young, made.objects[0].path}

    def test_it_keeps_what_a_manifest_of_another_run_names(self, repository):
        one = manifest(repository=repository.config.repository)
        two = manifest(repository=repository.config.repository)
        item = replace(two.objects[0], path=one.objects[0].path)
        taken = replace(two.snapshots[0], object=item.path)
        made = replace(two, objects=(item,), snapshots=(taken,))
        repository.store.put_new(item.path, b"stored")
        grow_old(repository.store, item.path, timedelta(hours=25))
        repository.publish(made)
        assert leftovers.sweep(repository).paths == ()

    def test_it_touches_nothing_where_a_manifest_cannot_be_read(self, repository):
        dead = manifest(repository=repository.config.repository).objects[0].path
        repository.store.put_new(dead, b"stored")
        grow_old(repository.store, dead, timedelta(hours=25))
        path = "clusters/prod/backups/20261120T231000Z-r1-aaaa.json"
        repository.store.put_new(path, b'{"format": 2}')
        assert leftovers.sweep(repository).paths == ()


def test_entries_say_what_is_known(repository):
    publish(repository)
    entry = repository.backups()[0]
    assert isinstance(entry, Entry)
    assert entry.verified
    assert not entry.failed


def test_a_store_that_fails_is_not_an_empty_one(repository, monkeypatch):
    publish(repository)

    def refuse(prefix=""):
        raise StoreError(f"no answer for {prefix}")

    monkeypatch.setattr(repository.store, "list", refuse)
    for ask in (
        repository.backups,
        lambda: leftovers.sweep(repository),
        lambda: repository.find("prod/latest"),
    ):
        with pytest.raises(StoreError, match="no answer"):
            ask()
