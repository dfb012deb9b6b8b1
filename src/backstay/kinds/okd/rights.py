"""The rights that the guards need of the cluster's API: what the code calls, no verb more.

The backup itself needs none: it reads the host's files and asks etcd. The roles in `deploy/okd/`
say just what is here, and tests hold both to the calls that were recorded.
"""

from backstay.kinds.okd.cluster import INFRASTRUCTURE, OPERATORS, PROXY, VERSION
from backstay.kinds.okd.lease import NAME
from backstay.kubeapi.resource import (
    CLUSTER_OPERATORS,
    CLUSTER_VERSIONS,
    INFRASTRUCTURES,
    LEASES,
    PROXIES,
)
from backstay.kubeapi.review import Wanted

_CLUSTER = (
    Wanted("get", INFRASTRUCTURES, "", names=(INFRASTRUCTURE,)),
    Wanted("get", CLUSTER_VERSIONS, "", names=(VERSION,)),
    Wanted("get", CLUSTER_OPERATORS, "", names=OPERATORS),
    Wanted("get", PROXIES, "", names=(PROXY,)),
)


def needed(namespace: str) -> tuple[Wanted, ...]:
    """List all that a backup needs.

    Args:
        namespace: where the Lease lies.
    """
    return (
        *_CLUSTER,
        Wanted("get", LEASES, namespace, names=(NAME,)),
        # A role can't narrow a creation to a name.
        Wanted("create", LEASES, namespace),
        Wanted("patch", LEASES, namespace, names=(NAME,)),
    )
