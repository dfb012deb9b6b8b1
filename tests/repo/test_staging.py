"""Restore objects: how they are named, written, signed, listed and deleted, on real S3 servers."""

import hashlib
import secrets
import subprocess
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from backstay.clock import SystemClock
from backstay.errors import NotFoundError, RefusedError, StoreError, UsageError
from backstay.repo import bearer
from backstay.repo.name import BackupId
from backstay.repo.staged import EDGE, StagedName
from backstay.repo.staging import Staging, default_place
from backstay.repo.store import Presigner
from backstay.repo.stores.file import FileStore
from kit import needs
from kit.faulty_signer import FaultySigner
from kit.faulty_store import TOLD, Fault

CLOCK = SystemClock()
BACKUP = BackupId.parse("clusters.prod/20261120T231000Z-r2001-k3f9")
EXPIRES = datetime(2099, 11, 22, 10, 15, tzinfo=UTC)
DATA = secrets.token_bytes((9 << 20) + 5)


@pytest.fixture
def store(s3_store, tls_server):
    return s3_store(tls_server)


@pytest.fixture
def staging(store):
    return Staging(store, CLOCK)


def fill(data=DATA, piece=1 << 20):
    def write(sink):
        for start in range(0, len(data), piece):
            # etcd's exporter hands over buffers that it uses again.
            buffer = bytearray(data[start : start + piece])
            assert sink.write(memoryview(buffer)) == len(buffer)
            buffer[:] = bytes(len(buffer))

    return write


def paths(store):
    return [info.path for info in store.list()]


def get(staging, url):
    with bearer.request("GET", url, bearer.trust(staging.authorities)) as answer:
        return answer.status, b"".join(answer.pieces())


def test_promise_2_what_is_staged_comes_out_by_plain_curl(staging, tls_server, tmp_path):
    staged = staging.stage(BACKUP, fill(), expires=EXPIRES)
    assert (staged.size, staged.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())
    assert (staged.head, staged.tail) == (DATA[:EDGE], DATA[-EDGE:])
    assert staged.warnings == ()
    url = staging.link(staged.path, 600).url
    curl = [needs.binary("curl"), "-o", tmp_path / "snapshot", url.reveal()]
    subprocess.run([*curl, "--cacert", tls_server.authority], check=True, capture_output=True)
    assert (tmp_path / "snapshot").read_bytes() == DATA
    assert get(staging, url) == (200, DATA)


def test_the_name_says_what_it_is_and_until_when(staging):
    staged = staging.stage(BACKUP, fill(b"x"), expires=EXPIRES)
    assert staged.path.startswith("20991122T101500Z-")
    assert staged.path.endswith("/clusters.prod/20261120T231000Z-r2001-k3f9.db")
    [found] = staging.staged()
    assert (found.path, found.size, found.name) == (staged.path, 1, staged.name)
    assert found.name.backup == BACKUP
    assert not found.expired(EXPIRES - timedelta(seconds=1))
    assert found.expired(EXPIRES)
    assert abs(found.written - CLOCK.now()) < timedelta(minutes=5)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "clock",
        "probe/00aa11bb",
        "20991122T101500Z-k3f9a2",
        "20991322T101500Z-k3f9a2/prod/20261120T231000Z-r2001-k3f9.db",
        "20991122T101500Z-k3f9a2/prod/20261120T231000Z-r2001-k3f9.zst",
        "20991122T101500Z-K3F9A2/prod/20261120T231000Z-r2001-k3f9.db",
        "20991122T101500Z-k3f9a2/Prod/20261120T231000Z-r2001-k3f9.db",
        "20991122T101500Z-k3f9a2/prod/x.db",
        "20991122T101500Z-k3f9a2/prod/more/20261120T231000Z-r2001-k3f9.db",
        "00001122T101500Z-k3f9a2/prod/20261120T231000Z-r2001-k3f9.db",
        "clusters/prod/backups/20261120T231000Z-r2001-k3f9.json",
    ],
)
def test_other_names_are_no_restore_objects_and_are_never_deleted(staging, store, path):
    assert StagedName.parse(path) is None
    if path:
        store.put_new(path, b"someone else's")
    assert staging.staged() == ()
    with pytest.raises(UsageError, match="no restore object"):
        staging.remove(path)
    assert paths(store) == ([path] if path else [])


def test_objects_are_listed_by_the_end_of_their_time_and_removed_one_by_one(staging):
    late = staging.stage(BACKUP, fill(b"late"), expires=EXPIRES)
    soon = staging.stage(BACKUP, fill(b"soon"), expires=EXPIRES - timedelta(days=1))
    again = staging.stage(BACKUP, fill(b"again"), expires=EXPIRES)
    assert [one.path for one in staging.staged()] == [
        soon.path,
        *sorted((late.path, again.path)),
    ]
    staging.remove(late.path)
    staging.remove(late.path)
    assert {one.path for one in staging.staged()} == {soon.path, again.path}


def test_a_repository_beside_it_does_not_see_it(s3_store, tls_server):
    folder = secrets.token_hex(4)
    repository = s3_store(tls_server, prefix=folder)
    place = default_place(f"s3://backups/{folder}")
    assert place == f"s3://backups/{folder}.staging"
    staging = Staging(s3_store(tls_server, prefix=f"{folder}.staging"), CLOCK)
    assert staging.url == place
    staging.stage(BACKUP, fill(b"x"), expires=EXPIRES)
    assert paths(repository) == []
    assert default_place("s3://bucket") == "s3://bucket/backstay.staging"


def test_a_directory_can_not_presign(tmp_path):
    store = FileStore(tmp_path / "repo")
    assert not isinstance(store, Presigner)
    for refused in (lambda: Staging(store, CLOCK), lambda: default_place(store.url)):
        with pytest.raises(RefusedError, match=r"can't presign.*--staging s3://"):
            refused()
    assert not (tmp_path / "repo").exists()


# Signing


def test_promise_5_the_url_is_in_no_text_and_no_log(staging, caplog, capfd):
    caplog.set_level(0)
    staged = staging.stage(BACKUP, fill(b"x"), expires=EXPIRES)
    link = staging.link(staged.path, 600)
    assert get(staging, link.url)[0] == 200
    staging.remove(staged.path)
    assert get(staging, link.url)[0] == 404
    with pytest.raises(StoreError) as unreachable:
        wrong = bearer.Secret(link.url.reveal().replace("127.0.0.1", "127.0.0.1:1/"))
        get(staging, wrong)
    with pytest.raises(bearer.UntrustedError) as untrusted:
        bearer.request("GET", link.url, bearer.trust()).__enter__()
    said = [repr(link), str(link), repr(staged), caplog.text, *capfd.readouterr()]
    said += [repr(error.value) for error in (unreachable, untrusted)]
    signature = link.url.reveal().rpartition("Signature=")[2]
    assert len(signature) == 64
    assert not [text for text in said if signature in text or "X-Amz-Credential" in text]


def test_a_url_ends_when_it_says(staging):
    staged = staging.stage(BACKUP, fill(b"x"), expires=EXPIRES)
    link = staging.link(staged.path, 3600)
    assert abs(link.expires - CLOCK.now() - timedelta(hours=1)) < timedelta(minutes=1)
    assert link.certain
    assert "X-Amz-Expires=3600&" in link.url.reveal()
    for seconds in (0, -1, 7 * 24 * 3600 + 1):
        with pytest.raises(UsageError, match="can't be signed"):
            staging.link(staged.path, seconds)


@pytest.mark.parametrize(
    ("expiration", "seconds", "certain", "warned"),
    [
        (None, 3600, False, "is not known"),
        ("nonsense", 3600, False, "is not known"),
        (timedelta(hours=2), 3600, True, ""),
        (timedelta(minutes=10), 600, True, "credentials end then"),
    ],
)
def test_temporary_credentials_bound_the_url(
    s3_store, tls_server, monkeypatch, expiration, seconds, certain, warned
):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-session-token")
    said = {"AWS_SESSION_TOKEN": "the-session-token"}
    if expiration is not None:
        end = CLOCK.now() + expiration if isinstance(expiration, timedelta) else expiration
        said["AWS_CREDENTIAL_EXPIRATION"] = end if isinstance(end, str) else end.isoformat()
    link = Staging(s3_store(tls_server), CLOCK).link("x", 3600, said)
    assert link.certain is certain
    assert warned in " ".join(link.warnings)
    assert bool(link.warnings) is bool(warned)
    assert abs((link.expires - CLOCK.now()).total_seconds() - seconds) < 60
    signed = int(link.url.reveal().split("X-Amz-Expires=")[1].split("&")[0])
    assert abs(signed - seconds) < 60
    assert "session-token" not in repr(link)


def test_credentials_that_have_ended_sign_nothing(s3_store, tls_server, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-session-token")
    said = {"AWS_SESSION_TOKEN": "x", "AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z"}
    with pytest.raises(StoreError, match="ended at 2020"):
        Staging(s3_store(tls_server), CLOCK).link("x", 3600, said)


# Buckets that keep what is deleted


@pytest.fixture
def s3_client(conditional_server):
    """Amazon's own client of moto's server."""
    client = boto3.client(
        "s3",
        endpoint_url=conditional_server.endpoint,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        region_name="us-east-1",
    )
    yield client
    client.close()


@pytest.fixture
def bucket(s3_client):
    """Make a bucket on moto's server."""

    def make(*, lock=None, versions=False):
        name = f"b-{secrets.token_hex(4)}"
        s3_client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock is not None)
        if versions:
            s3_client.put_bucket_versioning(
                Bucket=name, VersioningConfiguration={"Status": "Enabled"}
            )
        if lock:
            rule = {"DefaultRetention": {"Mode": lock, "Days": 30}}
            s3_client.put_object_lock_configuration(
                Bucket=name,
                ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
            )
        return name

    return make


@pytest.mark.parametrize("mode", ["COMPLIANCE", "GOVERNANCE"])
def test_a_bucket_that_locks_is_refused_before_anything_is_put_there(
    s3_store, conditional_server, bucket, mode
):
    store = s3_store(conditional_server, name=bucket(lock=mode))
    asked = []
    with pytest.raises(RefusedError, match="object lock") as refused:
        Staging(store, CLOCK).stage(BACKUP, asked.append, expires=EXPIRES)
    assert "--staging" in refused.value.do
    assert asked == []


class Locking(FaultySigner):
    """A store in a bucket that takes objects without a checksum, and locks them.

    moto refuses those where a bucket locks by default, with a checksum of obstore's too; so the
    lock is put on each object when it has come.
    """

    def __init__(self, store, lock):
        super().__init__(store)
        self._lock_object = lock

    def put_new(self, path, data):
        super().put_new(path, data)
        self._lock_object(f"{self.url.split('/', 3)[3]}/{path}")


@pytest.mark.parametrize("kind", ["COMPLIANCE", "GOVERNANCE", "hold"])
def test_an_object_that_comes_out_locked_shows_the_bucket(
    s3_store, conditional_server, bucket, s3_client, kind
):
    name = bucket(lock="")
    retention = {"Mode": kind, "RetainUntilDate": CLOCK.now() + timedelta(days=30)}

    def lock(key):
        if kind == "hold":
            s3_client.put_object_legal_hold(Bucket=name, Key=key, LegalHold={"Status": "ON"})
        else:
            s3_client.put_object_retention(Bucket=name, Key=key, Retention=retention)

    store = Locking(s3_store(conditional_server, name=name), lock)
    asked = []
    word = "ON" if kind == "hold" else kind
    with pytest.raises(RefusedError, match=f"object-lock.* {word}"):
        Staging(store, CLOCK).stage(BACKUP, asked.append, expires=EXPIRES)
    assert asked == []


@pytest.mark.parametrize("kind", [{"versions": True}, {"lock": ""}])
def test_a_bucket_with_versions_is_warned_of(s3_store, conditional_server, bucket, kind):
    store = s3_store(conditional_server, name=bucket(**kind))
    staged = Staging(store, CLOCK).stage(BACKUP, fill(b"x"), expires=EXPIRES)
    [warning] = staged.warnings
    assert "NoncurrentVersionExpiration" in warning


def test_an_ordinary_bucket_is_not(s3_store, conditional_server, bucket):
    store = s3_store(conditional_server, name=bucket())
    assert Staging(store, CLOCK).stage(BACKUP, fill(b"x"), expires=EXPIRES).warnings == ()


def test_a_place_that_lets_nothing_be_deleted_is_refused(store):
    faulty = FaultySigner(store, lambda op: Fault.REFUSE if op.name == "delete" else None)
    with pytest.raises(RefusedError, match="lets nothing be deleted"):
        Staging(faulty, CLOCK).stage(BACKUP, fill(), expires=EXPIRES)
    # A store that says yes, and keeps it.
    keeps = FaultySigner(store, lambda op: Fault.SHORT if op.name == "delete" else None)
    with pytest.raises(RefusedError, match="still there"):
        Staging(keeps, CLOCK).stage(BACKUP, fill(), expires=EXPIRES)
    assert Staging(store, CLOCK).staged() == ()


def test_what_killed_probes_left_is_swept_after_an_hour(store, staging):
    class Later(SystemClock):
        def now(self):
            return super().now() + timedelta(minutes=61)

    store.put_new("probe/00aa11bb", b"left")
    staging.stage(BACKUP, fill(b"x"), expires=EXPIRES)
    assert "probe/00aa11bb" in paths(store)
    Staging(store, Later()).stage(BACKUP, fill(b"x"), expires=EXPIRES)
    assert "probe/00aa11bb" not in paths(store)


# Whole or not at all


def test_promise_1_whatever_fails_no_half_object_is_listed(store):
    clean = FaultySigner(store)
    staged = Staging(clean, CLOCK).stage(BACKUP, fill(piece=4 << 20), expires=EXPIRES)
    Staging(store, CLOCK).remove(staged.path)
    assert {"put_new", "writer", "write", "publish", "stat", "delete"} <= set(clean.names)
    told = 0
    for number in range(1, len(clean.operations) + 1):
        for fault in TOLD:
            faulty = FaultySigner(store, {number: fault})
            try:
                Staging(faulty, CLOCK).stage(BACKUP, fill(piece=4 << 20), expires=EXPIRES)
            except (StoreError, RefusedError, NotFoundError):
                told += 1
            for one in Staging(store, CLOCK).staged():
                assert one.size == len(DATA), (number, fault)
                Staging(store, CLOCK).remove(one.path)
    assert told > len(clean.operations)


def test_a_store_that_loses_bytes_is_found(store):
    faulty = FaultySigner(store, lambda op: Fault.SHORT if op.name == "write" else None)
    with pytest.raises(StoreError, match="were written"):
        Staging(faulty, CLOCK).stage(BACKUP, fill(), expires=EXPIRES)
    assert Staging(store, CLOCK).staged() == ()


def test_an_error_of_the_source_leaves_nothing(store, staging):
    def broken(sink):
        sink.write(DATA)
        raise NotFoundError("the source has gone")

    with pytest.raises(NotFoundError, match="the source has gone"):
        staging.stage(BACKUP, broken, expires=EXPIRES)
    assert paths(store) == []
