"""The resources of the Kubernetes API that Backstay calls, and their paths.

Just these are ever asked for: the RBAC that is shipped is made from what is here.
"""

from dataclasses import dataclass
from urllib.parse import quote

from backstay.errors import KubeNotFoundError


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object.

    Attributes:
        group: its API group; empty for the core group.
        version: the version that we speak.
        plural: its name in paths.
        kind: its name in objects.
    """

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """Group and version, as objects have them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def title(self) -> str:
        """How kubectl calls it: plural, and its group where it has one."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Give the path of a collection or of an object.

        A server takes a path apart after it has undone `%2F`, so that a name with a slash, from an
        object that anybody wrote, would be a name and a subresource. No object has such a name
        (Kubernetes: IsValidPathSegmentName).

        Raises:
            KubeNotFoundError: there can be no such name.
        """
        for text in (namespace, name):
            if text in {".", ".."} or "/" in text or "%" in text or not text.isprintable():
                raise KubeNotFoundError(f"{self.title}: no object can be called {text[:100]!r}")
        parts = ["apis" if self.group else "api", self.api_version]
        if namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/" + "/".join(parts)


_HYPERSHIFT = "hypershift.openshift.io"

HOSTED_CLUSTERS = Resource(_HYPERSHIFT, "v1beta1", "hostedclusters", "HostedCluster")
NODE_POOLS = Resource(_HYPERSHIFT, "v1beta1", "nodepools", "NodePool")
HOSTED_CONTROL_PLANES = Resource(
    _HYPERSHIFT, "v1beta1", "hostedcontrolplanes", "HostedControlPlane"
)
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace")
VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
_CONFIG = "config.openshift.io"
INFRASTRUCTURES = Resource(_CONFIG, "v1", "infrastructures", "Infrastructure")
CLUSTER_VERSIONS = Resource(_CONFIG, "v1", "clusterversions", "ClusterVersion")
CLUSTER_OPERATORS = Resource(_CONFIG, "v1", "clusteroperators", "ClusterOperator")
PROXIES = Resource(_CONFIG, "v1", "proxies", "Proxy")
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview"
)
