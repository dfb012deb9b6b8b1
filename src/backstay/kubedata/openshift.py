"""Where OpenShift keeps the keys of its API servers: Secrets, that kube-apiserver encrypts.

Each API server numbers its own keys. Its operator mints them as `encryption-key-COMPONENT-N`, and
makes of them the configuration `encryption-config-COMPONENT`; both lie in one namespace. What the
API server runs with are copies of that, numbered by revision, in its own namespace. This module
knows names and forms; which of the Secrets count, and for what, is decided in `discovery`.

Source: openshift/library-go, pkg/operator/encryption: encryptionconfig (secret.go), secrets
(secrets.go, types.go), state (key names), deployer (the copies).
"""

import re
from dataclasses import dataclass
from enum import IntEnum

from backstay.errors import FormatError
from backstay.kubedata.cipher import KEY_SIZES
from backstay.kubedata.configuration import parse_configuration
from backstay.kubedata.encryption import IDENTITY, KMS, Key, Provider, Rule
from backstay.kubedata.keypath import ObjectPath
from backstay.kubedata.objects import read_annotations, read_secret_data
from backstay.kubedata.outcome import shown
from backstay.kubedata.resource import KUBE_APISERVER, OAUTH_APISERVER, OPENSHIFT_APISERVER

#: Components, which are namespaces too, and the API servers that they are.
_SERVERS = {
    "openshift-kube-apiserver": KUBE_APISERVER,
    "openshift-apiserver": OPENSHIFT_APISERVER,
    "openshift-oauth-apiserver": OAUTH_APISERVER,
}
_MANAGED = "openshift-config-managed"
_CONFIG = "encryption-config"
_CONFIG_FIELD = "encryption-config"
_KEY_FIELD = "encryption.apiserver.operator.openshift.io-key"
_MODE = "encryption.apiserver.operator.openshift.io/mode"
#: One of these is in the etcd key of each Secret that `parse_source` knows.
MARKS = (
    f"/secrets/{_MANAGED}/encryption-".encode(),
    *(f"/secrets/{component}/{_CONFIG}".encode() for component in _SERVERS),
)
#: A number as the operators read it: 64 bits, without a sign.
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
#: The copy that has no number is the newest.
_LAST = 1 << 64


class Form(IntEnum):
    """What a Secret has; the most telling first."""

    CONFIGURATION = 0
    COPY = 1
    KEY = 2


@dataclass(frozen=True, slots=True)
class Source:
    """A Secret that should have keys of an API server.

    Attributes:
        prefix: the etcd prefix under which the Secret lies.
        server: whose keys they are, as `resource.api_server` names it.
        form: what it has.
        number: of the key or the revision; 0 where there is none.
        name: namespace and name, fit for a terminal.
    """

    prefix: str
    server: str
    form: Form
    number: int
    name: str

    @property
    def rank(self) -> tuple[str, str, Form, int, str]:
        """Order Secrets: those of one API server together, what tells most and is newest first."""
        return self.prefix, self.server, self.form, -self.number, self.name


@dataclass(frozen=True, slots=True)
class Document:
    """What was read out of a Secret.

    Attributes:
        source: which Secret.
        rules: of its configuration; none for a key.
        keys: providers with the one key; none for a configuration.
    """

    source: Source
    rules: tuple[Rule, ...] = ()
    keys: tuple[Provider, ...] = ()

    def providers(self) -> tuple[Provider, ...]:
        """Give all providers, whatever they are for."""
        return (*(provider for rule in self.rules for provider in rule.providers), *self.keys)


def parse_source(path: ObjectPath) -> Source | None:
    """Tell by a Secret's place whether it should have keys; None where it should not."""
    shape = _managed(path.name) if path.namespace == _MANAGED else _copy(path)
    if shape is None:
        return None
    component, form, number = shape
    server = _SERVERS.get(component)
    if server is None:
        return None
    name = f"Secret {shown(path.namespace)}/{shown(path.name)}"
    return Source(path.prefix, server, form, number, name)


def _managed(name: str) -> tuple[str, Form, int] | None:
    if name.startswith(f"{_CONFIG}-"):
        return name.removeprefix(f"{_CONFIG}-"), Form.CONFIGURATION, 0
    component, _, number = name.removeprefix("encryption-key-").rpartition("-")
    if not name.startswith("encryption-key-") or not _NUMBER.fullmatch(number):
        return None
    return component, Form.KEY, int(number)


def _copy(path: ObjectPath) -> tuple[str, Form, int] | None:
    if path.name == _CONFIG:
        return path.namespace, Form.COPY, _LAST
    number = path.name.removeprefix(f"{_CONFIG}-")
    if number == path.name or not _NUMBER.fullmatch(number):
        return None
    return path.namespace, Form.COPY, int(number)


def read_document(source: Source, value: bytes) -> Document:
    """Read the keys out of a Secret.

    Args:
        source: which Secret.
        value: it, decrypted.

    Raises:
        DamagedError: it is no Secret.
        FormatError: it has no such keys, or in a form that is not known. No key is quoted.
    """
    data = read_secret_data(value)
    if source.form is Form.KEY:
        return Document(source, keys=_key(source, data.get(_KEY_FIELD, b""), value))
    if _CONFIG_FIELD not in data:
        raise FormatError(f"{source.name} has no {_CONFIG_FIELD}")
    parsed = parse_configuration(data[_CONFIG_FIELD], name=source.name)
    return Document(source, rules=parsed.rules)


def _key(source: Source, raw: bytes, value: bytes) -> tuple[Provider, ...]:
    mode = read_annotations(value).get(_MODE, "")
    if mode == IDENTITY or mode.lower() == KMS:
        # The first has a key for show; that of the second is not here.
        return ()
    if mode not in KEY_SIZES:
        raise FormatError(f"{source.name} does not say what its key is for")
    if len(raw) not in KEY_SIZES[mode]:
        raise FormatError(f"{source.name} has a key of {len(raw)} bytes, not one of {mode}")
    # The operators name a key by the number of its Secret.
    return (Provider(mode, (Key(str(source.number), raw),)),)
