"""A snapshot by the manual procedure: etcdctl in the pod, and the file out of it by exec.

What it takes is the right to `exec`, nothing else: no certificate leaves the pod. What it costs is
room for one copy of the database on the member's own volume, which is looked at first.

What is run there is in `pod_script`, what comes out in `pod_stream`. Here is who is asked, and who
next: as `client.health` and `client.snapshot` do it for those that can be reached.
"""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from backstay.client.answer import Status
from backstay.client.endpoint import Endpoint
from backstay.client.health import Choice, MemberHealth, choose
from backstay.client.snapshot import MAX_SIZE, ROUNDS, Received, Sink
from backstay.client.text import one_line
from backstay.errors import (
    BackstayError,
    EtcdError,
    KubeError,
    KubeForbiddenError,
    SpaceError,
    StreamError,
)
from backstay.kinds.hosted.cluster import Hosted, Shard
from backstay.kinds.hosted.reach import pod_script
from backstay.kinds.hosted.reach.member import parse_status, pod_endpoint
from backstay.kinds.hosted.reach.pod_script import Looked, PodPaths, parse_look
from backstay.kinds.hosted.reach.pod_stream import Coming
from backstay.kubeapi.api import Api
from backstay.kubeapi.exec import Completed, execute, tail
from backstay.report import Report

CONTAINER = "etcd"
#: Seconds of silence: the system may have gigabytes to bring to the disk before etcdctl goes on.
STALL = 180.0
_LOOK_STALL = 30.0
#: Bytes that must stay free beside a copy of the database, which grows meanwhile.
_MARGIN = 64 << 20
#: Bytes of what a pod says of itself.
_MAX_LOOK = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """One pod as it was found.

    Attributes:
        pod: its name.
        health: of its member.
        looked: what else it answered; None where it did not.
        alarms: of the whole cluster, as its member knows them.
    """

    pod: str
    health: MemberHealth
    looked: Looked | None = None
    alarms: frozenset[tuple[int, str]] = field(default=frozenset())


class ExecSource:
    """One etcd of a hosted control plane, as backups see it; see `flows.source.Source`.

    Args:
        api: of the management cluster.
        hosted: the control plane.
        shard: which of its etcds.
        paths: where things are in the container.
        stall: seconds of silence after which a stream is given up.
        max_size: bytes that a snapshot may have.
    """

    kind = "hosted"

    def __init__(
        self,
        api: Api,
        hosted: Hosted,
        shard: Shard,
        *,
        paths: PodPaths | None = None,
        stall: float = STALL,
        max_size: int = MAX_SIZE,
    ) -> None:
        self._api = api
        self._hosted = hosted
        self._shard = shard
        self._paths = paths or PodPaths()
        self._stall = stall
        self._max_size = max_size
        self._choice = Choice()
        self._pods = dict[Endpoint, str]()

    def survey(self) -> Choice:
        """Look at every pod: its member, its alarms, its room; judge each, and tell nothing.

        Nothing is written in a pod. A member without room for a copy is not fit.

        Raises:
            KubeForbiddenError: we may not exec.
            EtcdError: there are no pods.
        """
        return self._survey()[0]

    def choose(self, report: Report) -> int:
        """Look at every pod, tell what was found, and put the fit ones in order.

        Raises:
            KubeForbiddenError: we may not exec.
            SpaceError: no fit member has room for a copy.
            EtcdError: none is fit.
        """
        self._choice, cramped = self._survey()
        for opinion in self._choice.opinions:
            word = "fit" if opinion.usable else "not asked"
            report.say(f"{opinion.member.title}: {word}, {opinion.reason}")
        for warning in self._choice.warnings:
            report.warn(warning)
        if cramped and not self._choice.order:
            raise SpaceError(
                f"there is no room for a copy of the database: {'; '.join(cramped)}",
                "use --transport direct or port-forward, which write nothing in the pod",
            )
        for words in cramped:
            report.warn(f"{words}: not asked")
        best = self._choice.best
        return max(status.db_size for status in (best, *self._choice.order))

    def _survey(self) -> tuple[Choice, tuple[str, ...]]:
        """Look at every pod; gives also the words for fit members that have no room."""
        names = [pod.name for pod in self._shard.pods]
        if not names:
            raise EtcdError(f"{self._shard.name} has no pods", "look at its StatefulSet")
        with ThreadPoolExecutor(len(names), thread_name_prefix="backstay-look") as pool:
            seen = list(pool.map(self._look, names))
        self._pods = {one.health.endpoints[0]: one.pod for one in seen}
        return _with_room(choose(_with_alarms(seen)), seen)

    def fetch(self, sink: Sink, report: Report) -> Received:
        """Write a whole snapshot to a sink, which is reset before each new try.

        Raises:
            KubeForbiddenError: we may not exec.
            StreamError: no pod gave a whole one.
            BackstayError: whatever the sink raises; it is not tried again then.
        """
        failures: list[BackstayError] = []
        for attempt, source in enumerate(self._choice.order * ROUNDS, start=1):
            pod = self._pods[source.endpoint]
            if failures:
                report.warn(f"{failures[-1].what}: taken again, whole, from pod {pod}")
                sink.reset()
            else:
                report.say(f"taking a snapshot in pod {pod}, by etcdctl")
            try:
                return self._take(pod, source, sink, report, attempt)
            except KubeForbiddenError:
                raise
            except (EtcdError, KubeError) as error:
                failures.append(error)
        told = "; ".join(dict.fromkeys(f.what for f in failures)) or "no member was chosen"
        raise StreamError(
            f"no snapshot after {len(failures)} tries: {told}",
            failures[-1].do if failures else "",
        ) from (failures[-1] if failures else None)

    def status(self, endpoint: Endpoint) -> Status:
        """Look at the pod of one member, by the address that `survey` gave it.

        Raises:
            KubeError: the pod can't be asked.
            EtcdError: the member does not say.
        """
        health = self._look(self._pods[endpoint]).health
        if health.status is None:
            raise EtcdError(health.error, health.hint)
        return health.status

    def run(self, endpoint: Endpoint, script: str, stdout: Callable[[bytes], object]) -> Completed:
        """Run a script in the pod of one member, by the address that `survey` gave it.

        Raises:
            KubeError: the pod can't be asked.
        """
        return self._run(self._pods[endpoint], script, stdout, stall=self._stall)

    def _look(self, pod: str) -> _Seen:
        endpoint = pod_endpoint(self._hosted, self._shard, pod)
        printed = bytearray()

        def keep(data: bytes) -> None:
            printed.extend(data[: _MAX_LOOK - len(printed)])

        try:
            done = self._run(pod, pod_script.look(self._paths), keep, stall=_LOOK_STALL)
            looked = parse_look(bytes(printed))
            if done.exit_code:
                raise _failed(f"pod {pod}", done)
            status = parse_status(looked.status, endpoint)
        except KubeForbiddenError:
            raise
        except (KubeError, EtcdError) as error:
            health = MemberHealth(endpoints=(endpoint,), error=error.what, hint=error.do, name=pod)
            return _Seen(pod=pod, health=health)
        health = MemberHealth(endpoints=(endpoint,), status=status, name=pod)
        alarms = frozenset((*looked.alarms, *pod_script.alarms_in(" ".join(status.errors))))
        return _Seen(pod=pod, health=health, looked=looked, alarms=alarms)

    def _run(
        self, pod: str, script: str, stdout: Callable[[bytes], object], *, stall: float
    ) -> Completed:
        return execute(
            self._api,
            pod,
            self._hosted.control_plane_namespace,
            CONTAINER,
            ("/bin/sh", "-c", script),
            stdout=stdout,
            stall=stall,
            lifeline=True,
        )

    def _take(self, pod: str, source: Status, sink: Sink, report: Report, attempt: int) -> Received:
        began = time.monotonic()
        script = pod_script.save(self._paths, secrets.token_hex(4))
        with ExitStack() as stack:

            def begin(size: int) -> Callable[[int], None]:
                return stack.enter_context(report.task(f"snapshot from pod {pod}", size))

            coming = Coming(pod, source, sink, begin, self._max_size)
            done = self._run(pod, script, coming.take, stall=self._stall)
            if done.exit_code:
                raise _failed(f"the snapshot in pod {pod}", done)
            coming.finish()
        return Received(
            source=coming.source,
            size=coming.size,
            db_sha256=coming.db.hexdigest(),
            sha256=coming.whole.hexdigest(),
            storage_version=coming.source.storage_version,
            seconds=time.monotonic() - began,
            attempts=attempt,
        )


def _failed(what: str, done: Completed) -> EtcdError:
    said = tail(done.stderr)
    if done.exit_code in {126, 127}:
        return EtcdError(
            f"{what}: the container lacks a program: {said or f'exit code {done.exit_code}'}",
            "use another --transport",
        )
    return EtcdError(f"{what} failed: {said or f'exit code {done.exit_code}'}", "look at the pod")


def _with_alarms(seen: list[_Seen]) -> list[MemberHealth]:
    """Tell each member which alarms are its own, as `client.health` does."""
    alarms = frozenset[tuple[int, str]]().union(*(one.alarms for one in seen))
    found = []
    for one in seen:
        status = one.health.status
        if status is None:
            found.append(one.health)
            continue
        own = frozenset(kind for member, kind in alarms if member in {status.header.member_id, 0})
        others = frozenset(kind for _, kind in alarms) - own
        found.append(replace(one.health, alarms=own, elsewhere=others))
    return found


def _with_room(choice: Choice, seen: list[_Seen]) -> tuple[Choice, tuple[str, ...]]:
    """Leave out the members that have no room for a copy; gives also the words for these."""
    looked = {one.health.endpoints[0]: one.looked for one in seen if one.looked}
    judged, cramped = [], []
    for opinion in choice.opinions:
        status = opinion.member.status
        why = _lacks(status, looked[status.endpoint]) if status and opinion.usable else ""
        judged.append(replace(opinion, usable=False, reason=why) if why else opinion)
        if why:
            cramped.append(f"{opinion.member.title} {why}")
    judged.sort(key=lambda opinion: not opinion.usable)
    return Choice(tuple(judged)), tuple(cramped)


def _lacks(status: Status, facts: Looked) -> str:
    """Say what room a copy would need and there is not; empty where there is."""
    needed = status.db_size + max(_MARGIN, status.db_size // 10)
    if facts.free is not None and facts.free >= needed:
        return ""
    free = "an unknown number of" if facts.free is None else str(facts.free)
    left = f", and left-overs: {one_line(', '.join(facts.left))}" if facts.left else ""
    return f"has {free} bytes free on its volume, {needed} are needed{left}"
