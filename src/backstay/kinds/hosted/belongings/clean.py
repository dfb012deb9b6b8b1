"""Objects as a person would have written them: without what a server, an operator or we put in.

A saved object is applied to another cluster some day: there, another's uid, version, owner or
status is wrong, and a finalizer of HyperShift would hold what nobody finalizes.
"""

import re
from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from backstay.errors import BackstayError, FormatError
from backstay.kinds.hosted.quiescing.record import ours, recorded
from backstay.kubeapi.api import Object

_OURS = "backstay.dev/"
#: What the operator notes on NodePools: hashes of a configuration that another cluster makes anew.
_OF_OPERATOR = "hypershift.openshift.io/nodePool"
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_OF_SERVERS = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "ownerReferences",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_HYPERSHIFT = "hypershift.openshift.io/"
_DESTROY = "openshift.io/destroy-cluster"
_MAX_DEPTH = 60
#: Texts that no reader of YAML takes for anything else, but for these words: kubectl still reads
#: them as YAML 1.1 does.
_TEXT = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*", re.ASCII)
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
#: What YAML, or UTF-8, can't hold, even in quotes.
_UNWRITABLE = re.compile("[\ud800-\udfff]")


def clean(document: Mapping[str, Any]) -> Object:
    """Give a copy of an object without what only a server, an operator or we put in.

    That is: uid, versions, times, owners, managedFields, status, finalizers of HyperShift, what
    kubectl remembers (it repeats the whole object, a Secret's data too), our annotations; and where
    these say that we have paused it, `spec.pausedUntil` becomes again what the user had. A URL that
    the cluster itself was once restored from goes too: it opened data, and leads nowhere by now.

    Args:
        document: an object of the API.

    Raises:
        FormatError: it is nested too deeply to be one.
    """
    copied: Object = _copy(document, 0)
    copied.pop("status", None)
    metadata = copied.get("metadata")
    if not isinstance(metadata, dict):
        return copied
    _unpause(copied)
    _forget_restore(copied)
    for name in _OF_SERVERS:
        metadata.pop(name, None)
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        for name in list(annotations):
            if name == _APPLIED or name.startswith((_OURS, _OF_OPERATOR)):
                del annotations[name]
    finalizers = metadata.get("finalizers")
    if isinstance(finalizers, list):
        metadata["finalizers"] = [f for f in finalizers if not _is_of_hypershift(f)]
    for name in ("annotations", "finalizers", "labels"):
        if name in metadata and not metadata[name]:
            del metadata[name]
    return copied


def dump(documents: Iterable[Mapping[str, Any]]) -> str:
    """Write objects as one YAML stream; the same objects give the same text.

    Raises:
        FormatError: something in one is no YAML.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.explicit_start = True
    yaml.allow_unicode = True
    yaml.width = 4096
    stream = StringIO()
    try:
        for document in documents:
            # A copy has nothing in it twice, which would be written as an anchor.
            yaml.dump(_copy(document, 0), stream)
    except (YAMLError, RecursionError, ValueError, TypeError):
        pass
    else:
        text = stream.getvalue()
        if not _UNWRITABLE.search(text):
            return text
    # Raised out here: the library's error quotes the document, and that may be a Secret.
    raise FormatError("an object of the cluster can't be written as YAML")


class _Representer(SafeRepresenter):
    """Quotes whatever a reader of YAML 1.1 or 1.2 could take for something else."""

    def represent_str(self, data: str) -> ScalarNode:
        plain = _TEXT.fullmatch(data) and data.lower() not in _WORDS
        # Quotes escape what is not printable; a block does not.
        block = "\n" in data and data[0] > " " and data.replace("\n", "").isprintable()
        style = None if plain else ("|" if block else '"')
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_float(self, data: float) -> ScalarNode:
        text = repr(data)
        if "e" in text and "." not in text:
            # YAML 1.1 takes a number without a dot for a text.
            text = text.replace("e", ".0e")
            return self.represent_scalar("tag:yaml.org,2002:float", text)
        return super().represent_float(data)


_Representer.add_representer(str, _Representer.represent_str)
_Representer.add_representer(float, _Representer.represent_float)


def _copy(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise FormatError("an object of the cluster is nested too deeply", "look at it")
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise FormatError("an object of the cluster has in it what is no JSON")
        return {name: _copy(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(inner, depth + 1) for inner in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise FormatError("an object of the cluster has in it what is no JSON")


def _forget_restore(document: Object) -> None:
    spec = document.get("spec")
    for name in ("etcd", "managed", "storage"):
        spec = spec.get(name) if isinstance(spec, dict) else None
    if isinstance(spec, dict):
        spec.pop("restoreSnapshotURL", None)


def _unpause(document: Object) -> None:
    """Take back our own pause, in the copy; one that someone else has set meanwhile stays."""
    try:
        record = recorded(document)
        paused_by_us = record is not None and ours(document, record)
    except BackstayError:
        # What was can't be told. Our pause has an end, so that it does no harm to keep it.
        return
    if record is not None and paused_by_us:
        del document["spec"]["pausedUntil"]
        if record.own is not None:
            document["spec"]["pausedUntil"] = record.own


def _is_of_hypershift(finalizer: object) -> bool:
    return isinstance(finalizer, str) and (
        finalizer.startswith(_HYPERSHIFT) or finalizer == _DESTROY
    )
