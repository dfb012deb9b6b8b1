"""A control plane host of OKD as files in a directory, with a real etcd that its files lead to.

    with okd_etcd(tmp_path) as etcd:                  # a real kube-apiserver's data, over mTLS
        host = OkdHost.make(tmp_path / "host", etcd)
        cli("backup", "okd", "--host-root", host.root, "--output-dir", ...)

The tree is made as an installer of OKD leaves it: several revisions of each static pod's resources,
of which the manifest names one that is neither the newest by number nor by date; manifests as JSON
on one line; etcd's certificates below `static-pod-resources/etcd-certs` (on the host), or below
`static-pod-certs` too (as inside a pod).
"""

import itertools
import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backstay.client.etcd import Etcd as Client
from backstay.kinds.okd.told import INFRASTRUCTURE_KEY, VERSION_KEY
from kit import fixtures
from kit.certificates import Authority, Identity
from kit.etcd import Etcd, ServerTls
from kit.world import restored

NODE = "master-0.prod.example"
SAFE = "master_0_prod_example"
INFRASTRUCTURE = "prod-x7k2p"
VERSION = "4.15.3"
DIGEST = "sha256:" + "5d" * 32
IMAGE = f"quay.io/okd/release@{DIGEST}"
PODS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
#: What runs. Of each there is an older and a newer one beside it.
REVISIONS = dict(zip(PODS, (6, 7, 6, 3), strict=True))
ENCRYPTED = "kube-aescbc"
_ADDRESSES = itertools.count(random.randrange(2, 1 << 20))


@dataclass(kw_only=True)
class HostEtcd(Etcd):
    """An etcd at an address of its own and etcd's usual port, as hosts have it."""

    address: str = "127.0.0.1"

    @property
    def endpoint(self) -> str:
        """The client URL."""
        return f"https://{self.address}:{self.port}"


def loopback() -> str:
    """An address of this machine that nobody else uses."""
    number = next(_ADDRESSES) % (1 << 22)
    return f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number % 254 + 1}"


def cluster_objects(
    name: str = INFRASTRUCTURE, version: str = VERSION, image: str = IMAGE
) -> dict[bytes, dict]:
    """The two objects by which etcd tells what cluster it is of, as they are stored."""
    api = "config.openshift.io/v1"
    entry = {"state": "Completed", "version": version, "image": image, "verified": True}
    return {
        INFRASTRUCTURE_KEY: {
            "apiVersion": api,
            "kind": "Infrastructure",
            "metadata": {"name": "cluster"},
            "status": {"infrastructureName": name, "platform": "None"},
        },
        VERSION_KEY: {
            "apiVersion": api,
            "kind": "ClusterVersion",
            "metadata": {"name": "version"},
            "status": {"desired": {"version": version, "image": image}, "history": [entry]},
        },
    }


@contextmanager
def okd_etcd(folder: Path, fixture: str = ENCRYPTED, *, told: bool = True) -> Iterator[HostEtcd]:
    """Start an etcd with a real kube-apiserver's data, and what an OKD cluster says of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    address, authority = loopback(), Authority.make("etcd-signer")
    serving = authority.issue(f"etcd-serving-{NODE}", hosts=(address, "localhost", "127.0.0.1"))
    peer = authority.issue(f"etcd-peer-{NODE}", hosts=(address, "localhost"))
    restored(fixtures.write(fixture, folder), folder)
    etcd = HostEtcd._new(
        folder,
        "default",
        tls=ServerTls(authority, serving, peer),
        binary=None,
        flags=(),
        peers="default=unix://default:0",
        address=address,
        port=2379,
    )
    try:
        etcd.launch()
        if told:
            with Client(etcd.access) as client:
                for key, document in cluster_objects().items():
                    client.put(key, json.dumps(document).encode())
        yield etcd
    finally:
        etcd.kill()


@dataclass
class OkdHost:
    """The files of one host."""

    root: Path
    etcd: HostEtcd
    fixture: str = ENCRYPTED

    @classmethod
    def make(
        cls, root: Path, etcd: HostEtcd, fixture: str = ENCRYPTED, *, layout: str = "host"
    ) -> "OkdHost":
        """Make one; `layout` is `host` or `pod`, by where its certificates are."""
        host = cls(root, etcd, fixture)
        for name, revision in REVISIONS.items():
            for number in (revision + 1, revision - 1, revision):
                host.install(name, number)
            # The newest by date is the old one.
            os.utime(host.resources(name, revision - 1))
            host.roll_out(name, revision)
        host.write_certificates(layout)
        host.write_env()
        host.write(
            "var/lib/etcd/revision.json",
            json.dumps(
                {
                    "clusterId": "cdf818194e3a8c32",
                    "raftIndex": {etcd.endpoint: 21345},
                    "maxRaftIndex": 21345,
                    "created": "2026-11-20 01:00:00 +0000 UTC",
                }
            ),
        )
        host.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
        host.write("usr/lib/passwd", "etcd:x:1234:1235::/:/sbin/nologin\nbroken\n")
        host.write("usr/lib/group", "root:x:0:\netcd:x:1235:\n")
        return host

    @property
    def kubernetes(self) -> Path:
        """Its /etc/kubernetes."""
        return self.root / "etc/kubernetes"

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> Path:
        """Write a file, as installers do: it appears whole."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.name}.tmp")
        draft.write_bytes(text if isinstance(text, bytes) else text.encode())
        draft.chmod(mode)
        draft.rename(target)
        return target

    def resources(self, name: str, revision: int | None = None) -> Path:
        """The resources of a static pod; of the revision that runs, unless told otherwise."""
        number = REVISIONS[name] if revision is None else revision
        return self.kubernetes / f"static-pod-resources/{name}-pod-{number}"

    @property
    def encryption_config(self) -> Path:
        """kube-apiserver's EncryptionConfiguration."""
        return self.resources("kube-apiserver") / "secrets/encryption-config/encryption-config"

    def install(self, name: str, revision: int) -> None:
        """Write one revision of the resources of a static pod."""
        folder = str(self.resources(name, revision).relative_to(self.root))
        self.write(f"{folder}/{name}-pod.yaml", manifest(name, revision))
        self.write(f"{folder}/configmaps/{name}-pod/version", f"{revision}")
        self.write(f"{folder}/configmaps/config/config.yaml", '{"kind":"Config"}\n' * revision)
        self.write(f"{folder}/secrets/client/tls.crt", self.etcd.tls.client.certificate, 0o600)
        self.write(f"{folder}/secrets/client/tls.key", f"a key of {name}, {revision}\n", 0o600)
        (self.root / folder / "secrets/client").chmod(0o700)
        if name == "kube-apiserver":
            configuration = fixtures.facts(self.fixture).get("encryption_configuration")
            if configuration:
                text = json.dumps(configuration) + "\n"
                path = "secrets/encryption-config/encryption-config"
                self.write(f"{folder}/{path}", text, 0o600)
        if name == "etcd":
            self.write(f"{folder}/configmaps/etcd-scripts/x.sh", "#!/bin/sh\n", 0o755)

    def roll_out(self, name: str, revision: int) -> None:
        """Let the kubelet run a revision."""
        self.write(f"etc/kubernetes/manifests/{name}-pod.yaml", manifest(name, revision))

    def write_certificates(self, layout: str = "host") -> None:
        """Write etcd's certificates where a host, or a pod, has them."""
        below = {"host": "static-pod-resources/etcd-certs", "pod": "static-pod-certs"}[layout]
        tls = self.etcd.tls
        folder = f"etc/kubernetes/{below}"
        self.write(f"{folder}/configmaps/etcd-serving-ca/ca-bundle.crt", tls.authority.pem)
        self.write_client(tls.client, folder)

    def write_client(
        self, client: Identity, folder: str = "etc/kubernetes/static-pod-resources/etcd-certs"
    ) -> None:
        """Write the certificate by which this host enters etcd."""
        path = f"{folder}/secrets/etcd-all-certs/etcd-peer-{NODE}"
        self.write(f"{path}.crt", client.certificate, 0o600)
        self.write(f"{path}.key", client.key, 0o600)

    def write_env(self, **changed: str | None) -> None:
        """Write etcd.env; None leaves a variable out."""
        certs = "/etc/kubernetes/static-pod-certs"
        variables = {
            "ALL_ETCD_ENDPOINTS": self.etcd.endpoint,
            "ETCDCTL_API": "3",
            "ETCDCTL_CACERT": f"{certs}/configmaps/etcd-serving-ca/ca-bundle.crt",
            "ETCDCTL_CERT": f"{certs}/secrets/etcd-all-certs/etcd-peer-{NODE}.crt",
            "ETCDCTL_ENDPOINTS": self.etcd.endpoint,
            "ETCDCTL_KEY": f"{certs}/secrets/etcd-all-certs/etcd-peer-{NODE}.key",
            "ETCD_IMAGE": "quay.io/okd/etcd@sha256:00",
            "ETCD_QUOTA_BACKEND_BYTES": "8589934592",
            f"NODE_{SAFE}_ETCD_NAME": NODE,
            f"NODE_{SAFE}_ETCD_URL_HOST": self.etcd.address,
            f"NODE_{SAFE}_IP": self.etcd.address,
            "NODE_other_IP": "192.0.2.7",
        } | changed
        lines = [
            f'export {name}="{value}"\n' for name, value in variables.items() if value is not None
        ]
        self.write(
            "etc/kubernetes/static-pod-resources/etcd-certs/configmaps/etcd-scripts/etcd.env",
            "".join(lines),
        )

    def archive_by_tar(self, path: Path) -> Path:
        """Make the tar by the program and the arguments that cluster-backup.sh uses."""
        import subprocess

        folders = [f"static-pod-resources/{n}-pod-{r}" for n, r in REVISIONS.items()]
        subprocess.run(["tar", "-cpzf", path, "-C", self.kubernetes, *folders], check=True)
        return path

    def remove(self, path: str) -> None:
        """Delete a file or a directory."""
        target = self.root / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()


def manifest(name: str, revision: int) -> str:
    """The manifest of a static pod, as its installer writes it."""
    resources = f"/etc/kubernetes/static-pod-resources/{name}-pod-{revision}"
    volumes = [
        {"name": "resource-dir", "hostPath": {"path": resources}},
        {
            "name": "cert-dir",
            "hostPath": {"path": f"/etc/kubernetes/static-pod-resources/{name}-certs"},
        },
        {"name": "log", "hostPath": {"path": f"/var/log/{name}"}},
    ]
    pod = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": f"openshift-{name}",
            "labels": {"revision": str(revision)},
        },
        "spec": {"volumes": volumes, "containers": [{"name": name, "command": ["/bin/sh"]}]},
    }
    return json.dumps(pod, separators=(",", ":")) + "\n"


@contextmanager
def unprivileged():
    """Be nobody for the block, where this is run as root: root may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
