"""Finding a hosted control plane: the objects that make it one, and the pods of its etcd.

Everything is found by what refers to it: the namespace by HyperShift's own rule, NodePools by
`spec.clusterName`, etcd's pods by the name of their StatefulSet. A name that only begins alike
is of someone else. Nothing is decided here: what is missing or not ready is said as it is, and
`preflight` judges it.
"""

import re
from collections.abc import Iterable

from backstay.errors import KubeError, KubeNotFoundError, UsageError
from backstay.kinds.hosted.cluster import (
    MAIN,
    EtcdPod,
    Hosted,
    Shard,
    Unmanaged,
    at,
    control_plane_namespace,
    is_name,
)
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.resource import (
    HOSTED_CLUSTERS,
    HOSTED_CONTROL_PLANES,
    NODE_POOLS,
    PODS,
    STATEFUL_SETS,
)

#: All pods of etcd have it, of whichever shard.
SELECTOR = "app=etcd"
#: On a HostedControlPlane: the HostedCluster that it is of, as NAMESPACE/NAME.
OWNER = "hypershift.openshift.io/cluster"
#: The API allows ten.
_MAX_SHARDS = 32
#: HostedClusters that a message names.
_NAMED = 20


def find(api: Api, name: str, namespace: str) -> Hosted:
    """Find a hosted control plane.

    Where the HostedCluster has no HostedControlPlane yet, it has no etcd either: the namespace
    that would be its own is not looked into, since it could be another's (`a.b` and `a-b` have
    the same).

    Args:
        api: of the management cluster.
        name: of the HostedCluster.
        namespace: of the HostedCluster.

    Raises:
        UsageError: these are no names.
        KubeNotFoundError: there is no such HostedCluster; the message says which there are.
        KubeForbiddenError: we may not look.
        KubeError: the API failed, or the HostedCluster contradicts itself.
    """
    for word, text in (("name", name), ("namespace", namespace)):
        if not is_name(text):
            raise UsageError(f"{text[:100]!r} is no {word} of a HostedCluster")
    hosted_cluster = _hosted_cluster(api, name, namespace)
    where = control_plane_namespace(namespace, name)
    control_plane = api.find(HOSTED_CONTROL_PLANES, name, where)
    _check_owner(control_plane, f"{namespace}/{name}", where)
    pools = [
        pool for pool in api.list(NODE_POOLS, namespace) if at(pool, "spec.clusterName", "") == name
    ]
    unmanaged = _unmanaged(hosted_cluster)
    shards: tuple[Shard, ...] = ()
    if unmanaged is None and control_plane is not None:
        shards = _shards(api, shard_names(hosted_cluster), where)
    return Hosted(
        name=name,
        namespace=namespace,
        control_plane_namespace=where,
        hosted_cluster=hosted_cluster,
        control_plane=control_plane,
        node_pools=tuple(sorted(pools, key=lambda pool: at(pool, "metadata.name", ""))),
        shards=shards,
        unmanaged=unmanaged,
    )


def shard_names(hosted_cluster: Object) -> tuple[str, ...]:
    """Name the StatefulSets of a managed etcd: `etcd`, and one for each shard of the spec.

    Source: support/etcd/shards.go of openshift/hypershift: `etcd-SHARD`.

    Raises:
        KubeError: a shard has no name, or one that another has.
    """
    told = _spec_shards(hosted_cluster, "spec.etcd.managed.shards")
    return (MAIN, *(f"{MAIN}-{name}" for name, _ in told))


def service(shard: str) -> str:
    """Name the Service of a shard's clients: `etcd-client`, `etcd-client-SHARD`."""
    return f"{MAIN}-client{shard.removeprefix(MAIN)}"


def pods_of(shard: str, pods: Iterable[Object]) -> tuple[EtcdPod, ...]:
    """Pick the pods of one StatefulSet, in the order of their numbers.

    A pod's name is its StatefulSet's, a dash and a number, no more: `etcd-events-0` is not of
    `etcd`. Where it names an owner, that has to be this StatefulSet too.

    Args:
        shard: name of the StatefulSet.
        pods: objects of the API.
    """
    pattern = re.compile(rf"{re.escape(shard)}-(0|[1-9][0-9]{{0,5}})")
    found = []
    for pod in pods:
        name = at(pod, "metadata.name", "")
        match = pattern.fullmatch(name)
        if match and _stateful_set(pod) in ("", shard):
            made = EtcdPod(name=name, ready=_ready(pod), image=_image(pod))
            found.append((int(match[1]), made))
    return tuple(pod for _, pod in sorted(found, key=lambda pair: pair[0]))


def _hosted_cluster(api: Api, name: str, namespace: str) -> Object:
    try:
        return api.get(HOSTED_CLUSTERS, name, namespace)
    except KubeNotFoundError:
        # Raised below, without the server's words, which say less.
        pass
    raise KubeNotFoundError(
        f"there is no HostedCluster {namespace}/{name}", _what_there_is(api, namespace)
    )


def _what_there_is(api: Api, namespace: str) -> str:
    """What to do, as far as we may know it: this asks for more than the roles that are shipped."""
    try:
        names = [at(it, "metadata.name", "") for it in api.list(HOSTED_CLUSTERS, namespace)]
    except KubeNotFoundError:
        return (
            "this API server knows no HostedClusters at all; name the management cluster's"
            " --kubeconfig or --context"
        )
    except KubeError:
        return "look at its name, and at -n"
    if not names:
        return f"namespace {namespace} has none; name another with -n"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"in {namespace} there are {', '.join(sorted(names)[:_NAMED])}{more}"


def _check_owner(control_plane: Object | None, owner: str, where: str) -> None:
    annotations: dict[str, object] = at(control_plane, "metadata.annotations", {})
    told = annotations.get(OWNER, owner)
    if told != owner:
        raise KubeError(
            f"namespace {where} holds the control plane of HostedCluster {str(told)[:100]!r},"
            f" not of {owner}",
            f"look at its annotation {OWNER}",
        )


def _unmanaged(hosted_cluster: Object) -> Unmanaged | None:
    kind = at(hosted_cluster, "spec.etcd.managementType", "")
    if kind == "Managed":
        return None
    if kind != "Unmanaged":
        raise KubeError(
            f"spec.etcd.managementType of the HostedCluster is {kind[:40]!r}",
            "Backstay knows Managed and Unmanaged",
        )
    endpoint = at(hosted_cluster, "spec.etcd.unmanaged.endpoint", "")
    secret = at(hosted_cluster, "spec.etcd.unmanaged.tls.clientSecret.name", "")
    if not endpoint or not secret:
        raise KubeError(
            "spec.etcd.unmanaged of the HostedCluster lacks its endpoint or its clientSecret"
        )
    shards = _spec_shards(hosted_cluster, "spec.etcd.unmanaged.shards")
    named = tuple((f"{MAIN}-{name}", at(shard, "endpoint", "")) for name, shard in shards)
    return Unmanaged(endpoint=endpoint, client_secret=secret, shards=named)


def _spec_shards(hosted_cluster: Object, path: str) -> list[tuple[str, Object]]:
    told: list[Object] = at(hosted_cluster, path, [])
    named = [(at(shard, "name", ""), shard) for shard in told[: _MAX_SHARDS + 1]]
    names = [name for name, _ in named]
    if len(names) > _MAX_SHARDS or len(set(names)) < len(names):
        raise KubeError(f"{path} of the HostedCluster names too many shards, or one twice")
    for name in names:
        if not is_name(name):
            raise KubeError(f"{path} of the HostedCluster has a shard without a name")
    return named


def _shards(api: Api, names: tuple[str, ...], where: str) -> tuple[Shard, ...]:
    pods = api.list(PODS, where, selector=SELECTOR)
    found = []
    for name in names:
        stateful_set = api.find(STATEFUL_SETS, name, where)
        # None at all has no replicas either; `preflight` says that it takes some.
        replicas = 0 if stateful_set is None else max(0, at(stateful_set, "spec.replicas", 1))
        found.append(
            Shard(name=name, service=service(name), replicas=replicas, pods=pods_of(name, pods))
        )
    return tuple(found)


def _stateful_set(pod: Object) -> str:
    """The StatefulSet that owns a pod; empty where it names none."""
    owners: list[Object] = at(pod, "metadata.ownerReferences", [])
    for owner in owners:
        if at(owner, "kind", "") == "StatefulSet":
            return at(owner, "name", "")
    return ""


def _ready(pod: Object) -> bool:
    """Whether every container is ready, and the pod not on its way out."""
    if at(pod, "metadata.deletionTimestamp", ""):
        return False
    conditions: list[Object] = at(pod, "status.conditions", [])
    told = {at(c, "type", ""): at(c, "status", "") for c in conditions}
    statuses: list[Object] = at(pod, "status.containerStatuses", [])
    every = bool(statuses) and all(at(status, "ready", False) for status in statuses)
    return every and told.get("Ready") == "True"


def _image(pod: Object) -> str:
    containers: list[Object] = at(pod, "spec.containers", [])
    for container in containers:
        if at(container, "name", "") == MAIN:
            return at(container, "image", "")
    return ""
