"""A hosted control plane with everything real but Kubernetes: etcd, object stores, kubelet streams.

    with hosted_world(tmp_path) as world:
        world.cli("backup", "hosted", "blue", "-n", "clusters")

The etcd holds what a real kube-apiserver wrote, encrypted with aescbc (tests/fixtures). Its pods
are reached by port-forward and exec; both repositories are directories, unless a test names others.
"""

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kit import fixtures, needs
from kit.cli import Cli
from kit.hosted import HostedEtcd, hosted_objects, hosted_tls, load, namespace_of, one
from kit.kubeserver import KubeServer
from kit.kubestreams import Streams

NAME, NAMESPACE = "blue", "clusters"
ENCRYPTED = "kube-aescbc"
CONTROL_PLANE = namespace_of(NAME, NAMESPACE)
CLUSTER = f"{NAMESPACE}.{NAME}"


@dataclass
class World:
    """What a test works on."""

    folder: Path
    kube: KubeServer
    etcd: HostedEtcd
    streams: Streams
    cli: Cli
    objects: list[dict]

    @property
    def hosted_cluster(self) -> dict:
        """The HostedCluster, as it was made."""
        return one(self.objects, "HostedCluster")

    @property
    def identity(self) -> Path:
        """The private key of both repositories."""
        return self.folder / "identity.txt"

    def backup(self, *words, **more):
        """Back the control plane up."""
        return self.cli("backup", "hosted", NAME, "-n", NAMESPACE, *words, **more)


def keys_of(fixture: str) -> tuple[bytes, ...]:
    """The keys that encrypted a fixture, raw: the one that was used for writing first."""
    return tuple(
        base64.b64decode(key["key_base64"]) for key in fixtures.facts(fixture)["encryption_keys"]
    )


def restored(snapshot: Path, folder: Path, name: str = "default") -> None:
    """Make a member's data directory from a snapshot, by etcd's own tool."""
    subprocess.run(
        [
            *(needs.binary("etcdutl"), "snapshot", "restore", snapshot),
            *("--data-dir", folder / f"{name}.etcd", "--name", name),
            *("--initial-cluster", f"{name}=unix://{name}:0"),
            *("--initial-advertise-peer-urls", f"unix://{name}:0"),
        ],
        check=True,
        capture_output=True,
    )


@contextmanager
def loaded_etcd(folder: Path, fixture: str = ENCRYPTED) -> Iterator[HostedEtcd]:
    """A member under HyperShift's names, with what a real kube-apiserver wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    restored(fixtures.write(fixture, folder), folder)
    with HostedEtcd.start(folder, tls=hosted_tls(NAME, NAMESPACE)) as etcd:
        yield etcd


@contextmanager
def hosted_world(
    folder: Path, *, fixture: str = ENCRYPTED, repositories: bool = True, **more
) -> Iterator[World]:
    """Make one; more is as in `hosted_objects`."""
    settings = {"members": 1, "keys": keys_of(fixture), **more}
    with (
        loaded_etcd(folder / "etcd", fixture) as etcd,
        KubeServer.start(folder / "kube") as kube,
    ):
        objects = hosted_objects(NAME, NAMESPACE, tls=etcd.tls, **settings)
        load(kube, objects)
        streams = kube.streams = Streams()
        (folder / "pod").mkdir()
        ports, inside = {2379: ("localhost", etcd.port)}, inside_of(folder, etcd)
        streams.pod(CONTROL_PLANE, "etcd-0", ports=ports, rewrite=inside)
        (folder / "spool").mkdir()
        variables = {
            "KUBECONFIG": str(kube.kubeconfig),
            "BACKSTAY_REPO": f"file://{folder / 'data'}",
            "BACKSTAY_KEYS_REPO": f"file://{folder / 'keys'}",
            "BACKSTAY_SPOOL_DIR": str(folder / "spool"),
        }
        world = World(folder, kube, etcd, streams, Cli(folder, variables), objects)
        if repositories:
            prepare(world)
        try:
            yield world
        finally:
            streams.close()


def inside_of(folder: Path, etcd: HostedEtcd) -> dict[str, str]:
    """What paths and addresses in the pod really are."""
    certificate, key = etcd.tls.client.write(folder / "pod-tls")
    return {
        "/usr/bin/etcdctl": str(needs.binary("etcdctl")),
        "/etc/etcd/tls/etcd-ca/ca.crt": str(etcd.tls.authority.write(folder / "pod-tls")),
        "/etc/etcd/tls/client/etcd-client.crt": str(certificate),
        "/etc/etcd/tls/client/etcd-client.key": str(key),
        "https://localhost:2379": etcd.endpoint,
        f"https://etcd-0.etcd-discovery.{CONTROL_PLANE}.svc:2379": etcd.endpoint,
        "/var/lib": str(folder / "pod"),
    }


def prepare(world: World) -> None:
    """Make both repositories, and the identity that opens them."""
    made = world.cli("keygen", "-o", world.identity, "--json").json
    world.cli("init", "--recipient", made["recipient"])
    keys = world.cli.variables["BACKSTAY_KEYS_REPO"]
    world.cli("init", "--repo", keys, "--role", "keys", "--recipient", made["recipient"])
