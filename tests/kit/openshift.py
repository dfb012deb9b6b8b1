"""What OpenShift's API servers and their operators put into etcd, with keys of their own.

The forms are those that openshift/library-go writes: configurations as JSON with one key to a
provider, minted keys with their mode in an annotation, copies for each revision.
"""

import hashlib
from collections.abc import Mapping

from kit import kube

KUBE, OPENSHIFT, OAUTH = (
    "openshift-kube-apiserver",
    "openshift-apiserver",
    "openshift-oauth-apiserver",
)
RESOURCES = {
    KUBE: ["configmaps", "secrets"],
    OPENSHIFT: ["routes.route.openshift.io"],
    OAUTH: ["oauthaccesstokens.oauth.openshift.io", "oauthauthorizetokens.oauth.openshift.io"],
}
IDENTITY = {"identity": {}}
MANAGED = "openshift-config-managed"
ROUTE = b"/openshift.io/routes/ns/r"
TOKEN = b"/openshift.io/oauth/accesstokens/sha256~t"

History = list[tuple[bytes, bytes]]


def raw(component: str, number: int, size: int = 32) -> bytes:
    """The key of a number, which is another one for each API server."""
    return hashlib.sha256(f"{component} {number}".encode()).digest()[:size]


def providers(component: str, *numbers: int, kind: str = "aescbc") -> list[dict]:
    """The providers of a configuration: one for each key, the one that writes first."""
    keyed = [kube.provider(kind, **{str(n): raw(component, n)}) for n in numbers]
    return [*keyed, IDENTITY]


def configuration(
    component: str, *numbers: int, kind: str = "aescbc", resources: list[str] | None = None
) -> bytes:
    """The EncryptionConfiguration that an operator makes; a rule for each resource."""
    each = providers(component, *numbers, kind=kind)
    return kube.configuration(*(([r], each) for r in resources or RESOURCES[component])) + b"\n"


def stored(key: bytes, text: bytes, component: str, number: int, kind: str = "aescbc"):
    """A value as an API server has it in etcd."""
    return key, kube.sealed(kind, str(number), raw(component, number), text, key)


def secret(
    name: str,
    data: Mapping[str, bytes],
    *,
    namespace: str = MANAGED,
    under: int = 1,
    kind: str = "aescbc",
    annotations: Mapping[str, str] | None = None,
) -> tuple[bytes, bytes]:
    """A Secret that kube-apiserver has encrypted, under its key of a number; 0 for none."""
    key = f"/kubernetes.io/secrets/{namespace}/{name}".encode()
    text = kube.secret(name, namespace, data, annotations)
    return stored(key, text, KUBE, under, kind) if under else (key, text)


def managed(component: str, document: bytes, under: int = 1) -> tuple[bytes, bytes]:
    """The Secret in which an operator keeps a configuration."""
    name = f"encryption-config-{component}"
    return secret(name, {"encryption-config": document}, under=under)


def copy(component: str, document: bytes, revision: int | None = None) -> tuple[bytes, bytes]:
    """A copy with which an API server of a revision runs."""
    name = "encryption-config" + ("" if revision is None else f"-{revision}")
    return secret(name, {"encryption-config": document}, namespace=component)


def minted(
    component: str, number: int, key: bytes | None = None, mode: str = "aescbc", under: int = 1
) -> tuple[bytes, bytes]:
    """The Secret in which an operator keeps one key."""
    data = {"encryption.apiserver.operator.openshift.io-key": key or raw(component, number)}
    notes = {
        "kubernetes.io/description": "WARNING: DO NOT EDIT.",
        "encryption.apiserver.operator.openshift.io/mode": mode,
    }
    name = f"encryption-key-{component}-{number}"
    return secret(name, data, under=under, annotations=notes)


def route(number: int, name: str = "r", kind: str = "aescbc") -> tuple[bytes, bytes]:
    """A Route under openshift-apiserver's key of a number."""
    text = kube.built_in("Route", name, "ns", api="route.openshift.io/v1")
    return stored(f"/openshift.io/routes/ns/{name}".encode(), text, OPENSHIFT, number, kind)


def token(number: int, component: str = OAUTH) -> tuple[bytes, bytes]:
    """An OAuth access token under the key of a number."""
    text = kube.built_in("OAuthAccessToken", "sha256~t", api="oauth.openshift.io/v1")
    return stored(TOKEN, text, component, number)


def cluster() -> History:
    """A whole cluster: each API server has encrypted with its own key of the name "1"."""
    return [
        secret("a", {"password": b"not-to-be-seen"}, namespace="ns"),
        managed(KUBE, configuration(KUBE, 1)),
        managed(OPENSHIFT, configuration(OPENSHIFT, 1)),
        managed(OAUTH, configuration(OAUTH, 1)),
        *(minted(component, 1) for component in (KUBE, OPENSHIFT, OAUTH)),
        route(1),
        token(1),
    ]
