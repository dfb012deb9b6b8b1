"""Creating what a restore needs, and nothing else: create-only, and able to go on after a crash.

Everything is looked at before anything is created. No object is ever changed or deleted here:
what is there stays as it is (promise 6), and where it is not what the restore needs, nothing is
created at all. There is no record of how far a run came: what it has created bears its mark, so
the same restore, run again, finds it and goes on.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from backstay.errors import (
    AlreadyExistsError,
    KubeConflictError,
    KubeError,
    KubeForbiddenError,
    RefusedError,
)
from backstay.kinds.hosted.cluster import MAIN, at, control_plane_namespace
from backstay.kinds.hosted.recovery.creation import Creation, Found, Item, differences, judge
from backstay.kinds.hosted.recovery.etcd_init import Refusal
from backstay.kinds.hosted.recovery.etcd_init import judge as judge_etcd_init
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.resource import (
    HOSTED_CLUSTERS,
    HOSTED_CONTROL_PLANES,
    NAMESPACES,
    PODS,
    STATEFUL_SETS,
    VOLUME_CLAIMS,
    Resource,
)
from backstay.kubeapi.review import Wanted, lacking
from backstay.report import Report

#: On a HostedCluster: an image that takes the place of the release's control-plane-operator.
_OPERATOR = "hypershift.openshift.io/control-plane-operator-image"
#: Hosted clusters of the same release that are looked at for their etcd-init.
_MAX_PRECEDENTS = 20
_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What came of it.

    Attributes:
        created: what this run has created, as messages call it.
        kept: what was there already, just as it should be.
    """

    created: tuple[str, ...]
    kept: tuple[str, ...]


def needed(creation: Creation) -> tuple[Wanted, ...]:
    """List all that creating and following take; the look at other clusters is not needed.

    Namespaces are not among it: one that exists, as most do, needs no right at all.
    """
    space = creation.control_plane_namespace
    items: dict[tuple[Resource, str], list[str]] = {}
    for item in creation.items:
        if item.resource != NAMESPACES:
            items.setdefault((item.resource, item.namespace), []).append(item.name)
    pods = tuple(f"{MAIN}-{number}" for number in range(creation.members))
    return (
        *(Wanted("get", kind, where, names=tuple(n)) for (kind, where), n in items.items()),
        *(Wanted("create", kind, where) for kind, where in items),
        Wanted("list", VOLUME_CLAIMS, space),
        Wanted("get", HOSTED_CONTROL_PLANES, space, names=(creation.name,)),
        Wanted("get", STATEFUL_SETS, space, names=(MAIN,)),
        Wanted("get", PODS, space, names=pods),
        Wanted("get", PODS, space, "log", pods),
    )


def look(api: Api, creation: Creation) -> Found:
    """Look at what is there of all that is to be created.

    Raises:
        KubeError: the API failed, or we may not look.
    """
    space = creation.control_plane_namespace
    claims = api.list(VOLUME_CLAIMS, space)
    return Found(
        objects=tuple(_find(api, item) for item in creation.items),
        claims=tuple(sorted(at(claim, "metadata.name", "") for claim in claims)),
        control_plane=_namespace(api, space),
    )


def _find(api: Api, item: Item) -> Object | None:
    if item.resource == NAMESPACES:
        return _namespace(api, item.name)
    return api.find(item.resource, item.name, item.namespace)


def _namespace(api: Api, name: str) -> Object | None:
    """A namespace; one that we may not look at is taken to be there, and nothing more is known."""
    try:
        return api.find(NAMESPACES, name)
    except KubeForbiddenError:
        return {}


def check(api: Api, creation: Creation, *, report: Report, force: bool = False) -> Found:
    """Look whether everything can be created; nothing is.

    Args:
        api: of the management cluster.
        creation: what is wanted.
        report: is told what can't be known yet.
        force: as in `apply`.

    Returns:
        What is there already.

    Raises:
        AlreadyExistsError: something is there that must not be.
        RefusedError: the release can't restore what is asked for.
        KubeForbiddenError: rights are missing.
        KubeError: the API failed.
    """
    _check_rights(api, needed(creation))
    found = look(api, creation)
    reasons = judge(creation, found)
    if reasons:
        raise AlreadyExistsError(
            "nothing was created: " + "; ".join(reason.what for reason in reasons[:_NAMED]),
            reasons[0].do,
        )
    pairs = zip(creation.items, found.objects, strict=True)
    if any(item.resource == NAMESPACES for item, there in pairs if there is None):
        _check_rights(api, [Wanted("create", NAMESPACES, "")])
    _check_etcd_init(api, creation, report, force=force)
    return found


def apply(api: Api, creation: Creation, *, report: Report, force: bool = False) -> Applied:
    """Create what is not there yet, after everything has been looked at.

    Args:
        api: of the management cluster.
        creation: what is wanted; see `creation.plan`.
        report: is told what is done.
        force: go on where another cluster of this release shows that its etcd-init can't restore
            several members; no other refusal can be lifted.

    Raises:
        AlreadyExistsError: something is there that must not be; nothing was created.
        RefusedError: the release can't restore what is asked for; nothing was created.
        KubeForbiddenError: rights are missing; nothing was created.
        KubeError: the API failed on the way; the same restore, run again, goes on.
    """
    found = check(api, creation, report=report, force=force)
    pairs = list(zip(creation.items, found.objects, strict=True))
    created: list[str] = []
    kept: list[str] = []
    with report.task("creating objects", len(pairs), "objects") as progress:
        for item, there in pairs:
            if there is None and _create(api, item):
                created.append(item.title)
                report.say(f"created {item.title}")
            else:
                kept.append(item.title)
            progress(1)
    return Applied(created=tuple(created), kept=tuple(kept))


def _create(api: Api, item: Item) -> bool:
    """Create one object; False where somebody else has just created the same."""
    try:
        api.create(item.resource, item.body, item.namespace)
    except KubeConflictError as error:
        there = api.find(item.resource, item.name, item.namespace)
        # A HostedCluster is made once: one that came up in between is someone else's.
        other = item.resource == HOSTED_CLUSTERS or there is None
        if there is None or other or differences(item, there):
            raise AlreadyExistsError(
                f"{item.title} has come up while this restore was creating objects",
                "look at who made it; run the same restore again once it is gone",
            ) from error
        return False
    return True


def _check_rights(api: Api, rights: Iterable[Wanted]) -> None:
    missing = lacking(api, rights)
    if missing:
        named = ", ".join(map(str, missing[:_NAMED])) + (", ..." if missing[_NAMED:] else "")
        raise KubeForbiddenError(
            f"nothing was created: {api.transport.server} does not let us {named}",
            "ask for these rights: docs/hosted.md has the roles",
        )


def _check_etcd_init(api: Api, creation: Creation, report: Report, *, force: bool) -> None:
    """Refuse several members where it is known that this release can't restore them.

    It is known only where another hosted cluster of that release has its etcd-init at the moment,
    being restored itself. Else it is found out when this one's StatefulSet is there; see `wait`.
    """
    if creation.members <= 1:
        return
    reason = _precedent(api, creation)
    if reason is not None and not force:
        raise RefusedError(f"nothing was created: {reason.what}", reason.do)
    if reason is not None:
        report.warn(f"{reason.what}; going on all the same")
        return
    report.say(
        f"whether this release restores {creation.members} members as one cluster is found out"
        " when its StatefulSet is there"
    )


def _precedent(api: Api, creation: Creation) -> Refusal | None:
    try:
        return _judged(_precedents(api, creation), creation.members)
    except KubeError:
        # No right to look at others, or no luck: then nothing is known beforehand.
        return None


def _judged(stateful_sets: Iterable[Object], members: int) -> Refusal | None:
    return next(filter(None, (judge_etcd_init(one, members) for one in stateful_sets)), None)


def _precedents(api: Api, creation: Creation) -> Iterable[Object]:
    """StatefulSets that the same control-plane-operator has made, of clusters beside ours."""
    wanted = _operator(next(i.body for i in creation.items if i.resource == HOSTED_CLUSTERS))
    others = [
        one
        for one in api.list(HOSTED_CLUSTERS, creation.namespace)
        if at(one, "metadata.name", "") != creation.name and _operator(one) == wanted
    ]
    for other in others[:_MAX_PRECEDENTS]:
        space = control_plane_namespace(creation.namespace, at(other, "metadata.name", ""))
        found = api.find(STATEFUL_SETS, MAIN, space)
        if found is not None:
            yield found


def _operator(hosted_cluster: Object) -> str:
    """What decides which etcd-init a control plane gets."""
    nothing: Object = {}
    image = at(hosted_cluster, "metadata.annotations", nothing).get(_OPERATOR)
    return image if isinstance(image, str) else at(hosted_cluster, "spec.release.image", "")
