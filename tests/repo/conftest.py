"""The stores that the behaviour suite runs against: all kinds, all real."""

import secrets

import pytest

from backstay.repo.stores import gs
from backstay.repo.stores.az import AzStore, Container
from backstay.repo.stores.file import FileStore
from backstay.repo.stores.gs import GsStore
from backstay.repo.stores.s3 import Bucket, Limits, S3Store
from kit import azurite, gcs, s3

#: Patient enough for a busy machine, and short enough for a test.
QUICK = Limits(connect=5, answer=10, part=30, silence=10, patience=2, perseverance=5)


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory):
    with s3.plain(tmp_path_factory.mktemp("plain") / "s3") as server:
        yield server


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory):
    with s3.over_tls(tmp_path_factory.mktemp("tls") / "s3") as server:
        yield server


@pytest.fixture(scope="session")
def conditional_server():
    with s3.conditional() as server:
        yield server


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory):
    with azurite.running(tmp_path_factory.mktemp("azure")) as server:
        yield server


@pytest.fixture(scope="session")
def google_server():
    with gcs.running() as server:
        yield server


@pytest.fixture
def az_store(monkeypatch, azure_server):
    """Make a store in azurite's container, below a prefix of its own unless told otherwise."""

    def make(*, limits=QUICK, trusting=True, **more):
        monkeypatch.setenv("AZURE_STORAGE_KEY", azurite.KEY)
        container = {
            "name": azurite.CONTAINER,
            "prefix": f"{secrets.token_hex(4)}/deep",
            "account": azurite.ACCOUNT,
            "endpoint": azure_server.endpoint,
            "authorities": azure_server.authority.read_bytes() if trusting else b"",
        }
        return AzStore(Container(**(container | more)), limits)

    return make


@pytest.fixture
def gs_store(monkeypatch, google_server):
    """Make a store on the stand-in for Google's."""

    def make(*, limits=QUICK, **more):
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", gcs.TOKEN)
        place = {
            "name": gcs.BUCKET,
            "prefix": f"{secrets.token_hex(4)}/deep",
            "endpoint": google_server.endpoint,
            "allow_http": True,
        }
        return GsStore(gs.Bucket(**(place | more)), limits)

    return make


@pytest.fixture
def s3_store(monkeypatch):
    """Make a store in a bucket of a server, below a prefix of its own unless told otherwise."""

    def make(server, *, limits=QUICK, name=s3.BUCKET, trusting=True, **more):
        monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        trusted = server.authority.read_bytes() if server.authority and trusting else b""
        bucket = {
            "name": name,
            "prefix": f"{secrets.token_hex(4)}/deep",
            "endpoint": server.endpoint,
            "allow_http": server.endpoint.startswith("http:"),
            "authorities": trusted,
        }
        return S3Store(Bucket(**(bucket | more)), limits)

    return make


@pytest.fixture
def make_store(request, tmp_path, s3_store):
    """Make a store of a kind."""

    def make(kind):
        if kind.startswith("file"):
            return FileStore(tmp_path / "repo", unnamed=kind == "file")
        if kind in {"az", "gs"}:
            return request.getfixturevalue(f"{kind}_store")()
        return s3_store(request.getfixturevalue(kind.removeprefix("s3-") + "_server"))

    return make


@pytest.fixture(params=["file", "file-hidden", "s3-plain", "s3-tls", "az", "gs"])
def store(request, make_store):
    """A store of each kind."""
    return make_store(request.param)


@pytest.fixture(params=["file", "file-hidden", "s3-plain", "s3-tls", "s3-conditional", "az", "gs"])
def any_store(request, make_store):
    """The same, and one on a server that honours create-only puts, which is slow to start."""
    return make_store(request.param)
