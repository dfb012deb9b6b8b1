"""The rights that each command needs, and which of them we have.

The table is what the code calls, no verb more: the roles in `deploy/hosted/` say just that, and
tests hold both to the calls that were recorded. Access reviews need no right of their own: every
user that is logged in may ask about themself.

Not in the table is what a command tries and can do without: a look at the Namespaces that a restore
needs, and at HostedClusters beside the one that is meant.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from backstay.kinds.hosted.belongings.keys import CONFIGURATION
from backstay.kinds.hosted.belongings.resources import PKI
from backstay.kinds.hosted.cluster import MAIN, Hosted
from backstay.kinds.hosted.quiescing.record import SCALE
from backstay.kinds.hosted.quiescing.writers import WRITERS
from backstay.kinds.hosted.reach.tls import CA_CONFIG_MAP, CLIENT_SECRET
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
from backstay.kubeapi.review import Wanted, lacking


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
        names: of the objects that it is needed for, where these are always the same; `{name}` is
            the cluster's. Empty is any object.
    """

    verb: str
    resource: Resource
    where: Where
    subresource: str = ""
    names: tuple[str, ...] = ()

    def wanted(self, hosted: Hosted) -> Wanted:
        """Say what that means for one cluster; only its name and namespaces are looked at."""
        inside = self.where is Where.CONTROL_PLANE
        return Wanted(
            self.verb,
            self.resource,
            hosted.control_plane_namespace if inside else hosted.namespace,
            self.subresource,
            tuple(name.format(name=hosted.name) for name in self.names),
        )


_HC, _CP = Where.CLUSTER, Where.CONTROL_PLANE
_CLUSTER = ("{name}",)
#: A control plane has one member or three; pods of shards have other names.
_MEMBERS = tuple(f"{MAIN}-{number}" for number in range(3))
_FIND = (
    Right("get", HOSTED_CLUSTERS, _HC, names=_CLUSTER),
    Right("list", NODE_POOLS, _HC),
    Right("get", HOSTED_CONTROL_PLANES, _CP, names=_CLUSTER),
    Right("get", STATEFUL_SETS, _CP, names=(MAIN,)),
    Right("list", PODS, _CP),
)
_TLS = (
    Right("get", SECRETS, _CP, names=(CLIENT_SECRET,)),
    Right("get", CONFIG_MAPS, _CP, names=(CA_CONFIG_MAP,)),
)
_RESUME = (
    Right("get", HOSTED_CLUSTERS, _HC, names=_CLUSTER),
    Right("patch", HOSTED_CLUSTERS, _HC, names=_CLUSTER),
    Right("list", NODE_POOLS, _HC),
    Right("get", NODE_POOLS, _HC),
    Right("patch", NODE_POOLS, _HC),
    Right("get", DEPLOYMENTS, _CP, names=WRITERS),
    # Not of Deployments themselves: who may patch these can run any image.
    Right("patch", DEPLOYMENTS, _CP, SCALE, WRITERS),
)


def _stream(subresource: str) -> tuple[Right, ...]:
    """A WebSocket is opened by a GET; from Kubernetes 1.35 on that takes `create` as well.

    Source: kubernetes PR 134577, AuthorizePodWebsocketUpgradeCreatePermission.
    """
    return tuple(Right(verb, PODS, _CP, subresource, _MEMBERS) for verb in ("get", "create"))


#: What each command needs, by its name. `backup` and `restore` go with a transport; `quiesce` goes
#: with both.
RIGHTS: Mapping[str, tuple[Right, ...]] = MappingProxyType(
    {
        "backup": (
            *_FIND,
            # Whatever the specs refer to.
            Right("get", SECRETS, _HC),
            Right("get", CONFIG_MAPS, _HC),
            Right("get", SECRETS, _CP, names=(CONFIGURATION, *PKI)),
        ),
        "direct": _TLS,
        "port-forward": (*_TLS, *_stream("portforward")),
        "exec": _stream("exec"),
        "quiesce": (*_FIND, *_RESUME),
        "resume": _RESUME,
        "restore": (
            *_FIND,
            Right("create", HOSTED_CLUSTERS, _HC),
            Right("get", NODE_POOLS, _HC),
            Right("create", NODE_POOLS, _HC),
            Right("get", SECRETS, _HC),
            Right("create", SECRETS, _HC),
            Right("get", CONFIG_MAPS, _HC),
            Right("create", CONFIG_MAPS, _HC),
            # The signers, where the saved objects are applied.
            Right("get", SECRETS, _CP, names=PKI),
            Right("create", SECRETS, _CP),
            Right("list", VOLUME_CLAIMS, _CP),
            Right("get", PODS, _CP, names=_MEMBERS),
            Right("get", PODS, _CP, "log", _MEMBERS),
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
            found[key] = _either(found.get(key, right), right)
    return tuple(found.values())


def _either(one: Right, other: Right) -> Right:
    """Who needs all objects of a kind is not content with some."""
    if not one.names or not other.names:
        return replace(one, names=())
    return replace(one, names=tuple(dict.fromkeys((*one.names, *other.names))))


def ask(api: Api, hosted: Hosted, rights: Iterable[Right]) -> tuple[Wanted, ...]:
    """Tell which rights we lack for one cluster.

    Args:
        api: of the management cluster.
        hosted: the cluster; only its name and its namespaces are looked at.
        rights: what is needed.

    Raises:
        KubeError: the server does not say.
    """
    return lacking(api, (right.wanted(hosted) for right in rights))
