"""The kit of a store that fails on purpose does what it says."""

import pytest

from backstay.errors import NotFoundError, StoreError
from backstay.repo.stores.file import FileStore
from kit.faulty_store import TOLD, Fault, FaultyStore


@pytest.fixture
def inner(tmp_path):
    return FileStore(tmp_path / "repo")


def write(store, path, *pieces):
    with store.writer(path) as sink:
        for piece in pieces:
            sink.write(piece)


def test_without_a_plan_it_is_the_store_and_writes_down_what_is_done(inner):
    store = FaultyStore(inner)
    store.put_new("a", b"1")
    write(store, "b", b"2", b"3")
    assert store.read("a", 9) == b"1"
    assert b"".join(store.stream("b")) == b"23"
    assert [info.path for info in store.list()] == ["a", "b"]
    assert store.stat("a").size == 1
    assert store.clear_partial(store.now()) == ()
    store.delete("a")
    assert store.url == inner.url
    begun = ["put_new", "writer", "write", "write", "publish", "read", "stream", "piece"]
    assert store.names == [*begun, "list", "stat", "now", "clear_partial", "delete"]
    assert [operation.number for operation in store.operations] == list(range(1, 14))


@pytest.mark.parametrize("fault", TOLD)
def test_a_fault_that_is_told_is_raised(inner, fault):
    inner.put_new("a", b"12")
    for act in (
        lambda store: store.put_new("b", b"1"),
        lambda store: write(store, "c", b"1"),
        lambda store: store.read("a", 9),
        lambda store: list(store.stream("a")),
        lambda store: store.stat("a"),
        lambda store: store.list(),
        lambda store: store.now(),
        lambda store: store.clear_partial(inner.now()),
        lambda store: store.delete("a"),
    ):
        with pytest.raises(StoreError, match="on purpose"):
            act(FaultyStore(inner, {1: fault}))


def test_refused_is_not_done_and_a_lost_answer_is(inner):
    with pytest.raises(StoreError):
        FaultyStore(inner, {1: Fault.REFUSE}).put_new("a", b"1")
    with pytest.raises(NotFoundError):
        inner.stat("a")
    with pytest.raises(StoreError):
        FaultyStore(inner, {1: Fault.ERROR}).put_new("a", b"1")
    assert inner.read("a", 9) == b"1"


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.CUT, Fault.STALL])
def test_a_write_that_fails_is_not_published(inner, fault):
    for number in (1, 2, 3):
        with pytest.raises(StoreError):
            write(FaultyStore(inner, {number: fault}), "a", b"12")
    assert list(inner.list()) == []


def test_short_is_silent(inner):
    FaultyStore(inner, {1: Fault.SHORT}).put_new("a", b"1234")
    assert inner.read("a", 9) == b"12"
    write(FaultyStore(inner, {2: Fault.SHORT}), "b", b"1234")
    assert inner.read("b", 9) == b"12"
    inner.put_new("c", b"1234")
    assert FaultyStore(inner, {1: Fault.SHORT}).read("c", 9) == b"12"
    assert b"".join(FaultyStore(inner, {2: Fault.SHORT}).stream("c")) == b"12"
    assert len(list(FaultyStore(inner, {1: Fault.SHORT}).list())) == 1


def test_a_stall_waits(inner):
    waited = []
    store = FaultyStore(inner, {1: Fault.STALL}, stall=lambda: waited.append(1))
    with pytest.raises(StoreError):
        store.now()
    assert waited == [1]


def test_a_function_may_decide(inner):
    store = FaultyStore(inner, lambda done: Fault.REFUSE if done.path == "b" else None)
    store.put_new("a", b"1")
    with pytest.raises(StoreError):
        store.put_new("b", b"1")
