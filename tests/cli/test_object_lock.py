"""Repositories in a bucket with object lock, on a server that has it."""

from datetime import UTC, datetime, timedelta

import boto3
import pytest

from backstay.errors import StoreError
from backstay.repo import leftovers
from backstay.repo.catalogue import Repository
from backstay.repo.lock import Lock, Mode
from backstay.repo.store import Locker
from backstay.repo.stores.s3 import Bucket, S3Store
from kit import s3

DAYS = 3
#: moto's buckets are those of the whole process.
BUCKET = "locked"


@pytest.fixture(scope="module")
def locking_server():
    with s3.conditional(BUCKET, locking=True) as server:
        yield server


@pytest.fixture(scope="module")
def aws(locking_server):
    client = boto3.client(
        "s3",
        endpoint_url=locking_server.endpoint,
        aws_access_key_id=locking_server.access_key,
        aws_secret_access_key=locking_server.secret_key,
        region_name="us-east-1",
    )
    yield client
    client.close()


@pytest.fixture
def place(cli, locking_server, tmp_path, monkeypatch):
    """A prefix of its own, named to the program; and the store there."""
    for name, value in locking_server.environment.items():
        monkeypatch.setenv(name, value)
    cli.variables |= locking_server.environment
    cli.variables["BACKSTAY_REPO"] = f"s3://{BUCKET}/{tmp_path.name}"
    return S3Store(Bucket(BUCKET, tmp_path.name, locking_server.endpoint, allow_http=True))


def init(cli, *more, expect=0):
    pair = cli("keygen", "--json").json
    (cli.folder / "identity.txt").write_text(pair["identity"])
    recipient = pair["recipient"]
    words = ("--object-lock", "--lock-days", DAYS, "--allow-http", *more)
    return cli("init", "--recipient", recipient, *words, "--json", expect=expect)


def locks(aws, store):
    """Until when each object is locked, by its path; None for those that are not."""
    found = {}
    for info in store.list():
        key = f"{store.bucket.prefix}/{info.path}"
        facts = aws.head_object(Bucket=BUCKET, Key=key)
        found[info.path] = facts.get("ObjectLockRetainUntilDate")
    return found


def test_promise_7_what_counts_is_locked_and_nothing_else(cli, place, aws):
    config = init(cli).json
    assert config["lock"] == {"mode": "governance", "days": DAYS}
    began = datetime.now(UTC)
    cli("backup", "etcd", "--cluster", "prod", "--allow-http")
    cli("verify", "prod/latest", "--allow-http")
    recipient = cli("keygen", "-o", "two.txt", "--json").json["recipient"]
    cli("recipients", "add", recipient, "--allow-http")
    found = locks(aws, place)
    kinds = {path.split("/")[2] for path in found if path.startswith("clusters/")}
    assert kinds == {"backups", "objects", "notes"}
    assert any(path.startswith("config/") for path in found)
    for path, until in found.items():
        if path == "clock":
            assert until is None
        else:
            assert abs(until - began - timedelta(days=DAYS)) < timedelta(minutes=2), path
    assert not [path for path in found if path.startswith("probe/")]

    for version in aws.list_object_versions(Bucket=BUCKET)["Versions"]:
        if "/clusters/" in version["Key"] and version["Key"].startswith(place.bucket.prefix):
            with pytest.raises(aws.exceptions.ClientError, match="Denied"):
                aws.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])


def test_the_store_says_until_when_it_is_locked(cli, place, aws):
    init(cli)
    cli("backup", "etcd", "--cluster", "prod", "--allow-http")
    store = Repository.open(place).store
    assert isinstance(store, Locker)
    assert not isinstance(place, Locker)
    found = locks(aws, place)
    assert {path: store.locked_until(path) for path in found} == found
    assert store.locked_until("clusters/nothing") is None


def test_a_sweep_leaves_what_is_locked(cli, place):
    init(cli)
    repository = Repository.open(place)
    dead, other = (f"clusters/prod/objects/20261120T231000Z-{name}/x.zst" for name in "ab")
    with repository.store.writer(dead.replace("-a/", "-aaaa/")) as sink:
        sink.write(b"1")
    place.put_new(other.replace("-b/", "-bbbb/"), b"1")
    swept = leftovers.sweep(repository, timedelta(seconds=-5))
    assert swept.paths == (other.replace("-b/", "-bbbb/"),)
    assert [info.path for info in place.list("clusters")] == [dead.replace("-a/", "-aaaa/")]


def test_a_large_object_is_locked_before_its_manifest_is_written(cli, place, aws, monkeypatch):
    """So that what is listed is locked, wherever a run dies."""
    init(cli)
    store = Repository.open(place).store
    calls = []
    real = store._client_of_boto
    for name in ("put_object", "put_object_retention"):
        call = getattr(real, name)
        monkeypatch.setattr(
            real, name, lambda call=call, name=name, **more: (calls.append(name), call(**more))[1]
        )
    with store.writer("clusters/a/objects/x") as sink:
        sink.write(b"x" * (9 << 20))
    assert calls == ["put_object_retention"]
    store.put_new("clusters/a/backups/x.json", b"{}")
    assert calls == ["put_object_retention", "put_object"]


def test_what_can_t_be_locked_is_no_object_that_counts(cli, place, monkeypatch):
    init(cli)
    store = Repository.open(place).store
    error = store._client_of_boto.exceptions.ClientError

    def refused(**_):
        raise error({"Error": {"Code": "AccessDenied"}}, "PutObjectRetention")

    monkeypatch.setattr(store._client_of_boto, "put_object_retention", refused)
    with (
        pytest.raises(StoreError, match="s3:PutObjectRetention"),
        store.writer("clusters/a/objects/x") as sink,
    ):
        sink.write(b"1")


def test_nothing_that_is_locked_is_replaced(cli, place):
    init(cli)
    store = Repository.open(place).store
    store.put_new("clusters/x", b"1")
    store.put_new("clusters/x", b"1")  # an answer that was lost, and its repetition
    with pytest.raises(Exception, match="exists already"):
        store.put_new("clusters/x", b"2")


def test_a_bucket_without_object_lock_is_refused(cli, tmp_path):
    with s3.conditional() as server:
        cli.variables |= server.environment
        cli.variables["BACKSTAY_REPO"] = f"s3://{s3.BUCKET}/lock"
        assert "has no object lock" in init(cli, expect=5).err
        assert cli("list", "--allow-http", expect=1).code == 1
    cli.variables["BACKSTAY_REPO"] = f"file://{tmp_path}/repo"
    assert "can't lock" in init(cli, expect=2).err
    assert not (tmp_path / "repo").exists()


def test_a_bucket_that_locks_everything_is_told(aws, locking_server, place):
    aws.create_bucket(Bucket="all-locked", ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    aws.put_object_lock_configuration(
        Bucket="all-locked",
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
    )
    store = S3Store(Bucket("all-locked", "x", locking_server.endpoint, allow_http=True))
    lock = Lock(mode=Mode.GOVERNANCE, days=1)
    assert "default retention" in store.locking(lock).check_bucket()
    assert place.locking(lock).check_bucket() == ""


def test_a_lock_goes_by_the_stores_clock(cli, place, monkeypatch):
    """Nobody could undo one that a clock in 2099 has set."""
    store = place.locking(Lock(mode=Mode.COMPLIANCE, days=1))
    there = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(store, "now", lambda: there)
    assert timedelta() <= store._until() - there - timedelta(days=1) < timedelta(minutes=1)
    assert store.describe().endswith("locking for 1 days (compliance)")


def test_a_copy_in_another_kind_of_store_is_read_and_not_written_to(cli, place, tmp_path):
    init(cli)
    made = cli("backup", "etcd", "--cluster", "prod", "--json", "--allow-http").json
    for info in place.list():
        path = tmp_path / "copy" / info.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(place.read(info.path, 1 << 24))
    cli.variables["BACKSTAY_REPO"] = f"file://{tmp_path}/copy"
    cli("export", made["id"], "--identity", "identity.txt", "-o", "copy.db")
    assert "can't lock" in cli("backup", "etcd", "--cluster", "prod", expect=5).err


def test_without_boto3_a_locked_repository_can_be_read(cli, place, monkeypatch):
    init(cli)
    cli("backup", "etcd", "--cluster", "prod", "--allow-http")
    import sys

    monkeypatch.setitem(sys.modules, "boto3", None)
    cli("export", "prod/latest", "--identity", "identity.txt", "-o", "out.db", "--allow-http")
    done = cli("backup", "etcd", "--cluster", "prod", "--allow-http", expect=5)
    assert "backstay[object-lock]" in done.err
