"""Finding a hosted control plane, through a server of the Kubernetes API."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.errors import BackstayError, KubeError, KubeNotFoundError, UsageError
from backstay.kinds.hosted.cluster import Hosted, at, control_plane_namespace, is_name
from backstay.kinds.hosted.find import find, pods_of, shard_names
from backstay.kubeapi.resource import HOSTED_CLUSTERS
from kit.hosted import ETCD_IMAGE, RELEASE, hosted_objects, load, one, without


def test_a_whole_cluster(kube, api):
    load(kube, hosted_objects())
    hosted = find(api, "blue", "clusters")
    assert hosted.cluster == "clusters.blue"
    assert hosted.control_plane_namespace == "clusters-blue"
    assert (hosted.platform, hosted.encryption) == ("AWS", "aescbc")
    assert hosted.control_plane["kind"] == "HostedControlPlane"
    assert [at(p, "metadata.name", "") for p in hosted.node_pools] == ["blue-infra", "blue-workers"]
    (shard,) = hosted.shards
    assert (shard.name, shard.service, shard.replicas) == ("etcd", "etcd-client", 3)
    assert [pod.name for pod in shard.pods] == ["etcd-0", "etcd-1", "etcd-2"]
    assert all(pod.ready and pod.image == ETCD_IMAGE for pod in shard.pods)
    assert hosted.unmanaged is None


def test_node_pools_of_others_are_left_out(kube, api):
    load(kube, hosted_objects("blue"))
    load(kube, hosted_objects("blue2"))
    names = {at(p, "metadata.name", "") for p in find(api, "blue", "clusters").node_pools}
    assert names == {"blue-infra", "blue-workers"}


def test_dots_become_dashes(kube, api):
    load(kube, hosted_objects("prod.eu.blue"))
    hosted = find(api, "prod.eu.blue", "clusters")
    assert hosted.control_plane_namespace == "clusters-prod-eu-blue"
    assert len(hosted.shards[0].pods) == 3


def test_a_namespace_that_another_cluster_has_is_not_looked_into(kube, api):
    load(kube, hosted_objects("a-b"))
    dotted = hosted_objects("a.b")
    kube.put(one(dotted, "HostedCluster"))
    hosted = find(api, "a.b", "clusters")
    assert hosted.control_plane_namespace == control_plane_namespace("clusters", "a-b")
    assert hosted.control_plane is None
    assert hosted.shards == ()


def test_a_control_plane_of_another_cluster(kube, api):
    objects = hosted_objects("blue")
    annotations = one(objects, "HostedControlPlane")["metadata"]["annotations"]
    annotations["hypershift.openshift.io/cluster"] = "clusters-blue/other"
    load(kube, objects)
    with pytest.raises(KubeError, match="'clusters-blue/other', not of clusters/blue"):
        find(api, "blue", "clusters")


def test_shards(kube, api):
    # A shard called `0` has the StatefulSet etcd-0, as the first pod of `etcd` is called.
    load(kube, hosted_objects(shards=("events", "0"), members=1))
    found = {shard.name: shard for shard in find(api, "blue", "clusters").shards}
    assert list(found) == ["etcd", "etcd-events", "etcd-0"]
    assert [shard.service for shard in found.values()] == [
        "etcd-client",
        "etcd-client-events",
        "etcd-client-0",
    ]
    pods = {name: [pod.name for pod in shard.pods] for name, shard in found.items()}
    assert pods == {"etcd": ["etcd-0"], "etcd-events": ["etcd-events-0"], "etcd-0": ["etcd-0-0"]}


def test_unmanaged(kube, api):
    objects = hosted_objects(unmanaged="https://etcd.example:2379")
    spec = one(objects, "HostedCluster")["spec"]["etcd"]["unmanaged"]
    spec["shards"] = [{"name": "events", "endpoint": "https://events.example:2379"}]
    load(kube, objects)
    hosted = find(api, "blue", "clusters")
    assert hosted.shards == ()
    assert hosted.unmanaged.endpoint == "https://etcd.example:2379"
    assert hosted.unmanaged.client_secret == "their-etcd-client"
    assert hosted.unmanaged.shards == (("etcd-events", "https://events.example:2379"),)


def test_no_stateful_set(kube, api):
    load(kube, without(hosted_objects(), "StatefulSet"))
    (shard,) = find(api, "blue", "clusters").shards
    assert shard.replicas == 0


def test_none_of_that_name_says_which_there_are(kube, api):
    load(kube, hosted_objects("blue"))
    load(kube, hosted_objects("green"))
    with pytest.raises(KubeNotFoundError) as caught:
        find(api, "bleu", "clusters")
    assert str(caught.value) == (
        "there is no HostedCluster clusters/bleu: in clusters there are blue, green"
    )
    with pytest.raises(KubeNotFoundError, match="namespace elsewhere has none"):
        find(api, "blue", "elsewhere")


def test_none_of_that_name_and_no_right_to_list(kube, api):
    load(kube, hosted_objects("blue"))
    kube.deny("list", HOSTED_CLUSTERS)
    with pytest.raises(KubeNotFoundError, match="there is no HostedCluster clusters/bleu: look"):
        find(api, "bleu", "clusters")


def test_no_list_where_the_cluster_is_there(kube, api):
    load(kube, hosted_objects())
    kube.deny("list", HOSTED_CLUSTERS)
    assert find(api, "blue", "clusters").name == "blue"


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "a..b", "-a", "x" * 254, "a\n"])
def test_what_is_no_name_is_not_asked_for(kube, api, name):
    for arguments in ((name, "clusters"), ("blue", name)):
        with pytest.raises(UsageError, match=r"is no (name|namespace) of a HostedCluster"):
            find(api, *arguments)
    assert not kube.requests


@pytest.mark.parametrize(
    ("etcd", "words"),
    [
        ({"managementType": "Else"}, "managementType"),
        ({"managementType": "Unmanaged"}, "lacks its endpoint"),
        ({"managementType": "Managed", "managed": {"shards": [{}]}}, "without a name"),
        ({"managementType": "Managed", "managed": {"shards": [{"name": "a/../b"}]}}, "without"),
        ({"managementType": "Managed", "managed": {"shards": [{"name": "a"}] * 2}}, "one twice"),
        (
            {
                "managementType": "Managed",
                "managed": {"shards": [{"name": f"s{n}"} for n in range(100)]},
            },
            "too many",
        ),
    ],
)
def test_a_cluster_that_contradicts_itself(kube, api, etcd, words):
    objects = hosted_objects()
    kube.put(one(objects, "HostedControlPlane"))
    hosted_cluster = one(objects, "HostedCluster")
    hosted_cluster["spec"]["etcd"] = etcd
    _force(kube, hosted_cluster)
    with pytest.raises(KubeError, match=words):
        find(api, "blue", "clusters")


def _force(kube, document):
    """Put what this server refuses: one of another CRD may have it."""
    with kube.objects.lock:
        kube.objects._store(HOSTED_CLUSTERS, "clusters", "blue", document)


def _pod(**changes):
    pod = copy.deepcopy(one(hosted_objects(members=1), "Pod", "etcd-0"))
    pod["metadata"].update(changes)
    return pod


def test_pods_are_of_a_stateful_set_by_their_whole_name():
    pods = [
        _pod(name=name, ownerReferences=[])
        for name in ("etcd-10", "etcd-2", "etcd-shard-0", "etcd-01", "etcd-", "xetcd-0", "etcd-1-0")
    ]
    assert [pod.name for pod in pods_of("etcd", pods)] == ["etcd-2", "etcd-10"]
    assert [pod.name for pod in pods_of("etcd-shard", pods)] == ["etcd-shard-0"]
    assert [pod.name for pod in pods_of("etcd-1", pods)] == ["etcd-1-0"]


def test_a_pod_that_another_owns():
    owner = {"kind": "StatefulSet", "name": "etcd-else", "apiVersion": "apps/v1", "uid": "1"}
    assert pods_of("etcd", [_pod(ownerReferences=[owner])]) == ()


def test_ready_is_every_container_and_not_going():
    whole = _pod()
    (pod,) = pods_of("etcd", [whole])
    assert pod.ready
    half = copy.deepcopy(whole)
    half["status"]["containerStatuses"][1]["ready"] = False
    going = _pod(deletionTimestamp="2026-11-20T10:00:00Z")
    unready = copy.deepcopy(whole)
    unready["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    waiting = copy.deepcopy(whole)
    waiting["status"] = {"phase": "Pending"}
    for broken in (half, going, unready, waiting):
        (pod,) = pods_of("etcd", [broken])
        assert not pod.ready


def _hosted(**changes) -> Hosted:
    hosted_cluster = one(hosted_objects(), "HostedCluster")
    hosted_cluster["status"].update(changes.pop("status", {}))
    hosted_cluster["spec"].update(changes)
    return Hosted(
        name="blue",
        namespace="clusters",
        control_plane_namespace="clusters-blue",
        hosted_cluster=hosted_cluster,
    )


def test_the_release_is_that_of_the_last_finished_update():
    assert _hosted().release_version == RELEASE
    history = [
        {"state": "Partial", "version": "4.21.0"},
        {"state": "Completed", "version": "4.20.9"},
        {"state": "Completed", "version": "4.20.3"},
    ]
    assert _hosted(status={"version": {"history": history}}).release_version == "4.20.9"


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("quay.io/ocp-release:4.19.17-x86_64", "4.19.17-x86_64"),
        ("registry.example:5000/ocp-release", ""),
        ("registry.example:5000/ocp-release:4.20.1@sha256:00", "4.20.1"),
        ("quay.io/ocp-release@sha256:0011", ""),
        ("", ""),
    ],
)
def test_else_the_release_is_that_of_the_image(image, version):
    assert _hosted(status={"version": None}, release={"image": image}).release_version == version


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


def _hostile(objects: list[dict]) -> st.SearchStrategy[dict]:
    """Objects with one thing in them replaced by anything."""
    return st.tuples(st.sampled_from(objects), st.lists(st.integers(0, 9), max_size=6), JSON).map(
        lambda drawn: _replaced(*drawn)
    )


def _replaced(document, steps, value):
    changed = copy.deepcopy(document)
    here = changed
    for step in steps:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return changed
        key = keys[step % len(keys)]
        if not isinstance(here[key], dict | list) or step == steps[-1]:
            here[key] = value
            return changed
        here = here[key]
    return changed


@settings(max_examples=150, deadline=None)
@given(_hostile([*hosted_objects(members=1), *hosted_objects(shards=("events",))]))
def test_hostile_objects_raise_nothing_but_our_errors(document):
    pods_of("etcd", [document])
    try:
        names = shard_names(document)
    except BackstayError:
        return
    assert all(is_name(name) for name in names)


@given(st.text(max_size=300))
def test_a_name_never_leaves_its_path(text):
    if is_name(text):
        assert "/" not in text
        assert text not in (".", "..")
        assert len(text) <= 253
