"""How the API of the cluster is reached from one of its hosts, for the guards.

What the user names goes first, then KUBECONFIG, then the account of the pod that this is: its role
allows just what is needed. At last comes the kubeconfig that the host itself has for its own
kube-apiserver, which upstream's script uses, and which may do everything. That one is read as all
files of the host are: its links and the paths in it are the host's, not this machine's.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from backstay.client.text import one_line
from backstay.errors import BackstayError
from backstay.kinds.okd.cluster import Cluster, read_cluster, unread
from backstay.kinds.okd.hosttree import HostTree
from backstay.kinds.okd.static_pods import RESOURCES
from backstay.kubeapi.api import Api
from backstay.kubeapi.connect import connect
from backstay.kubeapi.credentials import SERVICE_ACCOUNT

#: Source: openshift/cluster-etcd-operator, bindata/etcd/cluster-backup.sh.
LOCAL = f"{RESOURCES}/kube-apiserver-certs/secrets/node-kubeconfigs/localhost.kubeconfig"


@dataclass(frozen=True, slots=True)
class HostFiles:
    """Reads files of a host: paths and links are meant below its root, as they are there.

    Attributes:
        root: where the root of the host is mounted.
    """

    root: Path

    def __call__(self, path: Path, *, limit: int) -> bytes:
        """Read one.

        Raises:
            BackstayError: it can't be read, is too large, or leads out of the root.
        """
        with HostTree(self.root) as tree:
            return tree.read(str(path), limit=limit)


def _connect(named: Path | None, context: str | None, host_root: Path) -> Api:
    """Choose the kubeconfig; nothing is asked of the API yet."""
    if named is not None or os.environ.get("KUBECONFIG") or (SERVICE_ACCOUNT / "token").is_file():
        return connect(named, context)
    with HostTree(host_root) as tree:
        there = tree.is_file(LOCAL)
    if there:
        return connect(Path(LOCAL), context, read=HostFiles(host_root))
    return connect(None, context)


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
        api = _connect(named, context, host_root)
    except BackstayError as error:
        if named is not None or context is not None:
            raise
        return None, unread(f"there is no API at hand: {one_line(error.what)}")
    try:
        return api, read_cluster(api)
    except BaseException:
        api.close()
        raise
