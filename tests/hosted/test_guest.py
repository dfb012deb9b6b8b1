"""The hosted cluster's own API, by a kubeconfig out of a Secret: a real one, and hostile ones."""

import base64
import json

import pytest

from backstay.clock import SystemClock
from backstay.errors import KubeError, KubeNotFoundError
from backstay.kinds.hosted.cluster import Hosted
from backstay.kinds.hosted.recovery.canary import Canary, digest
from backstay.kinds.hosted.recovery.guest import open_guest, read_kubeconfig
from backstay.kinds.hosted.recovery.restored import Expected, prove_api
from backstay.kubeapi.resource import SECRETS
from backstay.report import Report, Verdict
from kit.kubeserver import KubeServer


@pytest.fixture
def management(kube):
    """The API of the management cluster."""
    return kube


def hosted(status=None):
    return Hosted(
        name="blue",
        namespace="clusters",
        control_plane_namespace="clusters-blue",
        hosted_cluster={"status": status or {}},
    )


def keep(management, text, name="blue-admin-kubeconfig"):
    """Have the management cluster keep a kubeconfig."""
    data = text if isinstance(text, bytes) else text.encode()
    return management.put(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "clusters"},
            "data": {"kubeconfig": base64.b64encode(data).decode()},
        }
    )


def test_a_canary_is_read_through_the_hosted_clusters_own_api(management, api, tmp_path):
    with KubeServer.start(tmp_path / "guest") as guest:
        there = guest.put(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "a", "namespace": "shop"},
                "data": {"password": base64.b64encode(b"x").decode()},
            }
        )
        revision = int(there["metadata"]["resourceVersion"])
        canary = Canary("shop", "a", revision, digest({"password": b"x"}))
        keep(management, guest.kubeconfig.read_bytes())
        expected = Expected(revision=1, keys=1, canaries=(canary,))
        check = prove_api(
            lambda: open_guest(api, hosted()), expected, clock=SystemClock(), report=Report()
        )
        assert check.verdict is Verdict.PASS
        assert [(seen.verb, seen.name) for seen in guest.requests] == [("get", "a")]
    # The server is gone: that says nothing of the restore.
    gone = prove_api(
        lambda: open_guest(api, hosted()), expected, clock=SystemClock(), report=Report()
    )
    assert gone.verdict is Verdict.COULD_NOT_VERIFY


def test_the_kubeconfig_is_the_one_that_the_status_names(management, api):
    keep(management, "kind: Config", name="its-own")
    named = hosted({"kubeconfig": {"name": "its-own"}})
    assert read_kubeconfig(api, named) == b"kind: Config"
    with pytest.raises(KubeNotFoundError):
        read_kubeconfig(api, hosted())


@pytest.mark.parametrize(
    "data", [{}, {"kubeconfig": "%%"}, {"kubeconfig": 7}, {"kubeconfig": ""}, None]
)
def test_a_secret_without_a_kubeconfig_is_told(management, api, data):
    management.put(keep(management, "x: y") | {"data": data})
    with pytest.raises(KubeError, match="has no kubeconfig"):
        read_kubeconfig(api, hosted())


def config(user=None, cluster=None):
    return json.dumps(
        {
            "users": [{"name": "u", "user": user or {}}],
            "clusters": [{"name": "c", "cluster": cluster or {}}],
        }
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (config({"exec": {"command": "/bin/touch", "args": ["x"]}}), "`exec`"),
        (config({"auth-provider": {}}), "`auth-provider`"),
        (config({"client-key": "/etc/shadow"}), "`client-key`"),
        (config({"tokenFile": "/etc/shadow"}), "`tokenFile`"),
        (config(cluster={"insecure-skip-tls-verify": True}), "`insecure-skip-tls-verify`"),
        (config(cluster={"certificate-authority": "/etc/shadow"}), "`certificate-authority`"),
        ("a: &x [1]\nb: *x", "can't be read"),
        (b"\xff\xfe", "can't be read"),
    ],
)
def test_promise_5_a_kubeconfig_that_names_programs_or_files_is_not_used(
    management, api, text, words
):
    keep(management, text)
    with pytest.raises(KubeError) as caught, open_guest(api, hosted()):
        raise AssertionError("it was used")
    assert words in str(caught.value)


def test_what_leads_nowhere_is_an_error_of_ours(management, api):
    keep(management, "kind: Config")
    with pytest.raises(KubeError, match="unusable"), open_guest(api, hosted()):
        raise AssertionError("it was used")
    management.remove(SECRETS, "blue-admin-kubeconfig", "clusters")
