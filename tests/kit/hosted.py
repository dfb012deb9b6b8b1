"""The objects of a hosted control plane, as the API of its management cluster has them.

    tls = hosted_tls("blue")                                # HyperShift's names in the certificate
    with start_etcd(tmp_path, tls) as etcd:                 # a real etcd, entered by `localhost`
        for document in hosted_objects("blue", tls=tls):
            kube.put(document)                              # tests/kit/kubeserver.py

    hosted_objects("blue", encryption=None, platform="KubeVirt")
    hosted_objects("blue", encryption="aescbc", keys=(OLD, NEW), rotating="Migrating")
    hosted_objects("prod.eu", shards=("events",))           # in clusters-prod-eu
    hosted_objects("blue", unmanaged="https://etcd.example:2379")

The same arguments give the same objects, in every process: certificates that are not given are
made from fixed keys, with fixed dates. All is JSON. What differs from a test's wish is changed
by the test, in the dicts: `one(objects, "HostedCluster")["spec"]["pausedUntil"] = "true"`.

Sources: facts of openshift/hypershift (names, containers, Secrets, ConfigMaps, conditions).
"""

import base64
import datetime as dt
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from backstay.client.access import Access
from backstay.client.endpoint import parse_endpoints
from backstay.kubedata.keyname import key_name
from kit.certificates import Authority
from kit.etcd import Etcd, ServerTls

Object = dict[str, Any]

#: The key of the first fixture of tests/fixtures that is encrypted; named key-881413397.
ACTIVE = b"0123456789abcdef" * 2
#: What a rotation goes to.
TARGET = b"fedcba9876543210" * 2
RELEASE = "4.20.3"
IMAGE = "quay.io/openshift-release-dev/ocp-release@sha256:" + "5e" * 32
ETCD_IMAGE = "quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:" + "e7" * 32
INFRA_ID = "blue-x7k2p"
CREATED = "2026-11-02T08:15:30Z"
WRITERS = ("kube-apiserver", "openshift-apiserver", "openshift-oauth-apiserver")
ETCD_CONTAINERS = ("etcd", "etcd-metrics", "healthz", "etcd-defrag")
#: Secrets of a control-plane namespace that sign, or that others are known by.
PKI = (
    "root-ca",
    "cluster-signer-ca",
    "etcd-signer",
    "etcd-metrics-signer",
    "kas-aggregator-client-signer",
    "kube-control-plane-signer",
    "kube-apiserver-to-kubelet-signer",
    "system-admin-signer",
    "konnectivity-signer",
)


def namespace_of(name: str, namespace: str = "clusters") -> str:
    """The control-plane namespace."""
    return f"{namespace}-{name}".replace(".", "-")


def hosted_objects(
    name: str = "blue",
    namespace: str = "clusters",
    *,
    members: int = 3,
    tls: ServerTls | None = None,
    encryption: str | None = "aescbc",
    keys: Sequence[bytes] = (ACTIVE,),
    rotating: str | bool = False,
    status_keys: bool = True,
    platform: str = "AWS",
    shards: Sequence[str] = (),
    unmanaged: str | None = None,
    oauth: bool = True,
    paused: str | None = None,
) -> list[Object]:
    """Make all objects that belong to one hosted cluster.

    Args:
        name: of the HostedCluster; may have dots.
        namespace: of the HostedCluster.
        members: of each etcd: 1 or 3.
        tls: what the etcd shows and wants; None puts certificates that nobody serves.
        encryption: `aescbc`, `kms` or None.
        keys: raw; the first is active, the second that of a rotation, or else the backup key.
        rotating: the state of a rotation that is under way (`ReadOnlyDeploy`, `WritePromote`,
            `Migrating`; True is the last).
        status_keys: whether the status tells the keys, as releases do that can rotate.
        platform: `AWS`, `Agent`, `KubeVirt`, `Azure`, `PowerVS`, `OpenStack`, `IBMCloud`.
        shards: names of further etcds.
        unmanaged: URL of an etcd that someone else runs.
        oauth: whether there is an openshift-oauth-apiserver.
        paused: the user's own spec.pausedUntil.
    """
    it = _Cluster(
        name=name,
        namespace=namespace,
        members=members,
        tls=tls,
        encryption=encryption,
        keys=tuple(keys),
        rotating="Migrating" if rotating is True else (rotating or ""),
        status_keys=status_keys,
        platform=platform,
        shards=tuple(shards),
        unmanaged=unmanaged,
        oauth=oauth,
        paused=paused,
    )
    found = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": _plain("", namespace)},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": _plain("", it.cp)},
        *it.hosted_cluster_namespace(),
        *it.control_plane(),
    ]
    return json.loads(json.dumps(found))


def load(kube, objects: Sequence[Object]) -> None:
    """Put objects into a server (anything with `put`)."""
    for document in objects:
        kube.put(document)


def one(objects: Sequence[Object], kind: str, name: str = "", namespace: str = "") -> Object:
    """Pick the one object of that kind (and name, and namespace)."""
    (found,) = [
        document
        for document in objects
        if document["kind"] == kind
        and name in ("", document["metadata"]["name"])
        and namespace in ("", document["metadata"].get("namespace", ""))
    ]
    return found


def without(objects: Sequence[Object], kind: str, name: str = "") -> list[Object]:
    """All objects but those of that kind (and name)."""
    return [
        document
        for document in objects
        if document["kind"] != kind or name not in ("", document["metadata"]["name"])
    ]


def condition(document: Object, kind: str, status: str, reason: str = "AsExpected") -> None:
    """Set one condition in an object's status."""
    conditions = document["status"].setdefault("conditions", [])
    conditions[:] = [c for c in conditions if c["type"] != kind]
    conditions.append(_condition(kind, status, reason))


def secret(namespace: str, name: str, data: dict[str, bytes], **more) -> Object:
    """A Secret."""
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _plain(namespace, name),
        "type": "Opaque",
        "data": encoded,
        **more,
    }


def config_map(namespace: str, name: str, data: dict[str, str]) -> Object:
    """A ConfigMap."""
    metadata = _plain(namespace, name)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@functools.cache
def hosted_tls(name: str = "blue", namespace: str = "clusters", *, shard: str = "") -> ServerTls:
    """Certificates with the names that HyperShift writes; no address, and not 127.0.0.1."""
    cp, dash = namespace_of(name, namespace), f"-{shard}" if shard else ""
    hosts = (
        f"etcd-client{dash}.{cp}.svc",
        f"etcd-client{dash}.{cp}.svc.cluster.local",
        f"*.etcd-discovery{dash}.{cp}.svc",
        f"*.etcd-discovery{dash}.{cp}.svc.cluster.local",
        f"etcd-client{dash}",
        "localhost",
    )
    authority = Authority.make("etcd-signer")
    return ServerTls(
        authority,
        authority.issue("etcd-server", hosts=hosts),
        authority.issue("etcd-client", hosts=(), usages=("client",)),
    )


class HostedEtcd(Etcd):
    """A member that listens at `localhost`: the only name of its certificate that resolves."""

    @property
    def endpoint(self) -> str:
        """The client URL."""
        return f"https://localhost:{self.port}"

    @property
    def access(self) -> Access:
        """How backstay's client enters it."""
        entered = super().access
        return replace(entered, endpoints=parse_endpoints(self.endpoint))


@contextmanager
def start_etcd(folder: Path, tls: ServerTls | None = None, **more) -> Iterator[HostedEtcd]:
    """Run one member as HyperShift does, over TLS; more is as in `Etcd.start`."""
    with HostedEtcd.start(folder, tls=tls or hosted_tls(), **more) as etcd:
        yield etcd


# --- below: how they are made


@dataclass(frozen=True, kw_only=True)
class _Cluster:
    name: str
    namespace: str
    members: int
    tls: ServerTls | None
    encryption: str | None
    keys: tuple[bytes, ...]
    rotating: str
    status_keys: bool
    platform: str
    shards: tuple[str, ...]
    unmanaged: str | None
    oauth: bool
    paused: str | None

    @property
    def cp(self) -> str:
        return namespace_of(self.name, self.namespace)

    def key_secret(self, number: int) -> str:
        return f"{self.name}-etcd-encryption-key{'' if number == 0 else f'-{number + 1}'}"

    # The namespace of the HostedCluster

    def hosted_cluster_namespace(self) -> list[Object]:
        ns, name = self.namespace, self.name
        found = [
            self.hosted_cluster(),
            self.node_pool("workers", 3),
            self.node_pool("infra", 2),
            secret(ns, f"{name}-pull-secret", {".dockerconfigjson": b'{"auths":{"quay.io":{}}}'})
            | {"type": "kubernetes.io/dockerconfigjson"},
            secret(ns, f"{name}-ssh-key", {"id_rsa.pub": b"ssh-ed25519 AAAAC3Nza... admin"}),
            # Not prefixed with the cluster's name: only the spec tells that they belong to it.
            secret(ns, "sa-signer", {"key": b"-----BEGIN RSA PRIVATE KEY-----\nof tokens\n"}),
            secret(ns, "audit-webhook", {"webhook-kubeconfig": b"clusters: []\n"}),
            secret(ns, "github-client", {"clientSecret": b"from-github"}),
            secret(ns, "people", {"htpasswd": b"admin:$2y$05$abc"}),
            secret(ns, "login-page", {"login.html": b"<html></html>"}),
            secret(ns, "api-cert", {"tls.crt": b"a certificate", "tls.key": b"a key"})
            | {"type": "kubernetes.io/tls"},
            config_map(ns, "corporate-cas", {"ca-bundle.crt": "-----BEGIN CERTIFICATE-----\n"}),
            config_map(ns, "ldap-ca", {"ca.crt": "-----BEGIN CERTIFICATE-----\n"}),
            secret(ns, "ldap-bind", {"bindPassword": b"ldap-secret"}),
            config_map(ns, "proxy-ca", {"ca-bundle.crt": "-----BEGIN CERTIFICATE-----\n"}),
            config_map(ns, "registry-cas", {"registry.example..5000": "-----BEGIN CERT\n"}),
            config_map(ns, "workers-kubelet", {"config": "apiVersion: v1\nkind: KubeletConfig\n"}),
            config_map(ns, "workers-tuned", {"tuning": "apiVersion: v1\nkind: Tuned\n"}),
            # Of someone else.
            secret(ns, f"{name}x-pull-secret", {".dockerconfigjson": b"{}"}),
            secret(ns, "unrelated", {"password": b"of another cluster"}),
            *self.platform_secrets(),
        ]
        if self.encryption == "aescbc":
            found += [self.key_object(ns, n) for n in range(len(self.keys))]
        if self.unmanaged:
            found.append(secret(ns, "their-etcd-client", self.client_material("etcd-client")))
        return found

    def key_object(self, namespace: str, number: int) -> Object:
        made = secret(namespace, self.key_secret(number), {"key": self.keys[number]})
        made["metadata"]["labels"] = {"hypershift.openshift.io/safe-to-delete-with-cluster": "true"}
        return made

    def hosted_cluster(self) -> Object:
        metadata = {
            **_server(self.namespace, self.name, "HostedCluster"),
            "labels": {"environment": "production"},
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": '{"kind":"HostedCluster"}\n',
                "example.com/owner": "platform-team",
            },
            "finalizers": ["hypershift.openshift.io/finalizer", "openshift.io/destroy-cluster"],
        }
        return {
            "apiVersion": "hypershift.openshift.io/v1beta1",
            "kind": "HostedCluster",
            "metadata": metadata,
            "spec": self.spec(),
            "status": self.status(),
        }

    def spec(self) -> Object:
        name = self.name
        spec: Object = {
            "release": {"image": IMAGE},
            "channel": "stable-4.20",
            "clusterID": "0f3c4a5e-2f66-4f55-9a0e-6f1d7b9a1c22",
            "infraID": INFRA_ID,
            "infrastructureAvailabilityPolicy": self.availability,
            "controllerAvailabilityPolicy": self.availability,
            "issuerURL": f"https://oidc.example/{INFRA_ID}",
            "dns": {"baseDomain": "example.com", "privateZoneID": "Z1", "publicZoneID": "Z2"},
            "networking": {
                "networkType": "OVNKubernetes",
                "clusterNetwork": [{"cidr": "10.132.0.0/14", "hostPrefix": 23}],
                "serviceNetwork": [{"cidr": "172.31.0.0/16"}],
                "machineNetwork": [{"cidr": "10.0.0.0/16"}],
            },
            "services": [
                {
                    "service": "APIServer",
                    "servicePublishingStrategy": {
                        "type": "Route",
                        "route": {"hostname": f"api.{name}.example.com"},
                    },
                },
                *(
                    {"service": service, "servicePublishingStrategy": {"type": "Route"}}
                    for service in ("OAuthServer", "Konnectivity", "Ignition")
                ),
            ],
            "pullSecret": {"name": f"{name}-pull-secret"},
            "sshKey": {"name": f"{name}-ssh-key"},
            "additionalTrustBundle": {"name": "corporate-cas"},
            "auditWebhook": {"name": "audit-webhook"},
            "serviceAccountSigningKey": {"name": "sa-signer"},
            "configuration": _configuration(),
            "platform": self.platform_spec(),
            "etcd": self.etcd_spec(),
            "fips": False,
            "olmCatalogPlacement": "management",
        }
        if self.encryption:
            spec["secretEncryption"] = self.encryption_spec()
        if self.paused is not None:
            spec["pausedUntil"] = self.paused
        return spec

    @property
    def availability(self) -> str:
        return "HighlyAvailable" if self.members > 1 else "SingleReplica"

    def etcd_spec(self) -> Object:
        if self.unmanaged:
            tls = {"clientSecret": {"name": "their-etcd-client"}}
            unmanaged = {"endpoint": self.unmanaged, "tls": tls}
            return {"managementType": "Unmanaged", "unmanaged": unmanaged}
        volume = {"size": "8Gi", "storageClassName": "gp3-csi"}
        managed: Object = {
            "storage": {"type": "PersistentVolume", "persistentVolume": volume},
        }
        if self.shards:
            managed["shards"] = [
                {
                    "name": shard,
                    "resources": [{"apiGroup": "", "resource": "events"}],
                    "replicas": self.members,
                    "storage": {"type": "EmptyDir"},
                }
                for shard in self.shards
            ]
        return {"managementType": "Managed", "managed": managed}

    def encryption_spec(self) -> Object:
        if self.encryption == "kms":
            return {"type": "kms", "kms": _kms_spec(self.platform)}
        # In a rotation the spec names the key that it goes to.
        active = len(self.keys) - 1 if self.rotating else 0
        aescbc = {"activeKey": {"name": self.key_secret(active)}}
        if len(self.keys) > 1 and not self.rotating:
            aescbc["backupKey"] = {"name": self.key_secret(1)}
        return {"type": "aescbc", "aescbc": aescbc}

    def key_status(self, number: int) -> Object:
        if self.encryption == "kms":
            return _kms_status(self.platform)
        return {
            "provider": "AESCBC",
            "aescbc": {
                "secretRef": {"name": self.key_secret(number)},
                "dataHash": hashlib.sha256(self.keys[number]).hexdigest(),
            },
        }

    def encryption_status(self) -> Object:
        active = self.key_status(0)
        if not self.rotating:
            return {"activeKey": active}
        target = self.key_status(len(self.keys) - 1)
        entry = {
            "from": {"provider": "AESCBC", "fingerprint": "ab" * 32},
            "to": {"provider": "AESCBC", "fingerprint": "cd" * 32},
            "state": self.rotating,
            "startedTime": "2026-11-20T22:58:00Z",
        }
        return {"activeKey": active, "targetKey": target, "history": [entry]}

    def conditions(self) -> list[Object]:
        told = {
            "Available": ("True", "AsExpected"),
            "Progressing": ("False", "AsExpected"),
            "Degraded": ("False", "AsExpected"),
            "ReconciliationActive": ("True", "AsExpected"),
            "KubeAPIServerAvailable": ("True", "AsExpected"),
        }
        if self.paused in ("true", "True"):
            told["ReconciliationActive"] = ("False", "ReconciliationPaused")
        if self.unmanaged:
            told["UnmanagedEtcdAvailable"] = ("True", "AsExpected")
        else:
            told["EtcdAvailable"] = ("True", "QuorumAvailable")
        if self.encryption and self.status_keys:
            told["EtcdDataEncryptionUpToDate"] = (
                ("False", "ReEncryptionInProgress")
                if self.rotating
                else ("True", "ReEncryptionCompleted")
            )
        return [_condition(kind, *words) for kind, words in told.items()]

    def status(self) -> Object:
        status: Object = {
            "conditions": self.conditions(),
            "controlPlaneEndpoint": {"host": f"api.{self.name}.example.com", "port": 443},
            "kubeconfig": {"name": f"{self.name}-admin-kubeconfig"},
            "version": {
                "desired": {"image": IMAGE, "version": RELEASE},
                "history": [
                    {
                        "completionTime": "2026-11-10T09:00:00Z",
                        "image": IMAGE,
                        "startedTime": "2026-11-10T08:20:00Z",
                        "state": "Completed",
                        "version": RELEASE,
                    },
                    {
                        "completionTime": "2026-11-02T08:40:00Z",
                        "image": "quay.io/openshift-release-dev/ocp-release:4.19.17-x86_64",
                        "startedTime": CREATED,
                        "state": "Completed",
                        "version": "4.19.17",
                    },
                ],
            },
        }
        if self.encryption and self.status_keys:
            status["secretEncryption"] = self.encryption_status()
        return status

    def node_pool(self, suffix: str, replicas: int) -> Object:
        name = f"{self.name}-{suffix}"
        spec: Object = {
            "clusterName": self.name,
            "replicas": replicas,
            "management": {"autoRepair": True, "upgradeType": "Replace"},
            "release": {"image": IMAGE},
            "platform": {"type": self.platform},
        }
        if suffix == "workers":
            spec["config"] = [{"name": "workers-kubelet"}]
            spec["tuningConfig"] = [{"name": "workers-tuned"}]
        return {
            "apiVersion": "hypershift.openshift.io/v1beta1",
            "kind": "NodePool",
            "metadata": {
                **_server(self.namespace, name, "NodePool"),
                "ownerReferences": [_owner("HostedCluster", self.namespace, self.name)],
                "annotations": {"hypershift.openshift.io/nodePoolCurrentConfig": "9b1f0c2d"},
                "finalizers": ["hypershift.openshift.io/finalizer"],
            },
            "spec": spec,
            "status": {
                "replicas": replicas,
                "version": RELEASE,
                "conditions": [
                    _condition("Ready", "True", "AsExpected"),
                    _condition("ReconciliationActive", "True", "AsExpected"),
                ],
            },
        }

    def platform_spec(self) -> Object:
        name = self.name
        made: dict[str, Object] = {
            "AWS": {
                "aws": {
                    "region": "eu-west-1",
                    "endpointAccess": "Public",
                    "cloudProviderConfig": {"subnet": {"id": "subnet-1"}, "vpc": "v", "zone": "a"},
                    # Ends as a reference does, and is none: it has ARNs, and no name.
                    "rolesRef": {"ingressARN": "arn:aws:iam::1:role/i", "storageARN": "arn:s"},
                }
            },
            "Agent": {"agent": {"agentNamespace": "agents"}},
            "KubeVirt": {
                "kubevirt": {
                    "baseDomainPassthrough": True,
                    "credentials": {
                        "infraKubeConfigSecret": {"name": f"{name}-infra", "key": "kubeconfig"},
                        "infraNamespace": "guests",
                    },
                }
            },
            "Azure": {"azure": {"location": "westeurope", "credentials": {"name": "azure-creds"}}},
            "PowerVS": {
                "powervs": {
                    "resourceGroup": "rg",
                    "vpc": {"name": "a-vpc-and-no-reference", "region": "eu-de"},
                    "kubeCloudControllerCreds": {"name": "pvs-cloud-controller"},
                    "nodePoolManagementCreds": {"name": "pvs-node-pools"},
                    "storageOperatorCloudCreds": {"name": "pvs-storage"},
                }
            },
            "OpenStack": {
                "openstack": {
                    "identityRef": {"name": "openstack-clouds", "cloudName": "openstack"},
                    "externalNetwork": {"filter": {"name": "public"}},
                }
            },
            "IBMCloud": {"ibmcloud": {"providerType": "VPC"}},
        }
        return {"type": self.platform, **made.get(self.platform, {})}

    def platform_secrets(self) -> list[Object]:
        named = {
            "KubeVirt": (f"{self.name}-infra",),
            "Azure": ("azure-creds",),
            "PowerVS": ("pvs-cloud-controller", "pvs-node-pools", "pvs-storage"),
            "OpenStack": ("openstack-clouds",),
        }
        if self.encryption == "kms" and self.platform == "IBMCloud":
            return [secret(self.namespace, "kms-creds", {"iam_apikey": b"an api key"})]
        return [
            secret(self.namespace, name, {"credentials": b"of the platform"})
            for name in named.get(self.platform, ())
        ]

    # The control-plane namespace

    def control_plane(self) -> list[Object]:
        found = [self.hosted_control_plane()]
        if not self.unmanaged:
            for shard in ("", *self.shards):
                found += self.etcd(shard)
            found += self.etcd_material()
        writers = WRITERS if self.oauth else WRITERS[:2]
        replicas = {"control-plane-operator": 1, **dict.fromkeys(writers, self.members)}
        for name, number in replicas.items():
            found += self.deployment(name, number)
        found += [
            secret(self.cp, name, {"ca.crt": f"{name}".encode(), "ca.key": b"a private key"})
            for name in PKI
            if name != "etcd-signer" or self.unmanaged
        ]
        found += [
            secret(
                self.cp,
                "sa-signing-key",
                {"service-account.key": b"a private key", "service-account.pub": b"a public one"},
            ),
            secret(self.cp, "pull-secret", {".dockerconfigjson": b"{}"}),
            secret(self.cp, "service-network-admin-kubeconfig", {"kubeconfig": b"a token"}),
        ]
        if self.encryption == "aescbc":
            found += [self.key_object(self.cp, n) for n in range(len(self.keys))]
            found.append(self.encryption_config())
        if self.unmanaged:
            found.append(secret(self.cp, "their-etcd-client", self.client_material("etcd-client")))
        return found

    def hosted_control_plane(self) -> Object:
        hosted = self.hosted_cluster()
        spec = {k: v for k, v in self.spec().items() if k != "release"}
        status = {"conditions": self.conditions(), "ready": True, "version": RELEASE}
        if self.encryption and self.status_keys:
            status["secretEncryption"] = self.encryption_status()
        return {
            "apiVersion": "hypershift.openshift.io/v1beta1",
            "kind": "HostedControlPlane",
            "metadata": {
                **_server(self.cp, self.name, "HostedControlPlane"),
                "annotations": {
                    "hypershift.openshift.io/cluster": f"{self.namespace}/{self.name}",
                },
                "finalizers": ["hypershift.openshift.io/finalizer"],
            },
            "spec": {"releaseImage": hosted["spec"]["release"]["image"], **spec},
            "status": status,
        }

    def etcd(self, shard: str) -> list[Object]:
        dash = f"-{shard}" if shard else ""
        name = f"etcd{dash}"
        wanted = ETCD_CONTAINERS if self.members > 1 else ETCD_CONTAINERS[:3]
        labels = {"app": "etcd", "hypershift.openshift.io/control-plane-component": name}
        template = {
            "metadata": {"labels": labels},
            "spec": {
                "initContainers": [{"name": "ensure-dns"}, {"name": "reset-member"}],
                "containers": [{"name": c, "image": ETCD_IMAGE} for c in wanted],
            },
        }
        numbers = {"replicas": self.members, "readyReplicas": self.members}
        stateful_set = {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {**_server(self.cp, name, "StatefulSet"), "labels": labels},
            "spec": {
                "replicas": self.members,
                "serviceName": f"etcd-discovery{dash}",
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": template,
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            },
            "status": {**numbers, "currentReplicas": self.members},
        }
        pods = [self.pod(f"{name}-{n}", labels, wanted, name) for n in range(self.members)]
        claims = [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": _server(self.cp, f"data-{name}-{n}", "PersistentVolumeClaim"),
                "spec": {"resources": {"requests": {"storage": "8Gi"}}},
            }
            for n in range(self.members)
        ]
        services = [
            self.service(f"etcd-client{dash}", {"etcd-client": 2379, "metrics": 2381}, labels),
            self.service(f"etcd-discovery{dash}", {"peer": 2380, "etcd-client": 2379}, labels),
        ]
        return [stateful_set, *pods, *claims, *services]

    def pod(self, name: str, labels: Object, containers: Sequence[str], owner: str) -> Object:
        statuses = [
            {
                "name": container,
                "image": ETCD_IMAGE,
                "ready": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": CREATED}},
            }
            for container in containers
        ]
        index = {"statefulset.kubernetes.io/pod-name": name}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **_server(self.cp, name, "Pod"),
                "labels": {**labels, **index},
                "ownerReferences": [_owner("StatefulSet", self.cp, owner)],
            },
            "spec": {
                "containers": [{"name": c, "image": ETCD_IMAGE} for c in containers],
                "nodeName": f"node-{name[-1]}",
            },
            "status": {
                "phase": "Running",
                "podIP": f"10.128.0.{10 + int(name[-1])}",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": statuses,
            },
        }

    def service(self, name: str, ports: dict[str, int], selector: Object) -> Object:
        listed = [{"name": n, "port": p, "targetPort": p} for n, p in ports.items()]
        spec = {"ports": listed, "selector": selector, "clusterIP": "None"}
        metadata = _server(self.cp, name, "Service")
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    def deployment(self, name: str, replicas: int) -> list[Object]:
        labels = {"app": name, "hypershift.openshift.io/control-plane-component": name}
        containers = [{"name": name, "image": IMAGE}]
        numbers = dict.fromkeys(
            ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas"), replicas
        )
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**_server(self.cp, name, "Deployment"), "labels": labels},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            },
            "status": {**numbers, "observedGeneration": 1},
        }
        pods = [
            self.pod(f"{name}-7d9f8b6c5-x{n}", labels, (name,), f"{name}-7d9f8b6c5")
            for n in range(replicas)
        ]
        return [deployment, *pods]

    def etcd_material(self) -> list[Object]:
        authority = (
            self.tls.authority.pem if self.tls else _certificate("etcd-signer", authority=True)[0]
        )
        client = self.client_material("etcd-client")
        client.pop("etcd-client-ca.crt")
        return [
            secret(self.cp, "etcd-signer", {"ca.crt": authority, "ca.key": b"a private key"}),
            config_map(self.cp, "etcd-ca", {"ca.crt": authority.decode()}),
            secret(self.cp, "etcd-client-tls", client) | {"type": "kubernetes.io/tls"},
            secret(self.cp, "etcd-server-tls", {"server.crt": b"its", "server.key": b"own"}),
            secret(self.cp, "etcd-peer-tls", {"peer.crt": b"its", "peer.key": b"own"}),
            config_map(self.cp, "etcd-metrics-ca", {"ca.crt": authority.decode()}),
        ]

    def client_material(self, word: str) -> dict[str, bytes]:
        if self.tls and self.tls.client:
            authority, mine = self.tls.authority.pem, self.tls.client
            certificate, key = mine.certificate, mine.key
        else:
            authority = _certificate("etcd-signer", authority=True)[0]
            certificate, key = _certificate(word)
        return {f"{word}-ca.crt": authority, f"{word}.crt": certificate, f"{word}.key": key}

    def encryption_config(self) -> Object:
        listed = [
            {"name": key_name(key), "secret": base64.b64encode(key).decode()} for key in self.keys
        ]
        providers = [{"aescbc": {"keys": listed}}, {"identity": {}}]
        document = {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": providers}],
        }
        text = json.dumps(document).encode()
        return secret(self.cp, "kas-secret-encryption-config", {"config.yaml": text})


def _configuration() -> Object:
    return {
        "apiServer": {
            "servingCerts": {
                "namedCertificates": [
                    {
                        "names": ["api.example.com"],
                        "servingCertificate": {"name": "api-cert"},
                    }
                ]
            },
            "audit": {"profile": "Default"},
        },
        "image": {"additionalTrustedCA": {"name": "registry-cas"}},
        "oauth": {
            "identityProviders": [
                {
                    "name": "github-is-no-reference",
                    "type": "GitHub",
                    "github": {"clientID": "c", "clientSecret": {"name": "github-client"}},
                },
                {
                    "name": "local",
                    "type": "HTPasswd",
                    "htpasswd": {"fileData": {"name": "people"}},
                },
                {
                    "name": "ldap",
                    "type": "LDAP",
                    "ldap": {
                        "bindPassword": {"name": "ldap-bind"},
                        "ca": {"name": "ldap-ca"},
                        "url": "ldaps://ldap.example",
                    },
                },
            ],
            "templates": {"login": {"name": "login-page"}},
        },
        "proxy": {"httpProxy": "http://proxy.example", "trustedCA": {"name": "proxy-ca"}},
    }


def _kms_spec(platform: str) -> Object:
    if platform == "Azure":
        key = {"keyVaultName": "vault", "keyName": "etcd", "keyVersion": "v1"}
        return {"provider": "Azure", "azure": {"activeKey": key}}
    if platform == "IBMCloud":
        entry = {
            "crkID": "crk-1",
            "instanceID": "kp-1",
            "keyVersion": 1,
            "correlationID": "corr-1",
            "url": "https://kms.example",
        }
        auth = {"type": "Unmanaged", "unmanaged": {"credentials": {"name": "kms-creds"}}}
        ibm = {"auth": auth, "keyList": [entry], "region": "eu-de"}
        return {"provider": "IBMCloud", "ibmcloud": ibm}
    arn = "arn:aws:kms:eu-west-1:123456789012:key/aaaa"
    auth = {"awsKms": "arn:aws:iam::123456789012:role/kms"}
    aws = {"region": "eu-west-1", "activeKey": {"arn": arn}, "auth": auth}
    return {"provider": "AWS", "aws": aws}


def _kms_status(platform: str) -> Object:
    spec = _kms_spec(platform)
    if platform == "Azure":
        return {"provider": "Azure", "azure": spec["azure"]["activeKey"]}
    if platform == "IBMCloud":
        entry = {**spec["ibmcloud"]["keyList"][0], "region": "eu-de"}
        return {"provider": "IBMCloud", "ibmCloud": entry}
    arn = spec["aws"]["activeKey"]["arn"]
    return {"provider": "AWS", "aws": {"arn": arn, "region": "eu-west-1"}}


def _condition(kind: str, status: str, reason: str) -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-11-10T09:00:00Z",
        "observedGeneration": 1,
    }


def _plain(namespace: str, name: str) -> Object:
    where = {"namespace": namespace} if namespace else {}
    return {"name": name, **where}


def _uid(*words: str) -> str:
    digest = hashlib.sha256("/".join(words).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:32]}"


def _server(namespace: str, name: str, kind: str) -> Object:
    """Metadata with what a server adds."""
    return {
        **_plain(namespace, name),
        "uid": _uid(kind, namespace, name),
        "creationTimestamp": CREATED,
        "generation": 1,
        "managedFields": [{"manager": "hypershift", "operation": "Update"}],
    }


def _owner(kind: str, namespace: str, name: str) -> Object:
    group = "apps/v1" if kind == "StatefulSet" else "hypershift.openshift.io/v1beta1"
    return {"apiVersion": group, "kind": kind, "name": name, "uid": _uid(kind, namespace, name)}


@functools.cache
def _certificate(
    name: str, *, authority: bool = False, end: dt.datetime = dt.datetime(2120, 1, 1, tzinfo=dt.UTC)
) -> tuple[bytes, bytes]:
    """A certificate and key that are the same in every process; served by nobody."""
    signer = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"etcd-signer").digest())
    mine = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())

    def named(word: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, word)])

    made = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named("etcd-signer"))
        .public_key(mine.public_key())
        .serial_number(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1 or 1)
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(signer, None)
    )
    return (
        made.public_bytes(serialization.Encoding.PEM),
        mine.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
