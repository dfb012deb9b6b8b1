"""Putting a quiesced control plane back, from the annotations of its own objects alone.

The run that quiesced does it on its way out, and `resume` does the same after a crash, from any
machine, as often as one likes: there is no other memory of what was. What is found to be changed
by someone else meanwhile is theirs: it is left and told. The HostedCluster is put back last, and
its record goes only when all else is done, so that dying in the middle loses nothing.
"""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from backstay.clock import Clock
from backstay.errors import (
    BackstayError,
    FormatError,
    KubeError,
    KubeForbiddenError,
    KubeNotFoundError,
    QuiesceError,
)
from backstay.kinds.hosted.cluster import at, control_plane_namespace
from backstay.kinds.hosted.quiescing.pause import Target, change
from backstay.kinds.hosted.quiescing.record import (
    ANNOTATION,
    SCALE,
    Record,
    annotation,
    ours,
    paused_until,
    recorded,
    replicas_of,
    restoring,
    scaling,
)
from backstay.kinds.hosted.quiescing.writers import WRITERS
from backstay.kubeapi.api import Api, Object
from backstay.kubeapi.resource import DEPLOYMENTS, HOSTED_CLUSTERS, NODE_POOLS

#: How often one object is tried; the API of a management cluster may be away for a moment.
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5
#: Characters of a damaged annotation that a message shows.
_SHOWN = 400


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is put back.

    Attributes:
        subject: the object.
        what: what is done to it.
        command: what a person would type for it.
    """

    subject: str
    what: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """What was put back.

    Attributes:
        cluster: as `NAMESPACE.NAME`.
        record: that of the HostedCluster; None where it had none.
        expected: the record, but with what someone else has set since: what is to be seen now.
        changes: what was done; with `dry_run` what would be.
        left: what someone else has changed meanwhile, and so stays as it is.
    """

    cluster: str
    record: Record | None = None
    expected: Record | None = None
    changes: tuple[Change, ...] = ()
    left: tuple[str, ...] = ()


@dataclass(slots=True)
class _Work:
    """One putting back: what is done so far."""

    api: Api
    name: str
    namespace: str
    clock: Clock
    run: str | None = None
    dry_run: bool = False
    changes: list[Change] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    errors: list[BackstayError] = field(default_factory=list)
    expected: Record | None = None

    @property
    def hosted_cluster(self) -> Target:
        return Target(HOSTED_CLUSTERS, self.name, self.namespace)

    @property
    def inside(self) -> str:
        return control_plane_namespace(self.namespace, self.name)

    def all(self) -> Record | None:
        """Put back writers, NodePools and, last, the HostedCluster; each is tried."""
        record = self.expected = self._record()
        for writer, replicas in record.writers if record else ():
            self._try(partial(self._writer, writer, replicas))
        pools: list[Target] = []
        self._try(lambda: pools.extend(self._pools()))
        for pool in pools:
            self._try(partial(self._unpause, pool))
        if record is not None:
            whole = not self.errors
            self._try(lambda: self._unpause(self.hosted_cluster, keep_record=not whole))
        return record

    def _record(self) -> Record | None:
        found: list[Object] = []
        self._try(lambda: found.append(self.hosted_cluster.get(self.api)))
        if not found:
            raise self.errors[0]
        try:
            record = recorded(found[0])
        except FormatError as error:
            # NodePools have records of their own: they are still put back.
            self.errors.append(damaged(error, found[0], self.name, self.namespace))
            return None
        return record if record and self._is_mine(record) else None

    def _is_mine(self, record: Record) -> bool:
        return self.run is None or self.run == record.run

    def _try(self, step: Callable[[], object]) -> None:
        """Do one step, again where the API may only be away; what fails is told at the end."""
        for attempt in range(_ATTEMPTS):
            try:
                step()
            except (KubeForbiddenError, KubeNotFoundError) as error:
                self.errors.append(error)
                return
            except KubeError as error:
                if attempt == _ATTEMPTS - 1:
                    self.errors.append(error)
                    return
                self.clock.sleep(_PAUSE_SECONDS)
            except BackstayError as error:
                self.errors.append(error)
                return
            else:
                return

    def _pools(self) -> list[Target]:
        listed = self.api.list(NODE_POOLS, self.namespace)
        return [
            Target(NODE_POOLS, at(pool, "metadata.name", ""), self.namespace)
            for pool in listed
            if at(pool, "spec.clusterName", "") == self.name and annotation(pool) is not None
        ]

    def _writer(self, name: str, replicas: int) -> None:
        target = Target(DEPLOYMENTS, name, self.inside)
        command = f"oc scale deployment -n {self.inside} {name} --replicas={replicas}"

        def decide(deployment: Object) -> Object | None:
            now = replicas_of(deployment)
            if now == replicas:
                return None
            if now:
                # We set nothing but 0. After a lapse the operator has put back its own number.
                self._leave(f"{target.title} has {now} replicas by now, not {replicas}")
                self._expect(writers={name: now})
                return None
            return scaling(deployment, replicas)

        told = Change(target.title, f"replicas back to {replicas}", command)
        self._change(target, decide, told, subresource=SCALE)

    def _unpause(self, target: Target, *, keep_record: bool = False) -> None:
        what: list[str] = []

        def decide(document: Object) -> Object | None:
            try:
                record = recorded(document)
            except FormatError as error:
                raise damaged(error, document, self.name, self.namespace) from error
            if record is None or not self._is_mine(record):
                return None
            own = "to be unset" if record.own is None else f"back to {record.own!r}"
            what[:] = [own]
            if not ours(document, record):
                what[:] = ["left as it is"]
                if paused_until(document) != record.own:
                    self._leave(f"someone else has set spec.pausedUntil of {target.title}")
                    if target == self.hosted_cluster:
                        self._expect(own=(paused_until(document),))
                if keep_record:
                    return None
            return restoring(document, record, keep_record=keep_record)

        def told(patch: Object) -> Change:
            patch = {**patch, "metadata": {"annotations": {ANNOTATION: None}}}
            return Change(
                target.title, f"pausedUntil {what[0]}, record removed", _command(target, patch)
            )

        self._change(target, decide, told)

    def _expect(
        self, *, writers: dict[str, int] | None = None, own: tuple[str | None] | None = None
    ) -> None:
        """Take in what someone else has set since."""
        if self.expected is not None:
            told = {**dict(self.expected.writers), **(writers or {})}
            (value,) = own or (self.expected.own,)
            self.expected = replace(self.expected, writers=tuple(told.items()), own=value)

    def _leave(self, text: str) -> None:
        if text not in self.left:
            self.left.append(text)

    def _change(
        self,
        target: Target,
        decide: Callable[[Object], Object | None],
        told: Change | Callable[[Object], Change],
        *,
        subresource: str = "",
    ) -> None:
        """Change an object, or only tell how; one that is gone needs no putting back."""
        patches: list[Object] = []

        def remember(document: Object) -> Object | None:
            patch = decide(document)
            patches[:] = [] if patch is None else [patch]
            return None if self.dry_run else patch

        try:
            change(self.api, target, remember, self.clock, subresource=subresource)
        except KubeNotFoundError:
            if target.resource is HOSTED_CLUSTERS:
                raise
            return
        if patches:
            self.changes.append(told if isinstance(told, Change) else told(patches[0]))


def put_back(
    api: Api,
    name: str,
    namespace: str,
    *,
    clock: Clock,
    run: str | None = None,
    dry_run: bool = False,
) -> PutBack:
    """Put back what the records tell: replicas, NodePools, then the HostedCluster.

    Each step is tried, whatever became of those before it.

    Args:
        api: of the management cluster.
        name: of the HostedCluster.
        namespace: of the HostedCluster.
        clock: for waiting before another try.
        run: only what this run has recorded; None: whatever is recorded.
        dry_run: change nothing, and tell what would be changed.

    Raises:
        KubeError: the HostedCluster can't be read.
        QuiesceError: something could not be put back; all else was.
    """
    work = _Work(api, name, namespace, clock, run, dry_run)
    record = work.all()
    if work.errors:
        texts = "; ".join(str(error) for error in work.errors)
        # One that says what to do by hand says it itself.
        again = resume_command(name, namespace)
        raise QuiesceError(
            f"not everything of HostedCluster {namespace}/{name} could be put back: {texts}",
            "" if any(isinstance(e, FormatError) for e in work.errors) else f"run `{again}`",
        ) from work.errors[0]
    return PutBack(
        cluster=f"{namespace}.{name}",
        record=record,
        expected=work.expected,
        changes=tuple(work.changes),
        left=tuple(work.left),
    )


def resume_command(name: str, namespace: str) -> str:
    """Give what a person types to have a control plane put back."""
    return f"backstay resume hosted {name} -n {namespace}"


def damaged(error: FormatError, document: Object, name: str, namespace: str) -> FormatError:
    """Say what a damaged record holds, and how to put things back by hand."""
    kind, own_name = at(document, "kind", "object"), at(document, "metadata.name", "")
    text = (annotation(document) or "")[:_SHOWN]
    shown = "".join(c if c.isprintable() else "?" for c in text)
    inside = control_plane_namespace(namespace, name)
    commands = [f"oc patch {kind.lower()} -n {namespace} {own_name} --type=merge -p '{_UNPAUSE}'"]
    if kind == HOSTED_CLUSTERS.kind:
        scale = f"oc scale deployment -n {inside} --replicas=N {' '.join(WRITERS)}"
        commands.insert(0, scale)
    return FormatError(
        f"{error.what} of {kind} {namespace}/{own_name}; it holds {shown!r}",
        f"put back by hand what was: {'; '.join(commands)}",
    )


_UNPAUSE = json.dumps(
    {"metadata": {"annotations": {ANNOTATION: None}}, "spec": {"pausedUntil": None}}
)


def _command(target: Target, patch: Object) -> str:
    kind, text = target.resource.kind.lower(), shlex.quote(json.dumps(patch))
    where = f"-n {shlex.quote(target.namespace)} {shlex.quote(target.name)}"
    return f"oc patch {kind} {where} --type=merge -p {text}"
