import pytest

from backstay.kubeapi.connect import connect
from kit.kubeserver import KubeServer


@pytest.fixture
def kube(tmp_path):
    """A Kubernetes API with nothing in it."""
    with KubeServer.start(tmp_path / "kube") as kube:
        yield kube


@pytest.fixture
def api(kube):
    """Our way into it."""
    with connect(kube.kubeconfig, None) as api:
        yield api
