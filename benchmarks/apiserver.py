"""A hosted control plane to measure on, in a process of its own: Kubernetes' API, and a real etcd.

    with ControlPlane.start(folder, snapshot) as plane:
        plane.variables                         # by which programs find it
        plane.ask("operate", leaves=6.0)        # HyperShift's operator works on it from now on
        plane.ask("seen")                       # what came, and what was seen, since the last time

The API, the operator and the kubelet's streams are those of the tests (tests/kit), written in
Python. So they run apart from what is timed, and what they cost is told beside it.

    python -m benchmarks.apiserver FOLDER SNAPSHOT       # is what `start` runs; JSON in, JSON out
"""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from backstay.client.answer import Put
from backstay.client.etcd import Etcd as Client
from backstay.demo.secrets import encrypted_secret
from backstay.kubeapi.resource import DEPLOYMENTS, PODS
from benchmarks.programs import environment
from kit.cli import Cli, etcd_variables
from kit.hosted import WRITERS, HostedEtcd, hosted_objects, hosted_tls, load
from kit.hypershift_operator import HypershiftOperator
from kit.kubeserver import KubeServer, Seen
from kit.kubestreams import Streams
from kit.world import (
    ENCRYPTED,
    NAME,
    NAMESPACE,
    World,
    keys_of,
    put_pod,
    restored,
)

_POD = "etcd-0"
_QUOTA = ("--quota-backend-bytes", str(16 << 30))
#: As a kube-apiserver encrypts them, and how many are written at once.
_SECRETS, _BATCH = 2000, 100
#: Seconds between two writes of a kube-apiserver that leaves.
_BEAT = 0.1
_READS = {"get", "list", "watch"}
#: It is created, and nothing is: a question.
_QUESTION = "selfsubjectaccessreviews"


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The other process, as a benchmark sees it.

    Attributes:
        variables: of the environment, by which programs find the API, and etcd without it.
        api_pid: the API's process.
        etcd_pid: etcd's process.
    """

    variables: dict[str, str]
    api_pid: int
    etcd_pid: int
    _process: subprocess.Popen[str]

    @classmethod
    @contextmanager
    def start(cls, folder: Path, snapshot: Path) -> Iterator["ControlPlane"]:
        """Run one that has a snapshot's data; it ends with the block, and with this process."""
        command = [sys.executable, "-m", "benchmarks.apiserver", str(folder), str(snapshot)]
        with subprocess.Popen(
            command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                ready = _answer(process)
                yield cls(ready["variables"], process.pid, ready["etcd"], process)
            finally:
                process.stdin.close()

    def ask(self, what: str, **more):
        """Have something done; gives the answer."""
        self._process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self._process.stdin.flush()
        return _answer(self._process)


def _answer(process):
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"the Kubernetes API of the benchmarks ended: {process.wait()}")
    return json.loads(line)


# --- below: in the other process


class Operator(HypershiftOperator):
    """HyperShift's operator, which notes when it saw what."""

    def __init__(self, **more):
        super().__init__(NAME, NAMESPACE, **more)
        self.gone_at = self.ready_at = None

    @property
    def stays(self):
        """Whether a writer's pod is there still."""
        return self.gone_at is None

    def begin(self):
        """Forget what was seen."""
        self.gone_at = self.ready_at = None

    def __call__(self, kube):
        """Work, and look at what has come of it."""
        super().__call__(kube)
        pods = [pod["metadata"]["name"] for pod in kube.list(PODS, self.inside)]
        if self.gone_at is None and not any(name.startswith(WRITERS) for name in pods):
            self.gone_at = time.monotonic()
        if self.gone_at is not None and self.ready_at is None:
            found = [kube.get(DEPLOYMENTS, name, self.inside) for name in WRITERS]
            numbers = (it["status"].get("readyReplicas") or 0 for it in found)
            if all(number == self.replicas for number in numbers):
                self.ready_at = time.monotonic()


@dataclass
class _Plane:
    """All of it."""

    world: World
    operator: Operator
    scaled_at: float | None = None

    def note(self, _: int, seen: Seen) -> None:
        """Look at a request before it is served."""
        scaling = seen.verb == "patch" and seen.resource == DEPLOYMENTS.plural
        if scaling and self.scaled_at is None:
            self.scaled_at = time.monotonic()

    def operate(self, *, leaves: float, writes: bool) -> None:
        """Let the operator work. Pods that shall go take so long, and may write to their end."""
        self.operator.leaves = leaves
        if not writes:
            return
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self) -> None:
        """Write as a kube-apiserver does, until its pod is gone."""
        with Client(self.world.etcd.access) as client:
            number = 0
            while self.operator.stays:
                number += 1
                client.put(b"/registry/masterleases/10.0.0.1", b"%d" % number)
                time.sleep(_BEAT)

    def seen(self) -> dict:
        """Tell what came and was seen since the last time; times are of the monotonic clock."""
        requests = list(self.world.kube.requests)
        self.world.kube.requests.clear()
        asked = [seen for seen in requests if seen.resource == _QUESTION]
        writes = [seen for seen in requests if seen not in asked and seen.verb not in _READS]
        told = {
            "requests": len(requests),
            "writes": [f"{seen.verb} {seen.path}" for seen in writes],
            "kinds": Counter(seen.verb for seen in requests),
            "scaled": self.scaled_at,
            "gone": self.operator.gone_at,
            "ready": self.operator.ready_at,
        }
        self.scaled_at = None
        self.operator.begin()
        return told


@contextmanager
def _etcd(folder: Path, snapshot: Path) -> Iterator[HostedEtcd]:
    """A member with a snapshot's data, and with encrypted Secrets."""
    folder.mkdir(parents=True)
    restored(snapshot, folder, _POD)
    with HostedEtcd.start(folder, tls=hosted_tls(NAME, NAMESPACE), flags=_QUOTA, name=_POD) as etcd:
        [key], source = keys_of(ENCRYPTED), Random(1)
        made = [encrypted_secret(f"secret-{n:05}", key, source) for n in range(_SECRETS)]
        with Client(etcd.access) as client:
            for start in range(0, _SECRETS, _BATCH):
                client.txn([Put(*pair) for pair in made[start : start + _BATCH]])
        yield etcd


@contextmanager
def _plane(folder: Path, snapshot: Path) -> Iterator[_Plane]:
    with ExitStack() as stack:
        etcd = stack.enter_context(_etcd(folder / "etcd", snapshot))
        kube = stack.enter_context(KubeServer.start(folder / "kube"))
        objects = hosted_objects(NAME, NAMESPACE, members=1, tls=etcd.tls, keys=keys_of(ENCRYPTED))
        load(kube, objects)
        streams = kube.streams = Streams()
        stack.callback(streams.close)
        world = World(
            folder, kube, etcd, streams, Cli(folder), objects, NAME, NAMESPACE, {_POD: etcd}
        )
        put_pod(world, _POD)
        operator = Operator(replicas=1)
        plane = _Plane(world, operator)
        kube.on_request = plane.note
        kube.actor(operator)
        yield plane


def main(folder: Path, snapshot: Path) -> None:
    """Serve until standard input ends."""
    with _plane(folder, snapshot) as plane:
        etcd = plane.world.etcd
        variables = etcd_variables(etcd, folder / "pki")
        variables["KUBECONFIG"] = str(plane.world.kube.kubeconfig)
        _say({"variables": variables, "etcd": etcd.pid})
        doing = {"operate": plane.operate, "seen": plane.seen}
        for line in sys.stdin:
            words = json.loads(line)
            _say(doing[words.pop("do")](**words))


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
