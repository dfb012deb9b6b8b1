"""What the API of an OKD cluster has of itself, for tests: put into a KubeServer, or a real one.

okd_api(kube)                                      # well, and installed long ago
okd_api(kube, progressing=("etcd",), partial="4.15.4", proxy={"httpsProxy": "http://..."})
"""

import datetime as dt

from backstay.kinds.okd.lease import NAMESPACE
from backstay.kubeapi.resource import (
    CLUSTER_OPERATORS,
    CLUSTER_VERSIONS,
    INFRASTRUCTURES,
    PROXIES,
)

INFRASTRUCTURE = "prod-x7k2p"
VERSION = "4.15.3"
IMAGE = f"quay.io/okd/release@sha256:{'5d' * 32}"
OPERATORS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
#: When a cluster was installed that is nothing special.
LONG_AGO = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(days=300)


def time(moment):
    """A time, as Kubernetes writes it."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind, status, reason="AsExpected"):
    return {"type": kind, "status": status, "reason": reason, "message": "so it is"}


def of(resource, name, **more):
    head = {"apiVersion": resource.api_version, "kind": resource.kind}
    return head | {"metadata": {"name": name}, "spec": {}} | more


def update(version, state="Completed", began=LONG_AGO, image=IMAGE):
    """An entry of a ClusterVersion's history."""
    done = began + dt.timedelta(minutes=40)
    completed = time(done) if state == "Completed" else None
    return {"state": state, "version": version, "image": image, "startedTime": time(began),
            "completionTime": completed, "verified": True}  # fmt: skip


def cluster_version(
    *, version=VERSION, installed=LONG_AGO, partial="", progressing=False, history=None
):
    """A ClusterVersion; `partial` is the version of an upgrade that is under way."""
    if history is None:
        history = [update(version, began=installed)]
        if partial:
            history.insert(0, update(partial, "Partial", dt.datetime.now(dt.UTC)))
    on = "True" if progressing or partial else "False"
    status = {
        "desired": {"version": partial or version, "image": IMAGE},
        "history": history,
        "conditions": [condition("Available", "True"), condition("Progressing", on)],
    }
    return of(CLUSTER_VERSIONS, "version", status=status)


def operator(name, *, progressing="False", degraded="False", available="True"):
    """A ClusterOperator."""
    conditions = [
        condition("Degraded", degraded),
        condition("Progressing", progressing, "NodeInstaller"),
        condition("Available", available),
    ]
    return of(CLUSTER_OPERATORS, name, status={"conditions": conditions})


def proxy(*, trusted="", **fields):
    """A Proxy; what is given is in force."""
    spec = fields | {"trustedCA": {"name": trusted}}
    return of(PROXIES, "cluster", spec=spec, status=dict(fields))


def okd_objects(*, progressing=(), proxied=None, **version):
    """All seven objects."""
    name = {"infrastructureName": INFRASTRUCTURE, "platform": "None"}
    return [
        of(INFRASTRUCTURES, "cluster", status=name),
        cluster_version(**version),
        *(operator(it, progressing="True" if it in progressing else "False") for it in OPERATORS),
        proxy(**(proxied or {})),
    ]


def okd_api(kube, **told):
    """Put them into a KubeServer, and the namespace of the Lease."""
    for document in okd_objects(**told):
        kube.put(document)
    kube.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
