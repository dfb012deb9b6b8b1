"""URLs of repositories and the settings that go with them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import BackstayError, UsageError
from backstay.repo.stores.file import FileStore
from backstay.repo.url import Access, Location, open_store, parse_url


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("file:///srv/backups", ("file", "", "/srv/backups")),
        ("file:///srv/backups/", ("file", "", "/srv/backups")),
        ("file://localhost/srv", ("file", "", "/srv")),
        ("file:///srv/my%20backups", ("file", "", "/srv/my backups")),
        ("file:////srv//a/../b", ("file", "", "/srv/b")),
        ("s3://bucket", ("s3", "bucket", "")),
        ("s3://bucket/", ("s3", "bucket", "")),
        ("s3://my.old_Bucket/a/b-c.d/", ("s3", "my.old_Bucket", "a/b-c.d")),
        ("gs://my-bucket/a/b/", ("gs", "my-bucket", "a/b")),
        ("az://container", ("az", "container", "")),
    ],
)
def test_what_a_url_means(url, location):
    assert parse_url(url) == Location(*location)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("", "no URL"),
        ("/srv/backups", "write file:///dir"),
        ("backups", "write file:///dir"),
        ("file://srv/backups", "no directory of this machine"),
        ("file://", "no directory"),
        ("file:///", "root of this machine"),
        ("file:///a/..", "root of this machine"),
        ("file:///a%00b", "no directory"),
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("s3://b", "names no bucket"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/../other", "prefix"),
        ("s3://bucket/.hidden", "prefix"),
        ("s3://bucket/a?versionId=1", "prefix"),
        ("s3://bucket/a#b", "prefix"),
        ("s3://bucket/a%2fb", "prefix"),
        ("s3://bucket/" + "n/" * 400, "prefix"),
        ("gs:///prefix", "names no bucket"),
        ("az://", "names no container"),
        ("az://container/../other", "prefix"),
        ("abfs://container/prefix", "no kind of repository"),
        ("http://server/bucket", "no kind of repository"),
        ("sftp://server/dir", "no kind of repository"),
    ],
)
def test_what_is_no_url_of_a_repository(url, match):
    with pytest.raises(UsageError, match=match):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAEXAMPLE:wJalrSECRET@bucket/prefix",
        "s3://wJalrSECRET@bucket",
        "s3://AKIAEXAMPLE:wJalr/SECRET@bucket/prefix",
        "gs://me:wJalrSECRET@bucket",
        "az://account:wJalr/SECRET@container",
        "https://me:wJalrSECRET@server/bucket",
        "file://me:wJalrSECRET@server/dir",
    ],
)
def test_promise_5_credentials_in_a_url_are_refused_and_not_shown(url):
    with pytest.raises(UsageError, match="leave them out") as caught:
        open_store(url)
    assert "wJalr" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("url", ["s3://AKIA:wJalr", "s3:AKIA:wJalr", "AKIA:wJalr", "x://a:wJalr/b"])
def test_promise_5_what_may_be_a_secret_is_not_shown(url):
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert "wJalr" not in str(caught.value)


@given(st.text(max_size=60) | st.text("s3:/file.@%?#abgz", max_size=30))
def test_any_text_is_a_url_or_is_refused(text):
    try:
        location = parse_url(text)
    except UsageError:
        return
    assert location.scheme in {"s3", "gs", "az", "file"}
    parts = location.path.split("/")
    assert ".." not in parts
    assert location.scheme != "file" or location.path.startswith("/")


def test_a_directory_keeps_its_url():
    store = open_store("file:///srv/my%20backups/")
    assert isinstance(store, FileStore)
    assert store.url == "file:///srv/my%20backups"
    assert parse_url(store.url).path == "/srv/my backups"


def bucket_of(access=None, environment=None):
    return open_store("s3://bucket/a/b/", access, environment or {})._bucket


def test_settings_come_from_the_usual_variables():
    environment = {
        "AWS_ENDPOINT_URL": "https://general:9000",
        "AWS_DEFAULT_REGION": "eu-central-2",
    }
    bucket = bucket_of(environment=environment)
    assert (bucket.name, bucket.prefix) == ("bucket", "a/b")
    assert (bucket.endpoint, bucket.region) == ("https://general:9000", "eu-central-2")
    environment |= {"AWS_ENDPOINT_URL_S3": "https://s3:9000/", "AWS_REGION": "eu-west-1"}
    bucket = bucket_of(environment=environment)
    assert (bucket.endpoint, bucket.region) == ("https://s3:9000", "eu-west-1")
    bucket = bucket_of(Access(endpoint="https://mine", region="here"), environment)
    assert (bucket.endpoint, bucket.region) == ("https://mine", "here")


def test_without_settings_it_is_amazon():
    bucket = bucket_of()
    assert (bucket.endpoint, bucket.region) == (None, "us-east-1")
    assert not bucket.allow_http
    assert not bucket.virtual_hosted


@pytest.mark.parametrize(
    ("endpoint", "match"),
    [
        ("http://server:9000", "--allow-http"),
        ("server:9000", "no S3 endpoint"),
        ("ftp://server", "no S3 endpoint"),
        ("https://", "no S3 endpoint"),
        ("https://server:port", "no URL"),
        ("https://[::1", "no URL"),
        ("https://server?x=1", "query"),
        ("https://me:SECRET@server", "leave them out"),
        ("https://SECRET@server", "leave them out"),
    ],
)
def test_endpoints_that_make_no_sense(endpoint, match):
    for access, environment in (
        (Access(endpoint=endpoint), {}),
        (None, {"AWS_ENDPOINT_URL": endpoint}),
    ):
        with pytest.raises(UsageError, match=match) as caught:
            bucket_of(access, environment)
        assert "SECRET" not in str(caught.value)


def test_plain_http_is_taken_when_it_is_asked_for():
    access = Access(endpoint="http://server:9000", allow_http=True)
    assert bucket_of(access).endpoint == "http://server:9000"


def test_a_ca_bundle_that_is_none(tmp_path):
    (tmp_path / "ca.pem").write_text("hello")
    with pytest.raises(UsageError, match="holds no certificate"):
        bucket_of(Access(ca_bundle=tmp_path / "ca.pem"))
    with pytest.raises(BackstayError, match=r"missing.pem"):
        bucket_of(environment={"AWS_CA_BUNDLE": str(tmp_path / "missing.pem")})
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nhello\n")
    with pytest.raises(BackstayError, match="look at the CA bundle"):
        bucket_of(Access(ca_bundle=tmp_path / "ca.pem"))


def test_a_container_is_in_a_storage_account():
    for environment in ({}, {"AZURE_STORAGE_ACCOUNT": ""}, {"AZURE_STORAGE_ACCOUNT": "a/b"}):
        with pytest.raises(UsageError, match="AZURE_STORAGE_ACCOUNT"):
            open_store("az://container/a", None, environment)
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"):
        store = open_store("az://container/a", None, {name: "mine"})
        assert store.url == "az://container/a"
        assert store.bucket.server == "https://mine.blob.core.windows.net"


@pytest.mark.parametrize(
    ("url", "name"), [("gs://b1", "GOOGLE_BASE_URL"), ("az://c1", "AZURE_STORAGE_ENDPOINT")]
)
def test_other_servers_of_google_and_azure_are_named_by_their_variables(url, name, monkeypatch):
    environment = {"AZURE_STORAGE_ACCOUNT": "mine", name: "https://server:4443/mine/"}
    # What S3 is told is not theirs.
    access = Access(endpoint="https://s3:9000", region="here")
    assert open_store(url, access, environment).bucket.endpoint == "https://server:4443/mine"
    for wrong, match in (
        ("http://server", "--allow-http"),
        ("server", "endpoint"),
        ("https://SECRET@server", "leave them out"),
    ):
        with pytest.raises(UsageError, match=match) as caught:
            open_store(url, access, environment | {name: wrong})
        assert "SECRET" not in str(caught.value)
