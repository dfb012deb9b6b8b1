"""A hosted control plane with everything real but Kubernetes: etcd, object stores, kubelet streams.

    with hosted_world(tmp_path) as world:
        world.cli("backup", "hosted", "blue", "-n", "clusters")

    hosted_world(tmp_path, members=3)                   # three members of one etcd
    hosted_world(tmp_path, shards=("events",))          # an etcd beside the main one
    hosted_world(tmp_path, unmanaged=True)              # without pods, at an address of its own
    hosted_world(tmp_path, name="prod.eu", namespace="my-clusters")

The etcd holds what a real kube-apiserver wrote, encrypted with aescbc (tests/fixtures). Its pods
are reached by port-forward and exec; both repositories are directories, unless a test names others.
"""

import base64
import functools
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kit import fixtures, needs
from kit.cli import Cli
from kit.etcd import ServerTls
from kit.hosted import HostedEtcd, hosted_objects, hosted_tls, load, namespace_of, one
from kit.hypershift_operator import HypershiftOperator
from kit.kubeserver import KubeServer
from kit.kubestreams import Streams
from kit.quiescing import Bench

NAME, NAMESPACE = "blue", "clusters"
ENCRYPTED = "kube-aescbc"
CONTROL_PLANE = namespace_of(NAME, NAMESPACE)
CLUSTER = f"{NAMESPACE}.{NAME}"


@dataclass
class World:
    """What a test works on.

    Attributes:
        etcd: the first member of the main etcd.
        etcds: all members, by the names of their pods.
    """

    folder: Path
    kube: KubeServer
    etcd: HostedEtcd
    streams: Streams
    cli: Cli
    objects: list[dict]
    name: str = NAME
    namespace: str = NAMESPACE
    etcds: Mapping[str, HostedEtcd] = field(default_factory=dict)

    @property
    def hosted_cluster(self) -> dict:
        """The HostedCluster, as it was made."""
        return one(self.objects, "HostedCluster")

    @property
    def control_plane(self) -> str:
        """The namespace where its pods run."""
        return namespace_of(self.name, self.namespace)

    @property
    def identity(self) -> Path:
        """The private key of both repositories."""
        return self.folder / "identity.txt"

    @property
    def words(self) -> tuple[str, ...]:
        """The command line that backs it up."""
        return ("backup", "hosted", self.name, "-n", self.namespace)

    def backup(self, *words, **more):
        """Back the control plane up."""
        return self.cli(*self.words, *words, **more)

    def operated(self, *, replicas: int = 1, leaves: float = 0.0) -> Bench:
        """Let HyperShift's operator work on it; gives what tells how it stands."""
        operator = HypershiftOperator(self.name, self.namespace, replicas=replicas, leaves=leaves)
        self.kube.actor(operator)
        bench = Bench(self.kube, operator, None, None, self.name, self.namespace)
        bench.settle()
        return bench


def keys_of(fixture: str) -> tuple[bytes, ...]:
    """The keys that encrypted a fixture, raw: the one that was used for writing first."""
    return tuple(
        base64.b64decode(key["key_base64"]) for key in fixtures.facts(fixture)["encryption_keys"]
    )


def peers_of(names: list[str]) -> str:
    """Where members of one cluster meet: at sockets."""
    return ",".join(f"{name}=unix://{name}:0" for name in names)


def restored(snapshot: Path, folder: Path, name: str = "default", peers: str = "") -> None:
    """Make a member's data directory from a snapshot, by etcd's own tool."""
    subprocess.run(
        [
            *(needs.binary("etcdutl"), "snapshot", "restore", snapshot),
            *("--data-dir", folder / f"{name}.etcd", "--name", name),
            *("--initial-cluster", peers or peers_of([name])),
            *("--initial-advertise-peer-urls", f"unix://{name}:0"),
        ],
        check=True,
        capture_output=True,
    )


@functools.cache
def shard_tls(name: str, namespace: str, shard: str) -> ServerTls:
    """What the etcd of a shard shows: names of its own, by the authority of the main one."""
    main, dash = hosted_tls(name, namespace), f"-{shard}" if shard else ""
    inside = namespace_of(name, namespace)
    hosts = (f"etcd-client{dash}.{inside}.svc", f"*.etcd-discovery{dash}.{inside}.svc", "localhost")
    return ServerTls(main.authority, main.authority.issue("etcd-server", hosts=hosts), main.client)


@contextmanager
def loaded_etcds(
    folder: Path, fixture: str, names: list[str], tls: ServerTls
) -> Iterator[list[HostedEtcd]]:
    """The members of an etcd under HyperShift's names, with what a real kube-apiserver wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    snapshot, peers = fixtures.write(fixture, folder), peers_of(names)
    with ExitStack() as stack:
        members = []
        for name in names:
            restored(snapshot, folder, name, peers)
            member = HostedEtcd._new(folder, name, tls=tls, binary=None, flags=(), peers=peers)
            members.append(member)
            stack.callback(member.kill)
            member.begin()
        for member in members:
            member.wait()
        yield members


@contextmanager
def hosted_world(
    folder: Path,
    *,
    fixture: str = ENCRYPTED,
    repositories: bool = True,
    name: str = NAME,
    namespace: str = NAMESPACE,
    members: int = 1,
    shards: tuple[str, ...] = (),
    unmanaged: bool = False,
    **more,
) -> Iterator[World]:
    """Make one; more is as in `hosted_objects`. Shards hold what no key is needed for."""
    with ExitStack() as stack:
        etcds: dict[str, HostedEtcd] = {}
        for shard in ("", *shards):
            dash = f"-{shard}" if shard else ""
            pods = [f"etcd{dash}-{number}" for number in range(members)]
            tls = shard_tls(name, namespace, shard) if shard else hosted_tls(name, namespace)
            holds = "kube-plain" if shard else fixture
            started = loaded_etcds(folder / f"etcd{dash}", holds, pods, tls)
            etcds |= zip(pods, stack.enter_context(started), strict=True)
        first = etcds["etcd-0"]
        kube = stack.enter_context(KubeServer.start(folder / "kube"))
        settings = {"keys": keys_of(fixture), **more}
        objects = hosted_objects(
            name,
            namespace,
            members=members,
            tls=first.tls,
            shards=shards,
            unmanaged=first.endpoint if unmanaged else None,
            **settings,
        )
        load(kube, objects)
        streams = kube.streams = Streams()
        stack.callback(streams.close)
        cli = Cli(folder, variables_of(folder, kube))
        world = World(folder, kube, first, streams, cli, objects, name, namespace, etcds)
        if not unmanaged:
            for pod in etcds:
                put_pod(world, pod)
        if repositories:
            prepare(world)
        yield world


def variables_of(folder: Path, kube: KubeServer) -> dict[str, str]:
    """What a user has set."""
    (folder / "spool").mkdir()
    return {
        "KUBECONFIG": str(kube.kubeconfig),
        "BACKSTAY_REPO": f"file://{folder / 'data'}",
        "BACKSTAY_KEYS_REPO": f"file://{folder / 'keys'}",
        "BACKSTAY_SPOOL_DIR": str(folder / "spool"),
    }


def put_pod(world: World, pod: str) -> None:
    """Let one member be reached as its kubelet lets it."""
    etcd = world.etcds[pod]
    # With one etcd its pod's volume is at folder/pod; tests look there.
    volume = world.folder / ("pod" if pod == "etcd-0" else f"pod-{pod}")
    volume.mkdir(exist_ok=True)
    ports, inside = {2379: ("localhost", etcd.port)}, inside_of(world, pod, volume)
    world.streams.pod(world.control_plane, pod, ports=ports, rewrite=inside)


def inside_of(world: World, pod: str, volume: Path) -> dict[str, str]:
    """What paths and addresses in a pod really are."""
    etcd, tls = world.etcds[pod], world.folder / "pod-tls"
    certificate, key = etcd.tls.client.write(tls)
    discovery = f"etcd-discovery{pod.removeprefix('etcd').rpartition('-')[0]}"
    return {
        "/usr/bin/etcdctl": str(needs.binary("etcdctl")),
        "/etc/etcd/tls/etcd-ca/ca.crt": str(etcd.tls.authority.write(tls)),
        "/etc/etcd/tls/client/etcd-client.crt": str(certificate),
        "/etc/etcd/tls/client/etcd-client.key": str(key),
        "https://localhost:2379": etcd.endpoint,
        f"https://{pod}.{discovery}.{world.control_plane}.svc:2379": etcd.endpoint,
        "/var/lib": str(volume),
    }


def prepare(world: World) -> None:
    """Make both repositories, and the identity that opens them."""
    made = world.cli("keygen", "-o", world.identity, "--json").json
    world.cli("init", "--recipient", made["recipient"])
    keys = world.cli.variables["BACKSTAY_KEYS_REPO"]
    world.cli("init", "--repo", keys, "--role", "keys", "--recipient", made["recipient"])
