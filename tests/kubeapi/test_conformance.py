"""What our calls mean to an API server, the emulated one and, where there is one, a real one.

One suite for both: where the emulation behaves otherwise than Kubernetes, this fails for one of
them. The real one runs where KUBEBUILDER_ASSETS names a directory with etcd and kube-apiserver.
"""

import base64
import itertools
import os
from contextlib import contextmanager

import pytest

from backstay.errors import (
    KubeConflictError,
    KubeError,
    KubeForbiddenError,
    KubeLoginError,
    KubeNotFoundError,
)
from backstay.kubeapi import api as module
from backstay.kubeapi.connect import connect
from backstay.kubeapi.resource import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    HOSTED_CLUSTERS,
    NAMESPACES,
    NODE_POOLS,
    PODS,
    SECRETS,
    Resource,
)
from kit.apiserver import VARIABLE, ApiServer
from kit.kubeserver import KubeServer, kubeconfig

SERVERS = ["emulated", *(["real"] if os.environ.get(VARIABLE) else [])]
NUMBERS = itertools.count()
VALUE = bytes(range(256))


class Emulated:
    """The emulated server, as this suite wants it."""

    rules = True

    def __init__(self, kube):
        self.kube, self.kubeconfig = kube, kube.kubeconfig

    @contextmanager
    def powerless(self):
        self.kube.only([])
        try:
            with connect(self.kubeconfig, None) as api:
                yield api
        finally:
            self.kube.allow()


class Real:
    """A real one."""

    def __init__(self, server):
        self.rules, self.kubeconfig, self._server = server.rules, server.kubeconfig, server

    @contextmanager
    def powerless(self):
        with connect(self._server.powerless, None) as api:
            yield api


@pytest.fixture(scope="module", params=SERVERS)
def cluster(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kube")
    if request.param == "real":
        with ApiServer.start(folder) as server:
            yield Real(server)
    else:
        with KubeServer.start(folder) as kube:
            yield Emulated(kube)


@pytest.fixture
def api(cluster):
    with connect(cluster.kubeconfig, None) as api:
        yield api


@pytest.fixture
def space(api):
    """A namespace of its own for each test."""
    name = f"conformance-{next(NUMBERS)}"
    return api.create(
        NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )["metadata"]["name"]


def of(resource, name, **more):
    metadata = {"name": name} | more.pop("metadata", {})
    head = {"apiVersion": resource.api_version, "kind": resource.kind}
    return head | {"metadata": metadata} | more


def secret(name="key", **more):
    return of(SECRETS, name, data={"key": base64.b64encode(VALUE).decode()}, **more)


def deployment(name, replicas):
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": "registry.invalid/image"}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return of(DEPLOYMENTS, name, spec=spec)


def hosted_cluster(name="blue", **spec):
    return of(HOSTED_CLUSTERS, name, spec=spec)


def managed(**storage):
    kept = {"type": "PersistentVolume"} | storage
    return {"managementType": "Managed", "managed": {"storage": kept}}


def test_what_was_created_is_got(api, space):
    made = api.create(SECRETS, secret(metadata={"labels": {"a": "b"}}), space)
    got = api.get(SECRETS, "key", space)
    assert got == made
    assert (got["apiVersion"], got["kind"], got["type"]) == ("v1", "Secret", "Opaque")
    assert base64.b64decode(got["data"]["key"]) == VALUE
    metadata = got["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("key", space)
    assert metadata["uid"]
    assert metadata["resourceVersion"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert metadata["labels"] == {"a": "b"}


@pytest.mark.parametrize("name", ["a.b-c.d", "0", "x" * 253, "status", "namespaces", "log"])
def test_odd_names_that_are_names(api, space, name):
    api.create(CONFIG_MAPS, of(CONFIG_MAPS, name, data={"a": "b"}), space)
    assert api.get(CONFIG_MAPS, name, space)["data"] == {"a": "b"}
    api.patch(CONFIG_MAPS, name, {"data": {"a": "c"}}, space)
    assert [it["metadata"]["name"] for it in api.list(CONFIG_MAPS, space) if "data" in it] == [name]
    api.delete(CONFIG_MAPS, name, space)
    assert api.find(CONFIG_MAPS, name, space) is None


@pytest.mark.parametrize("name", ["A", "a_b", "-a", "a..b/", "x" * 254, "a b", "\u00fc", "a?x=1"])
def test_what_is_no_name_is_refused_where_it_is_created(api, space, name):
    with pytest.raises(KubeError, match=r"422, .*metadata\.name"):
        api.create(CONFIG_MAPS, of(CONFIG_MAPS, name), space)


@pytest.mark.parametrize(
    "name", ["key/status", "../secrets/key", "..", ".", "%6bey", "key\n", "k\0"]
)
def test_no_name_leads_to_another_object(api, space, name):
    api.create(SECRETS, secret(), space)
    for call in (api.get, api.delete, lambda *a: api.patch(a[0], a[1], {"data": {}}, a[2])):
        if call == api.delete:
            call(SECRETS, name, space)
        else:
            with pytest.raises(KubeNotFoundError):
                call(SECRETS, name, space)
    assert api.get(SECRETS, "key", space)["data"]
    with pytest.raises(KubeNotFoundError):
        api.get(SECRETS, "key", f"{space}/secrets/key?")


@pytest.mark.parametrize("name", ["key?watch=true", "key#a", "key;a", "k\u00e9y", "key "])
def test_what_could_be_taken_for_more_than_a_name_is_not_found(api, space, name):
    api.create(SECRETS, secret(), space)
    assert api.find(SECRETS, name, space) is None


def test_what_exists_is_not_created_again(api, space):
    before = api.create(SECRETS, secret(), space)
    with pytest.raises(KubeConflictError, match="already exists"):
        api.create(SECRETS, of(SECRETS, "key", data={}), space)
    assert api.get(SECRETS, "key", space) == before


def test_what_is_not_there(api, space):
    assert api.find(SECRETS, "key", space) is None
    with pytest.raises(KubeNotFoundError, match='secrets "key" not found'):
        api.get(SECRETS, "key", space)
    with pytest.raises(KubeNotFoundError):
        api.patch(SECRETS, "key", {"data": {}}, space)
    api.delete(SECRETS, "key", space)
    assert api.list(SECRETS, space) == []


def test_a_kind_that_the_server_does_not_have(api, space):
    unknown = Resource("no.example.com", "v1", "things", "Thing")
    with pytest.raises(KubeNotFoundError):
        api.list(unknown, space)
    assert api.find(unknown, "one", space) is None


def test_nothing_is_created_in_a_namespace_that_is_not_there(api):
    with pytest.raises(KubeNotFoundError, match="namespaces"):
        api.create(SECRETS, secret(), "nowhere")
    assert api.list(SECRETS, "nowhere") == []


def test_a_patch_takes_on_that_version_alone(api, space):
    old = api.create(HOSTED_CLUSTERS, hosted_cluster(pausedUntil="false"), space)
    version = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}}
    new = api.patch(HOSTED_CLUSTERS, "blue", version | {"spec": {"pausedUntil": "true"}}, space)
    assert new["spec"]["pausedUntil"] == "true"
    assert new["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]
    assert new["metadata"]["uid"] == old["metadata"]["uid"]
    with pytest.raises(KubeConflictError, match="modified"):
        api.patch(HOSTED_CLUSTERS, "blue", version | {"spec": {"pausedUntil": "false"}}, space)
    assert api.get(HOSTED_CLUSTERS, "blue", space) == new


def test_a_patch_that_changes_nothing_makes_no_version(api, space):
    old = api.create(HOSTED_CLUSTERS, hosted_cluster(pausedUntil="true"), space)
    new = api.patch(HOSTED_CLUSTERS, "blue", {"spec": {"pausedUntil": "true"}}, space)
    assert new["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"]


def test_null_takes_away_and_lists_are_replaced(api, space):
    document = hosted_cluster(pausedUntil="true", labels={"a": 1, "b": 2}, names=[1, 2, 3])
    document["metadata"]["annotations"] = {"backstay.dev/quiesced": "{}", "other": "stays"}
    api.create(HOSTED_CLUSTERS, document, space)
    changes = {
        "metadata": {"annotations": {"backstay.dev/quiesced": None}},
        "spec": {"pausedUntil": None, "labels": {"a": None, "c": {"d": 3}}, "names": [9]},
    }
    new = api.patch(HOSTED_CLUSTERS, "blue", changes, space)
    assert new["metadata"]["annotations"] == {"other": "stays"}
    assert new["spec"] == {"labels": {"b": 2, "c": {"d": 3}}, "names": [9]}
    again = api.patch(HOSTED_CLUSTERS, "blue", changes, space)
    assert again["spec"] == new["spec"]


def test_scaling(api, space):
    made = api.create(DEPLOYMENTS, deployment("kube-apiserver", 3), space)
    assert made["spec"]["replicas"] == 3
    none = api.patch(DEPLOYMENTS, "kube-apiserver", {"spec": {"replicas": 0}}, space)
    assert none["spec"]["replicas"] == 0
    assert none["metadata"]["generation"] == made["metadata"]["generation"] + 1
    assert none["spec"]["template"] == made["spec"]["template"]
    back = api.patch(DEPLOYMENTS, "kube-apiserver", {"spec": {"replicas": 3}}, space)
    assert back["spec"] == made["spec"]


def test_scaling_by_the_scale_of_a_deployment(api, space):
    made = api.create(DEPLOYMENTS, deployment("kube-apiserver", 3), space)
    version = {"resourceVersion": made["metadata"]["resourceVersion"]}
    # All that is no number of replicas is passed over.
    image = {"spec": {"containers": [{"name": "main", "image": "registry.invalid/other"}]}}
    more = {
        "metadata": version | {"labels": {"a": "b"}},
        "spec": {"replicas": 0, "template": image},
    }
    scale = api.patch(DEPLOYMENTS, "kube-apiserver", more, space, subresource="scale")
    assert (scale["apiVersion"], scale["kind"]) == ("autoscaling/v1", "Scale")
    assert scale["spec"].get("replicas", 0) == 0
    assert scale["status"]["selector"] == "app=kube-apiserver"
    now = api.get(DEPLOYMENTS, "kube-apiserver", space)
    for field in ("name", "namespace", "uid", "resourceVersion"):
        assert scale["metadata"][field] == now["metadata"][field]
    assert now["metadata"]["resourceVersion"] != version["resourceVersion"]
    assert now["metadata"]["generation"] == made["metadata"]["generation"] + 1
    assert now["spec"] == made["spec"] | {"replicas": 0}
    assert not now["metadata"].get("labels")
    # The version of the Deployment is that of its Scale.
    with pytest.raises(KubeConflictError, match="modified"):
        api.patch(
            *(DEPLOYMENTS, "kube-apiserver", {"metadata": version, "spec": {"replicas": 2}}, space),
            subresource="scale",
        )
    assert api.get(DEPLOYMENTS, "kube-apiserver", space) == now
    version = {"resourceVersion": now["metadata"]["resourceVersion"]}
    back = {"metadata": version, "spec": {"replicas": 3}}
    scale = api.patch(DEPLOYMENTS, "kube-apiserver", back, space, subresource="scale")
    assert scale["spec"] == {"replicas": 3}
    assert api.get(DEPLOYMENTS, "kube-apiserver", space)["spec"] == made["spec"]


def test_what_has_no_scale_or_is_not_there_is_not_scaled(api, space):
    api.create(CONFIG_MAPS, of(CONFIG_MAPS, "map"), space)
    for resource, name in ((CONFIG_MAPS, "map"), (DEPLOYMENTS, "none")):
        with pytest.raises(KubeNotFoundError):
            api.patch(resource, name, {"spec": {"replicas": 0}}, space, subresource="scale")
    api.create(DEPLOYMENTS, deployment("some", 1), space)
    with pytest.raises(KubeError, match=r"422, .*replicas"):
        api.patch(DEPLOYMENTS, "some", {"spec": {"replicas": -1}}, space, subresource="scale")
    assert api.get(DEPLOYMENTS, "some", space)["spec"]["replicas"] == 1


def test_status_is_written_by_itself(api, space):
    api.create(HOSTED_CLUSTERS, hosted_cluster(pausedUntil="true") | {"status": {"a": "x"}}, space)
    assert not api.get(HOSTED_CLUSTERS, "blue", space).get("status")
    changes = {"status": {"a": "b"}, "spec": {"pausedUntil": "false"}}
    new = api.patch(HOSTED_CLUSTERS, "blue", changes, space, subresource="status")
    assert (new["status"], new["spec"]["pausedUntil"]) == ({"a": "b"}, "true")
    new = api.patch(HOSTED_CLUSTERS, "blue", {"status": {"a": "c"}}, space)
    assert new["status"] == {"a": "b"}


@pytest.mark.parametrize("size", [1, 2, 5, 250])
def test_a_list_comes_in_pages_and_is_whole(api, space, monkeypatch, size):
    monkeypatch.setattr(module, "PAGE", size)
    names = [f"map-{number}" for number in range(5)]
    for name in reversed(names):
        api.create(CONFIG_MAPS, of(CONFIG_MAPS, name), space)
    found = [it for it in api.list(CONFIG_MAPS, space) if it["metadata"]["name"] in names]
    assert [it["metadata"]["name"] for it in found] == names
    assert {(it["apiVersion"], it["kind"]) for it in found} == {("v1", "ConfigMap")}
    everywhere = [it["metadata"]["namespace"] for it in api.list(CONFIG_MAPS)]
    assert everywhere.count(space) >= 5


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=etcd", ["a", "b"]),
        ("app==etcd,shard=main", ["b"]),
        ("app!=etcd", ["c", "d"]),
        ("app in (etcd, kas)", ["a", "b", "c"]),
        ("app notin (etcd)", ["c", "d"]),
        ("shard", ["b"]),
        ("!app", ["d"]),
        ("app=none", []),
    ],
)
def test_a_list_by_labels(api, space, selector, names):
    all_labels = {
        "a": {"app": "etcd"},
        "b": {"app": "etcd", "shard": "main"},
        "c": {"app": "kas"},
        "d": {},
    }
    for name, labels in all_labels.items():
        api.create(SECRETS, secret(name, metadata={"labels": labels}), space)
    found = api.list(SECRETS, space, selector=selector)
    assert [it["metadata"]["name"] for it in found] == names


def test_a_selector_that_is_none(api, space):
    with pytest.raises(KubeError, match="400"):
        api.list(SECRETS, space, selector="a=b=c")


def test_only_that_very_object_is_deleted(api, space):
    uid = api.create(SECRETS, secret(), space)["metadata"]["uid"]
    with pytest.raises(KubeConflictError):
        api.delete(SECRETS, "key", space, uid="00000000-0000-0000-0000-000000000000")
    assert api.find(SECRETS, "key", space)
    api.delete(SECRETS, "key", space, uid=uid)
    assert api.find(SECRETS, "key", space) is None


def test_a_finalizer_keeps_what_is_deleted(api, space):
    document = hosted_cluster()
    document["metadata"]["finalizers"] = ["hypershift.openshift.io/finalizer"]
    api.create(HOSTED_CLUSTERS, document, space)
    api.delete(HOSTED_CLUSTERS, "blue", space)
    assert api.get(HOSTED_CLUSTERS, "blue", space)["metadata"]["deletionTimestamp"]
    api.patch(HOSTED_CLUSTERS, "blue", {"metadata": {"finalizers": None}}, space)
    assert api.find(HOSTED_CLUSTERS, "blue", space) is None


def test_what_we_may_not(api, cluster, space):
    api.create(SECRETS, secret(), space)
    with cluster.powerless() as powerless:
        calls = (
            lambda: powerless.get(SECRETS, "key", space),
            lambda: powerless.find(SECRETS, "none", space),
            lambda: powerless.list(SECRETS, space),
            lambda: powerless.create(SECRETS, secret("other"), space),
            lambda: powerless.patch(SECRETS, "key", {"data": None}, space),
            lambda: powerless.patch(DEPLOYMENTS, "key", {}, space, subresource="scale"),
            lambda: powerless.delete(SECRETS, "key", space),
        )
        for call in calls:
            with pytest.raises(KubeForbiddenError, match="cannot") as caught:
                call()
            assert not isinstance(caught.value, KubeLoginError)
            assert "roles" in caught.value.do
    assert api.get(SECRETS, "key", space)["data"]
    assert api.find(SECRETS, "other", space) is None


def test_asking_what_we_may(api, cluster, space):
    questions = (
        ("get", SECRETS, {"name": "key"}),
        ("list", NODE_POOLS, {}),
        ("create", PODS, {"subresource": "exec"}),
        ("patch", DEPLOYMENTS, {"subresource": "scale"}),
    )
    for verb, resource, more in questions:
        assert api.may(verb, resource, space, **more)
        with cluster.powerless() as powerless:
            assert not powerless.may(verb, resource, space, **more)


def test_a_login_that_nobody_knows(cluster, tmp_path, api):
    known = api.transport.credentials
    stranger = kubeconfig(tmp_path, known.server, b"", "a-token-of-nobody")
    text = stranger.read_text().replace(
        '"certificate-authority-data": ""', '"insecure-skip-tls-verify": true'
    )
    stranger.write_text(text)
    with connect(stranger, None) as other, pytest.raises(KubeLoginError) as caught:
        other.get(NAMESPACES, "default")
    assert "a-token-of-nobody" not in f"{caught.value!r}{caught.value}"


URL = "https://bucket.example.com/snapshot.db?signature=a"
PLAIN = [
    ({"pausedUntil": "now"}, "pausedUntil"),
    ({"pausedUntil": "2026-01-01T00:00:00Z" + "0" * 16}, "pausedUntil"),
    ({"pausedUntil": 1}, "pausedUntil"),
    ({"etcd": {"managementType": "Mine"}}, "managementType"),
    ({"etcd": {}}, "managementType"),
    ({"etcd": managed(restoreSnapshotURL=[URL, f"{URL}b"])}, "restoreSnapshotURL"),
    ({"etcd": managed(restoreSnapshotURL=[f"{URL}{'x' * 1024}"])}, "restoreSnapshotURL"),
    ({"etcd": managed(restoreSnapshotURL=URL)}, "restoreSnapshotURL"),
    ({"etcd": managed(type="EmptyDir")}, "type"),
    ({"secretEncryption": {"type": "aesgcm"}}, "type"),
    ({"secretEncryption": {"type": "aescbc", "aescbc": {}}}, "activeKey"),
]
RULES = [
    ({"pausedUntil": "null"}, "pausedUntil"),
    ({"pausedUntil": "TRUE"}, "pausedUntil"),
    ({"pausedUntil": "2026-01-01"}, "pausedUntil"),
    ({"etcd": managed(restoreSnapshotURL=["http://bucket/snapshot"])}, "restoreSnapshotURL"),
    ({"etcd": managed(restoreSnapshotURL=["file:///snapshot.db"])}, "restoreSnapshotURL"),
]
FINE = [
    {},
    {"pausedUntil": "true"},
    {"pausedUntil": "False"},
    {"pausedUntil": "2026-11-20T23:10:00Z"},
    {"pausedUntil": "2026-11-20T23:10:00"},  # and yet it does not pause: it is no RFC 3339
    {"etcd": managed(restoreSnapshotURL=[URL], persistentVolume={"size": "8Gi"})},
    {"etcd": managed(restoreSnapshotURL=["s3://bucket/snapshot.db"])},
    {"secretEncryption": {"type": "aescbc", "aescbc": {"activeKey": {"name": "key"}}}},
    {"platform": {"type": "AWS", "aws": {"region": "eu-central-1"}}, "somethingNew": [{"a": 1}]},
]


@pytest.mark.parametrize(("spec", "field"), [*PLAIN, *RULES])
def test_a_hosted_cluster_that_is_refused(api, cluster, space, spec, field):
    if (spec, field) in RULES and not cluster.rules:
        return  # a server that knows no rules: the emulated one holds them
    with pytest.raises(KubeError, match=rf"422, .*{field}"):
        api.create(HOSTED_CLUSTERS, hosted_cluster(**spec), space)
    assert api.find(HOSTED_CLUSTERS, "blue", space) is None


@pytest.mark.parametrize("spec", FINE)
def test_a_hosted_cluster_that_is_taken_as_it_is(api, space, spec):
    assert api.create(HOSTED_CLUSTERS, hosted_cluster(**spec), space)["spec"] == spec


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (managed(restoreSnapshotURL=[URL]), managed(restoreSnapshotURL=[f"{URL}b"])),
        (managed(restoreSnapshotURL=[URL]), managed(restoreSnapshotURL=None)),
        (managed(), managed(restoreSnapshotURL=[URL])),
        (
            managed(persistentVolume={"size": "8Gi"}),
            managed(persistentVolume={"size": "9Gi"}),
        ),
        (managed(), {"managementType": "Unmanaged"}),
    ],
)
def test_what_never_changes_in_a_hosted_cluster(api, cluster, space, before, after):
    if not cluster.rules:
        return
    made = api.create(HOSTED_CLUSTERS, hosted_cluster(etcd=before), space)
    with pytest.raises(KubeError, match="422, "):
        api.patch(HOSTED_CLUSTERS, "blue", {"spec": {"etcd": after}}, space)
    assert api.get(HOSTED_CLUSTERS, "blue", space) == made
    # What is not touched does not hinder.
    api.patch(HOSTED_CLUSTERS, "blue", {"spec": {"pausedUntil": "true"}}, space)


def test_a_node_pool_has_a_rule_of_its_own(api, cluster, space):
    with pytest.raises(KubeError, match=r"422, .*pausedUntil"):
        api.create(NODE_POOLS, of(NODE_POOLS, "pool", spec={"pausedUntil": ""}), space)
    api.create(NODE_POOLS, of(NODE_POOLS, "pool", spec={"pausedUntil": "true"}), space)
    if cluster.rules:
        with pytest.raises(KubeError, match=r"422, .*pausedUntil"):
            api.patch(NODE_POOLS, "pool", {"spec": {"pausedUntil": "yes"}}, space)
