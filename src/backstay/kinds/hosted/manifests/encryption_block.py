"""Encryption at rest in manifests: the saved keys go where the HostedCluster will look for them.

A control plane that is restored under another key comes up and can't read its own Secrets; that
is the trap of the manual procedure. `create cluster --render-sensitive` invents a fresh key,
`--render` leaves the Secret out, and on KubeVirt the operator invents one where the spec asks for
none. So: what the snapshot needs is known (`Needs`), the saved keys are written, once encoded, and
what was written is read back and compared by its hash. Nothing that a key does not open is forced.

Sources: openshift/hypershift, api/hypershift/v1beta1 (SecretEncryptionSpec); cmd/cluster/core
(etcdEncryptionKeySecret); control-plane-operator v2/kas: a new cluster has no status yet, so spec's
activeKey and backupKey are what kube-apiserver gets; the kms provider of AWS is
`awskmskey-` and the FNV-1 of the ARN.

Border: Secrets and `spec.secretEncryption`. That keys open values is proven by `kubedata.proof`.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from backstay.errors import FormatError
from backstay.kinds.hosted.belongings.encryption import kms_of
from backstay.kinds.hosted.cluster import Hosted, at, control_plane_namespace, is_name
from backstay.kinds.hosted.manifests.documents import Documents, parse_documents
from backstay.kinds.hosted.manifests.manifest_text import put
from backstay.kinds.hosted.manifests.rules import Findings
from backstay.kubedata.cipher import AES_CBC, KEY_SIZES
from backstay.kubedata.encryption import KMS
from backstay.kubedata.inventory import IN_THE_CLEAR, MALFORMED
from backstay.kubedata.keyname import data_hash, fnv1_32, key_name
from backstay.kubedata.outcome import GroupProof
from backstay.repo.keyring_document import Kms, SavedKey

if TYPE_CHECKING:
    from backstay.kubeapi.api import Object

#: Field of the Secret that holds the raw key.
KEY = "key"
#: The CLI puts it on the Secrets that it makes. The operator deletes such a Secret with its
#: cluster only where it also bears `auto-created-for-infra`, which `create` adds when it applies by
#: itself; so a key in applied manifests outlives the cluster. Followed, to be what was rendered.
LABEL = "hypershift.openshift.io/safe-to-delete-with-cluster"
_BLOCK = "spec.secretEncryption"
_ACTIVE = f"{_BLOCK}.aescbc.activeKey.name"
_BACKUP = f"{_BLOCK}.aescbc.backupKey.name"
#: What tells one key of a KMS from another; the rest (roles, credentials) may change.
_IDENTITY = {
    "AWS": ("arn",),
    "Azure": ("keyVaultName", "keyName", "keyVersion"),
    "IBMCloud": ("crkID", "instanceID", "keyVersion"),
}
#: As many of its keys kube-apiserver gets from a spec.
_MAX_KEYS = 2
_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What opens the encrypted values of a backup, by the names that these bear.

    Attributes:
        aescbc: names of AES keys, as `key-881413397`.
        kms: names of kms providers, as `awskmskey-3157003241`.
        others: providers that a hosted control plane can't have, or values that can't be read.
    """

    aescbc: frozenset[str] = frozenset()
    kms: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    @classmethod
    def of(cls, groups: Iterable[GroupProof]) -> "Needs":
        """Gather them from key proofs of all snapshots of a backup, whatever their verdicts."""
        named: dict[str, set[str]] = {AES_CBC: set(), KMS: set()}
        others = set()
        for group in groups:
            if group.provider in named:
                named[group.provider].add(group.key_name)
            elif group.provider != IN_THE_CLEAR:
                others.add(group.provider)
        return cls(
            aescbc=frozenset(named[AES_CBC]), kms=frozenset(named[KMS]), others=frozenset(others)
        )


def put_keys(
    documents: Documents,
    findings: Findings,
    *,
    needs: Needs,
    keys: Sequence[SavedKey] = (),
    kms: Kms | None = None,
) -> None:
    """Write the saved keys into manifests, or refuse.

    Args:
        documents: is changed.
        findings: collects what was done, and why not.
        needs: of the backup.
        keys: the saved ones.
        kms: what was recorded of a KMS.
    """
    if MALFORMED in needs.others:
        # They could not be read where they came from either.
        findings.refuse(
            "the snapshot has values that say they are encrypted and not how: no key opens them",
            force=True,
        )
    foreign = needs.others - {MALFORMED}
    if foreign:
        named = ", ".join(sorted(repr(name[:40]) for name in foreign)[:4])
        findings.refuse(f"the snapshot has values under {named}, which HyperShift can't open")
    elif needs.kms and needs.aescbc:
        findings.refuse(
            "the snapshot has values under AES keys and under a KMS, from a change between the"
            " two that was not finished; a HostedCluster can name only one of them"
        )
    elif needs.kms:
        _check_kms(documents, findings, needs.kms, kms)
    else:
        _put_aescbc(documents, findings, needs.aescbc, keys)


def keys_of(text: str) -> list[bytes]:
    """Read the AES keys out of finished manifests, as the operator will, the active one first.

    Args:
        text: what `Documents.render` gave.

    Raises:
        FormatError: a key that the HostedCluster names is not there or is no base64.
        RefusedError: there is not exactly one HostedCluster.
    """
    documents = parse_documents(text, "the manifests")
    found = []
    for name in _named(documents):
        key = _read_key(documents, name)
        if key is None:
            raise FormatError(f"the manifests have no key in Secret {name[:_SHOWN]!r}")
        if key not in found:
            found.append(key)
    return found


# --- aescbc


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The key that will be active, and the one that only reads."""

    active: SavedKey
    backup: SavedKey | None = None


def _put_aescbc(
    documents: Documents, findings: Findings, needed: frozenset[str], keys: Sequence[SavedKey]
) -> None:
    kind = at(documents.hosted_cluster.value, f"{_BLOCK}.type", "")
    has_block = bool(documents.hosted_cluster.value["spec"].get("secretEncryption"))
    chosen = _choose(needed, keys, findings)
    if has_block and kind != AES_CBC:
        if needed:
            findings.refuse(
                f"the snapshot is encrypted with AES keys, and {_BLOCK}.type of the rendered"
                f" HostedCluster is {kind[:20]!r}: render it without --kms options"
            )
        return
    # Where nothing is encrypted, the operator may do as it likes.
    if chosen is None or not (has_block or needed):
        _look_at(documents, findings, _ACTIVE)
        return
    before = len(findings.refusals)
    active = _name_active(documents, findings)
    backup = _name_backup(documents, findings, active) if chosen.backup else ""
    if len(findings.refusals) > before:
        return
    _put_key(documents, findings, active, chosen.active, "active")
    if chosen.backup:
        _put_key(documents, findings, backup, chosen.backup, "backup")
    else:
        _look_at(documents, findings, _BACKUP)
    _prove(documents, findings, needed, (chosen.active, chosen.backup))


def _choose(needed: frozenset[str], keys: Sequence[SavedKey], findings: Findings) -> _Chosen | None:
    """Choose which saved key goes where; None where none can, which is then refused, or need not.

    Where the snapshot needs one key, that one becomes active, alone: the operator ignores the
    backup key once its status has an active one. Where it needs two, the one that was active is.
    """
    faults = {key.key_name: fault for key in keys if (fault := _fault(key))}
    usable = [key for key in keys if key.provider == AES_CBC and not _fault(key)]
    missing = needed - {key.key_name for key in usable}
    if missing:
        saved = ", ".join(key.key_name[:40] for key in usable) or "none"
        why = "".join(f"; {faults[name]}" for name in sorted(missing) if name in faults)
        findings.refuse(
            f"the snapshot needs {', '.join(sorted(name[:40] for name in missing)[:4])}, and the"
            f" saved keys are {saved}: without it, what it encrypted can't be read{why}"
        )
        return None
    findings.warnings += [f"not used: {fault}" for fault in faults.values()]
    order = {"active": 0, "target": 1, "backup": 2}
    usable.sort(key=lambda key: order[key.role])
    wanted: dict[str, SavedKey] = {}
    for key in usable:
        if key.key_name in needed:
            other = wanted.setdefault(key.key_name, key)
            if other.value != key.value:
                findings.refuse(
                    f"two saved keys are called {key.key_name}; only trying them tells them apart"
                )
    if len(wanted) > _MAX_KEYS:
        findings.refuse(
            f"the snapshot needs {len(wanted)} keys, and a HostedCluster names {_MAX_KEYS}: use a"
            " backup from after the rotation"
        )
        return None
    # Where nothing is encrypted any key will do; it stays what it was.
    found = list(wanted.values()) or usable[:1]
    if not found:
        return None
    if any(len(key.value) != max(KEY_SIZES[AES_CBC]) for key in found):
        findings.warnings.append("a saved key has fewer than 32 bytes: it is not AES-256")
    return _Chosen(found[0], found[1] if len(found) > 1 else None)


def _fault(key: SavedKey) -> str:
    """Say what is wrong with a saved key; empty where it is one that kube-apiserver takes."""
    if key.key_name != key_name(key.value) or key.data_hash != data_hash(key.value):
        return f"the saved key of Secret {key.secret[:_SHOWN]!r} is not what its name and hash say"
    if len(key.value) not in KEY_SIZES[AES_CBC]:
        return (
            f"the saved {key.key_name} has {len(key.value)} bytes, and kube-apiserver takes 16, 24"
            " or 32: it may be base64 that was never decoded"
        )
    return ""


def _name_active(documents: Documents, findings: Findings) -> str:
    """Give the name of the active key's Secret; the block is made where there is none."""
    hosted = documents.hosted_cluster
    name = at(hosted.value, _ACTIVE, "")
    if not name:
        name = f"{hosted.name}-etcd-encryption-key"
        if _set_reference(documents, findings, "activeKey", name):
            findings.changes.append(
                f"{_BLOCK}: added, aescbc with Secret {name}; without it the operator would invent"
                " a key that does not open the snapshot"
            )
    if not is_name(name):
        findings.refuse(f"{_ACTIVE} is no name of a Secret")
    return name


def _name_backup(documents: Documents, findings: Findings, active: str) -> str:
    """Give the name of the backup key's Secret; the reference is made where there is none."""
    name = at(documents.hosted_cluster.value, _BACKUP, "")
    if name and name != active:
        if not is_name(name):
            findings.refuse(f"{_BACKUP} is no name of a Secret")
        return name
    taken = {secret.name for secret in documents.secrets}
    stem = f"{active[:240]}-backup"
    name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, 99))) if n not in taken)
    if _set_reference(documents, findings, "backupKey", name):
        findings.changes.append(f"{_BACKUP}: {name}; the backup was taken while keys were changed")
    return name


def _set_reference(documents: Documents, findings: Findings, field: str, name: str) -> bool:
    tree: Any = documents.edit(documents.hosted_cluster)
    for step in ("spec", "secretEncryption", "aescbc"):
        if tree.get(step) is None:
            put(tree, step, {})
        tree = tree[step]
        if not isinstance(tree, MutableMapping):
            findings.refuse(f"{_BLOCK} of the rendered HostedCluster is no object")
            return False
        if step == "secretEncryption":
            put(tree, "type", AES_CBC)
    put(tree, field, {"name": name})
    return True


def _put_key(documents: Documents, findings: Findings, name: str, key: SavedKey, role: str) -> None:
    """Write a key into its Secret, encoded once; the Secret is made where there is none."""
    namespace = documents.hosted_cluster.namespace
    title = f"Secret {namespace}/{name}"
    found = documents.secret(namespace, name)
    if found is None and documents.secret("", name) is not None:
        findings.refuse(
            f"Secret {name} of the manifests names no namespace, and could come to overwrite the"
            f" saved key: give it namespace {namespace}"
        )
        return
    if found is None:
        documents.add(_secret(namespace, name, key.value))
        findings.changes.append(f"{title}: added, with the saved {role} key {key.key_name}")
        return
    kind = at(found.value, "type", "Opaque")
    data, texts = found.value.get("data"), found.value.get("stringData")
    if kind != "Opaque" or any(
        part is not None and not isinstance(part, dict) for part in (data, texts)
    ):
        findings.refuse(f"{title} is to hold an encryption key, and is no Secret for one")
        return
    if _read_key(documents, name) == key.value:
        findings.changes.append(f"{title}: has the saved {role} key {key.key_name} already")
        return
    tree = documents.edit(found)
    if isinstance(texts, MutableMapping) and KEY in texts:
        # It would win over `data`.
        del texts[KEY]
        if not texts:
            del tree["stringData"]
    if data is None:
        put(tree, "data", {})
    tree["data"][KEY] = _encode(key.value)
    findings.changes.append(f"{title}: its key replaced by the saved {role} key {key.key_name}")


def _secret(namespace: str, name: str, value: bytes) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "data": {KEY: _encode(value)},
        "kind": "Secret",
        "metadata": {
            "labels": {LABEL: DoubleQuotedScalarString("true")},
            "name": name,
            "namespace": namespace,
        },
        "type": "Opaque",
    }


def _encode(value: bytes) -> str:
    text = base64.b64encode(value).decode()
    # Without padding at its end it could look like a number to some reader of YAML.
    return text if text.endswith("=") else DoubleQuotedScalarString(text)


def _look_at(documents: Documents, findings: Findings, path: str) -> None:
    """Tell of a Secret that the HostedCluster names and that nothing here makes."""
    name = at(documents.hosted_cluster.value, path, "")
    if name and _read_key(documents, name) is None:
        findings.warnings.append(
            f"{path} names Secret {name[:_SHOWN]!r}, which is not among the manifests: the snapshot"
            " does not need it, but the operator stops where it is missing"
        )


def _prove(
    documents: Documents,
    findings: Findings,
    needed: frozenset[str],
    chosen: Iterable[SavedKey | None],
) -> None:
    """Read back what was written: the right bytes, where the HostedCluster names them."""
    written = {data_hash(key) for name in _named(documents) if (key := _read_key(documents, name))}
    names = {key.key_name for key in chosen if key and key.data_hash in written}
    if needed - names and not findings.refusals:
        findings.refuse("the manifests do not hold the keys that the snapshot needs")


def _named(documents: Documents) -> list[str]:
    hosted = documents.hosted_cluster.value
    if at(hosted, f"{_BLOCK}.type", "") != AES_CBC:
        return []
    return [name for path in (_ACTIVE, _BACKUP) if (name := at(hosted, path, ""))]


def _read_key(documents: Documents, name: str) -> bytes | None:
    """Read a key as the API server would store it; None where there is none."""
    secret = documents.secret(documents.hosted_cluster.namespace, name)
    if secret is None:
        return None
    texts: Object = at(secret.value, "stringData", {})
    if isinstance(texts.get(KEY), str):
        return str(texts[KEY]).encode()
    data: Object = at(secret.value, "data", {})
    text = data.get(KEY)
    if not isinstance(text, str):
        return None
    try:
        # Go's decoder passes over line ends, as a block of YAML has one.
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True) or None
    except (binascii.Error, ValueError):
        return None


# --- kms


def _check_kms(
    documents: Documents, findings: Findings, needed: frozenset[str], recorded: Kms | None
) -> None:
    """Hold the KMS key of the manifests to the one that encrypted the snapshot."""
    names = ", ".join(sorted(name[:40] for name in needed)[:4])
    where = documents.hosted_cluster
    rendered = None
    if at(where.value, f"{_BLOCK}.type", "") == KMS:
        rendered = kms_of(
            Hosted(
                name=where.name,
                namespace=where.namespace,
                control_plane_namespace=control_plane_namespace(where.namespace, where.name),
                hosted_cluster={"spec": where.value["spec"]},
            )
        )
    told = f", which was {_ids(recorded.provider, recorded.active)}" if recorded else ""
    if rendered is None:
        findings.refuse(
            f"the snapshot is encrypted by a KMS ({names}), and the rendered HostedCluster names no"
            f" key of one: render it with the same key{told}"
        )
        return
    if recorded is not None and not _same_keys(rendered, recorded):
        findings.refuse(
            f"the snapshot is encrypted with another key of a KMS{told}; the rendered HostedCluster"
            f" has {_ids(rendered.provider, rendered.active)}"
        )
        return
    if rendered.provider == "AWS":
        known = {
            f"awskmskey-{fnv1_32(ids['arn'].encode())}"
            for ids in (rendered.active, rendered.backup)
            if "arn" in ids
        }
        if needed - known:
            findings.refuse(
                f"the snapshot needs {', '.join(sorted(n[:40] for n in needed - known)[:4])}, and"
                f" the keys of the rendered HostedCluster are {', '.join(sorted(known)) or 'none'}:"
                f" add the other as {_BLOCK}.kms.aws.backupKey"
            )
            return
    elif recorded is None or len(needed) > 1:
        findings.refuse(
            f"whether the key of the rendered HostedCluster opens {names} can't be told: nothing"
            " recorded says so",
            force=True,
        )
    findings.warnings.append(
        f"the restored cluster reads its data only where it may use"
        f" {_ids(rendered.provider, rendered.active)}"
    )


def _same_keys(rendered: Kms, recorded: Kms) -> bool:
    """Whether the key that will be active is one that was used."""
    if rendered.provider != recorded.provider:
        return False
    used = (recorded.active, recorded.target, recorded.backup)
    return any(_same_key(rendered.provider, rendered.active, ids) for ids in used)


def _same_key(provider: str, one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Compare what both say of a key: a status may say less than a spec."""
    shared = [name for name in _identity_of(provider) if name in one and name in other]
    return bool(shared) and all(one[name] == other[name] for name in shared)


def _identity_of(provider: str) -> tuple[str, ...]:
    return _IDENTITY.get(provider, ("id",))


def _ids(provider: str, ids: Mapping[str, str]) -> str:
    told = ", ".join(ids[name] for name in _identity_of(provider) if name in ids)
    return f"{provider} {told[:_SHOWN] or 'with no key named'}"
