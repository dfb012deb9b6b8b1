import pytest

from kit.cli import Cli
from kit.okd_host import OkdHost, okd_etcd


@pytest.fixture(scope="session")
def etcd(tmp_path_factory):
    """A real etcd with a real kube-apiserver's data, at an address of its own."""
    with okd_etcd(tmp_path_factory.mktemp("okd-etcd")) as etcd:
        yield etcd


@pytest.fixture
def host(tmp_path, etcd):
    """The files of a control plane host whose etcd that is."""
    return OkdHost.make(tmp_path / "host", etcd)


@pytest.fixture
def cli(tmp_path):
    """The program, with two repositories for what it backs up."""
    home = tmp_path / "home"
    home.mkdir()
    cli = Cli(home)
    recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
    for name, role in (("data", "data"), ("keys", "keys")):
        url = f"file://{tmp_path}/{name}"
        cli("init", "--repo", url, "--role", role, "--recipient", recipient)
        cli.variables["BACKSTAY_REPO" if role == "data" else "BACKSTAY_KEYS_REPO"] = url
    return cli
