"""What etcd wants from its clients, out of Secrets and ConfigMaps, into memory and nowhere else.

Source: control-plane-operator/controllers/hostedcontrolplane/manifests/pki.go: Secret
`etcd-client-tls` and ConfigMap `etcd-ca` of the control-plane namespace. An unmanaged etcd has one
Secret with all three parts, in the namespace of the HostedCluster, which HyperShift copies to that
of the control plane.
"""

import base64
import binascii
from datetime import datetime

from backstay.client.access import Tls
from backstay.client.certificates import check_tls
from backstay.errors import (
    ConnectionFailedError,
    FormatError,
    KubeForbiddenError,
    KubeNotFoundError,
    UsageError,
)
from backstay.kinds.hosted.cluster import Hosted, at
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.resource import CONFIG_MAPS, SECRETS, Resource

CLIENT_SECRET = "etcd-client-tls"  # noqa: S105 - the name of an object
CLIENT_CERTIFICATE = "etcd-client.crt"
CLIENT_KEY = "etcd-client.key"
UNMANAGED_CA = "etcd-client-ca.crt"
CA_CONFIG_MAP = "etcd-ca"
CA = "ca.crt"
#: More than any bundle of authorities has.
_LIMIT = 4 << 20


def client_tls(api: Api, hosted: Hosted, now: datetime) -> Tls:
    """Read what it takes to enter the etcds of a hosted control plane.

    Args:
        api: of the management cluster.
        hosted: the control plane.
        now: the time of day; certificates are held against it.

    Raises:
        KubeNotFoundError: an object is not there.
        FormatError: an object lacks a key, or has something else in it.
        ConnectionFailedError: a certificate has run out, or is not valid yet.
        KubeError: an object can't be read.
    """
    if hosted.unmanaged is None:
        namespace = hosted.control_plane_namespace
        mine = _Source(
            SECRETS, CLIENT_SECRET, namespace, api.get(SECRETS, CLIENT_SECRET, namespace)
        )
        bundle = api.get(CONFIG_MAPS, CA_CONFIG_MAP, namespace)
        theirs = _Source(CONFIG_MAPS, CA_CONFIG_MAP, namespace, bundle)
        ca = theirs.text(CA)
    else:
        mine = _unmanaged(api, hosted, hosted.unmanaged.client_secret)
        theirs, ca = mine, mine.decoded(UNMANAGED_CA)
    tls = Tls(ca=ca, certificate=mine.decoded(CLIENT_CERTIFICATE), key=mine.decoded(CLIENT_KEY))
    # One part at a time: the message names the object that is to be mended.
    _check(Tls(ca=tls.ca), theirs, now)
    _check(Tls(certificate=tls.certificate, key=tls.key), mine, now)
    return tls


def _unmanaged(api: Api, hosted: Hosted, name: str) -> "_Source":
    """Read the Secret of an unmanaged etcd: the operator's copy, or else the user's own."""
    copy, own = hosted.control_plane_namespace, hosted.namespace
    try:
        return _Source(SECRETS, name, copy, api.get(SECRETS, name, copy))
    except (KubeNotFoundError, KubeForbiddenError):
        return _Source(SECRETS, name, own, api.get(SECRETS, name, own))


class _Source:
    """One object, and the words for it in messages."""

    def __init__(self, resource: Resource, name: str, namespace: str, document: Object) -> None:
        self.title = f"{resource.kind} {namespace}/{name}"
        self._data: Object = at(document, "data", {})

    def text(self, key: str) -> bytes:
        """A value of a ConfigMap."""
        return self._value(key).encode()

    def decoded(self, key: str) -> bytes:
        """A value of a Secret."""
        try:
            return base64.b64decode(self._value(key), validate=True)
        except (binascii.Error, ValueError) as error:
            # The library's words could repeat the value.
            raise FormatError(f"{self.title}: {key} is no base64", "look at the object") from error

    def _value(self, key: str) -> str:
        value = self._data.get(key)
        if not isinstance(value, str) or not value:
            raise FormatError(f"{self.title} has no {key}", "look at the object: is it complete?")
        if len(value) > _LIMIT:
            raise FormatError(f"{self.title}: {key} has {len(value)} characters: too many")
        return value


def _check(tls: Tls, source: _Source, now: datetime) -> None:
    try:
        check_tls(tls, now)
    except UsageError as error:
        raise FormatError(f"{source.title}: {error.what}", "look at the object") from error
    except ConnectionFailedError as error:
        raise ConnectionFailedError(
            f"{source.title}: {error.what}",
            "the operator renews it where it is not paused; or look at this machine's clock",
        ) from error
