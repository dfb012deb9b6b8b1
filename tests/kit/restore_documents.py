"""Documents as a restore applies them: a small hosted cluster, ready to be created."""

import base64

VALUE = "not-to-be-seen-0123456789abcdef0"
URL = "https://bucket.example/snapshot.db?X-Amz-Signature=not-to-be-seen"


def documents(url: str = URL, *, members: int = 1) -> list[dict]:
    """One of each kind, the key of the encryption among them."""
    policy = "SingleReplica" if members == 1 else "HighlyAvailable"
    storage = {
        "type": "PersistentVolume",
        "restoreSnapshotURL": [url],
        "persistentVolume": {"size": "8Gi"},
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "clusters"}},
        _object("v1", "ConfigMap", "trust", data={"ca-bundle.crt": "PEM"}),
        _object(
            "v1",
            "Secret",
            "blue-etcd-encryption-key",
            data={"key": base64.b64encode(VALUE.encode()).decode()},
            type="Opaque",
        ),
        _object("v1", "Secret", "pull-secret", data={".dockerconfigjson": "e30="}),
        _object(
            "hypershift.openshift.io/v1beta1",
            "HostedCluster",
            "blue",
            spec={
                "release": {"image": "quay.io/x:4.20.3"},
                "controllerAvailabilityPolicy": policy,
                "pullSecret": {"name": "pull-secret"},
                "sshKey": {},
                "platform": {"type": "None"},
                "networking": {"clusterNetwork": [{"cidr": "10.132.0.0/14"}]},
                "services": [],
                "etcd": {"managementType": "Managed", "managed": {"storage": storage}},
                "secretEncryption": {
                    "type": "aescbc",
                    "aescbc": {"activeKey": {"name": "blue-etcd-encryption-key"}},
                },
            },
        ),
        _object(
            "hypershift.openshift.io/v1beta1",
            "NodePool",
            "blue-workers",
            spec={
                "clusterName": "blue",
                "replicas": 2,
                "management": {"upgradeType": "Replace"},
                "platform": {"type": "None"},
                "release": {"image": "quay.io/x:4.20.3"},
            },
        ),
    ]


def _object(api_version: str, kind: str, name: str, **more) -> dict:
    metadata = {"name": name, "namespace": "clusters"}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata} | more


def one(found: list[dict], kind: str) -> dict:
    """The first document of a kind."""
    return next(document for document in found if document["kind"] == kind)
