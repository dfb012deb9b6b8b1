"""How the API of the cluster is reached from one of its hosts, for the guards.

What the user names goes first, then KUBECONFIG, then the account of the pod that this is: its role
allows just what is needed. At last comes the kubeconfig that the host itself has for its own
kube-apiserver, which upstream's script uses, and which may do everything.
"""

import os
from pathlib import Path

from backstay.client.text import one_line
from backstay.errors import BackstayError
from backstay.kinds.okd.cluster import Cluster, read_cluster, unread
from backstay.kinds.okd.static_pods import RESOURCES
from backstay.kubeapi.api import Api
from backstay.kubeapi.connect import connect
from backstay.kubeapi.credentials import SERVICE_ACCOUNT

#: Source: openshift/cluster-etcd-operator, bindata/etcd/cluster-backup.sh.
LOCAL = f"{RESOURCES}/kube-apiserver-certs/secrets/node-kubeconfigs/localhost.kubeconfig"


def kubeconfig_of(named: Path | None, host_root: Path) -> Path | None:
    """Choose the kubeconfig; None looks where `connect` looks.

    Args:
        named: by the user.
        host_root: where the root of the host is mounted.
    """
    if named is not None or os.environ.get("KUBECONFIG") or (SERVICE_ACCOUNT / "token").is_file():
        return named
    local = host_root / LOCAL.lstrip("/")
    try:
        return local if local.is_file() else None
    except OSError:
        return None


def open_api(
    named: Path | None, context: str | None, host_root: Path
) -> tuple[Api | None, Cluster]:
    """Connect, and read what guards want to know.

    Args:
        named: the kubeconfig that the user names.
        context: another of its contexts than the current.
        host_root: where the root of the host is mounted.

    Returns:
        The API, to be closed, and what it says; None where there is none, and a cluster of which
        nothing is known but why.

    Raises:
        UsageError: the kubeconfig that the user names makes no sense.
    """
    try:
        api = connect(kubeconfig_of(named, host_root), context)
    except BackstayError as error:
        if named is not None or context is not None:
            raise
        return None, unread(f"there is no API at hand: {one_line(error.what)}")
    try:
        return api, read_cluster(api)
    except BaseException:
        api.close()
        raise
