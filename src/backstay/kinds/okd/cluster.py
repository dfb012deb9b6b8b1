"""What the API of an OKD cluster says of it: immutable, and all that guards decide from.

Seven objects are got by their names; nothing is listed, and nothing is written. Each that can't be
had leaves a gap with its reason, so that a guard can say why it could not be asked. A server that
can't be reached is not asked seven times.

Source: github.com/openshift/api, config/v1 (types_cluster_version, types_cluster_operator,
types_proxy, types_infrastructure).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from backstay.client.text import one_line
from backstay.errors import BackstayError, KubeForbiddenError, KubeLoginError, KubeNotFoundError
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.field import at, time_at
from backstay.kubeapi.resource import (
    CLUSTER_OPERATORS,
    CLUSTER_VERSIONS,
    INFRASTRUCTURES,
    PROXIES,
    Resource,
)

#: The operators of the four static pods whose resources are backed up.
OPERATORS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
#: What these objects are called: there is one of each.
INFRASTRUCTURE, VERSION, PROXY = "cluster", "version", "cluster"
#: Characters of a server's word that are kept.
_WORD = 200
#: noProxy may list many networks.
_LIST = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition of an object, as far as it is told.

    Attributes:
        status: `True`, `False` or `Unknown`; empty where there is no such condition.
        reason: one word, as the server has it.
    """

    status: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """An entry of a ClusterVersion's history.

    Attributes:
        state: `Completed` or `Partial`.
        version: as `4.15.3`.
        started: when it began; None where that is not told.
        completed: when it was complete; None where it is not.
    """

    state: str
    version: str
    started: datetime | None = None
    completed: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What the ClusterVersion says.

    Attributes:
        desired: the version that the cluster is to have.
        image: of the release that it is to have.
        progressing: the condition.
        history: newest first.
    """

    desired: str = ""
    image: str = ""
    progressing: Condition = field(default_factory=Condition)
    history: tuple[Update, ...] = ()

    @property
    def running(self) -> str:
        """The version that the cluster runs: of the newest update that is complete.

        Where none is, the one that it is to have; empty where nothing is told.
        """
        done = (it.version for it in self.history if it.state == "Completed" and it.version)
        return next(done, self.desired)

    @property
    def installed(self) -> datetime | None:
        """When the installation was complete, or began where it never was."""
        if not self.history:
            return None
        first = self.history[-1]
        return first.completed or first.started

    @property
    def digest(self) -> str:
        """The image's digest, as `sha256:...`; empty where it is named by a tag."""
        return self.image.partition("@")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A ClusterOperator, by the three conditions that each has."""

    name: str
    progressing: Condition = field(default_factory=Condition)
    degraded: Condition = field(default_factory=Condition)
    available: Condition = field(default_factory=Condition)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterProxy:
    """The cluster-wide proxy, as it is in force.

    Attributes:
        http: URL of the proxy for http; may hold a password; empty where there is none.
        https: of that for https.
        no_proxy: what is reached without, separated by commas; the cluster's own networks among it.
        trusted_ca: the ConfigMap in openshift-config with authorities to trust; empty where none.
    """

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    no_proxy: str = ""
    trusted_ca: str = ""

    def __bool__(self) -> bool:
        return bool(self.http or self.https)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """An OKD cluster, as its API tells of it.

    Attributes:
        infrastructure: the infrastructure's name, as `prod-x7k2p`; empty where it is not known.
        release: what runs; None where that could not be read.
        operators: those that could be read, by name.
        proxy: None where that could not be read; false where there is none.
        gaps: what could not be read: `infrastructure`, `version`, `proxy` and the names of
            operators, each with the reason.
    """

    infrastructure: str = ""
    release: Release | None = None
    operators: Mapping[str, Operator] = field(default_factory=lambda: MappingProxyType({}))
    proxy: ClusterProxy | None = None
    gaps: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def gap(self, part: str) -> str:
        """Say why a part is not known."""
        return self.gaps.get(part, "the API does not tell")


def unread(reason: str) -> Cluster:
    """Make the cluster of which nothing is known.

    Args:
        reason: why, as one line.
    """
    parts = ("infrastructure", "version", *OPERATORS, "proxy")
    return Cluster(gaps=MappingProxyType(dict.fromkeys(parts, one_line(reason))))


def read_cluster(api: Api) -> Cluster:
    """Ask a cluster's API for what guards want to know.

    Nothing is raised: what can't be had is in `gaps`.

    Args:
        api: of the cluster.
    """
    asked = _Asked(api)
    infrastructure = asked.get("infrastructure", INFRASTRUCTURES, INFRASTRUCTURE)
    version = asked.get("version", CLUSTER_VERSIONS, VERSION)
    operators = {name: asked.get(name, CLUSTER_OPERATORS, name) for name in OPERATORS}
    proxy = asked.get("proxy", PROXIES, PROXY)
    name = _word(at(infrastructure, "status.infrastructureName", ""))
    if infrastructure is not None and not name:
        asked.gaps["infrastructure"] = "infrastructures.config.openshift.io cluster has no name"
    return Cluster(
        infrastructure=name,
        release=None if version is None else parse_release(version),
        operators=MappingProxyType(
            {it: parse_operator(it, found) for it, found in operators.items() if found is not None}
        ),
        proxy=None if proxy is None else parse_proxy(proxy),
        gaps=MappingProxyType(asked.gaps),
    )


class _Asked:
    """Gets objects until the server turns out to be out of reach."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._out = ""
        self.gaps: dict[str, str] = {}

    def get(self, part: str, resource: Resource, name: str) -> Object | None:
        if self._out:
            self.gaps[part] = self._out
            return None
        try:
            return self._api.get(resource, name)
        except BackstayError as error:
            self.gaps[part] = one_line(str(error))
            alone = isinstance(error, KubeNotFoundError | KubeForbiddenError)
            if not alone or isinstance(error, KubeLoginError):
                self._out = self.gaps[part]
            return None


def parse_release(document: object) -> Release:
    """Read a ClusterVersion; whatever it holds, this raises nothing."""
    history: list[Any] = at(document, "status.history", [])
    return Release(
        desired=_word(at(document, "status.desired.version", "")),
        image=_word(at(document, "status.desired.image", "")),
        progressing=_condition(document, "Progressing"),
        history=tuple(
            Update(
                state=_word(at(entry, "state", "")),
                version=_word(at(entry, "version", "")),
                started=time_at(entry, "startedTime"),
                completed=time_at(entry, "completionTime"),
            )
            for entry in history
        ),
    )


def parse_operator(name: str, document: object) -> Operator:
    """Read a ClusterOperator; whatever it holds, this raises nothing."""
    return Operator(
        name=name,
        progressing=_condition(document, "Progressing"),
        degraded=_condition(document, "Degraded"),
        available=_condition(document, "Available"),
    )


def parse_proxy(document: object) -> ClusterProxy:
    """Read a Proxy; whatever it holds, this raises nothing.

    In its status is what is in force: the spec's, once it was found good, and in noProxy the
    cluster's own networks. A spec that is not in force yet is taken where the status has none.
    """
    where = "status" if at(document, "status", {}) else "spec"
    found = ClusterProxy(
        http=_url(at(document, f"{where}.httpProxy", "")),
        https=_url(at(document, f"{where}.httpsProxy", "")),
        no_proxy=at(document, f"{where}.noProxy", "")[:_LIST],
    )
    return replace(found, trusted_ca=_word(at(document, "spec.trustedCA.name", "")))


def _url(text: str) -> str:
    """What is longer, or can't be shown, is not a URL that anybody meant."""
    text = text.strip()
    return text if len(text) <= 2048 and text.isprintable() else ""


def _condition(document: object, kind: str) -> Condition:
    listed: list[Any] = at(document, "status.conditions", [])
    for one in listed:
        if at(one, "type", "") == kind:
            return Condition(
                status=_word(at(one, "status", "")), reason=_word(at(one, "reason", ""))
            )
    return Condition()


def _word(text: str) -> str:
    return one_line(text[: 4 * _WORD])[:_WORD]
