"""The rules that HyperShift's API server applies to manifests, asked before it is asked.

A restore works only where a cluster is created: what the API server would refuse, or take and
not understand, is better said before anything is there. Only rules that a restore, a pause or a
saved value can touch are here; each names the field.

Source: api/hypershift/v1beta1 of openshift/hypershift (hostedcluster_types.go, nodepool_types.go,
hosted_controlplane.go): kubebuilder's validation markers and CEL rules. `stricter` has rules of our
own: what passes there and still can't work.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from backstay.kinds.hosted.cluster import at

#: Field of the URL that etcd-init downloads.
RESTORE_URL = "spec.etcd.managed.storage.restoreSnapshotURL"
#: Characters that such a URL may have.
MAX_URL = 1024
#: Characters of a value that a message quotes.
_SHOWN = 40
_PAUSED = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}.*", re.ASCII)
_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})", re.ASCII)
_BOOLEANS = ("true", "false", "True", "False")
_URL = re.compile("(https|s3)://.*")
_UUID = re.compile("[a-fA-F0-9]{8}-([a-fA-F0-9]{4}-){3}[a-fA-F0-9]{12}")
_INFRA_ID = re.compile("[a-z0-9]([-a-z0-9]*[a-z0-9])?")
#: Least and most characters of pausedUntil, by kind.
_PAUSED_LENGTHS = {"HostedCluster": (4, 35), "NodePool": (1, 35), "HostedControlPlane": (0, 255)}

#: Fields that never change once they are set, and what an absent one counts as.
_IMMUTABLE: tuple[tuple[str, object], ...] = (
    ("spec.etcd.managementType", "Managed"),
    ("spec.etcd.managed.storage.persistentVolume.size", "8Gi"),
    ("spec.etcd.managed.storage.persistentVolume.storageClassName", None),
    (RESTORE_URL, None),
    ("spec.clusterID", None),
    ("spec.infraID", None),
    ("spec.issuerURL", "https://kubernetes.default.svc"),
    ("spec.fips", False),
    ("spec.controllerAvailabilityPolicy", "HighlyAvailable"),
    ("spec.olmCatalogPlacement", "management"),
)
#: The operator fills these in itself; then they are fixed.
_SET_ONCE = {"spec.clusterID", "spec.infraID"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a thing is not done.

    Attributes:
        reason: what is wrong, with what; no secret.
        lifted_by_force: whether the reader may know better. A key that does not open the data, and
            what the API server refuses, no force makes right.
    """

    reason: str
    lifted_by_force: bool


@dataclass(slots=True)
class Findings:
    """What comes of preparing manifests, collected on the way: every refusal, not only the first.

    Attributes:
        changes: what was changed, a line each.
        warnings: what the reader should know.
        refusals: why it is not done.
    """

    changes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, reason: str, *, force: bool = False) -> None:
        """Note a refusal; `force` says whether it can be lifted."""
        self.refusals.append(Refusal(reason, force))


def violations(document: object, old: object = None) -> tuple[str, ...]:
    """Say which rules a HostedCluster, HostedControlPlane or NodePool breaks.

    Args:
        document: the object as it is to be; whatever it holds, this raises nothing.
        old: the object that exists, where there is one: then what can't be changed counts too.

    Returns:
        A line for each; no value of a URL or a key is quoted.
    """
    return (*api_violations(document, old), *stricter(document))


def api_violations(document: object, old: object = None) -> tuple[str, ...]:
    """Say which rules an object breaks that the API server applies; as `violations`."""
    kind = at(document, "kind", "")
    found = list(_paused(document, kind))
    if kind == "HostedCluster":
        found += _etcd(document)
        found += _encryption(document)
        found += _ids(document)
        if old is not None:
            found += _changed(document, old)
    return tuple(found)


def stricter(document: object) -> tuple[str, ...]:
    """Say what the API server takes, and what can't work all the same; as `violations`."""
    found = [
        f"{RESTORE_URL} is an s3:// URL, and etcd-init downloads with curl: it takes a presigned"
        " https:// URL"
        for url in _urls(document)
        if isinstance(url, str) and url.startswith("s3://")
    ]
    paused = _value(document, "spec.pausedUntil")
    if isinstance(paused, str) and _PAUSED.fullmatch(paused) and not is_rfc3339(paused):
        found.append(
            f"spec.pausedUntil {paused[:_SHOWN]!r} is no RFC 3339 time: HyperShift would take it"
            " for not paused"
        )
    return tuple(found)


def is_rfc3339(text: str) -> bool:
    """Tell whether HyperShift reads it as a time (Go's time.RFC3339)."""
    if not _RFC3339.fullmatch(text) or len(text) > _SHOWN:
        return False
    try:
        # Python takes no more than six digits of a second.
        datetime.fromisoformat(re.sub(r"\.\d+", "", text))
    except ValueError:
        return False
    return True


def restore_url_problems(url: str) -> tuple[str, ...]:
    """Say why a URL can't be what etcd-init downloads; it is never quoted, being a secret.

    Source: the CRD (https or s3, at most 1024 characters), and etcd-init.sh: curl without -L,
    with the URL in double quotes.
    """
    scheme, mark, rest = url.partition("://")
    found = []
    if scheme.lower() != "https" or not mark:
        known = mark and re.fullmatch("[a-zA-Z0-9+.-]{1,10}", scheme)
        named = f"is {scheme}://, " if known else "is "
        found.append(
            f"the URL of the snapshot {named}not https://: the API takes no http://, and etcd-init"
            " can't download from s3://; use a staging place with https"
        )
    elif scheme != "https":
        found.append("the URL of the snapshot must begin with https:// in small letters")
    if len(url) > MAX_URL:
        found.append(
            f"the URL of the snapshot has {len(url)} characters, and the API takes {MAX_URL}: sign"
            " with credentials that have no session token, or use a shorter bucket and prefix"
        )
    if re.search(r"[\x00-\x20\x7f-\U0010ffff\"\\`<>^{|}]", url):
        found.append("the URL of the snapshot has characters that a URL does not have")
    if re.search(r"[/?#].*[\[\]]", rest):
        found.append("the URL of the snapshot has brackets, which curl takes for a pattern")
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    if mark and (not host or "@" in host):
        found.append("the URL of the snapshot has no host, or a password before it")
    return tuple(found)


# --- one function for each group of rules


def _paused(document: object, kind: str) -> Iterator[str]:
    least, most = _PAUSED_LENGTHS.get(kind, (0, 255))
    paused = _value(document, "spec.pausedUntil")
    if paused is None:
        return
    if not isinstance(paused, str):
        yield "spec.pausedUntil must be a text; put it in quotes"
        return
    if not least <= len(paused) <= most:
        yield f"spec.pausedUntil has {len(paused)} characters, and must have {least} to {most}"
    if kind in ("HostedCluster", "NodePool") and not (
        paused in _BOOLEANS or _PAUSED.fullmatch(paused)
    ):
        yield (
            f"spec.pausedUntil is {paused[:_SHOWN]!r}, and must be a date in RFC 3339, or one of"
            f" {', '.join(_BOOLEANS)}"
        )


def _etcd(document: object) -> Iterator[str]:
    etcd = _value(document, "spec.etcd")
    if etcd is None:
        return
    if not isinstance(etcd, Mapping):
        yield "spec.etcd must be an object"
        return
    kind = etcd.get("managementType")
    if kind not in ("Managed", "Unmanaged"):
        yield "spec.etcd.managementType must be Managed or Unmanaged"
    for name, wanted in (("managed", "Managed"), ("unmanaged", "Unmanaged")):
        if etcd.get(name) is not None and kind != wanted:
            yield f"spec.etcd.{name} is for managementType {wanted}"
    storage = _value(document, "spec.etcd.managed.storage")
    if storage is not None and at(storage, "type", "") != "PersistentVolume":
        yield "spec.etcd.managed.storage.type must be PersistentVolume"
    yield from _restore_urls(document)


def _restore_urls(document: object) -> Iterator[str]:
    told = _value(document, RESTORE_URL)
    if told is None:
        return
    if not isinstance(told, list):
        yield f"{RESTORE_URL} must be a list"
        return
    if len(told) > 1:
        yield f"{RESTORE_URL} has {len(told)} URLs, and may have one: all members restore from it"
    for url in told[:4]:
        if not isinstance(url, str):
            yield f"{RESTORE_URL} has a URL that is no text"
            continue
        if len(url) > MAX_URL:
            yield f"{RESTORE_URL} has a URL of {len(url)} characters; {MAX_URL} are allowed"
        if not _URL.match(url):
            yield f"{RESTORE_URL} must be an https:// or s3:// URL"


def _encryption(document: object) -> Iterator[str]:
    told = _value(document, "spec.secretEncryption")
    if told is None:
        return
    kind: str = at(told, "type", "")
    if kind not in ("aescbc", "kms"):
        yield "spec.secretEncryption.type must be aescbc or kms"
        return
    if not isinstance(_value(told, kind), Mapping):
        yield f"spec.secretEncryption.type is {kind}, and spec.secretEncryption.{kind} is missing"
    elif kind == "aescbc" and not at(told, "aescbc.activeKey.name", ""):
        yield "spec.secretEncryption.aescbc.activeKey.name is missing"
    elif kind == "kms" and at(told, "kms.provider", "") not in ("AWS", "Azure", "IBMCloud"):
        yield "spec.secretEncryption.kms.provider must be AWS, Azure or IBMCloud"


def _ids(document: object) -> Iterator[str]:
    for path, pattern, most, what in (
        ("spec.clusterID", _UUID, 36, "a UUID"),
        ("spec.infraID", _INFRA_ID, 253, "small letters, digits and dashes"),
    ):
        value = _value(document, path)
        if value is None:
            continue
        if not isinstance(value, str) or len(value) > most or not pattern.fullmatch(value):
            yield f"{path} must be {what}"
    issuer = _value(document, "spec.issuerURL")
    if isinstance(issuer, str) and len(issuer) > 255:
        yield "spec.issuerURL has more than 255 characters"


def _changed(document: object, old: object) -> Iterator[str]:
    for path, default in _IMMUTABLE:
        before, after = (_or(_value(one, path), default) for one in (old, document))
        if path in _SET_ONCE and before in (None, ""):
            continue
        if before != after:
            yield f"{path} can't be changed, added or removed once the cluster exists"
    services = [_value(one, "spec.services") for one in (old, document)]
    if at(document, "spec.platform.type", "") != "IBMCloud" and services[0] != services[1]:
        yield "spec.services can't be changed once the cluster exists"


def _urls(document: object) -> list[Any]:
    told = _value(document, RESTORE_URL)
    return told[:4] if isinstance(told, list) else []


def _or(value: object, default: object) -> object:
    return default if value is None else value


def _value(document: object, path: str) -> Any:
    """Read a field of any type; None where it is not there, as for the API server."""
    for name in path.split("."):
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document
