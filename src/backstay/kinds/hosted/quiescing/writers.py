"""The Deployments that write to a control plane's etcd: read, stopped, and seen to be gone.

Only these three hold a client certificate of etcd's. openshift-oauth-apiserver is not there where
people log in by OIDC, so a Deployment that is missing is nothing wrong.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from backstay.clock import Clock
from backstay.errors import KubeConflictError, KubeError, KubeNotFoundError, QuiesceError
from backstay.kinds.hosted.cluster import at
from backstay.kinds.hosted.quiescing.pause import Target, change
from backstay.kinds.hosted.quiescing.record import SCALE, replicas_of, scaling, title
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.resource import DEPLOYMENTS, PODS

#: All that HyperShift gives etcd's client certificate to.
WRITERS = ("kube-apiserver", "openshift-apiserver", "openshift-oauth-apiserver")
#: How often we scale down again what someone scales up while we wait.
_PERSISTENCE = 3
#: A pod in one of these runs nothing any more, though it may lie there for days.
_ENDED = frozenset({"Succeeded", "Failed"})
_OPERATORS = {"In": "{key} in ({values})", "NotIn": "{key} notin ({values})"}


@dataclass(frozen=True, slots=True)
class Writer:
    """One of them, as it was found.

    Attributes:
        target: the Deployment.
        replicas: that it had.
        selector: of its pods' labels.
    """

    target: Target
    replicas: int
    selector: str

    @property
    def name(self) -> str:
        """Name of the Deployment."""
        return self.target.name


def find_writers(api: Api, namespace: str) -> tuple[Writer, ...]:
    """Read the writers that there are.

    Args:
        api: of the management cluster.
        namespace: of the control plane.

    Raises:
        KubeError: the API failed, or a Deployment has no selector.
    """
    found = []
    for name in WRITERS:
        deployment = api.find(DEPLOYMENTS, name, namespace)
        if deployment is not None:
            target = Target(DEPLOYMENTS, name, namespace)
            found.append(Writer(target, replicas_of(deployment), selector(deployment)))
    return tuple(found)


def selector(deployment: Object) -> str:
    """Write a Deployment's selector of labels as a list takes it.

    Raises:
        KubeError: it has none, or one that we can't write: it would select other pods.
    """
    labels: Object = at(deployment, "spec.selector.matchLabels", {})
    expressions: list[Object] = at(deployment, "spec.selector.matchExpressions", [])
    parts = [f"{key}={value}" for key, value in labels.items()]
    for expression in expressions:
        key, operator = at(expression, "key", ""), at(expression, "operator", "")
        values: list[object] = at(expression, "values", [])
        plain = {"Exists": key, "DoesNotExist": f"!{key}"}.get(operator, "")
        form = _OPERATORS.get(operator, plain)
        parts.append(form.format(key=key, values=",".join(map(str, values))) if key else "")
    if not parts or not all(parts):
        raise KubeError(f"{title(deployment)} does not say by which labels its pods are found")
    return ",".join(parts)


def running(pods: Iterable[Object]) -> Iterator[str]:
    """Name the pods that may still do something: one that is on its way out does."""
    for pod in pods:
        if at(pod, "status.phase", "") not in _ENDED:
            yield at(pod, "metadata.name", "")[:253]


@dataclass(slots=True)
class Stopping:
    """The stopping of all writers, and who is still there.

    Attributes:
        api: of the management cluster.
        writers: as they were found.
        clock: for conflicts.
        left: pods that were still there at the last look, or why nobody could look.
    """

    api: Api
    writers: tuple[Writer, ...]
    clock: Clock
    left: tuple[str, ...] = ()
    _again: dict[str, int] = field(default_factory=dict)

    def scale_down(self) -> None:
        """Scale all to 0.

        Raises:
            KubeConflictError: one has other replicas than it had: somebody works on it.
            KubeError: the API failed.
        """
        for writer in self.writers:
            self._scale(writer, first=True)

    def look(self) -> bool:
        """Look whether all their pods are gone; scales down again what was scaled up meanwhile.

        An API that does not answer is asked again at the next look: `left` says so.

        Raises:
            QuiesceError: someone scales them up again and again.
        """
        try:
            left = [name for writer in self.writers for name in self._left(writer)]
        except KubeError as error:
            left = [error.what]
        self.left = tuple(left)
        return not left

    def _left(self, writer: Writer) -> Iterator[str]:
        self._scale(writer, first=False)
        yield from running(self.api.list(PODS, writer.target.namespace, selector=writer.selector))

    def _scale(self, writer: Writer, *, first: bool) -> None:
        def decide(deployment: Object) -> Object | None:
            now = replicas_of(deployment)
            if first and now not in (0, writer.replicas):
                raise KubeConflictError(
                    f"{writer.target.title} had {writer.replicas} replicas, and now has {now}",
                    "run it again when nobody works on it",
                )
            return scaling(deployment, 0) if now else None

        try:
            made = change(self.api, writer.target, decide, self.clock, subresource=SCALE)
        except KubeNotFoundError:
            return
        if made is not None and not first:
            self._again[writer.name] = self._again.get(writer.name, 0) + 1
            if self._again[writer.name] > _PERSISTENCE:
                raise QuiesceError(
                    f"something scales {writer.target.title} up again and again",
                    "find out what, and stop it",
                )
