"""HyperShift's operators, and Kubernetes' Deployments, as far as pausing and scaling goes.

    operator = HypershiftOperator("blue", "clusters", replicas=3)
    kube.actor(operator)                       # tests/kit/kubeserver.py
    operator.leaves = 0.5                      # seconds until a pod that shall go is gone
    operator.ignores_pause = True              # replicas are put back, paused or not
    operator.keeps_pods = True                 # pods that shall go stay for ever
    operator.never_available = True            # the HostedCluster never is Available again
    operator.deaf = True                       # nobody writes a status or heeds a pause

Source: support/util/pausereconcile.go, support/controlplane-component/defaults.go of
openshift/hypershift: ParseBool, then RFC 3339; what is neither does not pause, and is told. A pause
that has lapsed is none. A control plane that is not paused gets its default replicas back.
"""

import copy
import datetime as dt
import itertools
import re
import time
from contextlib import suppress

from backstay.kubeapi.resource import (
    DEPLOYMENTS,
    HOSTED_CLUSTERS,
    HOSTED_CONTROL_PLANES,
    NODE_POOLS,
    PODS,
)
from kit.hosted import WRITERS, namespace_of
from kit.kubeserver import RefusedError

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def paused(value):
    """Whether a value pauses now, and the reason that the condition gives."""
    if value is None or value in _FALSE:
        return False, "AsExpected"
    if value in _TRUE:
        return True, "ReconciliationPaused"
    if not _RFC3339.fullmatch(value):
        return False, "InvalidPausedUntilValue"
    if dt.datetime.now(dt.UTC) < dt.datetime.fromisoformat(value):
        return True, "ReconciliationPaused"
    return False, "AsExpected"


class HypershiftOperator:
    """Called with a KubeServer whenever something changed."""

    def __init__(self, name="blue", namespace="clusters", *, replicas=3, leaves=0.0):
        self.name, self.namespace = name, namespace
        self.inside = namespace_of(name, namespace)
        self.replicas, self.leaves = replicas, leaves
        self.ignores_pause = self.keeps_pods = self.never_available = self.deaf = False
        self._numbers = itertools.count(1)
        self._leaving = {}

    def __call__(self, kube):
        # An object may go between two lines of this, as it may for the real one.
        with suppress(RefusedError):
            self._deployments(kube)
            if not self.deaf:
                self._reconcile(kube)

    def _reconcile(self, kube):
        hosted = kube.get(HOSTED_CLUSTERS, self.name, self.namespace)
        plane = kube.get(HOSTED_CONTROL_PLANES, self.name, self.inside)
        if hosted is None or plane is None:
            return
        value = hosted["spec"].get("pausedUntil")
        if plane["spec"].get("pausedUntil") != value:
            changes = {"spec": {"pausedUntil": value}}
            plane = kube.patch(HOSTED_CONTROL_PLANES, self.name, changes, self.inside)
        held, _ = paused(value)
        if not held or self.ignores_pause:
            for writer in WRITERS:
                if kube.get(DEPLOYMENTS, writer, self.inside) is not None:
                    spec = {"spec": {"replicas": self.replicas}}
                    kube.patch(DEPLOYMENTS, writer, spec, self.inside)
        self._tell(kube, HOSTED_CLUSTERS, hosted, {"Available": self._available(kube)})
        self._tell(kube, HOSTED_CONTROL_PLANES, plane, {})
        for pool in kube.list(NODE_POOLS, self.namespace):
            if pool["spec"].get("clusterName") == self.name:
                self._tell(kube, NODE_POOLS, pool, {})

    def _available(self, kube):
        server = kube.get(DEPLOYMENTS, "kube-apiserver", self.inside)
        ready = server is not None and server["status"].get("readyReplicas", 0) > 0
        return ready and not self.never_available

    def _tell(self, kube, resource, document, more):
        """Write the conditions of one object."""
        held, reason = paused(document["spec"].get("pausedUntil"))
        told = {"ReconciliationActive": (not held, reason)}
        told |= {kind: (yes, "AsExpected") for kind, yes in more.items()}
        conditions = copy.deepcopy(document["status"].get("conditions", []))
        conditions = [c for c in conditions if c["type"] not in told]
        for kind, (yes, why) in sorted(told.items()):
            conditions.append(
                {
                    "type": kind,
                    "status": "True" if yes else "False",
                    "reason": why,
                    "message": "",
                    "lastTransitionTime": "2026-11-10T09:00:00Z",
                    "observedGeneration": document["metadata"]["generation"],
                }
            )
        metadata = document["metadata"]
        kube.patch(
            resource,
            metadata["name"],
            {"status": {"conditions": conditions}},
            metadata["namespace"],
        )

    def _deployments(self, kube):
        for name in WRITERS:
            deployment = kube.get(DEPLOYMENTS, name, self.inside)
            if deployment is not None:
                self._deployment(kube, deployment)

    def _deployment(self, kube, deployment):
        name, labels = deployment["metadata"]["name"], deployment["spec"]["selector"]["matchLabels"]
        pods = [
            pod
            for pod in kube.list(PODS, self.inside)
            if labels.items() <= (pod["metadata"].get("labels") or {}).items()
        ]
        staying = [pod for pod in pods if pod["metadata"]["name"] not in self._leaving]
        wanted = deployment["spec"].get("replicas", 1)
        for pod in staying[wanted:]:
            self._leaving[pod["metadata"]["name"]] = time.monotonic() + self.leaves
        for _ in range(wanted - len(staying)):
            self._start(kube, name, labels)
        for pod in pods:
            gone_at = self._leaving.get(pod["metadata"]["name"])
            if gone_at is not None and time.monotonic() >= gone_at and not self.keeps_pods:
                kube.remove(PODS, pod["metadata"]["name"], self.inside)
        numbers = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas"), wanted)
        numbers["observedGeneration"] = deployment["metadata"]["generation"]
        if not wanted:
            # A real one leaves out what is 0.
            numbers = {
                **dict.fromkeys(numbers),
                "observedGeneration": numbers["observedGeneration"],
            }
        kube.patch(DEPLOYMENTS, name, {"status": numbers}, self.inside)

    def _start(self, kube, name, labels):
        metadata = {
            "name": f"{name}-7d9f8b6c5-n{next(self._numbers)}",
            "namespace": self.inside,
            "labels": labels,
        }
        kube.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": {"containers": [{"name": name}]},
                "status": {"phase": "Running"},
            }
        )
