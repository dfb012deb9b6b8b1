"""The probe finds what a store can do, and what it lacks; it leaves nothing behind."""

from datetime import UTC, datetime, timedelta

import pytest

from backstay.clock import SystemClock
from backstay.errors import AlreadyExistsError, StoreError
from backstay.flows.init import init
from backstay.repo.config import Role
from backstay.repo.probe import Capabilities, probe
from backstay.report import Report
from kit.faulty_store import Fault, FaultyStore

#: What stays of the probe: the object that tells the store's time.
LEFT = {"clock"}


class Clock(SystemClock):
    """A clock that is wrong by some seconds."""

    def __init__(self, wrong=0.0):
        self.wrong = timedelta(seconds=wrong)

    def now(self):
        return datetime.now(UTC) + self.wrong


@pytest.mark.parametrize("wrong", [0, 4000, -4000])
def test_what_each_kind_of_store_can_do(any_store, request, wrong):
    found = probe(any_store, Clock(wrong))
    ignores = "s3-plain" in request.node.name or "s3-tls" in request.node.name
    assert found.create_only is not ignores
    assert (found.streams, found.abandons, found.lists, found.deletes) == (True,) * 4
    assert abs(found.clock_skew + wrong) < 30
    assert {info.path for info in any_store.list()} <= LEFT
    assert len(found.warnings) == ignores + bool(wrong)
    assert ("create-only" in " ".join(found.warnings)) is ignores
    if wrong:
        assert ("ahead of" if wrong < 0 else "behind") in found.warnings[-1]


def test_findings_are_written_into_the_configuration(store):
    said = []
    repository = init(store, Role.DATA, [], clock=Clock(), report=Report(said.append))
    assert Capabilities(**repository.config.capabilities).streams
    warned = [event.text for event in said if event.warning]
    assert bool(warned) is store.url.startswith("s3:")  # rclone: create-only puts
    told = any("AbortIncompleteMultipartUpload" in event.text for event in said)
    assert told is store.url.startswith(("s3:", "gs:"))


class Odd:
    """A store with one habit; the rest is another's."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)


class Forgetful(Odd):
    """Gives back something else."""

    def read(self, path, limit):
        return b""


class Lagging(Odd):
    """Lists late."""

    def list(self, prefix=""):
        return iter(())


class Undying(Odd):
    """Lets nobody delete."""

    def delete(self, path):
        raise StoreError("object lock")


class Replacing(Odd):
    """Ignores that something is there."""

    def put_new(self, path, data):
        self.store.delete(path)
        self.store.put_new(path, data)


class Halving(Odd):
    """Loses the end of large objects."""

    def stream(self, path, *, offset=0):
        yield next(self.store.stream(path))


def test_a_store_that_is_of_no_use_is_refused(make_store):
    with pytest.raises(StoreError, match="does not give back"):
        probe(Forgetful(make_store("file")), Clock())
    with pytest.raises(StoreError, match="does not keep an object of"):
        probe(Halving(make_store("file")), Clock())
    assert list(make_store("file").list()) == []


@pytest.mark.parametrize(
    ("habit", "lacks", "word"),
    [
        (Lagging, "lists", "not listed at once"),
        (Undying, "deletes", "nothing can be deleted"),
        (Replacing, "create_only", "create-only"),
    ],
)
def test_a_habit_is_found_and_told(make_store, habit, lacks, word):
    found = probe(habit(make_store("file")), Clock())
    missing = [name for name, value in found.as_dict().items() if value is False]
    assert missing == [lacks]
    assert word in " ".join(found.warnings)


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.ERROR])
def test_promise_4_an_error_never_counts_as_an_ability(make_store, fault):
    inner = make_store("file")
    quiet = FaultyStore(inner)
    whole = probe(quiet, Clock())
    for operation in quiet.operations:
        try:
            found = probe(FaultyStore(inner, {operation.number: fault}), Clock())
        except (StoreError, AlreadyExistsError):
            continue
        # What it got over is an ability that was shown all the same, or one that is missing.
        differing = found.as_dict().items() - whole.as_dict().items()
        assert {name for name, _ in differing} <= {"create_only", "deletes", "clock_skew"}
        assert not found.deletes or not list(inner.list("probe")), operation
        assert not found.deletes or operation != quiet.operations[-1]
        for info in inner.list("probe"):
            inner.delete(info.path)


def test_a_cut_that_is_not_told_is_found(make_store):
    def short(operation):
        return Fault.SHORT if operation.name == "write" else None

    with pytest.raises(StoreError, match="does not keep"):
        probe(FaultyStore(make_store("file"), short), Clock())
