"""HyperShift's custom resources for tests: their schemas, and what they refuse.

A validator of its own, so that the product's rules and these can disagree. One schema serves both
servers that tests run against: `definitions()` gives the CustomResourceDefinitions for a real
kube-apiserver, `violations()` says for the emulated one what that server would say. A CEL rule has
its Python twin beside it.

Source: api/hypershift/v1beta1/{hostedcluster,nodepool,hosted_controlplane}_types.go; only fields
that a backup or a restore touches have rules here, everything else is let through.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

GROUP = "hypershift.openshift.io"
VERSION = "v1beta1"

_PAUSED = (
    r"self.matches('^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}.*$')"
    r" || self in ['true', 'false', 'True', 'False']"
)
_ONE_URL = "self.size() <= 1"
_SAME = "self == oldSelf"
_URL_SCHEME = "self.matches('^(https|s3)://.*')"
_URL_ADDED = "!has(self.restoreSnapshotURL) || has(oldSelf.restoreSnapshotURL)"
_URL_REMOVED = "has(self.restoreSnapshotURL) || !has(oldSelf.restoreSnapshotURL)"
_ENTRY = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}.*")

#: A CEL rule, said in Python: of the value, and of what was there before (None: nothing).
_TWINS: dict[str, Callable[[Any, Any], bool]] = {
    _PAUSED: lambda new, _: (
        _ENTRY.fullmatch(new) is not None or new in {"true", "false", "True", "False"}
    ),
    _ONE_URL: lambda new, _: len(new) <= 1,
    _SAME: lambda new, old: old is None or new == old,
    _URL_SCHEME: lambda new, _: new.startswith(("https://", "s3://")),
    _URL_ADDED: lambda new, old: (
        old is None or "restoreSnapshotURL" not in new or "restoreSnapshotURL" in old
    ),
    _URL_REMOVED: lambda new, old: (
        old is None or "restoreSnapshotURL" in new or "restoreSnapshotURL" not in old
    ),
}


def _rule(rule: str, message: str) -> dict[str, str]:
    assert rule in _TWINS
    return {"rule": rule, "message": message}


def _open(required: tuple[str, ...] = (), rules: tuple[dict[str, str], ...] = (), **fields):
    """An object with some fields that we know; all others are let through."""
    schema: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if fields:
        schema["properties"] = fields
    if required:
        schema["required"] = list(required)
    if rules:
        schema["x-kubernetes-validations"] = list(rules)
    return schema


def _text(**limits: Any) -> dict[str, Any]:
    return {"type": "string", **limits}


def _paused(shortest: int) -> dict[str, Any]:
    return _text(
        minLength=shortest,
        maxLength=35,
        **{
            "x-kubernetes-validations": [
                _rule(
                    _PAUSED, "PausedUntil must be a date in RFC3339 format or 'True', 'true', "
                    "'False' or 'false'",
                )
            ]
        },
    )  # fmt: skip


_KEY = _open(("name",), name=_text())
_ENCRYPTION = _open(
    ("type",),
    type=_text(enum=["kms", "aescbc"]),
    aescbc=_open(("activeKey",), activeKey=_KEY, backupKey=_KEY),
    kms=_open(("provider",), provider=_text(enum=["IBMCloud", "AWS", "Azure"])),
)
_STORAGE = _open(
    ("type",),
    (
        _rule(_URL_ADDED, "restoreSnapshotURL cannot be added after creation"),
        _rule(_URL_REMOVED, "restoreSnapshotURL cannot be removed after creation"),
    ),
    type=_text(enum=["PersistentVolume"]),
    persistentVolume=_open(
        size={
            "x-kubernetes-int-or-string": True,
            "x-kubernetes-validations": [_rule(_SAME, "Etcd PV storage size is immutable")],
        },
        storageClassName=_text(
            **{"x-kubernetes-validations": [_rule(_SAME, "storageClassName is immutable")]}
        ),
    ),
    restoreSnapshotURL={
        "type": "array",
        "maxItems": 1,
        "x-kubernetes-list-type": "set",
        "items": _text(
            maxLength=1024,
            **{
                "x-kubernetes-validations": [
                    _rule(_URL_SCHEME, "each item must be a valid URL of https or s3")
                ]
            },
        ),
        "x-kubernetes-validations": [
            _rule(_ONE_URL, "restoreSnapshotURL shouldn't contain more than 1 entry"),
            _rule(_SAME, "restoreSnapshotURL is immutable"),
        ],
    },
)
_ETCD = _open(
    ("managementType",),
    managementType=_text(
        enum=["Managed", "Unmanaged"],
        **{"x-kubernetes-validations": [_rule(_SAME, "managementType is immutable")]},
    ),
    managed=_open(("storage",), storage=_STORAGE),
    unmanaged=_open(("endpoint", "tls"), endpoint=_text(), tls=_open(("clientSecret",))),
)


def _schema(spec: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": spec, "status": _open()}}


#: Kind -> plural, and its schema.
SCHEMAS: dict[str, tuple[str, dict[str, Any]]] = {
    "HostedCluster": (
        "hostedclusters",
        _schema(
            _open(
                pausedUntil=_paused(4),
                etcd=_ETCD,
                secretEncryption=_ENCRYPTION,
                networking=_open(
                    **{
                        name: {
                            "type": "array",
                            "items": _open(),
                            "x-kubernetes-validations": [_rule(_SAME, f"{name} is immutable")],
                        }
                        for name in ("clusterNetwork", "serviceNetwork")
                    }
                ),
            )
        ),
    ),
    "NodePool": ("nodepools", _schema(_open(pausedUntil=_paused(1), clusterName=_text()))),
    "HostedControlPlane": (
        "hostedcontrolplanes",
        _schema(_open(pausedUntil=_text(maxLength=255))),
    ),
}


#: What an OKD cluster tells of itself, with no rules of its own: kind -> plural.
CONFIG_GROUP, CONFIG_VERSION = "config.openshift.io", "v1"
CONFIG = {
    "Infrastructure": "infrastructures",
    "ClusterVersion": "clusterversions",
    "ClusterOperator": "clusteroperators",
    "Proxy": "proxies",
}


def definitions(*, rules: bool = True) -> list[dict[str, Any]]:
    """The CustomResourceDefinitions; without CEL rules for a server that knows none (< 1.25)."""
    of_hypershift = [
        _definition(kind, plural, schema if rules else _without(schema))
        for kind, (plural, schema) in SCHEMAS.items()
    ]
    of_okd = [
        _definition(kind, plural, _schema(_open()), CONFIG_GROUP, CONFIG_VERSION, "Cluster")
        for kind, plural in CONFIG.items()
    ]
    return of_hypershift + of_okd


def _definition(
    kind: str,
    plural: str,
    schema: dict[str, Any],
    group: str = GROUP,
    version: str = VERSION,
    scope: str = "Namespaced",
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {
                "plural": plural,
                "singular": kind.lower(),
                "kind": kind,
                "listKind": f"{kind}List",
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def violations(kind: str, new: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[str]:
    """What a server says of an object, in order; nothing where it is fine."""
    return list(_broken("", SCHEMAS[kind][1], new, old)) if kind in SCHEMAS else []


def _without(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without(one) for name, one in schema.items() if name != "x-kubernetes-validations"
    }


def _broken(path: str, schema: Mapping[str, Any], new: Any, old: Any) -> Iterator[str]:
    wanted = schema.get("type")
    known = {"object": dict, "array": list, "string": str}
    if wanted and not isinstance(new, known[wanted]):
        found = {dict: "object", list: "array", str: "string", bool: "boolean"}.get(
            type(new), "integer"
        )
        shown = "null" if new is None else found
        must = f'{path} in body must be of type {wanted}: "{shown}"'
        yield f'{path}: Invalid value: "{shown}": {must}'
        return
    yield from _limits(path, schema, new)
    for one in schema.get("x-kubernetes-validations", ()):
        # A rule over `oldSelf` is only asked where there is an old value.
        if not _TWINS[one["rule"]](new, old):
            shown = f'"{new}"' if wanted == "string" else f'"{wanted}"'
            yield f"{path}: Invalid value: {shown}: {one['message']}"
    if isinstance(new, dict):
        for name in schema.get("required", ()):
            if name not in new:
                yield f"{path}.{name}".lstrip(".") + ": Required value"
        for name, inner in schema.get("properties", {}).items():
            if name in new:
                before = old.get(name) if isinstance(old, dict) else None
                yield from _broken(f"{path}.{name}".lstrip("."), inner, new[name], before)
    if isinstance(new, list):
        for number, item in enumerate(new):
            yield from _broken(f"{path}[{number}]", schema.get("items", {}), item, None)


def _limits(path: str, schema: Mapping[str, Any], new: Any) -> Iterator[str]:
    if isinstance(new, str):
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 1 << 30)
        if len(new) < shortest:
            yield (
                f'{path}: Invalid value: "{new}": {path} in body should be at least'
                f" {shortest} chars long"
            )
        if len(new) > longest:
            yield f"{path}: Too long: may not be more than {longest} bytes"
        if "enum" in schema and new not in schema["enum"]:
            choices = ", ".join(f'"{one}"' for one in schema["enum"])
            yield f'{path}: Unsupported value: "{new}": supported values: {choices}'
    if isinstance(new, list):
        if len(new) > schema.get("maxItems", 1 << 30):
            most = schema["maxItems"]
            yield f"{path}: Too many: {len(new)}: must have at most {most} items"
        if schema.get("x-kubernetes-list-type") == "set":
            for number, item in enumerate(new):
                if item in new[:number]:
                    yield f'{path}[{number}]: Duplicate value: "{item}"'


def refusals(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with an object that is to be stored, as a server would say it."""
    return violations(str(new.get("kind")), new, old)
