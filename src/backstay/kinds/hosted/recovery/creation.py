"""What a restore is to create: the documents in order, and what speaks against it.

Decisions alone, from documents and from what is there already; `apply` looks and creates. The
order is that of `oc apply -f` on rendered manifests: what others refer to comes first.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backstay.errors import UsageError
from backstay.kinds.hosted.cluster import at, control_plane_namespace
from backstay.kinds.hosted.recovery.etcd_init import Refusal
from backstay.kubeapi.api import Object
from backstay.kubeapi.resource import (
    CONFIG_MAPS,
    HOSTED_CLUSTERS,
    NAMESPACES,
    NODE_POOLS,
    SECRETS,
    Resource,
)

#: Marks what a restore created, so that the same restore can go on after a crash.
MARK = "backstay.dev/restore"
_RBAC = "rbac.authorization.k8s.io"
#: What is created, in this order; `create cluster agent --render` writes a Role.
KINDS = (
    NAMESPACES,
    CONFIG_MAPS,
    SECRETS,
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    Resource(_RBAC, "v1", "roles", "Role"),
    Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
    HOSTED_CLUSTERS,
    NODE_POOLS,
)
_BY_NAME = {(resource.api_version, resource.kind): resource for resource in KINDS}
_URL = "spec.etcd.managed.storage.restoreSnapshotURL"
#: Volume claims of etcd pods: `data-etcd-0`, or `data-etcd-SHARD-0`.
ETCD_CLAIM = "data-etcd-"
_MAX_DEPTH = 64
#: Differences that are named of one object.
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object that is to be there.

    Attributes:
        resource: its kind.
        namespace: its namespace; empty for a Namespace.
        name: its name.
        body: as it is created, with the mark; Secrets are among them.
    """

    resource: Resource
    namespace: str
    name: str
    body: Object = field(repr=False)

    @property
    def title(self) -> str:
        """How messages call it."""
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.resource.kind} {where}{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """All that a restore is to create.

    Attributes:
        restore: which restore this is: what the mark says.
        name: of the HostedCluster.
        namespace: of the HostedCluster.
        items: in the order in which they are created.
        members: how many etcd members the control plane will have.
        release_image: that it will run.
    """

    restore: str
    name: str
    namespace: str
    items: tuple[Item, ...]
    members: int
    release_image: str

    @property
    def control_plane_namespace(self) -> str:
        """Where its pods will run."""
        return control_plane_namespace(self.namespace, self.name)


def plan(documents: Sequence[Object], restore: str) -> Creation:
    """Put documents into order, each with the mark of this restore.

    Args:
        documents: as they were rendered; exactly one HostedCluster among them.
        restore: which restore this is; the same for a run that goes on after a crash.

    Raises:
        UsageError: they are not what can be created; nothing of a Secret is quoted.
    """
    items = [_item(document, restore) for document in documents]
    seen: set[tuple[Resource, str, str]] = set()
    for item in items:
        key = item.resource, item.namespace, item.name
        if key in seen:
            raise UsageError(f"{item.title} is there twice", "take one of them out")
        seen.add(key)
    hosted = [item for item in items if item.resource == HOSTED_CLUSTERS]
    if len(hosted) != 1:
        raise UsageError(
            f"{len(hosted)} HostedClusters are to be created, and a restore takes one",
            "give the documents of one hosted cluster",
        )
    body = hosted[0].body
    nothing: list[Any] = []
    if not at(body, _URL, nothing):
        raise UsageError(
            f"{hosted[0].title} has no {_URL}: it would come up empty",
            "let `backstay restore hosted` write the documents",
        )
    named = {item.name for item in items if item.resource == NAMESPACES}
    wanted = dict.fromkeys(item.namespace for item in items if item.namespace)
    more = [_namespace(name, restore) for name in wanted if name not in named]
    return Creation(
        restore=restore,
        name=hosted[0].name,
        namespace=hosted[0].namespace,
        items=tuple(sorted([*more, *items], key=lambda item: KINDS.index(item.resource))),
        members=members_of(body),
        release_image=at(body, "spec.release.image", ""),
    )


def members_of(hosted_cluster: Object) -> int:
    """How many etcd members a HostedCluster asks for.

    Source: hypershift, support/controlplane-component/defaults.go. What does not say that it has
    one is taken to have three: the API's own default is HighlyAvailable.
    """
    policy = at(hosted_cluster, "spec.controllerAvailabilityPolicy", "")
    return 1 if policy == "SingleReplica" else 3


def _item(document: Object, restore: str) -> Item:
    kind = at(document, "apiVersion", ""), at(document, "kind", "")
    resource = _BY_NAME.get(kind)
    name, namespace = at(document, "metadata.name", ""), at(document, "metadata.namespace", "")
    if resource is None:
        raise UsageError(
            f"a restore does not create {' '.join(kind)[:100].strip() or 'what has no kind'}",
            "create it with `oc create -f`, and take it out of the documents",
        )
    if not name or (resource != NAMESPACES and not namespace):
        raise UsageError(f"a {resource.kind} has no name, or no namespace", "give it both")
    where = "" if resource == NAMESPACES else namespace
    return Item(resource=resource, namespace=where, name=name, body=_marked(document, restore))


def _namespace(name: str, restore: str) -> Item:
    body = {
        "apiVersion": NAMESPACES.api_version,
        "kind": NAMESPACES.kind,
        "metadata": {"name": name},
    }
    return Item(resource=NAMESPACES, namespace="", name=name, body=_marked(body, restore))


def _marked(document: Object, restore: str) -> Object:
    nothing: Object = {}
    metadata = at(document, "metadata", nothing)
    annotations = at(metadata, "annotations", nothing)
    return {**document, "metadata": {**metadata, "annotations": {**annotations, MARK: restore}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is there already.

    Attributes:
        objects: for each item, in order, the object of its name, or None.
        claims: names of volume claims in the control-plane namespace.
        control_plane: the control-plane namespace, or None.
    """

    objects: tuple[Object | None, ...] = field(repr=False)
    claims: tuple[str, ...] = ()
    control_plane: Object | None = field(default=None, repr=False)


def judge(creation: Creation, found: Found) -> tuple[Refusal, ...]:
    """Say all that speaks against creating; nothing where nothing does.

    What exists is never overwritten. What exists and is what we want is fine, but for the
    HostedCluster: one that this restore has not made itself has a control plane, or had one.
    """
    reasons: list[Refusal] = []
    pairs = list(zip(creation.items, found.objects, strict=True))
    for item, there in pairs:
        if there is not None:
            reasons += _against(item, there)
    ours = any(item.resource == HOSTED_CLUSTERS and there for item, there in pairs)
    space = creation.control_plane_namespace
    if _leaving(found.control_plane):
        reasons.append(Refusal(f"Namespace {space} is being deleted", "wait until it is gone"))
    claims = [name for name in found.claims if name.startswith(ETCD_CLAIM)]
    if claims and not ours:
        reasons.append(
            Refusal(
                f"{space} has volumes of an etcd ({', '.join(claims[:_NAMED])}): etcd-init would"
                " find data there, and restore nothing",
                f"look at what they hold, then `oc delete pvc -n {space} {' '.join(claims)}`"[:400],
            )
        )
    return tuple(reasons)


def _against(item: Item, there: Object) -> list[Refusal]:
    if _leaving(there):
        return [Refusal(f"{item.title} is being deleted", "wait until it is gone")]
    if item.resource == NAMESPACES:
        return []
    nothing: Object = {}
    mark = at(there, "metadata.annotations", nothing).get(MARK)
    mine = at(item.body, "metadata.annotations", nothing).get(MARK)
    if item.resource == HOSTED_CLUSTERS and mark != mine:
        return [
            Refusal(
                f"{item.title} exists: a snapshot is restored only when a cluster is created",
                "restore under another name; or, if it is to be replaced, delete it and its"
                " volumes first",
            )
        ]
    differing = differences(item, there)
    if not differing:
        return []
    named = ", ".join(differing[:_NAMED]) + (", ..." if len(differing) > _NAMED else "")
    return [
        Refusal(
            f"{item.title} exists and is another: {named}",
            "delete it, or take it out of the documents if it is the one that you want",
        )
    ]


def _leaving(there: Object | None) -> bool:
    return bool(at(there, "metadata.deletionTimestamp", ""))


def differences(item: Item, there: Object) -> tuple[str, ...]:
    """Name the fields in which an object is not what we want; never their values.

    What the server has beside what we want (defaults, status, managed fields) is no difference.
    Of the metadata only labels and annotations count. Nor is it one where a HostedCluster of this
    restore has another URL: each run presigns anew, and the field can't be changed any more.
    """
    mine = _comparable(item.body)
    if item.resource == HOSTED_CLUSTERS:
        mine = _without(mine, _URL.split("."))
    return tuple(_differing(mine, _comparable(there), ""))


def _comparable(document: Object) -> Object:
    nothing: Object = {}
    found = {
        name: value
        for name, value in document.items()
        if name not in {"apiVersion", "kind", "metadata", "status", "stringData"}
    }
    plain = at(document, "stringData", nothing)
    if plain:
        encoded = {
            name: base64.b64encode(str(text).encode(errors="surrogatepass")).decode()
            for name, text in plain.items()
        }
        found["data"] = {**at(document, "data", nothing), **encoded}
    annotations = dict(at(document, "metadata.annotations", nothing))
    annotations.pop(MARK, None)
    labels = at(document, "metadata.labels", nothing)
    return {**found, "metadata": {"annotations": annotations, "labels": labels}}


def _without(document: Object, path: Sequence[str]) -> Object:
    first, *rest = path
    inner = document.get(first)
    if not rest or not isinstance(inner, dict):
        return {name: value for name, value in document.items() if rest or name != first}
    return {**document, first: _without(inner, rest)}


def _differing(mine: object, theirs: object, place: str, depth: int = 0) -> list[str]:
    if depth > _MAX_DEPTH:
        return [place]
    if isinstance(mine, Mapping):
        found = theirs if isinstance(theirs, Mapping) else {}
        return [
            name
            for key, value in mine.items()
            for name in _differing(value, found.get(key), _below(place, key), depth + 1)
        ]
    if isinstance(mine, list):
        if not isinstance(theirs, list) or len(mine) != len(theirs):
            return [] if not mine and theirs is None else [place]
        return [
            name
            for index, pair in enumerate(zip(mine, theirs, strict=True))
            for name in _differing(*pair, f"{place}[{index}]", depth + 1)
        ]
    # An API server leaves out what is empty.
    same = mine == theirs or (theirs is None and mine in {None, "", False})
    return [] if same else [place]


def _below(place: str, key: object) -> str:
    text = "".join(c if c.isprintable() else " " for c in str(key)[:100])
    return f"{place}.{text}" if place else text
