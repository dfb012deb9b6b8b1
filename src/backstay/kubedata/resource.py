"""Resources: what an EncryptionConfiguration calls them, and where etcd has them.

etcd's paths leave the group of built-in resources out (`/registry/deployments/...`) and rename
some (`nodes` are `minions`), while a configuration names group and resource (`deployments.apps`,
`*.apps`). The tables here close that gap. Custom resources need none: their path has the group.

Source: kubernetes, pkg/kubeapiserver/default_storage_factory_builder.go (renamed paths);
openshift-apiserver and oauth-apiserver (specialDefaultResourcePrefixes); the API groups of
Kubernetes 1.20 to 1.34.
"""

from dataclasses import dataclass
from typing import Self

ANY = "*"


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """A resource of the API.

    Attributes:
        plural: its name in URLs, as `secrets`; `*` stands for all of a group.
        group: its API group, empty for the core group; `*` for all. Where a path does not tell
            the group, and the resource is in no table, it is `?`.
    """

    plural: str
    group: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name as a configuration has it: `secrets`, `deployments.apps`, `*.`, `*.*`."""
        plural, _, group = text.partition(".")
        return cls(plural, group)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group not in {"", UNKNOWN} else self.plural


UNKNOWN = "?"

_BUILT_IN = {
    "": """configmaps events limitranges namespaces persistentvolumeclaims
        persistentvolumes pods podtemplates resourcequotas secrets serviceaccounts""",
    "admissionregistration.k8s.io": """mutatingadmissionpolicies mutatingadmissionpolicybindings
        mutatingwebhookconfigurations validatingadmissionpolicies
        validatingadmissionpolicybindings validatingwebhookconfigurations""",
    "apps": "controllerrevisions daemonsets deployments replicasets statefulsets",
    "autoscaling": "horizontalpodautoscalers",
    "batch": "cronjobs jobs",
    "certificates.k8s.io": "certificatesigningrequests clustertrustbundles podcertificaterequests",
    "coordination.k8s.io": "leasecandidates leases",
    "discovery.k8s.io": "endpointslices",
    "flowcontrol.apiserver.k8s.io": "flowschemas prioritylevelconfigurations",
    "internal.apiserver.k8s.io": "storageversions",
    "networking.k8s.io": "ingressclasses ipaddresses networkpolicies servicecidrs",
    "node.k8s.io": "runtimeclasses",
    "policy": "poddisruptionbudgets",
    "rbac.authorization.k8s.io": "clusterrolebindings clusterroles rolebindings roles",
    "resource.k8s.io": "deviceclasses devicetaintrules resourceclaims resourceclaimtemplates "
    "resourceslices",
    "scheduling.k8s.io": "priorityclasses workloads",
    "storage.k8s.io": """csidrivers csinodes csistoragecapacities storageclasses
        volumeattachments volumeattributesclasses""",
    "storagemigration.k8s.io": "storageversionmigrations",
    "apps.openshift.io": "deploymentconfigs",
    "build.openshift.io": "buildconfigs builds",
    "image.openshift.io": "images imagestreams",
    "route.openshift.io": "routes",
    "template.openshift.io": "brokertemplateinstances templateinstances templates",
    "user.openshift.io": "groups users",
}

_RENAMED = {
    "controllers": Resource("replicationcontrollers"),
    "ingress": Resource("ingresses", "networking.k8s.io"),
    "minions": Resource("nodes"),
    "podsecuritypolicy": Resource("podsecuritypolicies", "policy"),
    "services/endpoints": Resource("endpoints"),
    "services/specs": Resource("services"),
    "oauth/accesstokens": Resource("oauthaccesstokens", "oauth.openshift.io"),
    "oauth/authorizetokens": Resource("oauthauthorizetokens", "oauth.openshift.io"),
    "oauth/clientauthorizations": Resource("oauthclientauthorizations", "oauth.openshift.io"),
    "oauth/clients": Resource("oauthclients", "oauth.openshift.io"),
    "useridentities": Resource("identities", "user.openshift.io"),
}

#: By path below the prefix: one segment, or two with a slash.
BY_PATH: dict[str, Resource] = _RENAMED | {
    plural: Resource(plural, group)
    for group, names in _BUILT_IN.items()
    for plural in names.split()
}

#: What the API server notes for itself. It has no API, so no configuration can name it.
WITHOUT_API = frozenset({"masterleases", "peerserverleases", "ranges"})

_PATHS = {resource: path for path, resource in BY_PATH.items()}


def path_segment(resource: Resource) -> bytes:
    """Give a part of every etcd key of a resource, with the slashes around it."""
    return b"/" + _PATHS.get(resource, resource.plural).rpartition("/")[2].encode() + b"/"


KUBE_APISERVER = "kube-apiserver"
OPENSHIFT_APISERVER = "openshift-apiserver"
OAUTH_APISERVER = "oauth-apiserver"

#: The groups that OpenShift's own API servers store.
_GROUPS = {
    OAUTH_APISERVER: ("oauth.openshift.io", "user.openshift.io"),
    OPENSHIFT_APISERVER: tuple(
        f"{group}.openshift.io"
        for group in (
            *("apps", "authorization", "build", "image", "project"),
            *("quota", "route", "security", "template"),
        )
    ),
}
_BY_GROUP = {group: server for server, groups in _GROUPS.items() for group in groups}


def api_server(resource: Resource) -> str:
    """Name the API server that stores a resource; each has keys of its own."""
    return _BY_GROUP.get(resource.group, KUBE_APISERVER)


def everything_of(server: str) -> tuple[Resource, ...]:
    """Name all that an API server stores, by wildcards."""
    return tuple(Resource(ANY, group) for group in _GROUPS.get(server, (ANY,)))
