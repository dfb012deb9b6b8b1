"""The rights that each command needs, and which of them we have.

The table is what the code calls, no verb more: the roles in `deploy/hosted/` are made from it, and
tests hold both to the calls that were recorded. Access reviews need no right of their own: every
user that is logged in may ask about themself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from backstay.kinds.hosted.cluster import Hosted
from backstay.kubeapi.api import Api
from backstay.kubeapi.resource import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    HOSTED_CLUSTERS,
    HOSTED_CONTROL_PLANES,
    NODE_POOLS,
    PODS,
    SECRETS,
    STATEFUL_SETS,
    VOLUME_CLAIMS,
    Resource,
)


class Where(StrEnum):
    """In which namespace a right is needed."""

    CLUSTER = "hc"
    CONTROL_PLANE = "cp"


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that we have to be allowed to do.

    Attributes:
        verb: of RBAC: get, list, create, patch, delete.
        resource: to what.
        where: in the namespace of the HostedCluster, or in that of its control plane.
        subresource: as `exec`; empty for the object itself.
        name: of an object that it is needed for, where a role may well name its objects; `{name}`
            is the cluster's. It is asked about where the right for all objects is denied.
    """

    verb: str
    resource: Resource
    where: Where
    subresource: str = ""
    name: str = ""

    @property
    def what(self) -> str:
        """Resource and subresource, as RBAC and kubectl write them."""
        return f"{self.resource.title}{f'/{self.subresource}' if self.subresource else ''}"

    def namespace(self, hosted: Hosted) -> str:
        """The namespace that it is needed in."""
        if self.where is Where.CLUSTER:
            return hosted.namespace
        return hosted.control_plane_namespace


_HC, _CP = Where.CLUSTER, Where.CONTROL_PLANE
_FIND = (
    Right("get", HOSTED_CLUSTERS, _HC, name="{name}"),
    Right("list", NODE_POOLS, _HC),
    Right("get", HOSTED_CONTROL_PLANES, _CP, name="{name}"),
    Right("get", STATEFUL_SETS, _CP, name="etcd"),
    Right("list", PODS, _CP),
)
_KEYS = (Right("get", SECRETS, _HC), Right("get", SECRETS, _CP))
_RESOURCES = (*_KEYS, Right("get", CONFIG_MAPS, _HC))
_TLS = (
    Right("get", SECRETS, _CP, name="etcd-client-tls"),
    Right("get", CONFIG_MAPS, _CP, name="etcd-ca"),
)
_BACKUP = (*_FIND, *_RESOURCES)
#: WebSockets are opened by a GET. From Kubernetes 1.35 on, `create` is asked for too, as for SPDY.
_EXEC = (Right("get", PODS, _CP, "exec"), Right("create", PODS, _CP, "exec"))
_FORWARD = (Right("get", PODS, _CP, "portforward"), Right("create", PODS, _CP, "portforward"))
_QUIESCE = (
    *_FIND,
    Right("patch", HOSTED_CLUSTERS, _HC, name="{name}"),
    Right("get", NODE_POOLS, _HC),
    Right("patch", NODE_POOLS, _HC),
    Right("get", DEPLOYMENTS, _CP, name="kube-apiserver"),
    Right("patch", DEPLOYMENTS, _CP, name="kube-apiserver"),
)

#: What each command needs, by its name; `backup` goes with a transport, and `quiesce` with both.
RIGHTS: Mapping[str, tuple[Right, ...]] = MappingProxyType(
    {
        "backup": _BACKUP,
        "direct": _TLS,
        "port-forward": (*_TLS, *_FORWARD),
        "exec": _EXEC,
        "quiesce": _QUIESCE,
        "resume": _QUIESCE,
        "restore": (
            *_FIND,
            Right("create", HOSTED_CLUSTERS, _HC),
            Right("get", NODE_POOLS, _HC),
            Right("create", NODE_POOLS, _HC),
            Right("get", SECRETS, _HC),
            Right("create", SECRETS, _HC),
            Right("get", CONFIG_MAPS, _HC),
            Right("create", CONFIG_MAPS, _HC),
            Right("list", VOLUME_CLAIMS, _CP),
            Right("get", PODS, _CP),
            Right("get", PODS, _CP, "log"),
            *_TLS,
            *_FORWARD,
        ),
    }
)


def needed(*commands: str) -> tuple[Right, ...]:
    """List what some commands need together, each right once.

    Raises:
        KeyError: a command is not in the table; a defect.
    """
    found: dict[tuple[str, Resource, Where, str], Right] = {}
    for command in commands:
        for right in RIGHTS[command]:
            key = (right.verb, right.resource, right.where, right.subresource)
            # Where all objects of a kind are needed, the name of one says nothing.
            if key not in found or not right.name:
                found[key] = right
    return tuple(found.values())


def ask(api: Api, hosted: Hosted, rights: Iterable[Right]) -> tuple[Right, ...]:
    """Tell which rights we lack, by SelfSubjectAccessReviews.

    Args:
        api: of the management cluster.
        hosted: the cluster; only its name and its namespaces are looked at.
        rights: what is needed.

    Raises:
        KubeError: the server does not say.
    """
    return tuple(right for right in rights if not _may(api, hosted, right))


def told(right: Right, hosted: Hosted) -> str:
    """Write a right for people: `get secrets in clusters-blue`."""
    return f"{right.verb} {right.what} in {right.namespace(hosted)}"


def _may(api: Api, hosted: Hosted, right: Right) -> bool:
    namespace = right.namespace(hosted)
    names = ("", right.name.format(name=hosted.name)) if right.name else ("",)
    return any(
        api.may(right.verb, right.resource, namespace, name=name, subresource=right.subresource)
        for name in names
    )
