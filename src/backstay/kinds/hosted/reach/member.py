"""A member of a hosted etcd: the address that its certificate knows it by, and its own words.

Source: control-plane-operator/controllers/hostedcontrolplane/pki/etcd.go: the names in a server's
certificate are the clients' Service, `*.etcd-discovery.NAMESPACE.svc` and `localhost`; no address.
"""

import json

from backstay.client.answer import Header, Status
from backstay.client.endpoint import DEFAULT_PORT, Endpoint, Scheme
from backstay.client.text import one_line
from backstay.errors import EtcdError
from backstay.kinds.hosted.cluster import MAIN, Hosted, Shard

_MAX_64 = 1 << 64
#: Complaints of a member that are taken.
_MAX_ERRORS = 16


def service_endpoint(hosted: Hosted, shard: Shard) -> Endpoint:
    """The address of an etcd's clients: any member may answer there."""
    host = f"{shard.service}.{hosted.control_plane_namespace}.svc"
    return Endpoint(Scheme.HTTPS, host, DEFAULT_PORT)


def pod_endpoint(hosted: Hosted, shard: Shard, pod: str) -> Endpoint:
    """The address of one member, by its pod's name."""
    discovery = f"{MAIN}-discovery{shard.name.removeprefix(MAIN)}"
    host = f"{pod}.{discovery}.{hosted.control_plane_namespace}.svc"
    return Endpoint(Scheme.HTTPS, host, DEFAULT_PORT)


def parse_status(text: str, endpoint: Endpoint) -> Status:
    """Read what `etcdctl endpoint status -w json` printed for one endpoint.

    Args:
        text: may be anything.
        endpoint: what the member is called.

    Raises:
        EtcdError: it is something else.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    entry = document[0] if isinstance(document, list) and len(document) == 1 else None
    status = entry.get("Status") if isinstance(entry, dict) else None
    header = status.get("header") if isinstance(status, dict) else None
    if not isinstance(status, dict) or not isinstance(header, dict):
        raise EtcdError(f"{endpoint}: etcdctl tells its status in a form that is not known")

    def number(source: dict[str, object], name: str) -> int:
        # Zeros are left out.
        value = source.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_64:
            raise EtcdError(f"{endpoint}: etcdctl tells a {name} that is no number")
        return value

    def words(value: object) -> str:
        return one_line(value) if isinstance(value, str) else ""

    errors = status.get("errors")
    told = errors[:_MAX_ERRORS] if isinstance(errors, list) else ()
    return Status(
        endpoint=endpoint,
        header=Header(
            number(header, "cluster_id"),
            number(header, "member_id"),
            number(header, "revision"),
            number(header, "raft_term"),
        ),
        version=words(status.get("version")),
        db_size=number(status, "dbSize"),
        db_size_in_use=number(status, "dbSizeInUse"),
        quota=number(status, "dbSizeQuota") or None,
        leader=number(status, "leader"),
        is_learner=status.get("isLearner") is True,
        raft_index=number(status, "raftIndex"),
        raft_applied_index=number(status, "raftAppliedIndex"),
        storage_version=words(status.get("storageVersion")),
        errors=tuple(words(error) for error in told),
    )
