"""Azure and Google: what goes wrong is told in their words, and which places are one."""

import base64
from datetime import UTC, datetime

import pyrage
import pytest

from backstay.errors import NotFoundError, StoreError
from backstay.repo.catalogue import Repository
from backstay.repo.config import Role, new_config
from backstay.repo.place import same_place
from backstay.repo.stores.reasons import GS, reason_of
from backstay.repo.stores.remote import Limits
from backstay.repo.stores.s3 import Bucket, S3Store
from kit import gcs

HASTY = Limits(connect=2, answer=5, part=5, silence=5, patience=0.1, perseverance=0.1)
RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())
ACTS = {
    "put_new": lambda store: store.put_new("a/b", b"1"),
    "read": lambda store: store.read("a/b", 10),
    "stream": lambda store: next(store.stream("a/b")),
    "list": lambda store: list(store.list()),
    "now": lambda store: store.now(),
}


def check_all(store, what, do, acts=frozenset(ACTS)):
    for act in acts:
        with pytest.raises(StoreError) as caught:
            ACTS[act](store)
        assert type(caught.value) is StoreError
        assert what in caught.value.what, act
        assert do in caught.value.do, act
        assert store.url in caught.value.what


def test_azure_does_not_take_a_wrong_key(az_store, monkeypatch):
    store = az_store(limits=HASTY)
    secret = base64.b64encode(b"wrong" * 9).decode()
    monkeypatch.setenv("AZURE_STORAGE_KEY", secret)
    store = type(store)(store.bucket, HASTY)
    check_all(store, "does not accept the credentials", "AZURE_STORAGE_KEY")


def test_azure_has_no_credentials_at_all(az_store, monkeypatch):
    store = az_store()
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    # Where a machine in the cloud would ask for its identity, nobody is here.
    monkeypatch.setenv("AZURE_MSI_ENDPOINT", "http://127.0.0.1:1/metadata/identity/oauth2/token")
    check_all(type(store)(store.bucket, HASTY), "no credentials for Azure", "AZURE_STORAGE_KEY")


def test_google_has_no_credentials_at_all():
    """What a machine outside of its cloud is told, as obstore words it."""
    text = (
        "Generic GCS error: Error performing token request: Error performing GET"
        " http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token"
        " - HTTP error: error sending request"
    )
    reason = reason_of(OSError(text), GS)
    assert "no credentials for Google" in reason.what
    assert "GOOGLE_APPLICATION_CREDENTIALS" in reason.do


def test_azure_has_no_such_container(az_store):
    check_all(az_store(name="nothing-here", limits=HASTY), "no such container", "make it")


def test_promise_5_a_key_that_is_none_is_not_shown(az_store, monkeypatch):
    store = az_store()
    monkeypatch.setenv("AZURE_STORAGE_KEY", "hunter2!")
    with pytest.raises(StoreError, match="AZURE_ variables") as caught:
        type(store)(store.bucket)
    assert "hunter2" not in str(caught.value) + repr(caught.value)


def test_azures_certificate_is_checked_whatever_a_variable_says(az_store, monkeypatch):
    monkeypatch.setenv("AZURE_ALLOW_INVALID_CERTIFICATES", "true")
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1/x")
    monkeypatch.setenv("AZURE_CONTAINER_NAME", "elsewhere")
    store = az_store(trusting=False, limits=HASTY)
    check_all(store, "not signed by an authority", "--ca-bundle")
    az_store().put_new("a", b"1")


def test_google_is_told_by_its_bucket_and_not_by_variables(gs_store, monkeypatch):
    monkeypatch.setenv("GOOGLE_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("GOOGLE_BUCKET", "elsewhere")
    store = gs_store()
    store.put_new("a", b"1")
    assert store.read("a", 1) == b"1"


def test_google_does_not_take_a_wrong_token(gs_store, monkeypatch):
    store = gs_store(limits=HASTY)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "wrong")
    store = type(store)(store.bucket, HASTY)
    check_all(store, "wants credentials", "GOOGLE_APPLICATION_CREDENTIALS")


def test_google_has_no_such_bucket(gs_store):
    check_all(gs_store(name="nothing-here", limits=HASTY), "no such bucket", "make the bucket")


def test_google_denies_access(gs_store, google_server, monkeypatch):
    store = gs_store(limits=HASTY)
    monkeypatch.setattr(google_server, "deny", (403, "AccessDenied"))
    check_all(store, "access is denied", "storage.objects")


@pytest.mark.parametrize("kind", ["az", "gs"])
def test_an_upload_whose_answer_was_a_no_is_no_object(kind, request, google_server, monkeypatch):
    store = request.getfixturevalue(f"{kind}_store")(limits=HASTY)
    with pytest.raises(RuntimeError), store.writer("a/big") as sink:
        sink.write(b"x" * (9 << 20))
        raise RuntimeError
    with pytest.raises(NotFoundError):
        store.stat("a/big")
    assert google_server.uploads == {}


def made(store, role=Role.DATA):
    recipients = [RECIPIENT] if role is Role.KEYS else []
    config = new_config(role, recipients, {}, datetime(2026, 11, 20, tzinfo=UTC))
    return Repository.init(store, config)


def compare(one, other):
    found = same_place(one.store, one.config, other.store, other.config)
    assert bool(found) == bool(same_place(other.store, other.config, one.store, one.config))
    return found


@pytest.mark.parametrize("kind", ["az", "gs"])
def test_promise_5_one_bucket_is_one_place_whatever_prefix(kind, request):
    make = request.getfixturevalue(f"{kind}_store")
    assert "both are in the bucket" in compare(made(make()), made(make(), Role.KEYS))


@pytest.mark.parametrize(
    ("kind", "name"), [("az", "127.0.0.1:{}"), ("az", "localhost:{}"), ("gs", "localhost:{}")]
)
def test_promise_5_a_bucket_under_another_name_of_its_server_is_found(kind, name, request):
    make = request.getfixturevalue(f"{kind}_store")
    one = made(make())
    endpoint = one.store.bucket.endpoint
    port = endpoint.split(":")[2].split("/")[0]
    other = made(make(endpoint=endpoint.replace(f"127.0.0.1:{port}", name.format(port))), Role.KEYS)
    assert compare(one, other)


def test_buckets_of_two_services_are_two_places(az_store, gs_store):
    assert compare(made(az_store()), made(gs_store(), Role.KEYS)) == ""


def test_promise_5_googles_bucket_reached_as_s3_is_that_bucket(gs_store, s3_store, plain_server):
    """Google has a gateway for S3's protocol, under the same host."""
    one = made(gs_store())
    other = made(s3_store(plain_server), Role.KEYS)
    endpoint = one.store.bucket.endpoint
    gateway = S3Store(Bucket(gcs.BUCKET, "k", endpoint, allow_http=True), HASTY)
    found = same_place(one.store, one.config, gateway, other.config)
    assert "both are in the bucket" in found
