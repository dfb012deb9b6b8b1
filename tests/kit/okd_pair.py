"""What cluster-backup.sh leaves: a snapshot of a real etcd, and a tar that GNU tar makes.

with okd_etcd(tmp_path) as etcd:                    # OpenShift's objects, encrypted, in an etcd
    data = snapshot_of(etcd, tmp_path)
pair = write_pair(folder, data)                     # snapshot_TIME.db, static_kuberesources_...
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from backstay.client.etcd import Etcd as Client
from kit import openshift
from kit.certificates import Authority, days
from kit.etcd import Etcd

STAMP = "2026-11-20_190035"
INFRASTRUCTURE = "prod-x7k2p"
VERSION = "4.15.3"
DIGEST = "sha256:" + "5d" * 32
NODE = "master-0.prod.example"
PODS = {"kube-apiserver": 6, "kube-controller-manager": 7, "kube-scheduler": 6, "etcd": 3}
FOLDER = b"/kubernetes.io/config.openshift.io"
CONFIGURATION = openshift.configuration(openshift.KUBE, 1)


@dataclass(frozen=True)
class Pair:
    """Two files of one run."""

    snapshot: Path
    archive: Path


def objects(infrastructure: str = INFRASTRUCTURE, version: str = VERSION) -> openshift.History:
    """What an OKD cluster has in etcd, as far as it matters here."""
    named = {"kind": "Infrastructure", "status": {"infrastructureName": infrastructure}}
    release = {
        "kind": "ClusterVersion",
        "status": {
            "desired": {"version": version, "image": f"quay.io/okd/release@{DIGEST}"},
            "history": [{"state": "Completed", "version": version}],
        },
    }
    return [
        (FOLDER + b"/infrastructures/cluster", json.dumps(named).encode()),
        (FOLDER + b"/clusterversions/version", json.dumps(release).encode()),
        *openshift.cluster(),
    ]


@contextmanager
def okd_etcd(folder: Path, history: openshift.History | None = None) -> Iterator[Etcd]:
    """A real etcd that has them."""
    with Etcd.start(folder, name=NODE) as etcd:
        with Client(etcd.access) as client:
            for key, value in history or objects():
                client.put(key, value)
        yield etcd


def snapshot_of(etcd: Etcd, folder: Path) -> bytes:
    """Take a snapshot as cluster-backup.sh does."""
    path = folder / "taken.db"
    etcd.ctl("snapshot", "save", str(path))
    return path.read_bytes()


@cache
def authority(start: float = -10, end: float = 300) -> Authority:
    return Authority.make("openshift-signer", start=days(start), end=days(end))


@cache
def certificate(name: str, end: float = 30) -> bytes:
    """A certificate that ends in so many days."""
    return authority().issue(name, start=days(-9), end=days(end)).certificate


def files(
    configuration: bytes | None = CONFIGURATION,
    pods: Mapping[str, int] = PODS,
    more: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """The files of a host's static pod resources, by their names below /etc/kubernetes."""
    found: dict[str, bytes] = {}
    for pod, revision in pods.items():
        folder = f"static-pod-resources/{pod}-pod-{revision}"
        found[f"{folder}/{pod}-pod.yaml"] = b'{"kind":"Pod"}'
        found[f"{folder}/secrets/serving-cert/tls.crt"] = certificate(f"system:{pod}")
        found[f"{folder}/secrets/serving-cert/tls.key"] = b"-----BEGIN PRIVATE KEY-----\nnot shown"
        found[f"{folder}/configmaps/ca-bundle/ca-bundle.crt"] = authority().pem
    if configuration is not None and "kube-apiserver" in pods:
        place = f"static-pod-resources/kube-apiserver-pod-{pods['kube-apiserver']}"
        found[f"{place}/secrets/encryption-config/encryption-config"] = configuration
    return found | dict(more or {})


def write_tar(path: Path, content: Mapping[str, bytes], *words: str) -> Path:
    """Pack files as cluster-backup.sh does, with the real tar."""
    root = path.parent / f".{path.name}.tree"
    for name, data in content.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o600)
    tops = sorted({"/".join(name.split("/")[:2]) for name in content})
    subprocess.run(["tar", "-cpzf", path, "-C", root, *words, *tops], check=True)
    subprocess.run(["rm", "-r", root], check=True)
    path.chmod(0o600)
    return path


def write_pair(
    folder: Path, snapshot: bytes, stamp: str = STAMP, content: Mapping[str, bytes] | None = None
) -> Pair:
    """Write both files of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"snapshot_{stamp}.db"
    path.write_bytes(snapshot)
    archive = folder / f"static_kuberesources_{stamp}.tar.gz"
    return Pair(path, write_tar(archive, files() if content is None else content))
