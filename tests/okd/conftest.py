import shutil

import pytest

from kit import okd_pair
from kit.cli import Cli
from kit.kubeserver import KubeServer
from kit.okd_api import okd_api
from kit.okd_host import OkdHost, okd_etcd
from kit.okd_places import Places


@pytest.fixture(scope="session")
def etcd(tmp_path_factory):
    """A real etcd with a real kube-apiserver's data, at an address of its own."""
    with okd_etcd(tmp_path_factory.mktemp("okd-etcd")) as etcd:
        yield etcd


@pytest.fixture
def host(tmp_path, etcd):
    """The files of a control plane host whose etcd that is."""
    return OkdHost.make(tmp_path / "host", etcd)


@pytest.fixture(scope="session")
def cluster_api(tmp_path_factory):
    """The API of a cluster that is well."""
    with KubeServer.start(tmp_path_factory.mktemp("okd-kube")) as kube:
        okd_api(kube)
        yield kube


@pytest.fixture
def cli(tmp_path, cluster_api):
    """The program, with the API of a cluster and two repositories for what it backs up."""
    home = tmp_path / "home"
    home.mkdir()
    cli = Cli(home, {"KUBECONFIG": str(cluster_api.kubeconfig)})
    recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
    for name, role in (("data", "data"), ("keys", "keys")):
        url = f"file://{tmp_path}/{name}"
        cli("init", "--repo", url, "--role", role, "--recipient", recipient)
        cli.variables["BACKSTAY_REPO" if role == "data" else "BACKSTAY_KEYS_REPO"] = url
    return cli


@pytest.fixture(scope="session")
def okd_data(tmp_path_factory):
    """A snapshot file of an OKD cluster's etcd."""
    folder = tmp_path_factory.mktemp("okd-etcd")
    with okd_pair.okd_etcd(folder) as etcd:
        return okd_pair.snapshot_of(etcd, folder)


@pytest.fixture(scope="session")
def made(tmp_path_factory, okd_data):
    """Two repositories with a backup that was made of a pair, and its ID; not to be changed."""
    root = tmp_path_factory.mktemp("made")
    places = Places.make(root)
    okd_pair.write_pair(root / "assets", okd_data)
    return places, places.imported(root / "assets")


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """Two repositories without a backup; not to be changed."""
    return Places.make(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def places(request, tmp_path):
    """Two repositories in directories, and the program that knows them.

    They have a backup where the test asks for that, too.
    """
    if "backup" not in request.fixturenames:
        return request.getfixturevalue("empty").copy(tmp_path)
    source, _ = request.getfixturevalue("made")
    shutil.copytree(source.root / "assets", tmp_path / "assets")
    return source.copy(tmp_path)


@pytest.fixture
def backup(places, made):
    """The ID of a backup of a pair, in `places`; the pair is in `assets`."""
    return made[1]


@pytest.fixture
def kube(tmp_path, cli):
    """The API of the host's cluster; all is well."""
    with KubeServer.start(tmp_path / "kube") as kube:
        okd_api(kube)
        cli.variables["KUBECONFIG"] = str(kube.kubeconfig)
        yield kube


@pytest.fixture
def no_api(tmp_path, cli, monkeypatch):
    """Nothing says where the API is."""
    cli.variables.pop("KUBECONFIG", None)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
