"""Where Kubernetes puts an object in etcd: `/registry/secrets/NAMESPACE/NAME` and its like.

`/registry` is the default prefix; OKD's and HyperShift's API servers write under `/kubernetes.io`
and `/openshift.io`, and `--etcd-prefix` can be anything. Custom resources, and a few of the
built-in ones, have their group in the path: `/registry/GROUP/RESOURCE/NAMESPACE/NAME`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backstay.kubedata.resource import BY_PATH, UNKNOWN, WITHOUT_API, Resource

#: A prefix of more segments than this is not looked for.
_MAX_PREFIX = 4


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """The parts of an object's etcd key.

    Attributes:
        prefix: what the API server puts in front of all keys, as `/registry`.
        resource: the resource.
        namespace: the namespace; empty for objects that have none.
        name: the object's name.
    """

    prefix: str
    resource: Resource
    namespace: str
    name: str


def parse_path(key: bytes) -> ObjectPath | None:
    """Take an etcd key apart; None where it does not look like an object's key.

    A prefix is taken as short as it can be, so that a known resource, or a group (which has a
    dot) comes next; where there is none such, it is the first segment.
    """
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    if not text.startswith("/"):
        return None
    segments = text[1:].split("/")
    depth = next(
        (d for d in range(1, min(_MAX_PREFIX, len(segments)) + 1) if _resource(segments[d:])[1]), 1
    )
    found, length = _resource(segments[depth:])
    below = segments[depth + max(length, 1) :]
    if found is None:
        if len(segments) < 3:
            return None
        found = Resource(segments[1], UNKNOWN)
    if not 1 <= len(below) <= 2 or not all(segments[:depth]) or not all(below):
        return None
    prefix = "/" + "/".join(segments[:depth])
    return ObjectPath(prefix, found, below[0] if len(below) == 2 else "", below[-1])


def _resource(segments: Sequence[str]) -> tuple[Resource | None, int]:
    """The known resource that a path begins with, and its number of segments; (None, 0) else."""
    if len(segments) >= 2 and (segments[0] in BY_PATH or segments[0] in WITHOUT_API):
        return BY_PATH.get(segments[0], Resource(segments[0], UNKNOWN)), 1
    if len(segments) >= 3:
        if "/".join(segments[:2]) in BY_PATH:
            return BY_PATH["/".join(segments[:2])], 2
        if "." in segments[0] and segments[1]:
            return Resource(segments[1], segments[0]), 2
    return None, 0
