"""Roles as an API server evaluates them: who is granted what, and a server that is held to it.

    documents = read(Path("deploy/hosted"))
    rules = rules_of(documents, "ServiceAccount", "backstay", "backstay")
    with held_to(kube, rules): ...                     # KubeServer allows just that

Kept simple where the roles that are shipped are: there are no wildcards, and reading one fails. A
ClusterRole is bound for the whole cluster, by a ClusterRoleBinding; its namespace is empty here.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

Object = dict[str, Any]
_GROUP = "rbac.authorization.k8s.io"


class Grant(NamedTuple):
    """One thing that may be done, or was.

    Attributes:
        name: of the object; empty is any, and is what a list or a creation asks for.
    """

    namespace: str
    verb: str
    group: str
    resource: str
    subresource: str = ""
    name: str = ""

    @property
    def any_name(self) -> "Grant":
        """The same for any object."""
        return self._replace(name="")


def read(folder: Path) -> list[Object]:
    """Read all manifests of a directory, as `oc apply -f` does: in the order of their names."""
    return [document for path in sorted(folder.glob("*.yaml")) for document in parse(path)]


def parse(source: Path | str) -> list[Object]:
    """Read manifests; a key that is there twice is an error."""
    return list(YAML(typ="safe", pure=True).load_all(source))


def kinds(documents: Iterable[Object], kind: str) -> list[Object]:
    """The objects of one kind."""
    return [document for document in documents if document["kind"] == kind]


def grants(role: Object) -> set[Grant]:
    """All that a Role, or a ClusterRole, grants."""
    assert role["apiVersion"] == f"{_GROUP}/v1"
    found = set()
    for rule in role["rules"]:
        assert rule.keys() - {"resourceNames"} == {"apiGroups", "resources", "verbs"}, rule
        # An empty list would grant all objects, and nobody who reads it would think so.
        assert rule.get("resourceNames", True), rule
        for group in rule["apiGroups"]:
            for title in rule["resources"]:
                resource, _, subresource = title.partition("/")
                for verb in rule["verbs"]:
                    assert "*" not in (group, resource, subresource, verb), rule
                    for name in rule.get("resourceNames", [""]):
                        namespace = role["metadata"].get("namespace", "")
                        found.add(Grant(namespace, verb, group, resource, subresource, name))
    return found


def rules_of(
    documents: Sequence[Object], kind: str, name: str, namespace: str = ""
) -> list[tuple[str, Object]]:
    """The rules that a subject has by its bindings, each with the namespace it is for."""
    found = []
    for prefix in ("", "Cluster"):
        roles = {_key(role): role for role in kinds(documents, f"{prefix}Role")}
        for binding in kinds(documents, f"{prefix}RoleBinding"):
            reference = binding["roleRef"]
            assert (reference["apiGroup"], reference["kind"]) == (_GROUP, f"{prefix}Role")
            if any(_is(subject, kind, name, namespace) for subject in binding["subjects"]):
                where = binding["metadata"].get("namespace", "")
                # A binding to a role that is not there grants nothing.
                role = roles[where, reference["name"]]
                found += [(where, rule) for rule in role["rules"]]
    return found


def _key(role: Object) -> tuple[str, str]:
    return role["metadata"].get("namespace", ""), role["metadata"]["name"]


def _is(subject: Object, kind: str, name: str, namespace: str) -> bool:
    # A service account is of no group of the API, and lies in a namespace; others do not.
    group = "" if kind == "ServiceAccount" else _GROUP
    told = [subject.get(part, "") for part in ("kind", "name", "namespace", "apiGroup")]
    return told == [kind, name, namespace, group]


@contextmanager
def held_to(kube: Any, rules: Sequence[tuple[str, Object]]) -> Iterator[int]:
    """Have a KubeServer allow nothing else meanwhile; gives the number of requests before."""
    before, kube._granted = kube._granted, []
    try:
        for namespace, rule in rules:
            kube.only([rule], namespace)
        yield len(kube.requests)
    finally:
        kube._granted = before


def recorded(kube: Any, began: int = 0) -> set[Grant]:
    """What was asked of a KubeServer since; access reviews need no right."""
    return {
        Grant(
            seen.namespace,
            seen.verb,
            seen.group,
            seen.resource,
            seen.subresource,
            "" if seen.verb == "create" and not seen.subresource else seen.name,
        )
        for seen in kube.requests[began:]
        if seen.resource != "selfsubjectaccessreviews"
    }
