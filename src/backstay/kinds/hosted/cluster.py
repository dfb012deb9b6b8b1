"""A hosted control plane as it was found: immutable, and all that decisions are made from."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backstay.kubeapi.api import Object
from backstay.kubeapi.field import at as at  # noqa: PLC0414 - all modules here read by it

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
#: The shard that every hosted control plane has.
MAIN = "etcd"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdPod:
    """One pod of an etcd.

    Attributes:
        name: as `etcd-0`.
        ready: whether all its containers are.
        image: of its container `etcd`.
    """

    name: str
    ready: bool
    image: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One etcd of a hosted control plane; most have just the one.

    Attributes:
        name: `etcd`, or `etcd-SHARD`: the name of its StatefulSet.
        service: of its clients, as `etcd-client`.
        replicas: that it should have.
        pods: that it has, by name.
    """

    name: str
    service: str
    replicas: int
    pods: tuple[EtcdPod, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmanaged:
    """An etcd that someone else runs.

    Attributes:
        endpoint: its URL, from spec.etcd.unmanaged.
        client_secret: name of the Secret with etcd-client-ca.crt, etcd-client.crt and
            etcd-client.key.
        shards: further etcds of the same control plane: name (`etcd-SHARD`) and URL; they take
            the same client certificate.
    """

    endpoint: str
    client_secret: str
    shards: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosted:
    """A hosted control plane.

    Attributes:
        name: of the HostedCluster.
        namespace: of the HostedCluster.
        control_plane_namespace: where its pods run.
        hosted_cluster: the object, as the API gave it.
        control_plane: the HostedControlPlane; None where there is none yet.
        node_pools: its NodePools.
        shards: its etcds; empty where it is unmanaged.
        unmanaged: the etcd that someone else runs.
    """

    name: str
    namespace: str
    control_plane_namespace: str
    hosted_cluster: Object = field(repr=False)
    control_plane: Object | None = field(default=None, repr=False)
    node_pools: tuple[Object, ...] = field(default=(), repr=False)
    shards: tuple[Shard, ...] = ()
    unmanaged: Unmanaged | None = None

    @property
    def cluster(self) -> str:
        """What Backstay calls it: `NAMESPACE.NAME`."""
        return f"{self.namespace}.{self.name}"

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"HostedCluster {self.namespace}/{self.name}"

    @property
    def spec(self) -> Mapping[str, Any]:
        """The HostedCluster's spec."""
        return at(self.hosted_cluster, "spec", {})

    @property
    def status(self) -> Mapping[str, Any]:
        """The HostedCluster's status."""
        return at(self.hosted_cluster, "status", {})

    @property
    def platform(self) -> str:
        """Its platform, as `AWS`; empty where it is not told."""
        return at(self.spec, "platform.type", "")

    @property
    def release_image(self) -> str:
        """The image of the release that it runs."""
        return at(self.spec, "release.image", "")

    @property
    def release_version(self) -> str:
        """The release that it runs, as `4.20.3`; empty where nothing tells it.

        It is that of the last finished update, else the tag of the image.
        """
        history: list[Object] = at(self.status, "version.history", [])
        for entry in history:
            version = at(entry, "version", "")
            if at(entry, "state", "") == "Completed" and version:
                return version
        # A registry may have a port, and a digest is no tag.
        name = self.release_image.partition("@")[0].rpartition("/")[2]
        return name.partition(":")[2]

    @property
    def encryption(self) -> str:
        """How secrets are encrypted: `aescbc`, `kms`, or empty."""
        return at(self.spec, "secretEncryption.type", "")


def control_plane_namespace(namespace: str, name: str) -> str:
    """Name the namespace where a hosted control plane runs.

    Source: hypershift-operator/controllers/manifests: dots of the name become dashes.
    """
    return f"{namespace}-{name.replace('.', '-')}"


def is_name(text: str) -> bool:
    """Tell whether an object can have that name: what can't would be another path, or a list."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def secret_value(secret: object, key: str) -> bytes | None:
    """Decode one value of a Secret; None where there is none, or one that is no base64.

    Args:
        secret: an object of the API; whatever it holds, this raises nothing.
        key: its name in `data`; may have dots.
    """
    data: Mapping[str, Any] = at(secret, "data", {})
    text = data.get(key)
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None
