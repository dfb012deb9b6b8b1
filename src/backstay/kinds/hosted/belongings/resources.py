"""Everything that a restore of a hosted cluster needs beside its etcd.

The HostedCluster, its NodePools, and what their specs name (`references`), on any platform; and
from the control-plane namespace, by their names, the signers that a new control plane would
otherwise make anew: nodes that survive trust the old ones. What is cleaned away: see `clean`.

Border: Secrets are apart from the rest, since they only ever go to the repository for keys.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from backstay.kinds.hosted.belongings import encryption
from backstay.kinds.hosted.belongings.clean import clean, dump
from backstay.kinds.hosted.belongings.references import Kind, Reference, references
from backstay.kinds.hosted.cluster import Hosted, at, is_name
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.resource import CONFIG_MAPS, SECRETS, Resource

#: Signers of a control plane. Source: control-plane-operator/controllers/hostedcontrolplane/
#: manifests/pki.go of openshift/hypershift, and releases before and after. What they have signed is
#: made anew.
PKI = (
    "root-ca",
    "sa-signing-key",
    "etcd-signer",
    "etcd-metrics-signer",
    "cluster-signer-ca",
    "kas-aggregator-client-signer",
    "kube-control-plane-signer",
    "kube-apiserver-to-kubelet-signer",
    "system-admin-signer",
    "customer-system-admin-signer",
    "sre-system-admin-signer",
    "hcco-signer",
    "konnectivity-signer",
)
#: Those that every release has.
_ALWAYS = ("root-ca", "sa-signing-key")
_RESOURCES: dict[Kind, tuple[Resource, ...]] = {
    Kind.SECRET: (SECRETS,),
    Kind.CONFIG_MAP: (CONFIG_MAPS,),
    Kind.EITHER: (SECRETS, CONFIG_MAPS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Objects that a restore needs, cleaned.

    Attributes:
        public: the HostedCluster first, then its NodePools, then ConfigMaps.
        secret: Secrets.
        missing: what is named and was not there, in words.
    """

    public: tuple[Object, ...] = field(default=(), repr=False)
    secret: tuple[Object, ...] = field(default=(), repr=False)
    missing: tuple[str, ...] = ()

    @property
    def public_yaml(self) -> str:
        """What holds no secret, as YAML.

        Raises:
            FormatError: an object can't be written.
        """
        return dump(self.public)

    @property
    def secret_yaml(self) -> str:
        """The Secrets, as YAML.

        Raises:
            FormatError: an object can't be written.
        """
        return dump(self.secret)


def collect(api: Api, hosted: Hosted) -> Resources:
    """Read everything that a restore of a cluster needs.

    Args:
        api: of the management cluster.
        hosted: the cluster.

    Raises:
        KubeForbiddenError: we may not read something.
        KubeError: the API failed.
        FormatError: an object is none.
    """
    public: list[Object] = [clean(_whole(hosted.hosted_cluster, "HostedCluster"))]
    public += [clean(_whole(pool, "NodePool")) for pool in hosted.node_pools]
    secret: list[Object] = []
    missing: list[str] = []
    for reference in named_by(hosted):
        where = reference.namespace or hosted.namespace
        title = f"{reference.kind} {where}/{reference.name}"
        if where != hosted.namespace:
            missing.append(f"{title} ({reference.path}; in another namespace, not looked for)")
            continue
        found = _read(api, reference, where)
        if not found:
            missing.append(f"{title} ({reference.path})")
        for resource, document in found:
            (secret if resource is SECRETS else public).append(clean(document))
    signers, gone = _signers(api, hosted)
    return Resources(public=tuple(public), secret=(*secret, *signers), missing=(*missing, *gone))


def named_by(hosted: Hosted) -> tuple[Reference, ...]:
    """List what the cluster names: in its specs, and the keys that only its status has."""
    found: dict[tuple[str, Kind, str], Reference] = {}

    def note(listed: Iterable[Reference]) -> None:
        for reference in listed:
            key = (reference.name, reference.kind, reference.namespace)
            found.setdefault(key, reference)

    note(references(hosted.hosted_cluster))
    for pool in hosted.node_pools:
        note(references(pool))
    note(
        Reference(key.secret, Kind.SECRET, key.field)
        for key in encryption.references(hosted)
        if is_name(key.secret)
    )
    return tuple(found.values())


def _read(api: Api, reference: Reference, namespace: str) -> list[tuple[Resource, Object]]:
    found = []
    for resource in _RESOURCES[reference.kind]:
        document = api.find(resource, reference.name, namespace)
        if document is not None:
            found.append((resource, _whole(document, resource.kind)))
    return found


def _signers(api: Api, hosted: Hosted) -> tuple[list[Object], list[str]]:
    if hosted.control_plane is None:
        return [], []
    where = hosted.control_plane_namespace
    found, missing = [], []
    for name in PKI:
        document = api.find(SECRETS, name, where)
        if document is not None:
            found.append(clean(_whole(document, SECRETS.kind)))
        elif name in _ALWAYS:
            missing.append(f"Secret {where}/{name} (every control plane has it)")
    return found, missing


def _whole(document: Object, kind: str) -> Object:
    """Give it its kind: a server leaves it out of the items of a list."""
    known = {
        "HostedCluster": "hypershift.openshift.io/v1beta1",
        "NodePool": "hypershift.openshift.io/v1beta1",
    }
    version = at(document, "apiVersion", "") or known.get(kind, "v1")
    return {"apiVersion": version, "kind": kind, **document}
