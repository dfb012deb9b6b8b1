"""Two repositories that are one place under two names, and those that are not."""

from datetime import UTC, datetime

import pyrage
import pytest
from msgspec.structs import replace

from backstay.errors import BackstayError, NotVerifiedError, StoreError
from backstay.repo.catalogue import Repository
from backstay.repo.config import PATH, Role, new_config
from backstay.repo.document import encode
from backstay.repo.place import same_place
from backstay.repo.stores.file import FileStore
from backstay.repo.stores.s3 import Bucket, S3Store
from kit import s3
from kit.faulty_store import Fault, FaultyStore

RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())


@pytest.fixture(scope="module")
def direct_server(tmp_path_factory):
    """A server that sees at once what is done to its files behind its back."""
    flags = ("--dir-cache-time", "1ns")
    with s3.plain(tmp_path_factory.mktemp("direct") / "s3", flags=flags) as server:
        yield server


def made(store, role=Role.DATA):
    recipients = [RECIPIENT] if role is Role.KEYS else []
    config = new_config(role, recipients, {}, datetime(2026, 11, 20, tzinfo=UTC))
    return Repository.init(store, config)


def compare(one, other):
    """Both ways give one answer."""
    found = same_place(one.store, one.config, other.store, other.config)
    back = same_place(other.store, other.config, one.store, one.config)
    assert bool(found) == bool(back), (found, back)
    return found


def at(store, like):
    """The same repository, through another store."""
    return Repository(store, like.config)


@pytest.fixture
def data(tmp_path):
    return made(FileStore(tmp_path / "data"))


def keys_in(folder):
    return made(FileStore(folder), Role.KEYS)


def test_two_directories_are_two_places(tmp_path, data):
    keys = keys_in(tmp_path / "keys")
    before = [info.path for store in (data.store, keys.store) for info in store.list()]
    assert not compare(data, keys)
    assert not compare(data, keys_in(tmp_path / "data2"))
    after = [info.path for store in (data.store, keys.store) for info in store.list()]
    assert before == after == [PATH, PATH]


def test_promise_5_one_id_is_one_place_wherever_it_lies(tmp_path, data):
    copy = FileStore(tmp_path / "copy")
    copy.put_new(PATH, encode(data.config))
    assert "one repository" in compare(data, at(copy, data))


def test_promise_5_a_directory_in_the_other(tmp_path, data):
    assert "lies in" in compare(data, keys_in(tmp_path / "data" / "keys"))
    assert "lies in" in compare(data, keys_in(tmp_path / "data" / "a b" / "keys"))


def test_promise_5_links_do_not_make_a_place(tmp_path, data):
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert "one directory" in compare(data, made_at(FileStore(tmp_path / "link")))
    assert "lies in" in compare(data, keys_in(tmp_path / "link" / "keys"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "out").symlink_to(tmp_path / "elsewhere")
    # What only seems to lie in it lies elsewhere.
    assert not compare(data, keys_in(tmp_path / "data" / "out"))


def made_at(store):
    """A repository of another id that says it lies where one is already."""
    return Repository(store, new_config(Role.KEYS, [RECIPIENT], {}, datetime.now(UTC)))


def test_a_directory_that_is_gone_is_no_answer(tmp_path, data):
    keys = keys_in(tmp_path / "keys")
    (tmp_path / "keys").rename(tmp_path / "moved")
    with pytest.raises(BackstayError, match="No such file"):
        compare(data, keys)


def test_promise_4_a_store_that_gives_no_answer_is_no_other_place(tmp_path, data):
    keys = keys_in(tmp_path / "keys")
    faulty = FaultyStore(keys.store, lambda operation: Fault.REFUSE)
    with pytest.raises(StoreError):
        same_place(data.store, data.config, faulty, keys.config)


def test_promise_5_a_bucket_served_from_the_directory(direct_server, s3_store):
    """A mount, a gateway: the files of one are the objects of the other."""
    bucket = direct_server.root / "backups"
    remote = made(s3_store(direct_server), Role.KEYS)
    folder = remote.store.bucket.prefix
    assert (bucket / folder / PATH).exists()
    assert "lies in" in compare(remote, made(FileStore(bucket / folder / "data")))
    assert "lies in" in compare(remote, made_at(FileStore(bucket)))
    assert not compare(remote, made(FileStore(bucket / f"{folder}-other")))


def test_promise_5_one_bucket_is_one_place(plain_server, s3_store):
    one, other = made(s3_store(plain_server)), made(s3_store(plain_server), Role.KEYS)
    assert "another prefix is no other place" in compare(one, other)


def test_promise_5_one_bucket_at_two_spellings_of_its_endpoint(plain_server, s3_store):
    one = made(s3_store(plain_server))
    host = plain_server.endpoint.replace("127.0.0.1", "localhost")
    other = made(s3_store(plain_server, endpoint=host), Role.KEYS)
    assert "under another name" in compare(one, other)
    other = made(s3_store(plain_server, endpoint=f"{plain_server.endpoint}/"), Role.KEYS)
    assert "another prefix is no other place" in compare(one, other)


def test_two_servers_with_a_bucket_of_one_name(plain_server, conditional_server, s3_store):
    keys = made(s3_store(conditional_server), Role.KEYS)
    assert not compare(made(s3_store(plain_server)), keys)


def test_two_buckets_of_one_server(direct_server, s3_store):
    (direct_server.root / "other").mkdir(exist_ok=True)
    keys = made(s3_store(direct_server, name="other"), Role.KEYS)
    assert not compare(made(s3_store(direct_server)), keys)


def test_promise_4_an_endpoint_that_is_not_there_can_be_the_same(plain_server, s3_store):
    one = made(s3_store(plain_server))
    other = s3_store(plain_server, endpoint="http://127.0.0.1:9")
    with pytest.raises(NotVerifiedError, match="can't be told"):
        compare(one, Repository(other, made_at(other).config))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, "https://s3.eu-west-1.amazonaws.com"),
        (None, "https://backups.s3.amazonaws.com"),
        ("https://S3.example.org", "https://s3.example.org.:443/"),
        ("https://s3.example.org", "http://s3.example.org"),
        ("https://backups.s3.example.org", "https://s3.example.org"),
    ],
)
def test_promise_5_spellings_of_one_endpoint(one, other):
    """Told by the names alone: nothing is asked of these servers."""
    stores = [
        S3Store(Bucket("backups", prefix, endpoint, allow_http=True))
        for prefix, endpoint in (("data", one), ("keys", other))
    ]
    config = new_config(Role.DATA, [], {}, datetime.now(UTC))
    found = same_place(stores[0], config, stores[1], replace(config, repository="f" * 32))
    assert "another prefix is no other place" in found
