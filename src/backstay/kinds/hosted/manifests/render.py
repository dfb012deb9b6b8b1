"""Manifests that restore: the rendered ones, with the snapshot's URL and the saved keys put in.

A restore is a creation: everything must be right in the documents before they are applied. So this
says all that is wrong at once, not only the first; and the text is only given where nothing stands
against it. What `--force` can't lift is what no force makes work: keys that do not open the data,
and what the API server refuses.

Border: pure; text and objects in, text and reasons out. The URL and the keys are secrets: they are
in the text, and nowhere else.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from backstay.errors import FormatError, RefusedError
from backstay.kinds.hosted.cluster import at
from backstay.kinds.hosted.manifests.compare import Difference, compare, take_saved
from backstay.kinds.hosted.manifests.documents import Documents
from backstay.kinds.hosted.manifests.encryption_block import Needs, put_keys
from backstay.kinds.hosted.manifests.manifest_text import put
from backstay.kinds.hosted.manifests.quantity import parse_quantity
from backstay.kinds.hosted.manifests.rules import (
    RESTORE_URL,
    Findings,
    Refusal,
    restore_url_problems,
    violations,
)
from backstay.repo.keyring_document import Kms, SavedKey

#: Of the volume, where the manifests tell none. Source: the CRD's default.
DEFAULT_SIZE = "8Gi"
#: While etcd-init works, the download and the restored data lie on the disks of one pod.
COPIES = 2
_GIB = 1 << 30
_SHARDS = "spec.etcd.managed.shards"
_NO_LIST: list[Any] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes into the manifests.

    Attributes:
        url: presigned, of the snapshot; a secret.
        snapshot_size: bytes of the snapshot.
        needs: what opens its encrypted values.
        keys: the saved keys.
        kms: what was recorded of a KMS.
        saved: the HostedCluster of the backup; None where none was saved.
        saved_version: the release that it ran; empty where that is not known.
        rendered_version: the release of the rendered one, alike.
        take_saved: write the saved values over those that differ.
        force: go on in spite of what can be lifted.
    """

    url: str = field(repr=False)
    snapshot_size: int
    needs: Needs = field(default_factory=Needs)
    keys: tuple[SavedKey, ...] = ()
    kms: Kms | None = None
    saved: Mapping[str, Any] | None = field(default=None, repr=False)
    saved_version: str = ""
    rendered_version: str = ""
    take_saved: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What came of it.

    Attributes:
        text: the manifests, ready to apply; empty where something stands against it. It holds keys
            and a URL that are secrets.
        changes: what was changed, a line each.
        warnings: what the reader should know; what was forced is among it.
        refusals: what stands against it, all of it.
        differences: from the saved HostedCluster, those that are left.
    """

    text: str = field(repr=False)
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    differences: tuple[Difference, ...] = ()

    def check(self) -> None:
        """Go on only where nothing stands against it.

        Raises:
            RefusedError: something does; all reasons are in it.
        """
        if not self.refusals:
            return
        reasons = "; ".join(refusal.reason for refusal in self.refusals)
        can_lift = all(refusal.lifted_by_force for refusal in self.refusals)
        takeable = any(one.can_take and one.severity == "refuse" for one in self.differences)
        do = (
            *(("write the saved values over those that differ: --take-saved",) if takeable else ()),
            *(("go on all the same: --force",) if can_lift else ()),
        )
        raise RefusedError(
            f"these manifests would not restore the cluster: {reasons}", ", or ".join(do)
        )


def prepare(documents: Documents, plan: Plan) -> Prepared:
    """Make manifests that restore a backup.

    Args:
        documents: what was rendered, or saved; they are not changed.
        plan: what goes into them.
    """
    documents = documents.copy()
    findings = Findings()
    differences = _compare(documents, plan, findings)
    _put_url(documents, plan, findings)
    _look_at_size(documents, plan, findings)
    put_keys(documents, findings, needs=plan.needs, keys=plan.keys, kms=plan.kms)
    _look_at_shards(documents, plan, findings)
    _look_at_pause(documents, findings)
    for manifest in (documents.hosted_cluster, *documents.node_pools):
        for reason in violations(manifest.value):
            findings.refuse(f"{manifest.title}: {reason}")
    standing = [one for one in findings.refusals if not (plan.force and one.lifted_by_force)]
    lifted = [one.reason for one in findings.refusals if plan.force and one.lifted_by_force]
    return Prepared(
        text="" if standing else documents.render(),
        changes=tuple(findings.changes),
        warnings=(*(f"forced: {reason}" for reason in lifted), *findings.warnings),
        refusals=tuple(standing),
        differences=differences,
    )


def _compare(documents: Documents, plan: Plan, findings: Findings) -> tuple[Difference, ...]:
    if plan.saved is None:
        return ()
    differences = compare(
        plan.saved,
        documents.hosted_cluster.value,
        saved_version=plan.saved_version,
        rendered_version=plan.rendered_version,
    )
    if plan.take_saved:
        changes, differences = take_saved(documents, differences)
        findings.changes += changes
        _look_at_signing_key(documents, findings)
    for one in differences:
        if one.severity == "refuse":
            findings.refuse(one.line, force=True)
        else:
            findings.warnings.append(one.line)
    return differences


def _put_url(documents: Documents, plan: Plan, findings: Findings) -> None:
    """Set the URL; blocks that are missing are made as the CRD's defaults would make them."""
    problems = restore_url_problems(plan.url)
    for reason in problems:
        findings.refuse(reason)
    hosted = documents.hosted_cluster
    kind = at(hosted.value, "spec.etcd.managementType", "Managed")
    if kind not in ("", "Managed"):
        findings.refuse(
            f"spec.etcd.managementType is {kind[:20]!r}: only a Managed etcd is restored by"
            " HyperShift; restore an Unmanaged one with `backstay restore etcd`"
        )
        return
    storage = _storage(documents, findings)
    if storage is None or problems:
        return
    there = storage.get("restoreSnapshotURL")
    if there == [plan.url]:
        findings.changes.append(f"{RESTORE_URL}: is the URL of the snapshot already")
        return
    if there not in (None, []):
        findings.refuse(f"{RESTORE_URL} is set already, to another snapshot", force=True)
    documents.edit(hosted)
    put(storage, "restoreSnapshotURL", [plan.url])
    findings.changes.append(f"{RESTORE_URL}: the URL of the snapshot")


def _storage(documents: Documents, findings: Findings) -> MutableMapping[str, Any] | None:
    """Give spec.etcd.managed.storage, made where it is missing."""
    tree: MutableMapping[str, Any] = documents.hosted_cluster.value["spec"]
    path = "spec"
    for name, more in (
        ("etcd", {"managementType": "Managed"}),
        ("managed", {}),
        ("storage", {"persistentVolume": {"size": DEFAULT_SIZE}, "type": "PersistentVolume"}),
    ):
        path = f"{path}.{name}"
        if tree.get(name) is None:
            documents.edit(documents.hosted_cluster)
            put(tree, name, {})
        child = tree[name]
        if not isinstance(child, MutableMapping):
            findings.refuse(f"{path} must be an object")
            return None
        tree = child
        for field_name, value in more.items():
            if tree.get(field_name) is None:
                documents.edit(documents.hosted_cluster)
                put(tree, field_name, value)
                findings.changes.append(f"{path}.{field_name}: added, as HyperShift's default")
    return tree


def _look_at_size(documents: Documents, plan: Plan, findings: Findings) -> None:
    volume: dict[str, Any] = at(
        documents.hosted_cluster.value, "spec.etcd.managed.storage.persistentVolume", {}
    )
    told = volume.get("size", DEFAULT_SIZE)
    try:
        size = parse_quantity(told)
    except FormatError as error:
        findings.refuse(f"spec.etcd.managed.storage.persistentVolume.size: {error.what}")
        return
    wanted = COPIES * plan.snapshot_size
    if size < wanted:
        findings.warnings.append(
            f"etcd's volume of {str(told)[:40]} is small for a snapshot of"
            f" {plan.snapshot_size / _GIB:.2f} GiB: a restore may need room for {COPIES} copies,"
            f" and the size can't be changed later; {-(-wanted // _GIB)}Gi would do"
        )


def _look_at_shards(documents: Documents, plan: Plan, findings: Findings) -> None:
    """HyperShift restores the main etcd; those beside it begin empty. Source: pull request 9146."""
    rendered = documents.hosted_cluster.value
    listed = [shard for one in (plan.saved, rendered) for shard in at(one, _SHARDS, _NO_LIST)]
    names = sorted({at(shard, "name", "")[:40] for shard in listed} - {""})
    if names:
        findings.refuse(
            f"the cluster has etcds beside the main one ({', '.join(names[:8])}), and HyperShift"
            " restores only that: what the others hold would be gone",
            force=True,
        )


def _look_at_signing_key(documents: Documents, findings: Findings) -> None:
    """A name that was taken over says nothing of what is behind it."""
    hosted = documents.hosted_cluster
    name = at(hosted.value, "spec.serviceAccountSigningKey.name", "")
    if name and documents.secret(hosted.namespace, name) is None:
        findings.warnings.append(
            f"spec.serviceAccountSigningKey names Secret {name[:60]!r}, which is not among the"
            " manifests: it must be there, with the saved key, before they are applied"
        )


def _look_at_pause(documents: Documents, findings: Findings) -> None:
    for manifest in (documents.hosted_cluster, *documents.node_pools):
        paused = at(manifest.value, "spec.pausedUntil", "")
        if paused and paused.lower() != "false":
            findings.warnings.append(
                f"{manifest.title} has spec.pausedUntil: nothing is made of it until that is over"
            )
