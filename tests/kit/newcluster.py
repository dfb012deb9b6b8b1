"""The cluster that a backup is restored into: a management cluster, and all that comes of it.

    with new_cluster(tmp_path, members=3, ca=server.authority) as new:
        world.cli("restore", "hosted", ID, "--from-backup", "--apply", "--wait",
                  KUBECONFIG=str(new.kube.kubeconfig))

HyperShift's part is played by `kit.etcd_init` with etcd-init's own script: it downloads from the
URL that was applied. The members that it makes are reached by port-forward, under certificates of
their own; and the hosted cluster's API reads from them, with the key that was applied. So a Secret
comes out of that API only where snapshot, URL and key fit.
"""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from backstay.kubeapi.resource import HOSTED_CLUSTERS, SECRETS
from kit.etcd import Etcd, ServerTls
from kit.etcd_init import EtcdInit, Fleet
from kit.hosted import HostedEtcd, config_map, hosted_tls, namespace_of, secret
from kit.kubeserver import KubeServer, RefusedError
from kit.kubestreams import Streams


@dataclass
class HostedFleet(Fleet):
    """Members that show what HyperShift's do, by an authority of the new cluster's own."""

    tls: ServerTls = field(default_factory=lambda: hosted_tls.__wrapped__("blue", "clusters"))

    def _etcd(self, name: str) -> Etcd:
        peers = ",".join(f"{n}=unix://{n}:0" for n in self.names if self.fixed or n == name)
        folder = self.folder / "etcd"
        etcd = HostedEtcd._new(folder, name, tls=self.tls, binary=None, flags=(), peers=peers)
        (self.volume(name) / "data").rename(etcd.data_dir)
        return etcd


@dataclass
class ControlPlane(EtcdInit):
    """All that comes of a HostedCluster with a URL, as a backup finds it.

    Attributes:
        streams: the kubelets.
        guest: the hosted cluster's own API.
    """

    streams: Streams | None = None
    guest: KubeServer | None = None

    def _scene(self, kube, url: str) -> None:
        space, tls = self.fleet.namespace, self.fleet.tls
        material = {"etcd-client.crt": tls.client.certificate, "etcd-client.key": tls.client.key}
        kube.put(secret(space, "etcd-client-tls", material))
        kube.put(config_map(space, "etcd-ca", {"ca.crt": tls.authority.pem.decode()}))
        for name in self.fleet.names:
            self._put(kube, "v1", "PersistentVolumeClaim", f"data-{name}", {})
        super()._scene(kube, url)

    def _put(self, kube, api_version: str, kind: str, name: str, spec: dict, **more) -> None:
        labels = {"labels": {"app": "etcd"}} if kind == "Pod" else {}
        metadata = {"name": name, "namespace": self.fleet.namespace, **labels}
        body = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
        kube.put(body | more)

    def _condition(self, kube, status: str) -> None:
        for name, etcd in self.etcds.items():
            ports = {2379: ("localhost", etcd.port)}
            self.streams.pod(self.fleet.namespace, name, ports=ports)
        super()._condition(kube, status)

    def _available(self, kube) -> None:
        entrance = self.guest.kubeconfig.read_bytes()
        name = f"{self.name}-admin-kubeconfig"
        kube.put(secret(self.namespace, name, {"kubeconfig": entrance}))
        super()._available(kube)


class Guest(KubeServer):
    """The hosted cluster's API: its Secrets are those of the restored etcd."""

    def serve(self, seen, resource, data):
        if (seen.verb, resource) == ("get", SECRETS):
            return self.read(seen.namespace, seen.name)
        return super().serve(seen, resource, data)

    def read(self, namespace: str, name: str) -> dict:
        """Read a Secret as kube-apiserver does."""
        plane = self.plane
        etcd = next(iter(plane.etcds.values()))
        found = etcd.ctl_json("get", f"/kubernetes.io/secrets/{namespace}/{name}").get("kvs")
        if not found:
            raise RefusedError(404, "NotFound", f'secrets "{name}" not found')
        stored = base64.b64decode(found[0]["value"])
        hosted = self.management.get(HOSTED_CLUSTERS, plane.name, plane.namespace)
        values = secret_data(opened(stored, self._keys(hosted)))
        made = secret(namespace, name, values)
        made["metadata"]["resourceVersion"] = str(found[0]["mod_revision"])
        return made

    def _keys(self, hosted: dict) -> list[bytes]:
        """The keys that were applied."""
        block = hosted["spec"].get("secretEncryption", {}).get("aescbc", {})
        names = [block[role]["name"] for role in ("activeKey", "backupKey") if role in block]
        namespace = hosted["metadata"]["namespace"]
        secrets = [self.management.get(SECRETS, name, namespace) for name in names]
        return [base64.b64decode(one["data"]["key"]) for one in secrets]


def opened(stored: bytes, keys: list[bytes]) -> bytes:
    """Decrypt what is stored, where it is encrypted.

    Source: Kubernetes, staging/src/k8s.io/apiserver/pkg/storage/value/encrypt/aes/aes.go.
    """
    if not stored.startswith(b"k8s:enc:aescbc:v1:"):
        return stored
    sealed = stored.split(b":", 5)[5]
    for key in keys:
        decryptor = Cipher(AES(key), CBC(sealed[:16])).decryptor()
        plain = decryptor.update(sealed[16:]) + decryptor.finalize()
        padding = PKCS7(128).unpadder()
        try:
            found = padding.update(plain) + padding.finalize()
        except ValueError:
            continue
        if found.startswith(b"k8s\0"):
            return found
    raise RefusedError(500, "InternalError", "Internal error occurred: unable to transform key")


def secret_data(stored: bytes) -> dict[str, bytes]:
    """Read the values of a Secret out of its protobuf: Unknown.raw, Secret.data."""
    (raw,) = [value for number, value in fields(stored[4:]) if number == 2]
    pairs = [dict(fields(value)) for number, value in fields(raw) if number == 2]
    return {pair[1].decode(): pair.get(2, b"") for pair in pairs}


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of bytes of a protobuf message; it has no others of interest here."""
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte, at = data[at], at + 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while at < len(data):
        tag = varint()
        length = varint()
        if tag & 7 == 2:
            yield tag >> 3, data[at : at + length]
            at += length


@dataclass
class NewCluster:
    """What a restore is applied to."""

    kube: KubeServer
    plane: ControlPlane
    guest: Guest

    @property
    def variables(self) -> dict[str, str]:
        """What lets the program go there."""
        return {"KUBECONFIG": str(self.kube.kubeconfig)}


@contextmanager
def new_cluster(
    folder: Path,
    *,
    members: int = 1,
    fixed: bool = True,
    ca: Path | None = None,
    name: str = "blue",
    namespace: str = "clusters",
    **more,
) -> Iterator[NewCluster]:
    """Make one; more is as in `EtcdInit`."""
    fleet = HostedFleet(
        folder / "fleet",
        members=members,
        fixed=fixed,
        namespace=namespace_of(name, namespace),
        ca=ca,
        tls=hosted_tls.__wrapped__(name, namespace),
    )
    streams = Streams()
    with (
        KubeServer.start(folder / "management") as kube,
        Guest.start(folder / "guest") as guest,
    ):
        kube.streams = streams
        plane = ControlPlane(
            fleet, name=name, namespace=namespace, streams=streams, guest=guest, **more
        )
        guest.management, guest.plane = kube, plane
        try:
            with plane.playing(kube):
                yield NewCluster(kube, plane, guest)
        finally:
            streams.close()
