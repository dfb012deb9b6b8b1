"""Which Secrets and ConfigMaps a HostedCluster or a NodePool names, on any platform.

The API has no list of them: they stand all over the spec, some in parts that only one platform has,
and every release adds some. So the whole spec is walked, by one rule:

- a field is a reference where its value is an object with a `name`, and nothing beside it but what
  narrows it (`key`, `namespace`, `kind`, `apiGroup`, `apiVersion`, `optional`, `cloudName`), and
- the field's own name says what it is: it ends in `Secret`, `Credentials`, `Creds`, `PullSecret`...
  (a Secret), in `ConfigMap`, `TrustBundle`, `CA`... (a ConfigMap), or in `Ref` (the `kind` beside
  it tells, else either);
- some fields are known by where they stand, since their names say nothing: `sshKey`,
  `serviceAccountSigningKey`, `auditWebhook`, `config[]` of a NodePool, and so on.

What has a name and is no reference is left alone by that: an identity provider, a shard, a VPC, a
subnet. So are texts: `credentialsSecretName` of Azure names a secret of a key vault, and IAM roles
are ARNs. A reference into another namespace is told, not followed: no right for it is asked for.

Source: api/hypershift/v1beta1 of openshift/hypershift, config/v1 of openshift/api; references of
`spec.configuration` are looked up in the HostedCluster's namespace.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from backstay.kinds.hosted.cluster import is_name


class Kind(StrEnum):
    """What a reference is to."""

    SECRET = "Secret"  # noqa: S105 - no password
    CONFIG_MAP = "ConfigMap"
    EITHER = "Secret or ConfigMap"


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """That a spec names an object.

    Attributes:
        name: of the object.
        kind: what it is.
        path: which field names it, as `spec.pullSecret`.
        namespace: that the field says; empty where it says none: the HostedCluster's.
    """

    name: str
    kind: Kind
    path: str
    namespace: str = ""


#: More than any spec has; a hostile one is not followed for ever.
MAX_REFERENCES = 512
_MAX_DEPTH = 24
_BESIDE = {
    *("name", "key", "namespace", "kind", "apiGroup", "apiVersion", "optional", "cloudName"),
}
#: Known by where they stand; `[]` is any entry of a list.
_KNOWN: dict[str, Kind] = {
    "spec.sshKey": Kind.SECRET,
    "spec.serviceAccountSigningKey": Kind.SECRET,
    "spec.auditWebhook": Kind.SECRET,
    "spec.secretEncryption.aescbc.activeKey": Kind.SECRET,
    "spec.secretEncryption.aescbc.backupKey": Kind.SECRET,
    "spec.configuration.apiServer.servingCerts.namedCertificates[].servingCertificate": Kind.SECRET,
    "spec.configuration.authentication.oauthMetadata": Kind.CONFIG_MAP,
    "spec.configuration.authentication.webhookTokenAuthenticator.kubeConfig": Kind.SECRET,
    "spec.configuration.oauth.templates.login": Kind.SECRET,
    "spec.configuration.oauth.templates.providerSelection": Kind.SECRET,
    "spec.configuration.oauth.templates.error": Kind.SECRET,
    "spec.configuration.scheduler.policy": Kind.CONFIG_MAP,
    "spec.platform.openstack.identityRef": Kind.SECRET,
    "spec.config[]": Kind.CONFIG_MAP,
    "spec.tuningConfig[]": Kind.CONFIG_MAP,
}
#: Of identity providers: the fields that hold secrets, whatever the provider.
_IN_PROVIDERS = {
    **dict.fromkeys(("fileData", "bindPassword", "tlsClientCert", "tlsClientKey"), Kind.SECRET),
}
_PROVIDERS = "spec.configuration.oauth.identityProviders[]."
_SECRET = re.compile(r"(.*S|s)ecret(s|Ref|Refs|Reference)?|(.*C|c)red(ential)?s?(Ref|Refs)?")
_CONFIG_MAP = re.compile(
    r"(.*C|c)onfigMap(s|Ref|Refs|Reference)?|(.*T|t)rustBundle(Ref)?|.*CA|ca"
    r"|(.*C|c)ertificateAuthority|.*CABundle|caBundle"
)
_TOLD = {"": Kind.EITHER, "Secret": Kind.SECRET, "ConfigMap": Kind.CONFIG_MAP}
_REF = re.compile(r".*(Ref|Reference)|ref")


def references(document: object) -> tuple[Reference, ...]:
    """List what the spec of a HostedCluster or NodePool names, by the rule of this module.

    Args:
        document: an object of the API; whatever it holds, this raises nothing.

    Returns:
        Each object once for each kind, in the order of names.
    """
    spec = document.get("spec") if isinstance(document, Mapping) else None
    found: dict[tuple[str, Kind, str], Reference] = {}
    for reference in _walk(spec, "spec", "", 0):
        found.setdefault((reference.name, reference.kind, reference.namespace), reference)
        if len(found) >= MAX_REFERENCES:
            break
    return tuple(sorted(found.values()))


def _walk(value: object, path: str, field: str, depth: int) -> Iterator[Reference]:
    """Look through a value.

    Args:
        value: what stands there.
        path: where, with `[]` for the entries of lists.
        field: the name of the field; that of the list for its entries.
        depth: how deep that is.
    """
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for item in value:
            yield from _walk(item, f"{path}[]", field, depth + 1)
    elif isinstance(value, Mapping):
        reference = _reference(value, path, field)
        if reference is not None:
            yield reference
            return
        for name, inner in value.items():
            if isinstance(name, str):
                yield from _walk(inner, f"{path}.{name}", name, depth + 1)


def _reference(value: Mapping[object, object], path: str, field: str) -> Reference | None:
    name, namespace = value.get("name"), value.get("namespace", "")
    if not isinstance(name, str) or not is_name(name) or not value.keys() <= _BESIDE:
        return None
    kind = _kind(path, field, value.get("kind"))
    if kind is None:
        return None
    where = namespace if isinstance(namespace, str) else ""
    return Reference(name, kind, path[:300], where[:300])


def _kind(path: str, field: str, told: object) -> Kind | None:
    """What a field refers to; None where it is no reference."""
    by_place = _KNOWN.get(path)
    if by_place is None and path.startswith(_PROVIDERS):
        by_place = _IN_PROVIDERS.get(field)
    if by_place is not None:
        return by_place
    if _CONFIG_MAP.fullmatch(field):
        return Kind.CONFIG_MAP
    if _SECRET.fullmatch(field):
        return Kind.SECRET
    # A reference to another kind of object is nothing of ours.
    return _TOLD.get(str(told or "")) if _REF.fullmatch(field) else None
