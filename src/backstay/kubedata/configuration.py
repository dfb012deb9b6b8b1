"""EncryptionConfiguration, the file: which keys an API server has.

Read as the API server reads it, with the rules that newer ones have (wildcards; no rule hidden
behind another). Backstay only reads values, so fields about running a KMS are passed over.

No key is in any message here; messages name places, as `resources[0].providers[1]`.

Source: k8s.io/apiserver, pkg/apis/apiserver (v1 types, validation) and
pkg/server/options/encryptionconfig.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backstay.errors import FormatError
from backstay.kubedata.cipher import KEY_SIZES
from backstay.kubedata.document import load_document
from backstay.kubedata.encryption import (
    IDENTITY,
    KMS,
    EncryptionConfiguration,
    Key,
    Provider,
    Rule,
)
from backstay.kubedata.resource import ANY, Resource

_KINDS = {
    ("apiserver.config.k8s.io/v1", "EncryptionConfiguration"),
    ("v1", "EncryptionConfig"),
}
#: What an API server refuses in a configuration: it has these without an API.
_WITHOUT_API = {"apiserveripinfo", "serviceipallocations", "servicenodeportallocations"}
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII)


def parse_configuration(data: bytes, *, name: str, prefix: str = "") -> EncryptionConfiguration:
    """Read an EncryptionConfiguration (or an EncryptionConfig of old), YAML or JSON.

    Args:
        data: the file.
        name: what messages call it.
        prefix: the etcd prefix of the API server that has it, where that is known.

    Raises:
        FormatError: it is none, or an API server would refuse it. No key is quoted.
    """
    document = load_document(data, name)
    if not isinstance(document, dict) or not any(
        (document.get("apiVersion"), document.get("kind")) == kind for kind in _KINDS
    ):
        raise FormatError(
            f"{name} is no EncryptionConfiguration of apiserver.config.k8s.io/v1",
            "name the file that the API server has as --encryption-provider-config",
        )
    try:
        rules = tuple(
            _rule(place, _mapping(place, rule))
            for place, rule in _items("resources", document.get("resources"))
        )
        _check_masks(rules)
    except _InvalidError as error:
        reason = str(error)
    else:
        return EncryptionConfiguration(rules, prefix)
    raise FormatError(f"{name}: {reason}", "an API server would refuse it too")


class _InvalidError(ValueError):
    """A rule of the format is broken; the message names the place and quotes no value."""


def _items(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, list) or not value:
        raise _InvalidError(f"{place} must be a list with at least one entry")
    for index, item in enumerate(value):
        yield f"{place}[{index}]", item


def _mapping(place: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise _InvalidError(f"{place} must be an object")
    return value


def _text(place: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _InvalidError(f"{place} must be a text that is not empty")
    return value


def _rule(place: str, value: Mapping[Any, Any]) -> Rule:
    resources = tuple(
        _resource(at, _text(at, text))
        for at, text in _items(f"{place}.resources", value.get("resources"))
    )
    _check_overlap(f"{place}.resources", resources)
    providers = tuple(
        _provider(at, _mapping(at, provider))
        for at, provider in _items(f"{place}.providers", value.get("providers"))
    )
    return Rule(resources, providers)


def _resource(place: str, text: str) -> Resource:
    resource = Resource.parse(text)
    if text != text.lower():
        raise _InvalidError(f"{place} has capital letters")
    if text == ANY:
        raise _InvalidError(f"{place}: `*` says too little; `*.` is the core group, `*.*` is all")
    if not resource.plural:
        raise _InvalidError(f"{place} names no resource")
    if text in _WITHOUT_API:
        raise _InvalidError(f"{place} is no resource of the API")
    if resource.group in {"events.k8s.io", "extensions"}:
        raise _InvalidError(f"{place} is of a group under which nothing is stored")
    if resource.group == ANY and resource.plural != ANY:
        raise _InvalidError(f"{place} is one resource of all groups, which can't be")
    return resource


def _check_overlap(place: str, resources: Sequence[Resource]) -> None:
    if len(set(resources)) < len(resources):
        raise _InvalidError(f"{place} names a resource twice")
    groups = [resource.group for resource in resources]
    for resource in resources:
        if resource.plural != ANY or len(resources) == 1:
            continue
        if resource.group == ANY or groups.count(resource.group) > 1:
            raise _InvalidError(f"{place} has a wildcard over another of its entries")


def _check_masks(rules: Sequence[Rule]) -> None:
    earlier: set[Resource] = set()
    for index, rule in enumerate(rules):
        for resource in rule.resources:
            masks = {Resource(ANY, resource.group), Resource(ANY, ANY)}
            if masks & earlier:
                raise _InvalidError(f"resources[{index}] is hidden behind an earlier wildcard")
        earlier.update(rule.resources)


def _provider(place: str, value: Mapping[Any, Any]) -> Provider:
    if len(value) != 1:
        raise _InvalidError(f"{place} must have exactly one provider")
    ((kind, body),) = value.items()
    if kind == IDENTITY:
        _mapping(f"{place}.{kind}", body)
        return Provider(IDENTITY)
    if kind == KMS:
        return _kms(f"{place}.{kind}", _mapping(f"{place}.{kind}", body))
    if not isinstance(kind, str) or kind not in KEY_SIZES:
        raise _InvalidError(f"{place} is none of identity, aescbc, aesgcm, secretbox, kms")
    body = _mapping(f"{place}.{kind}", body)
    keys = tuple(
        _key(at, kind, _mapping(at, key))
        for at, key in _items(f"{place}.{kind}.keys", body.get("keys"))
    )
    if len({key.name for key in keys}) < len(keys):
        raise _InvalidError(f"{place}.{kind}.keys has two keys of one name")
    return Provider(kind, keys)


def _kms(place: str, body: Mapping[Any, Any]) -> Provider:
    name = _text(f"{place}.name", body.get("name"))
    version = _text(f"{place}.apiVersion", body.get("apiVersion") or "v1")
    if version not in {"v1", "v2"}:
        raise _InvalidError(f"{place}.apiVersion is neither v1 nor v2")
    if version == "v2" and ":" in name:
        raise _InvalidError(f"{place}.name has a colon")
    return Provider(KMS, (), name)


def _key(place: str, kind: str, value: Mapping[Any, Any]) -> Key:
    name = _text(f"{place}.name", value.get("name"))
    text = _text(f"{place}.secret", value.get("secret")).replace("\r", "").replace("\n", "")
    if not _BASE64.fullmatch(text):
        raise _InvalidError(f"{place}.secret is no base64")
    secret = base64.b64decode(text)
    if len(secret) not in KEY_SIZES[kind]:
        sizes = ", ".join(str(size) for size in KEY_SIZES[kind])
        raise _InvalidError(
            f"{place}.secret has {len(secret)} bytes, and {kind} takes keys of {sizes}"
        )
    return Key(name, secret)
