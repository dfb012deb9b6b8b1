"""Manifests as people hand them over: several YAML documents with one HostedCluster among them.

What `hypershift create cluster ... --render` prints is edited by hand, has comments, and goes to
`oc apply` or into a git repository. So whatever is not edited here stays byte for byte; see
`manifest_text`. The text may hold keys: no message and no repr quotes it.

Border: finding objects in the text, and changing it. What to change is decided by others.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, cast

from backstay.errors import FormatError, RefusedError
from backstay.kinds.hosted.cluster import at, is_name
from backstay.kinds.hosted.manifests.manifest_text import LOOK, Part, dump, load, read_parts

GROUP = "hypershift.openshift.io/"
#: The version whose fields this program knows.
VERSION = "v1beta1"

#: An object that may be changed.
Tree = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """One object among the documents; its content is read through `value`, and not changed there.

    Attributes:
        value: the object. It is not in the repr, since it may be a Secret.
        group: group and version, as `v1`.
        kind: its kind.
        name: its name; empty where it has none.
        namespace: its namespace; empty where it names none.
    """

    value: Mapping[str, Any] = field(repr=False)
    group: str
    kind: str
    name: str
    namespace: str
    _part: Part = field(repr=False)

    @property
    def title(self) -> str:
        """How messages call it."""
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


class Documents:
    """Manifests with exactly one HostedCluster; made by `parse_documents`."""

    def __init__(self, parts: list[Part], name: str) -> None:
        self._parts = parts
        self.name = name

    def __repr__(self) -> str:
        return f"Documents({self.name})"

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """All objects, in their order; those of a List one by one."""
        return tuple(found for part in self._parts for found in _objects(part))

    @property
    def hosted_cluster(self) -> Manifest:
        """The HostedCluster."""
        return next(found for found in self.manifests if _is_hyper(found, "HostedCluster"))

    @property
    def node_pools(self) -> tuple[Manifest, ...]:
        """The NodePools."""
        return tuple(found for found in self.manifests if _is_hyper(found, "NodePool"))

    @property
    def secrets(self) -> tuple[Manifest, ...]:
        """The Secrets."""
        return tuple(found for found in self.manifests if _is_secret(found))

    def secret(self, namespace: str, name: str) -> Manifest | None:
        """Find a Secret by its name, if it is among the documents."""
        wanted = (namespace, name)
        return next((one for one in self.secrets if (one.namespace, one.name) == wanted), None)

    def copy(self) -> "Documents":
        """Make documents with the same text that can be edited apart from these."""
        return Documents(read_parts(self.render(), self.name), self.name)

    def edit(self, manifest: Manifest) -> Tree:
        """Give an object to be changed; its document is then written anew.

        Args:
            manifest: one of these documents.
        """
        manifest._part.edited = True  # noqa: SLF001 - the part is kept from all but Documents
        return cast("Tree", manifest.value)

    def add(self, document: Mapping[str, Any]) -> Manifest:
        """Add an object right before the HostedCluster, which refers to it.

        Args:
            document: of texts, lists and dicts.
        """
        target = self.hosted_cluster
        part = target._part  # noqa: SLF001 - as above
        if part.value is not target.value:
            items = part.value["items"]
            index = next(n for n, item in enumerate(items) if item is target.value)
            items.insert(index, load(dump(document)))
            part.edited = True
            return _manifest(items[index], part)
        body = dump(document)
        new = Part("---\n", body, "", load(body))
        index = self._parts.index(part)
        if index == 0 and not part.explicit:
            # A text may begin without `---`; what follows another document may not.
            new.head, part.head = part.head, "---\n"
        self._parts.insert(index, new)
        return _manifest(new.value, new)

    def render(self) -> str:
        """Write the documents: those that were not edited exactly as they were read."""
        return "".join(part.text for part in self._parts)


def parse_documents(data: bytes | str, name: str) -> Documents:
    """Read manifests.

    Args:
        data: the text; bytes in UTF-8.
        name: what messages call it.

    Raises:
        FormatError: it can't be read, is too large or too deep, has what manifests don't have
            (anchors, tags), a document that is no object, one Secret twice, or a HostedCluster
            without a name. The message quotes nothing of it.
        RefusedError: it has no HostedCluster, or more than one.
    """
    documents = Documents(read_parts(data, name), name)
    _check(documents)
    return documents


def _check(documents: Documents) -> None:
    found = [one for one in documents.manifests if _is_hyper(one, "HostedCluster")]
    name = documents.name
    if not found:
        raise RefusedError(f"{name} has no HostedCluster", LOOK)
    if len(found) > 1:
        raise RefusedError(
            f"{name} has {len(found)} HostedClusters, and a backup is of one",
            "give a file with the one that is to be restored",
        )
    (one,) = found
    if not is_name(one.name) or not is_name(one.namespace):
        raise FormatError(f"the HostedCluster of {name} has no name, or names no namespace")
    if one.group != GROUP + VERSION:
        raise FormatError(
            f"the HostedCluster of {name} is not of {GROUP}{VERSION}", "render it anew"
        )
    if not isinstance(one.value.get("spec"), Mapping):
        raise FormatError(f"the HostedCluster of {name} has no spec")
    secrets = [(secret.namespace, secret.name) for secret in documents.secrets]
    if len(set(secrets)) < len(secrets):
        raise FormatError(f"{name} has one Secret twice", "leave one of them out")


def _is_hyper(found: Manifest, kind: str) -> bool:
    return found.kind == kind and found.group.startswith(GROUP)


def _is_secret(found: Manifest) -> bool:
    return found.kind == "Secret" and found.group == "v1"


def _objects(part: Part) -> Iterator[Manifest]:
    if part.value is None:
        return
    listed = part.value.get("items")
    if not at(part.value, "kind", "").endswith("List") or not isinstance(listed, list):
        yield _manifest(part.value, part)
        return
    for item in listed:
        if isinstance(item, Mapping):
            yield _manifest(item, part)


def _manifest(value: Mapping[str, Any], part: Part) -> Manifest:
    return Manifest(
        value,
        at(value, "apiVersion", ""),
        at(value, "kind", ""),
        at(value, "metadata.name", "")[:300],
        at(value, "metadata.namespace", "")[:300],
        part,
    )
