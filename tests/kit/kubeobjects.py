"""The objects that an API server of tests has, and the rules of storing them; no HTTP is here."""

import base64
import copy
import datetime as dt
import itertools
import threading
import uuid
from typing import Any

from backstay.kubeapi import resource as resources
from backstay.kubeapi.resource import Resource
from kit.crd import violations

Object = dict[str, Any]

KNOWN = {
    (it.group, it.plural): it for it in vars(resources).values() if isinstance(it, Resource)
} | {
    ("networking.k8s.io", "networkpolicies"): Resource(
        "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"
    ),
}
#: Those of config.openshift.io that an OKD cluster tells of itself by.
OKD = {"infrastructures", "clusterversions", "clusteroperators", "proxies"}
CLUSTER_WIDE = {"namespaces", "selfsubjectaccessreviews"} | OKD
#: Kinds whose status is only written by itself, and those that count changes of their spec.
WITH_STATUS = {"hostedclusters", "nodepools", "hostedcontrolplanes", "statefulsets"} | {
    "deployments", "pods", "persistentvolumeclaims", "namespaces", "services", *OKD,
}  # fmt: skip
_COUNTED = {"hostedclusters", "nodepools", "hostedcontrolplanes", "statefulsets", "deployments"}


_SCALED = {"statefulsets", "deployments"}


class RefusedError(Exception):
    """What the API answers where it does not do it."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Objects:
    """All objects, and the rules of storing them. Used by several threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.changes = 0
        self._found: dict[tuple[Resource, str, str], Object] = {}
        self._versions = itertools.count(1000)

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        with self.lock:
            found = self._found.get((resource, namespace, name))
            if found is None:
                raise RefusedError(404, "NotFound", f'{resource.title} "{name}" not found')
            return copy.deepcopy(found)

    def list(self, resource: Resource, namespace: str) -> list[Object]:
        with self.lock:
            return [
                copy.deepcopy(found)
                for (kind, where, _), found in sorted(self._found.items(), key=lambda i: i[0][1:])
                if kind == resource and namespace in ("", where)
            ]

    def create(self, resource: Resource, namespace: str, document: Object) -> Object:
        name = (document.get("metadata") or {}).get("name")
        if not isinstance(name, str) or not name:
            raise RefusedError(422, "Invalid", "metadata.name: Required value")
        with self.lock:
            if (resource, namespace, name) in self._found:
                raise RefusedError(
                    409, "AlreadyExists", f'{resource.title} "{name}" already exists'
                )
            made = copy.deepcopy(document)
            made.setdefault("apiVersion", resource.api_version)
            made.setdefault("kind", resource.kind)
            metadata = made["metadata"]
            if resource.plural not in CLUSTER_WIDE:
                metadata["namespace"] = namespace
            if "stringData" in made and resource.kind == "Secret":
                text = made.pop("stringData")
                encoded = {k: base64.b64encode(v.encode()).decode() for k, v in text.items()}
                made["data"] = {**made.get("data", {}), **encoded}
            self._check(made, None)
            now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now}
            if resource.plural in _COUNTED:
                metadata["generation"] = 1
            return self._store(resource, namespace, name, made)

    def patch(
        self, resource: Resource, namespace: str, name: str, changes: Object, subresource: str = ""
    ) -> Object:
        with self.lock:
            old = self.get(resource, namespace, name)
            self._same(resource, old, changes.get("metadata") or {})
            new = merged(old, changes)
            if subresource == "status":
                new = {**old, "status": new.get("status")}
            for field in ("uid", "creationTimestamp", "name", "namespace", "generation"):
                if field in old["metadata"]:
                    new["metadata"][field] = old["metadata"][field]
            self._check(new, old)
            if new == old:
                return old
            if resource.plural in _COUNTED and new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
            gone = new["metadata"].get("deletionTimestamp") and not new["metadata"].get(
                "finalizers"
            )
            if gone:
                return self._drop(resource, namespace, name)
            return self._store(resource, namespace, name, new)

    def scale(
        self, resource: Resource, namespace: str, name: str, changes: Object | None = None
    ) -> Object:
        """Give an object's Scale; with changes (a merge patch of it) set its replicas before."""
        if resource.plural not in _SCALED:
            raise RefusedError(404, "NotFound", "the server could not find the requested resource")
        with self.lock:
            old = self.get(resource, namespace, name)
            if changes is None:
                return _scale_of(old)
            wanted = merged(_scale_of(old), changes)
            replicas = (wanted.get("spec") or {}).get("replicas", 0)
            if not isinstance(replicas, int) or isinstance(replicas, bool):
                raise RefusedError(400, "BadRequest", "cannot unmarshal into field spec.replicas")
            if replicas < 0:
                raise RefusedError(
                    422,
                    "Invalid",
                    f'Scale.autoscaling "{name}" is invalid: spec.replicas: Invalid value:'
                    f" {replicas}: must be greater than or equal to 0",
                )
            # Nothing else of a Scale gets into the object, whatever the patch holds.
            self._same(resource, old, wanted.get("metadata") or {})
            return _scale_of(
                self.patch(resource, namespace, name, {"spec": {"replicas": replicas}})
            )

    def replace(self, resource: Resource, namespace: str, name: str, document: Object) -> Object:
        """Put another in its place (PUT): what it does not have is gone."""
        with self.lock:
            old = self.get(resource, namespace, name)
            emptied = {key: None for key in old if key not in ("metadata", "status")}
            return self.patch(resource, namespace, name, emptied | document)

    def _same(self, resource: Resource, old: Object, wanted: Object) -> None:
        """Hold what a change was made for against what is there."""
        name, metadata = old["metadata"]["name"], old["metadata"]
        if wanted.get("resourceVersion") not in (None, metadata["resourceVersion"]):
            raise RefusedError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {resource.title} "{name}": the object has been'
                " modified; please apply your changes to the latest version and try again",
            )
        if wanted.get("uid") not in (None, metadata["uid"]):
            raise RefusedError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {resource.title} "{name}": Precondition failed:'
                f" UID in precondition: {wanted['uid']}, UID in object meta: {metadata['uid']}",
            )
        if wanted.get("name") not in (None, name):
            raise RefusedError(
                400, "BadRequest", "the name of the object does not match the name on the URL"
            )

    def delete(self, resource: Resource, namespace: str, name: str, uid: str = "") -> Object:
        with self.lock:
            old = self.get(resource, namespace, name)
            self._same(resource, old, {"uid": uid or None})
            if old["metadata"].get("deletionTimestamp"):
                return old
            if old["metadata"].get("finalizers"):
                now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                return self._store(
                    resource, namespace, name, merged(old, {"metadata": {"deletionTimestamp": now}})
                )
            return self._drop(resource, namespace, name)

    def put(self, resource: Resource, namespace: str, document: Object) -> Object:
        """Create or replace, status and all, as a test wants it."""
        with self.lock:
            name = document["metadata"]["name"]
            try:
                old = self.get(resource, namespace, name)
            except RefusedError:
                return self.create(resource, namespace, document)
            new = copy.deepcopy(document)
            new["metadata"] = {**old["metadata"], **new["metadata"]}
            return self._store(resource, namespace, name, new)

    def _check(self, new: Object, old: Object | None) -> None:
        wrong = violations(new["kind"], new, old)
        if wrong:
            name = new["metadata"]["name"]
            raise RefusedError(
                422, "Invalid", f'{new["kind"]} "{name}" is invalid: {"; ".join(wrong)}'
            )

    def _store(self, resource: Resource, namespace: str, name: str, made: Object) -> Object:
        made["metadata"]["resourceVersion"] = str(next(self._versions))
        self._found[resource, namespace, name] = made
        self._tell()
        return copy.deepcopy(made)

    def _drop(self, resource: Resource, namespace: str, name: str) -> Object:
        gone = self._found.pop((resource, namespace, name))
        self._tell()
        return gone

    def _tell(self) -> None:
        self.changes += 1
        self.changed.notify_all()


def _scale_of(document: Object) -> Object:
    """Make the autoscaling/v1 Scale of a Deployment or StatefulSet."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    replicas = spec.get("replicas", 1)
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {key: metadata[key] for key in kept},
        # A real server leaves out a zero.
        "spec": {"replicas": replicas} if replicas else {},
        "status": {
            "replicas": (document.get("status") or {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        },
    }


def merged(old: Any, changes: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(changes, dict):
        return copy.deepcopy(changes)
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in changes.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value)
    return new
