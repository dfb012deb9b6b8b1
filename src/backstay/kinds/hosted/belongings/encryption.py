"""What a hosted control plane says of its encryption: which keys, in which role, in what state.

Pure: nothing is read from the API here. Both objects are asked that tell it, the HostedCluster and
its HostedControlPlane (whose status is written first, and copied to the former later).

Roles: `active` is the key under which all data is (`status.activeKey`, or the spec's where there
is no status yet), `target` the one that a rotation goes to, `backup` one that still reads.

Sources: openshift/hypershift, api/hypershift/v1beta1 (SecretEncryptionSpec, SecretEncryptionStatus)
and control-plane-operator v2/kas (deriveAESCBCEncryptionConfig): `backupKey` is ignored once
`status.secretEncryption.activeKey` is set.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backstay.kinds.hosted.cluster import Hosted, at
from backstay.repo.keyring_document import Kms, Role

if TYPE_CHECKING:
    from backstay.kubeapi.api import Object

CONDITION = "EtcdDataEncryptionUpToDate"
#: States of a rotation that is over, or was given up before anything was written.
_OVER = {"", "Completed", "Interrupted"}
#: More than any cluster names.
_MAX_REFERENCES = 16
#: Where the spec puts what identifies a key, by provider.
_PLACES = {"AWS": "aws", "Azure": "azure", "IBMCloud": "ibmcloud"}
_STATUS_ROLES: tuple[tuple[str, Role], ...] = (("activeKey", "active"), ("targetKey", "target"))


@dataclass(frozen=True, slots=True)
class Reference:
    """That an object names a Secret with a key.

    Attributes:
        role: what the key is for.
        secret: name of the Secret.
        data_hash: SHA-256 that the status has of the key; empty where it has none.
        field: which field says so, for messages.
    """

    role: Role
    secret: str
    data_hash: str
    field: str


def references(hosted: Hosted) -> tuple[Reference, ...]:
    """List what names an AES key, the active one first, each Secret once for each hash."""
    found: dict[tuple[str, str], Reference] = {}

    def note(role: Role, secret: str, hashed: str, where: str) -> None:
        if secret:
            found.setdefault((secret, hashed), Reference(role, secret, hashed, where))

    for status in _statuses(hosted):
        for name, kept in _STATUS_ROLES:
            key: Object = at(status, f"{name}.aescbc", {})
            secret, hashed = at(key, "secretRef.name", ""), at(key, "dataHash", "").lower()
            note(kept, secret, hashed, f"status.secretEncryption.{name}")
    known = {reference.secret for reference in found.values()}
    # With a status, a key that only the spec has is one that a rotation will go to.
    role: Role = "active" if awaits_status(hosted) else "target"
    aescbc: Object = at(_spec(hosted), "aescbc", {})
    active = at(aescbc, "activeKey.name", "")
    if active not in known:
        note(role, active, "", "spec.secretEncryption.aescbc.activeKey")
    backup = at(aescbc, "backupKey.name", "")
    if backup not in known:
        note("backup", backup, "", "spec.secretEncryption.aescbc.backupKey")
    return tuple(found.values())[:_MAX_REFERENCES]


def is_rotating(hosted: Hosted) -> bool:
    """Tell whether the data may lie under two keys: a rotation is under way, or about to begin."""
    for status in _statuses(hosted):
        if at(status, "targetKey.provider", "") or _state(status) not in _OVER:
            return True
    for document in (hosted.hosted_cluster, hosted.control_plane):
        if condition(document, CONDITION) not in ("", "True"):
            return True
    listed = references(hosted)
    return any(reference.role == "target" for reference in listed) or (
        awaits_status(hosted) and any(reference.role == "backup" for reference in listed)
    )


def rotation_state(hosted: Hosted) -> str:
    """Give the state of the last rotation, in the cluster's words; empty where there was none."""
    states = [_state(status) for status in _statuses(hosted)]
    return next((state for state in states if state), "")


def condition(document: object, kind: str) -> str:
    """Read a condition: `True`, `False` or `Unknown`; empty where it is not told."""
    conditions: list[Object] = at(document, "status.conditions", [])
    return next((at(c, "status", "") for c in conditions if at(c, "type", "") == kind), "")


def kms_of(hosted: Hosted) -> Kms | None:
    """Say which keys of a KMS the cluster uses; None where it uses none."""
    spec: Object = at(_spec(hosted), "kms", {})
    told = [key for status in _statuses(hosted) for key in _kms_keys(status)]
    provider = at(spec, "provider", "") or next((word for word, _, _ in told), "")
    if not provider:
        return None
    wanted, backup = _kms_of_spec(provider, spec)
    active = next((ids for _, name, ids in told if name == "activeKey"), wanted)
    target = next((ids for _, name, ids in told if name == "targetKey"), {})
    if not target and not _same(wanted, active):
        target = wanted
    return Kms(
        provider=provider[:256],
        state=rotation_state(hosted)[:256],
        active=active,
        backup=backup,
        target=target,
    )


def _spec(hosted: Hosted) -> Mapping[str, Any]:
    """The encryption that was asked for; on KubeVirt the operator may have, in the user's stead."""
    own: Object = at(hosted.spec, "secretEncryption", {})
    made: Object = at(hosted.control_plane, "spec.secretEncryption", {})
    return own or made


def _statuses(hosted: Hosted) -> Iterator[Mapping[str, Any]]:
    """Both statuses: the control plane's, which is written first, and the HostedCluster's."""
    for document in (hosted.control_plane, hosted.hosted_cluster):
        status: Object = at(document, "status.secretEncryption", {})
        if status:
            yield status


def awaits_status(hosted: Hosted) -> bool:
    """Whether the spec's backupKey counts: no status has taken over yet."""
    return not any(at(s, "activeKey.provider", "") for s in _statuses(hosted))


def _state(status: Mapping[str, Any]) -> str:
    history: list[Object] = at(status, "history", [])
    return at(history[0], "state", "") if history else ""


def _kms_keys(status: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Provider, field and ids of the keys that a status has with a KMS."""
    for name, _ in _STATUS_ROLES:
        key: Object = at(status, name, {})
        provider = at(key, "provider", "")
        for field_name in ("aws", "azure", "ibmCloud"):
            ids = _texts(at(key, field_name, {}))
            if provider and ids:
                yield provider, name, ids


def _kms_of_spec(provider: str, spec: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Ids of the active and the backup key of a spec."""
    part: Object = at(spec, _PLACES.get(provider, provider.lower()), {})
    shared = _texts({k: v for k, v in part.items() if k not in ("activeKey", "backupKey")})
    listed: list[Object] = at(part, "keyList", [])
    if listed:
        # IBM Cloud: a list of keys, of which the highest version writes.
        ordered = sorted(listed, key=lambda key: at(key, "keyVersion", 0), reverse=True)
        rest = {
            f"{number}.{name}": text
            for number, key in enumerate(ordered[1:8], start=1)
            for name, text in _texts(key).items()
        }
        return {**shared, **_texts(ordered[0])}, _bounded(rest)
    active, backup = _texts(at(part, "activeKey", {})), _texts(at(part, "backupKey", {}))
    return _bounded({**shared, **active}), _bounded({**shared, **backup} if backup else {})


def _texts(document: object, prefix: str = "", depth: int = 3) -> dict[str, str]:
    """All texts and numbers of a small document, by their paths. Ids and ARNs; no secret."""
    found: dict[str, str] = {}
    if not isinstance(document, Mapping):
        return found
    for name, value in list(document.items())[:64]:
        path = f"{prefix}{name}"[:256]
        if isinstance(value, str) and value:
            found[path] = value[:4096]
        elif isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
            found[path] = str(value)
        elif depth:
            found.update(_texts(value, f"{path}.", depth - 1))
    return _bounded(found)


def _bounded(texts: dict[str, str]) -> dict[str, str]:
    return dict(sorted(texts.items())[:64])


def _same(wanted: Mapping[str, str], active: Mapping[str, str]) -> bool:
    """Whether two say the same of one key: the spec says more of it than the status."""
    shared = wanted.keys() & active.keys()
    return all(wanted[name] == active[name] for name in shared)
