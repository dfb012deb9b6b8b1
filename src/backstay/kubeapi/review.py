"""Asking an API server what we may do, by SelfSubjectAccessReviews.

They need no right of their own: every user that is logged in may ask about themself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from backstay.kubeapi.api import Api
from backstay.kubeapi.resource import Resource

#: Objects that a message names.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something that we want to do with the API, in a namespace.

    Attributes:
        verb: of RBAC: get, list, create, patch, delete.
        resource: to what.
        namespace: where; empty for what lies in none.
        subresource: as `exec`; empty for the object itself.
        names: to which objects; empty where that is not known beforehand, so to any.
    """

    verb: str
    resource: Resource
    namespace: str
    subresource: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Write it for people: `get secrets in clusters-blue`, and which where these are named."""
        what = f"{self.resource.title}{f'/{self.subresource}' if self.subresource else ''}"
        where = f" in {self.namespace}" if self.namespace else ""
        more = ", ..." if self.names[_NAMED:] else ""
        which = f" ({', '.join(self.names[:_NAMED])}{more})" if self.names else ""
        return f"{self.verb} {what}{where}{which}"


def lacking(api: Api, wanted: Iterable[Wanted]) -> tuple[Wanted, ...]:
    """Tell what we may not do, by SelfSubjectAccessReviews.

    A role may name its objects: they are asked about one by one where not all are allowed.

    Args:
        api: that is asked.
        wanted: what we want to do.

    Returns:
        What is not allowed, with the names of the objects that it is not allowed for.

    Raises:
        KubeError: the server does not say.
    """
    return tuple(_lacking(api, wanted))


def _lacking(api: Api, wanted: Iterable[Wanted]) -> Iterator[Wanted]:
    for one in wanted:
        if _may(api, one):
            continue
        denied = tuple(name for name in one.names if not _may(api, one, name))
        if denied or not one.names:
            yield replace(one, names=denied)


def _may(api: Api, wanted: Wanted, name: str = "") -> bool:
    return api.may(
        wanted.verb,
        wanted.resource,
        wanted.namespace,
        name=name,
        subresource=wanted.subresource,
    )
