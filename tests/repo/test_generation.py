"""Who can read what comes: changed by new generations, and nothing is ever replaced."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from backstay.errors import AlreadyExistsError, FormatError, RefusedError
from backstay.repo import generation
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config, with_recipients
from backstay.repo.document import encode
from backstay.repo.identity import generate
from backstay.repo.stores.file import FileStore

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
ONE, TWO, THREE = sorted(generate(NOW)[1] for _ in range(3))


@pytest.fixture
def repository(tmp_path):
    store = FileStore(tmp_path / "repo")
    return Repository.init(store, new_config(Role.DATA, [ONE], {}, NOW))


def change(repository, *recipients):
    config = with_recipients(repository.config, recipients, NOW)
    generation.publish(repository.store, repository.config, config)
    return Repository.open(repository.store)


def test_the_newest_generation_counts_and_the_first_stays(repository):
    before = repository.store.read("backstay.json", 10_000)
    second = change(repository, ONE, TWO)
    assert second.config.recipients == (ONE, TWO)
    assert second.config.generation == 2
    third = change(second, TWO)
    assert third.config.recipients == (TWO,)
    assert third.first == repository.config
    assert third.config.repository == repository.config.repository
    assert repository.store.read("backstay.json", 10_000) == before
    found = generation.history(repository.store, third.first)
    assert [one.recipients for one in found] == [(ONE,), (ONE, TWO), (TWO,)]


def test_generations_are_counted_as_numbers(repository):
    for number in range(2, 12):
        repository = change(repository, *((ONE, TWO) if number % 2 else (TWO,)))
    assert repository.config.generation == 11


def test_promise_5_pins_compare_with_the_generation_that_counts(repository):
    store = change(repository, TWO).store
    Repository.open(store, [TWO])
    with pytest.raises(RefusedError, match="is pinned"):
        Repository.open(store, [ONE])


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"repository": "0" * 32}, "another repository"),
        ({"role": "keys"}, "another role"),
        ({"encryption": "none", "recipients": []}, "another encryption"),
        ({"recipients": []}, "contradict"),
        ({"recipients": ["age1nobody"]}, "no age recipient"),
        ({"generation": 3}, "generation 3"),
        ({"generation": 1 << 70}, "makes no sense"),
        ({"format": 2}, "format 2"),
        ({"requires": ["moon"]}, "requires moon"),
    ],
    ids=str,
)
def test_promise_5_a_hostile_generation_is_an_error_and_never_passed_over(repository, fields, what):
    config = with_recipients(repository.config, [ONE, TWO], NOW)
    document = json.loads(encode(config)) | fields
    repository.store.put_new("config/000002-abcd.json", json.dumps(document).encode())
    with pytest.raises(FormatError, match=what) as caught:
        Repository.open(repository.store)
    assert "config/000002-abcd.json" in str(caught.value)
    assert caught.value.do


@pytest.mark.parametrize("length", [0, 1, 100, -2])
def test_promise_5_a_cut_generation_is_an_error(repository, length):
    data = encode(with_recipients(repository.config, [ONE, TWO], NOW))
    repository.store.put_new("config/000002-abcd.json", data[:length])
    with pytest.raises(FormatError, match=r"000002-abcd\.json is no JSON"):
        Repository.open(repository.store)
    repository.store.delete("config/000002-abcd.json")
    assert Repository.open(repository.store).config == repository.config


@pytest.mark.parametrize(
    "name", ["config/000002.json", "config/2-abcd.json", "config/000001-abcd.json", "config/x/y"]
)
def test_other_names_are_no_generations(repository, name):
    repository.store.put_new(name, b"junk")
    assert Repository.open(repository.store).config == repository.config


def test_of_two_changes_at_once_none_is_lost_silently(repository):
    """Whoever is told that it is done finds its change in the next generation."""
    store = repository.store

    def add(name):
        try:
            config = with_recipients(repository.config, [ONE, name], NOW)
            generation.publish(store, repository.config, config)
        except RefusedError as error:
            assert "at the same time" in str(error)  # noqa: PT017 - one of two outcomes
            return None
        return name

    for _ in range(20):
        with ThreadPoolExecutor(2) as pool:
            done = [name for name in pool.map(add, [TWO, THREE]) if name]
        assert len(done) <= 1
        assert Repository.open(store).config.recipients == (ONE, *done)
        for info in list(store.list("config")):
            store.delete(info.path)


def test_who_comes_second_gives_way_whatever_its_name_is(repository, monkeypatch):
    config = with_recipients(repository.config, [ONE, TWO], NOW)
    for first, second in (("aaaa", "zzzz"), ("zzzz", "aaaa")):
        names = iter([first, second])
        monkeypatch.setattr(
            generation,
            "_mint",
            lambda number, names=names: f"config/{number:06}-{next(names)}.json",
        )
        generation.publish(repository.store, repository.config, config)
        with pytest.raises(RefusedError, match="at the same time"):
            generation.publish(repository.store, repository.config, config)
        paths = [info.path for info in repository.store.list("config")]
        assert paths == [f"config/000002-{first}.json"]
        repository.store.delete(paths[0])


def test_a_change_that_is_not_the_next_is_refused(repository):
    second = with_recipients(repository.config, [ONE, TWO], NOW)
    third = with_recipients(second, [TWO], NOW)
    with pytest.raises(RefusedError, match="can't follow"):
        generation.publish(repository.store, repository.config, third)
    assert list(repository.store.list("config")) == []


def test_no_repository_is_made_where_the_generations_of_another_lie(repository):
    store = change(repository, TWO).store
    store.delete("backstay.json")
    with pytest.raises(AlreadyExistsError, match="is gone"):
        Repository.init(store, new_config(Role.DATA, [ONE], {}, NOW))


def test_what_can_t_be_changed(repository):
    plain = new_config(Role.DATA, [], {}, NOW)
    with pytest.raises(RefusedError, match="not encrypted"):
        with_recipients(plain, [ONE], NOW)
    with pytest.raises(RefusedError, match="nobody"):
        with_recipients(repository.config, [], NOW)
