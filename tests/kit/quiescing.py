"""A hosted control plane that can be quiesced: its API, its operator, and a real etcd.

with Bench.start(tmp_path, etcd) as bench:
    before = bench.state()
    with bench.quiesce() as quiesce:
        ...
    assert bench.state() == before
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from backstay.client.etcd import Etcd as Client
from backstay.clock import SystemClock
from backstay.kinds.hosted.find import find
from backstay.kinds.hosted.quiescing.quiesce import Options, Quiesce
from backstay.kinds.hosted.quiescing.quiet import watch_etcd
from backstay.kubeapi.api import Api
from backstay.kubeapi.connect import connect
from backstay.kubeapi.resource import DEPLOYMENTS, HOSTED_CLUSTERS, NODE_POOLS, PODS
from backstay.report import Report, Said
from kit.hosted import WRITERS, hosted_objects, namespace_of
from kit.hypershift_operator import HypershiftOperator
from kit.kubeserver import KubeServer

CLOCK = SystemClock()
#: Quick, but with patience that no loaded machine uses up.
QUICK = Options(
    timeout=60, pause=120, quiet=0.2, poll=0.05, drain=10, back=60, run="a-run", by="me"
)


@dataclass
class Bench:
    """One hosted control plane."""

    kube: KubeServer
    operator: HypershiftOperator
    api: Api
    etcd: Client | None
    name: str = "blue"
    namespace: str = "clusters"
    told: list[Said] = field(default_factory=list)

    @classmethod
    @contextmanager
    def start(cls, folder: Path, etcd=None, *, members: int = 3, **more) -> Iterator["Bench"]:
        """Put the objects of a control plane, and let its operator work."""
        operator = HypershiftOperator(replicas=members)
        with (
            KubeServer.start(folder / "kube") as kube,
            connect(kube.kubeconfig, None) as api,
            Client(etcd.access) if etcd is not None else nullcontext() as client,
        ):
            for document in hosted_objects("blue", members=members, **more):
                kube.put(document)
            kube.actor(operator)
            bench = cls(kube, operator, api, client)
            bench.settle()
            yield bench

    @property
    def inside(self) -> str:
        return namespace_of(self.name, self.namespace)

    @property
    def report(self) -> Report:
        return Report(lambda event: isinstance(event, Said) and self.told.append(event))

    @property
    def warnings(self) -> list[str]:
        return [said.text for said in self.told if said.warning]

    def settle(self) -> None:
        """Wait until the operator has nothing left to do."""
        quiet, changes = 0, -1
        deadline = time.monotonic() + 30
        while quiet < 4:
            assert time.monotonic() < deadline, "the operator does not come to rest"
            time.sleep(0.06)
            quiet, changes = (
                (quiet + 1 if changes == self.kube.objects.changes else 0),
                (self.kube.objects.changes),
            )

    def quiesce(self, watch=None, **options) -> Quiesce:
        """Quiesce it, quickly unless told otherwise."""
        return Quiesce(
            self.api,
            find(self.api, self.name, self.namespace),
            watch or watch_etcd(self.etcd),
            options=replace(QUICK, **options),
            clock=CLOCK,
            report=self.report,
        )

    def hosted_cluster(self):
        return self.kube.get(HOSTED_CLUSTERS, self.name, self.namespace)

    def pools(self):
        return self.kube.list(NODE_POOLS, self.namespace)

    def replicas(self) -> dict[str, int]:
        """What the writers should have."""
        found = {name: self.kube.get(DEPLOYMENTS, name, self.inside) for name in WRITERS}
        return {name: it["spec"]["replicas"] for name, it in found.items() if it is not None}

    def pods(self) -> list[str]:
        """The writers' pods that there are."""
        names = [pod["metadata"]["name"] for pod in self.kube.list(PODS, self.inside)]
        return [name for name in names if name.startswith(WRITERS)]

    def paused(self) -> list[str | None]:
        """spec.pausedUntil of all that is paused."""
        return [it["spec"].get("pausedUntil") for it in (self.hosted_cluster(), *self.pools())]

    def state(self) -> str:
        """All that must be as it was: specs, annotations and labels."""
        found = [self.hosted_cluster(), *self.pools()]
        found += [self.kube.get(DEPLOYMENTS, name, self.inside) for name in WRITERS]
        kept = [
            {
                "kind": it["kind"],
                "name": it["metadata"]["name"],
                "annotations": it["metadata"].get("annotations") or {},
                "labels": it["metadata"].get("labels") or {},
                "spec": it["spec"],
            }
            for it in found
            if it is not None
        ]
        return json.dumps(kept, indent=1, sort_keys=True)

    def reset(self, objects) -> None:
        """Put all objects again, as at the start."""
        for document in objects:
            self.kube.put(document)


def run_child(kubeconfig: str, endpoint: str, options: dict, seconds: float) -> None:
    """Quiesce in a process of its own, as a test that kills it wants."""
    from backstay.client.access import Access
    from backstay.client.endpoint import parse_endpoints

    with (
        connect(Path(kubeconfig), None) as api,
        Client(Access(endpoints=parse_endpoints(endpoint))) as etcd,
        Quiesce(
            api,
            find(api, "blue", "clusters"),
            watch_etcd(etcd),
            options=replace(QUICK, **options),
            clock=CLOCK,
            report=Report(),
        ),
    ):
        time.sleep(seconds)
    sys.stdout.flush()
