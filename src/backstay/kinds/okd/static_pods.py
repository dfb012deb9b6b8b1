"""Which static pod resources a host runs now, by the manifests that the kubelet reads.

A host keeps several revisions of each. The newest by number or by date need not be the one that
runs: an installer may have died over it, or a rollback have been made. The manifest says it.

Source: openshift/library-go, pkg/operator/staticpod/installerpod (manifests are written as JSON,
on one line, under a name that says YAML; the resources of a revision are the hostPath
`static-pod-resources/NAME-pod-REVISION`); openshift/cluster-etcd-operator, cluster-backup.sh.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from backstay.errors import BackstayError, FormatError, NotFoundError
from backstay.kinds.okd.hosttree import HostTree
from backstay.kubedata.document import load_document
from backstay.repo.manifest import EtcdRevision

#: What cluster-backup.sh saves, in its order.
PODS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
KUBERNETES = "/etc/kubernetes"
MANIFESTS = f"{KUBERNETES}/manifests"
RESOURCES = f"{KUBERNETES}/static-pod-resources"
REVISION_FILE = "/var/lib/etcd/revision.json"
#: Bytes; the largest manifest, etcd's, has about 30 KB.
_MANIFEST_LIMIT = 1 << 20
_REVISION_LIMIT = 64 << 10
#: No operator comes that far, and a number of more digits is none of ours.
_REVISION = "([1-9][0-9]{0,8})"


@dataclass(frozen=True, slots=True)
class StaticPod:
    """One of the four, as it runs now.

    Attributes:
        name: as `kube-apiserver`.
        revision: of its resources.
    """

    name: str
    revision: int

    @property
    def folder(self) -> str:
        """Where its resources lie on the host."""
        return f"{RESOURCES}/{self.name}-pod-{self.revision}"

    @property
    def found(self) -> str:
        """Say that it was found, as cluster-backup.sh does."""
        return f"found latest {self.name}: {self.folder}"


def manifest_of(name: str) -> str:
    """Where the kubelet reads the manifest of a static pod."""
    return f"{MANIFESTS}/{name}-pod.yaml"


def running(tree: HostTree) -> tuple[StaticPod, ...]:
    """Find the four static pods, by their manifests.

    Raises:
        NotFoundError: a manifest, or a directory that one names, is not there.
        FormatError: a manifest is none, or does not name one revision.
        BackstayError: it can't be read.
    """
    return tuple(_running(tree, name) for name in PODS)


def _running(tree: HostTree, name: str) -> StaticPod:
    path = manifest_of(name)
    try:
        data = tree.read(path, limit=_MANIFEST_LIMIT)
    except NotFoundError as error:
        raise NotFoundError(
            f"{tree.title(path)} is not there: the {name} pod does not run on this host",
            "run it on a healthy control plane host, or mend that pod first",
        ) from error
    pattern = re.compile(f"{RESOURCES}/{name}-pod-{_REVISION}/*")
    matches = (pattern.fullmatch(path) for path in _host_paths(data, tree.title(path)))
    revisions = {int(match[1]) for match in matches if match}
    if len(revisions) != 1:
        many = f"names {len(revisions)} revisions" if revisions else "names no revision"
        raise FormatError(
            f"{tree.title(path)} {many} of static-pod-resources/{name}-pod-N",
            "look at its hostPath volumes",
        )
    return StaticPod(name, revisions.pop())


def _host_paths(data: bytes, title: str) -> Iterator[str]:
    """Give the paths of the hostPath volumes of a pod."""
    pod = _load(data, title)
    spec = pod.get("spec") if isinstance(pod, dict) and pod.get("kind") == "Pod" else None
    volumes = spec.get("volumes") if isinstance(spec, dict) else None
    if not isinstance(volumes, list):
        raise FormatError(f"{title} is no manifest of a pod with volumes", "look at the host")
    for volume in volumes:
        source = volume.get("hostPath") if isinstance(volume, dict) else None
        path = source.get("path") if isinstance(source, dict) else None
        if isinstance(path, str):
            yield path


def _load(data: bytes, title: str) -> Any:
    if not data.lstrip().startswith(b"{"):
        return load_document(data, title)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{title} is no JSON that can be read", "look at the host") from error


def moved(before: Sequence[StaticPod], now: Sequence[StaticPod]) -> str:
    """Say which of them have another revision now; empty where none has."""
    return ", ".join(
        f"{new.name} from revision {old.revision} to {new.revision}"
        for old, new in zip(before, now, strict=True)
        if old != new
    )


class _Revision(msgspec.Struct, rename="camel"):
    """`revision.json`, as etcd's operator writes it; what is missing counts as unknown."""

    max_raft_index: int
    cluster_id: str | int = ""
    raft_index: dict[str, int] = msgspec.field(default_factory=dict)
    created: str = ""


def etcd_revision(tree: HostTree) -> EtcdRevision | None:
    """Read what etcd's operator keeps of raft; None where it keeps nothing, as older ones.

    Raises:
        FormatError: it is not what the operator writes.
        BackstayError: it can't be read.
    """
    title = tree.title(REVISION_FILE)
    try:
        data = tree.read(REVISION_FILE, limit=_REVISION_LIMIT)
    except NotFoundError:
        return None
    try:
        found = msgspec.json.decode(data, type=_Revision)
        return msgspec.convert(
            {
                "max_raft_index": found.max_raft_index,
                "cluster_id": str(found.cluster_id),
                "raft_index": found.raft_index,
                "created": found.created,
            },
            EtcdRevision,
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{title} is not what etcd's operator writes: {error}") from error


def check_unmoved(tree: HostTree, before: Sequence[StaticPod]) -> None:
    """Hold the host to run what it ran before.

    Raises:
        BackstayError: a rollout has begun, so that what was read does not belong together.
    """
    changed = moved(before, running(tree))
    if changed:
        raise BackstayError(
            f"a rollout went on while the backup was made: {changed}",
            "run it again when the rollout is over",
        )
