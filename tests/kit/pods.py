"""Pods of a hosted etcd in which our scripts run, with a real etcdctl against real members."""

from contextlib import contextmanager

from backstay.kinds.hosted.cluster import EtcdPod, Hosted, Shard
from backstay.kinds.hosted.reach.exec_snapshot import ExecSource
from backstay.kinds.hosted.reach.pod_script import PodPaths
from kit import needs
from kit.kubestreams import Streams, serve

NAMESPACE = "clusters-blue"


def container(folder, etcd, *, etcdctl=None, shell="/bin/sh", old_path=False, **words):
    """What the words of our scripts mean in this pod."""
    tls, files = etcd.tls, folder / "tls"
    ca = tls.authority.write(files)
    certificate, key = tls.client.write(files)
    (folder / "lib").mkdir(exist_ok=True)
    new, old = PodPaths().authorities
    return {
        "/bin/sh": shell,
        "/usr/bin/etcdctl": str(etcdctl or needs.binary("etcdctl")),
        "https://localhost:2379": etcd.endpoint,
        "/var/lib": str(folder / "lib"),
        new: str(folder / "not-there") if old_path else str(ca),
        old: str(ca) if old_path else str(folder / "not-there-either"),
        "/etc/etcd/tls/client/etcd-client.crt": str(certificate),
        "/etc/etcd/tls/client/etcd-client.key": str(key),
        **words,
    }


@contextmanager
def within_reach(*pods, stall=20.0, **more):
    """Serve pods; gives their source, and the streams."""
    streams = Streams()
    for number, rewrite in enumerate(pods):
        # HyperShift sets these in the container: etcdctl ends where a flag says otherwise.
        env = {"ETCDCTL_API": "3", "ETCDCTL_CACERT": "/nowhere", "ETCDCTL_ENDPOINTS": "x:1"}
        streams.pod(NAMESPACE, f"etcd-{number}", rewrite=rewrite, env=env)
    shard = Shard(
        name="etcd",
        service="etcd-client",
        replicas=len(pods),
        pods=tuple(EtcdPod(name=f"etcd-{number}", ready=True) for number in range(len(pods))),
    )
    hosted = Hosted(
        name="blue",
        namespace="clusters",
        control_plane_namespace=NAMESPACE,
        hosted_cluster={},
        shards=(shard,),
    )
    with serve(streams) as server, server.api() as api:
        yield ExecSource(api, hosted, shard, stall=stall, **more), streams
