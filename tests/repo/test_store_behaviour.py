"""What every store does, asked of every kind of store: a directory, with and without unnamed
files, S3 by plain http, by TLS, and with a server that honours create-only puts, Azure's, and a
stand-in for Google's."""

import hashlib
import os
import random
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from backstay.errors import (
    AlreadyExistsError,
    BackstayError,
    FormatError,
    NotFoundError,
    StoreError,
)
from backstay.repo.store import CHUNK_SIZE


class GivenUpError(Exception):
    pass


def paths(store, prefix=""):
    return [info.path for info in store.list(prefix)]


def write(store, path, pieces):
    with store.writer(path) as sink:
        for piece in pieces:
            assert sink.write(piece) == len(piece)


@pytest.mark.parametrize("data", [b"", b"x", b"\0\xff" * 50_000])
def test_what_is_put_is_read(store, data):
    store.put_new("a/b/c.json", data)
    assert store.read("a/b/c.json", 100_000) == data
    assert b"".join(store.stream("a/b/c.json")) == data
    assert store.stat("a/b/c.json").size == len(data)


@pytest.mark.parametrize("size", [0, 1, 8 << 20, (8 << 20) + 1])
def test_what_is_written_is_streamed(store, size):
    data = random.Random(size).randbytes(size)
    write(store, "big", (data[at : at + 65_552] for at in range(0, size, 65_552)))
    pieces = list(store.stream("big"))
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= CHUNK_SIZE for piece in pieces)
    assert store.stat("big").size == size


def test_a_buffer_may_be_used_again_after_a_write(store):
    buffer = bytearray(1 << 20)
    with store.writer("big") as sink:
        for number in range(10):
            buffer[:] = bytes([number]) * len(buffer)
            sink.write(buffer)
    assert b"".join(store.stream("big"))[:: 1 << 20] == bytes(range(10))


def test_a_long_stream_keeps_every_byte(any_store):
    piece = secrets.token_bytes(1 << 20)
    sent = hashlib.sha256()

    def pieces():
        for number in range(33):
            data = number.to_bytes(4) + piece
            sent.update(data)
            yield data

    write(any_store, "long", pieces())
    came = hashlib.sha256()
    for data in any_store.stream("long"):
        came.update(data)
    assert came.digest() == sent.digest()


def test_a_stream_begins_where_it_is_told_to(store):
    data = secrets.token_bytes(1000)
    store.put_new("some", data)
    for offset in (0, 1, 999, 1000, 5000):
        assert b"".join(store.stream("some", offset=offset)) == data[offset:]


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "clusters/kube.prod-1/backups/20261120T231000Z-r2001-k3f9.json",
        "a/a..b/c--d/e.f.g",
        "_x/A+B=C@d",
        "/".join(["n" * 200] * 3),
    ],
)
def test_odd_names(store, path):
    store.put_new(path, b"1")
    assert store.read(path, 1) == b"1"
    assert paths(store) == [path]
    store.delete(path)
    assert paths(store) == []


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        "a/./b",
        ".hidden",
        "a/.b.01234567.part",
        "a b",
        "a\nb",
        "a\0b",
        "a\\b",
        "a%2e",
        "ü",
        "n" * 201,
        "/".join(["n" * 100] * 10),
    ],
)
def test_names_that_no_store_takes(store, path):
    for act in (
        lambda: store.put_new(path, b"1"),
        lambda: write(store, path, [b"1"]),
        lambda: store.read(path, 1),
        lambda: list(store.stream(path)),
        lambda: store.stat(path),
        lambda: store.delete(path),
    ):
        with pytest.raises(StoreError, match="no path"):
            act()
    if path.strip("/"):
        with pytest.raises(StoreError, match="no path"):
            list(store.list(path + "/x"))
    assert paths(store) == []


def test_put_new_never_replaces_where_the_store_honours_it(any_store, request):
    any_store.put_new("a/name", b"first")
    if "s3-plain" in request.node.name or "s3-tls" in request.node.name:
        any_store.put_new("a/name", b"second")  # rclone does not know better, and the probe says so
        return
    with pytest.raises(AlreadyExistsError, match="a/name exists already"):
        any_store.put_new("a/name", b"second")
    assert any_store.read("a/name", 100) == b"first"


@pytest.mark.parametrize("kind", ["file", "file-hidden", "s3-conditional", "az", "gs"])
def test_of_many_that_put_one_name_one_wins(make_store, kind):
    store = make_store(kind)

    def put(number):
        try:
            store.put_new("one", b"%d" % number)
        except AlreadyExistsError:
            return None
        return number

    with ThreadPoolExecutor(4) as pool:
        won = [number for number in pool.map(put, range(8)) if number is not None]
    assert len(won) == 1
    assert store.read("one", 10) == b"%d" % won[0]


@pytest.mark.parametrize("size", [0, 10, 9 << 20])
def test_a_write_that_is_given_up_publishes_nothing(store, size):
    with pytest.raises(GivenUpError), store.writer("a/half") as sink:
        for _ in range(size >> 20):
            sink.write(secrets.token_bytes(1 << 20))
        sink.write(b"x" * min(size, 10))
        raise GivenUpError
    assert paths(store) == []
    with pytest.raises(NotFoundError):
        store.stat("a/half")


def test_a_write_that_is_interrupted_publishes_nothing(any_store):
    with pytest.raises(KeyboardInterrupt), any_store.writer("a/half") as sink:
        sink.write(secrets.token_bytes(9 << 20))
        raise KeyboardInterrupt
    assert paths(any_store) == []


def test_what_is_being_written_is_not_listed_yet(store):
    with store.writer("a/slow") as sink:
        sink.write(secrets.token_bytes(9 << 20))
        assert paths(store) == []
        with pytest.raises(NotFoundError):
            store.read("a/slow", 1 << 30)
    assert paths(store) == ["a/slow"]


def test_what_is_missing_is_told_as_missing(store):
    store.put_new("a/there", b"")
    for act in (
        lambda: store.read("a/nope", 10),
        lambda: store.stat("a/nope"),
        lambda: next(iter(store.stream("a/nope"))),
        lambda: store.read("a/there/below", 10),
        lambda: store.stat("no/such/folder"),
    ):
        with pytest.raises(NotFoundError, match=store.url):
            act()


def test_deleting_what_is_missing_does_nothing(any_store):
    any_store.delete("a/nope")
    any_store.put_new("a/there", b"1")
    any_store.delete("a/nope")
    any_store.delete("b/nope")
    assert paths(any_store) == ["a/there"]
    any_store.delete("a/there")
    any_store.delete("a/there")
    assert paths(any_store) == []


def test_a_document_that_is_too_long_is_not_read(store):
    store.put_new("long", b"x" * 101)
    assert store.read("long", 101) == b"x" * 101
    with pytest.raises(FormatError, match="more than 100 bytes"):
        store.read("long", 100)


def test_listing_is_by_folder_and_in_the_order_of_bytes(any_store):
    names = ["a/B", "a/a-b", "a/a.b", "a/a/b", "a/a/c.d", "a/a0", "a/b", "ab/x", "b"]
    for name in random.Random(1).sample(names, len(names)):
        any_store.put_new(name, name.encode())
    assert paths(any_store) == sorted(names)
    assert paths(any_store, "a") == paths(any_store, "a/") == sorted(names)[:-2]
    assert paths(any_store, "a/a") == ["a/a/b", "a/a/c.d"]
    assert paths(any_store, "a/a/c") == []
    assert paths(any_store, "b") == []
    assert paths(any_store, "zz/") == []
    assert [info.size for info in any_store.list("ab")] == [4]


def test_a_listing_can_begin_after_a_name(any_store):
    for name in ("a/1", "a/2", "a/3", "b/1"):
        any_store.put_new(name, b"")
    assert [info.path for info in any_store.list("a", after="a/1")] == ["a/2", "a/3"]
    assert [info.path for info in any_store.list("a", after="a/2x")] == ["a/3"]
    assert [info.path for info in any_store.list(after="a/3")] == ["b/1"]
    assert [info.path for info in any_store.list("a", after="a/3")] == []


def test_a_long_listing_is_whole(store, request):
    number = 1200 if "file" in request.node.name else 60
    names = sorted(f"many/{number:05}" for number in range(number))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put_new(name, b""), names))
    assert paths(store, "many") == names


def test_times_are_those_of_the_store(any_store):
    began = datetime.now(UTC)
    any_store.put_new("a", b"1")
    info = any_store.stat("a")
    assert info.modified.tzinfo is not None
    # HTTP's times have whole seconds.
    assert timedelta(seconds=-1.1) < info.modified - began < timedelta(seconds=30)
    (listed,) = any_store.list()
    assert abs(listed.modified - info.modified) < timedelta(seconds=1.1)
    now = any_store.now()
    assert now.tzinfo is not None
    assert info.modified - timedelta(seconds=1) <= now < info.modified + timedelta(seconds=30)


def test_asking_for_the_time_leaves_the_objects_alone(store):
    store.put_new("clusters/a", b"1")
    store.now()
    store.now()
    assert paths(store, "clusters") == ["clusters/a"]
    assert len(paths(store)) <= 2


def test_many_threads_at_a_time(store):
    data = {f"t/{number}": secrets.token_bytes(1000 * number) for number in range(16)}

    def work(path):
        write(store, path, [data[path]])
        return store.read(path, 1 << 20)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, data)) == list(data.values())


def test_writing_holds_up_nobody_else(store):
    """Other threads go on while a store is busy: the interpreter is let go."""
    ticks, done = [], threading.Event()

    def tick():
        while not done.wait(0.005):
            ticks.append(1)

    thread = threading.Thread(target=tick)
    thread.start()
    write(store, "big", (os.urandom(1 << 20) for _ in range(24)))
    done.set()
    thread.join()
    assert len(ticks) > 2


def test_a_store_says_what_it_is(store):
    assert store.url
    assert not store.url.endswith("/")
    assert store.describe()
    assert ("lifecycle" in store.residue) == store.url.startswith(("s3:", "gs:"))
    assert store.clear_partial(datetime.now(UTC)) == ()


def test_a_reader_may_stop_early(store):
    write(store, "big", [secrets.token_bytes(1 << 20)] * 10)
    stream = store.stream("big")
    assert next(stream)
    stream.close()
    assert store.stat("big").size == 10 << 20


def test_promise_5_nothing_a_store_shows_has_its_secret(store, monkeypatch):
    shown = [repr(store), str(store), store.url, store.describe(), store.residue]
    with pytest.raises(BackstayError) as caught:
        store.read("nope", 1)
    shown.append(repr(caught.value))
    names = ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_KEY", "GOOGLE_BEARER_TOKEN")
    hidden = [os.environ[name] for name in names if name in os.environ]
    assert hidden or store.url.startswith("file:")
    assert not [text for text in shown for secret in hidden if secret in text]


def test_many_can_ask_for_the_time_at_once(store):
    with ThreadPoolExecutor(8) as pool:
        times = list(pool.map(lambda _: store.now(), range(80)))
    assert max(times) - min(times) < timedelta(minutes=1)
