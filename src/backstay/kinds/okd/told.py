"""What etcd itself tells of its cluster, where no API is at hand.

Custom resources lie in etcd as JSON, and OpenShift encrypts none of these. A member answers this
without the API, and without the others.
"""

import json
from dataclasses import replace
from typing import Any

from backstay.client.etcd import Etcd
from backstay.client.text import one_line
from backstay.errors import BackstayError
from backstay.kinds.okd.cluster import Cluster, parse_release
from backstay.kubeapi.field import at

_FOLDER = b"/kubernetes.io/config.openshift.io"
INFRASTRUCTURE_KEY = _FOLDER + b"/infrastructures/cluster"
VERSION_KEY = _FOLDER + b"/clusterversions/version"
#: etcd takes no larger values, unless told to.
_LIMIT = 2 << 20


def completed(cluster: Cluster, etcd: Etcd) -> Cluster:
    """Fill in the name and the release of a cluster where its API did not tell them.

    Args:
        cluster: as its API told.
        etcd: an open client of its etcd.

    Raises:
        EtcdError: no member answers.
    """
    if not cluster.infrastructure:
        name = at(_read(etcd, INFRASTRUCTURE_KEY), "status.infrastructureName", "")
        cluster = replace(cluster, infrastructure=one_line(name)[:200])
    if cluster.release is None:
        version = _read(etcd, VERSION_KEY)
        cluster = replace(cluster, release=None if version is None else parse_release(version))
    return cluster


def _read(etcd: Etcd, key: bytes) -> Any:
    found = etcd.range(key, serializable=True).kvs
    if not found or len(found[0].value) > _LIMIT:
        return None
    try:
        return json.loads(found[0].value)
    except (ValueError, RecursionError):
        return None


def name_of(cluster: Cluster, wanted: str) -> str:
    """Give the name under which a cluster is backed up.

    Args:
        cluster: what is known of it.
        wanted: by the user; empty takes the infrastructure's.

    Raises:
        BackstayError: nobody knows it.
    """
    name = wanted or cluster.infrastructure
    if not name:
        raise BackstayError(
            "the infrastructure's name is not known: neither the API nor etcd tells it",
            "name the cluster with --cluster",
        )
    return name
