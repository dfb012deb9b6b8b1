"""What a snapshot says of the OKD cluster that it is of: no API is needed for that.

Custom resources lie in etcd as JSON, and OpenShift encrypts none of these two.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from backstay.client.text import one_line
from backstay.kinds.okd.cluster import Release, parse_release
from backstay.kubeapi.field import at
from backstay.kubedata.lookup import look_up
from backstay.mvcc.snapshot import Snapshot

_FOLDER = b"/kubernetes.io/config.openshift.io"
_INFRASTRUCTURE = _FOLDER + b"/infrastructures/cluster"
_VERSION = _FOLDER + b"/clusterversions/version"
_NAME = 200


@dataclass(frozen=True, slots=True)
class StoredCluster:
    """What a snapshot says.

    Attributes:
        infrastructure: the infrastructure's name; empty where it is of no OKD cluster.
        release: what ran.
    """

    infrastructure: str = ""
    release: Release = field(default_factory=Release)


def read_stored(snapshot: Snapshot) -> StoredCluster:
    """Read what a snapshot says of its cluster; what makes no sense is left out.

    Args:
        snapshot: an open snapshot.

    Raises:
        DamagedError: bucket `key` is damaged.
    """
    found = look_up(snapshot, (_INFRASTRUCTURE, _VERSION))
    name = at(_document(found.get(_INFRASTRUCTURE)), "status.infrastructureName", "")
    return StoredCluster(one_line(name)[:_NAME], parse_release(_document(found.get(_VERSION))))


def _document(value: bytes | None) -> Any:
    try:
        return json.loads(value) if value else None
    except (ValueError, RecursionError):
        return None
