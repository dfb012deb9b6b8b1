"""The saved HostedCluster and the rendered one: what can't be changed later, or would not work.

A cluster that is restored with another network, identity or address comes up, and its nodes and
workloads, which live in the snapshot, don't fit to it. So those fields are compared before anything
is made. A field that is absent counts as its default; where the operator would mint a value of its
own (clusterID, infraID), absent is different.

Source of defaults and of what is immutable: api/hypershift/v1beta1, hostedcluster_types.go.

Border: comparing, and taking saved values over. Whether a difference stops a restore is decided
in `render`.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backstay.kinds.hosted.cluster import at
from backstay.kinds.hosted.manifests.documents import Documents
from backstay.kinds.hosted.manifests.manifest_text import plain, put

Severity = Literal["refuse", "warn"]
#: Characters that a value is shown with.
_SHOWN = 100
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,6})(?:-([0-9A-Za-z.-]{1,80}))?", re.ASCII)
_ARCH = re.compile(r"-?(x86_64|amd64|aarch64|arm64|ppc64le|s390x|multi)$")
#: An empty text is an absent one, as it is for Go.
_UNSET = (None, "")
#: What stands for a field that is to be taken out.
_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field in which the rendered HostedCluster is not the saved one.

    Attributes:
        path: of the field.
        saved: its value, shown; empty where it is absent.
        rendered: alike.
        reason: why it matters.
        severity: `refuse`: the restored cluster would not work; `warn`: it will be another.
        can_take: whether the saved value can be written over the rendered one.
    """

    path: str
    saved: str
    rendered: str
    reason: str
    severity: Severity
    can_take: bool
    _value: Any = field(default=None, repr=False, compare=False)

    @property
    def line(self) -> str:
        """For people: one line."""
        mark = "differs" if self.severity == "refuse" else "note"
        return (
            f"{mark}: {self.path}: saved {self.saved or '(none)'}, rendered"
            f" {self.rendered or '(none)'}; {self.reason}"
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one field is compared.

    Attributes:
        path: of the field in the HostedCluster.
        reason: why it matters.
        severity: of a difference.
        default: what absent counts as.
        normal: makes values that mean the same equal.
        can_take: whether the saved value may be written over.
    """

    path: str
    reason: str
    severity: Severity = "refuse"
    default: Any = None
    normal: Callable[[Any], Any] = plain
    can_take: bool = True


def _networks(value: Any) -> Any:
    """Networks, however they are written; a hostPrefix that is not told is the default."""
    if not isinstance(value, list):
        return plain(value)
    found = []
    for entry in value:
        text = at(entry, "cidr", "")
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            found.append(plain(entry))
            continue
        prefix = at(entry, "hostPrefix", 0) or (23 if network.version == 4 else 64)
        found.append((str(network), prefix))
    return found


def _name_of(value: Any) -> Any:
    return at(value, "name", "") or None


_RULES = (
    _Rule("metadata.name", "addresses and certificates have it in their names", can_take=False),
    _Rule("metadata.namespace", "its control plane gets another namespace", "warn", can_take=False),
    _Rule("spec.platform.type", "its nodes are on another platform", can_take=False),
    _Rule(
        "spec.networking.networkType",
        "it can't be changed, and the nodes in the snapshot have the saved one",
        default="OVNKubernetes",
    ),
    _Rule(
        "spec.networking.clusterNetwork",
        "it can't be changed, and the nodes in the snapshot have parts of the saved one",
        default=[{"cidr": "10.132.0.0/14"}],
        normal=_networks,
    ),
    _Rule(
        "spec.networking.serviceNetwork",
        "it can't be changed, and the Services in the snapshot have addresses of the saved one",
        default=[{"cidr": "172.31.0.0/16"}],
        normal=_networks,
    ),
    _Rule(
        "spec.networking.machineNetwork",
        "certificates and proxies are made for it",
        default=[],
        normal=_networks,
    ),
    _Rule("spec.clusterID", "the snapshot belongs to the saved one; absent, a new one is minted"),
    _Rule(
        "spec.infraID",
        "nodes and cloud resources are found by it; absent, a new one is minted",
    ),
    _Rule(
        "spec.issuerURL",
        "tokens of service accounts in the snapshot are from the saved one",
        default="https://kubernetes.default.svc",
    ),
    _Rule(
        "spec.serviceAccountSigningKey",
        "tokens of service accounts are signed with the saved key",
        normal=_name_of,
    ),
    _Rule("spec.dns.baseDomain", "Routes in the snapshot have it in their names", default=""),
    _Rule("spec.dns.baseDomainPrefix", "Routes in the snapshot have it in their names", default=""),
    _Rule("spec.fips", "it can't be changed", default=False),
    _Rule("spec.kubeAPIServerDNSName", "kubeconfigs name the saved one", "warn", default=""),
    _Rule(
        "spec.controllerAvailabilityPolicy",
        "it can't be changed; etcd gets another number of members",
        "warn",
        default="HighlyAvailable",
    ),
    _Rule("spec.olmCatalogPlacement", "it can't be changed", "warn", default="management"),
)


def compare(
    saved: Mapping[str, Any],
    rendered: Mapping[str, Any],
    *,
    saved_version: str = "",
    rendered_version: str = "",
) -> tuple[Difference, ...]:
    """Compare two HostedClusters.

    Args:
        saved: that of the backup.
        rendered: that of the manifests.
        saved_version: the release that the saved one ran; empty takes it from its image's tag.
        rendered_version: the release of the rendered one, alike.
    """
    found = [made for rule in _RULES if (made := _by_rule(rule, saved, rendered)) is not None]
    found += _services(saved, rendered)
    found += _release(
        saved,
        rendered,
        saved_version or release_of(saved),
        rendered_version or release_of(rendered),
    )
    return tuple(found)


def take_saved(
    documents: Documents, differences: tuple[Difference, ...]
) -> tuple[tuple[str, ...], tuple[Difference, ...]]:
    """Write saved values over rendered ones, where that can be done.

    Args:
        documents: is changed.
        differences: from `compare` with its HostedCluster.

    Returns:
        A line for each change, and the differences that are left.
    """
    changes, left = [], []
    for difference in differences:
        if difference.can_take and _take(documents, difference):
            shown = difference.saved or "(none)"
            changes.append(f"{difference.path}: {shown}, as it was saved")
        else:
            left.append(difference)
    return tuple(changes), tuple(left)


def release_of(hosted_cluster: Mapping[str, Any]) -> str:
    """Read the release from the tag of the image, as `4.20.3`; empty where it has none.

    A digest tells nothing, and a tag may have the architecture at its end.
    """
    name = at(hosted_cluster, "spec.release.image", "").partition("@")[0].rpartition("/")[2]
    tag = _ARCH.sub("", name.partition(":")[2])
    return tag if _VERSION.fullmatch(tag) else ""


def _by_rule(
    rule: _Rule, saved: Mapping[str, Any], rendered: Mapping[str, Any]
) -> Difference | None:
    values = [_read(document, rule.path) for document in (saved, rendered)]
    counted = [rule.normal(rule.default if value in _UNSET else value) for value in values]
    if counted[0] == counted[1]:
        return None
    # A default says more than `(none)`.
    shown = [_show(rule.default if value in _UNSET else value) for value in values]
    return Difference(
        path=rule.path,
        saved=shown[0],
        rendered=shown[1],
        reason=rule.reason,
        severity=rule.severity,
        can_take=rule.can_take,
        _value=_ABSENT if values[0] in _UNSET else plain(values[0]),
    )


# --- services


def _services(saved: Mapping[str, Any], rendered: Mapping[str, Any]) -> Iterator[Difference]:
    mine, theirs = _strategies(saved), _strategies(rendered)
    for name in sorted(mine.keys() | theirs.keys()):
        one, other = mine.get(name), theirs.get(name)
        if _address(one) == _address(other):
            continue
        api = name == "APIServer"
        yield Difference(
            path=f"spec.services[{name[:40]}].servicePublishingStrategy",
            saved=_show(one),
            rendered=_show(other),
            reason=(
                "it can't be changed, and nodes and kubeconfigs know the API by the saved one"
                if api
                else "it can't be changed; nodes may know the saved one"
            ),
            severity="refuse" if api else "warn",
            can_take=one is not None and other is not None,
            _value=plain(one),
        )


def _strategies(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    listed: list[Any] = at(document, "spec.services", [])
    return {
        name: at(entry, "servicePublishingStrategy", {})
        for entry in listed[:32]
        if (name := at(entry, "service", ""))
    }


def _address(strategy: Mapping[str, Any] | None) -> Any:
    """What a client sees of it; an absent part is an empty one."""
    if strategy is None:
        return None
    return (
        at(strategy, "type", ""),
        at(strategy, "route.hostname", ""),
        at(strategy, "loadBalancer.hostname", ""),
        at(strategy, "nodePort.address", ""),
        at(strategy, "nodePort.port", 0),
    )


# --- release


def _release(
    saved: Mapping[str, Any], rendered: Mapping[str, Any], before: str, after: str
) -> Iterator[Difference]:
    images = [at(document, "spec.release.image", "") for document in (saved, rendered)]
    if before == after and (before or images[0] == images[1]):
        return
    if images[0] and images[0] == images[1]:
        return
    severity, reason = _judge_release(_VERSION.fullmatch(before), _VERSION.fullmatch(after))
    yield Difference(
        path="spec.release.image",
        saved=before or _show(images[0]),
        rendered=after or _show(images[1]),
        reason=reason,
        severity=severity,
        can_take=bool(images[0]),
        _value=images[0],
    )


def _judge_release(
    before: re.Match[str] | None, after: re.Match[str] | None
) -> tuple[Severity, str]:
    if before is None or after is None:
        return "refuse", "which of the two is newer can't be told: look, and use --force"
    old, new = (tuple(int(part) for part in found.groups()[:3]) for found in (before, after))
    if old[:2] != new[:2]:
        return "refuse", "a snapshot is restored with the minor release that it is from"
    if new < old:
        return "refuse", "an older release may not read what a newer one wrote"
    if new == old:
        return "warn", "it is another build of the same release"
    return "warn", "it is a later release of the same minor"


# --- taking over


def _take(documents: Documents, difference: Difference) -> bool:
    hosted = documents.hosted_cluster
    service = re.fullmatch(r"spec\.services\[(.*)\]\.servicePublishingStrategy", difference.path)
    if service:
        listed: list[Any] = at(hosted.value, "spec.services", [])
        for entry in listed:
            if at(entry, "service", "") == service[1]:
                documents.edit(hosted)
                put(entry, "servicePublishingStrategy", difference._value)  # noqa: SLF001 - ours
                return True
        return False
    tree: Any = documents.edit(hosted)
    *steps, last = difference.path.split(".")
    for step in steps:
        if tree.get(step) is None:
            put(tree, step, {})
        tree = tree[step]
        if not isinstance(tree, MutableMapping):
            return False
    value = difference._value  # noqa: SLF001 - of this module
    if value is _ABSENT:
        tree.pop(last, None)
    else:
        put(tree, last, value)
    return True


def _read(document: Mapping[str, Any], path: str) -> Any:
    found: Any = document
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _show(value: Any) -> str:
    """Show a value in a few characters that a terminal can take."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {_show(item)}" for key, item in list(value.items())[:8])
    elif isinstance(value, list):
        text = ", ".join(_show(item) for item in value[:8])
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = "" if value is None else str(value)[: 4 * _SHOWN]
    text = _UNPRINTABLE.sub("?", text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
