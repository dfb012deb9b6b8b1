"""What a backup and a restore do, step by step, each with the commands that it equals.

People trust a tool that shows its hands. These are the commands of the manual procedure, as it
would be typed today; nothing here runs them.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from backstay.kinds.hosted.cluster import Hosted, at
from backstay.kinds.hosted.quiescing.writers import WRITERS
from backstay.kinds.step import Step

_TLS = "--cacert ca.crt --cert etcd-client.crt --key etcd-client.key"
_POD_TLS = (
    "--cacert /etc/etcd/tls/etcd-ca/ca.crt --cert /etc/etcd/tls/client/etcd-client.crt"
    " --key /etc/etcd/tls/client/etcd-client.key"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a backup is asked to do.

    Attributes:
        transport: `direct`, `port-forward` or `exec`.
        quiesce: whether writers are stopped.
        repo: URL of the repository.
        keys_repo: URL of that for keys.
        keys: names of the Secrets with encryption keys.
    """

    transport: str
    quiesce: bool
    repo: str
    keys_repo: str
    keys: tuple[str, ...] = ()


def backup_steps(hosted: Hosted, plan: Plan) -> tuple[Step, ...]:
    """List the steps of a backup.

    Args:
        hosted: the control plane.
        plan: how it is to be backed up.
    """
    return tuple(_backup(hosted, plan))


def _backup(hosted: Hosted, plan: Plan) -> Iterator[Step]:
    name, namespace, inside = map(
        shlex.quote, (hosted.name, hosted.namespace, hosted.control_plane_namespace)
    )
    yield Step(
        "find the control plane, its etcd and its node pools",
        (
            f"oc get hostedcluster -n {namespace} {name} -o yaml",
            f"oc get hostedcontrolplane -n {inside} {name} -o yaml",
            f"oc get nodepools -n {namespace}",
            f"oc get statefulset -n {inside} etcd",
            f"oc get pods -n {inside} -l app=etcd",
        ),
    )
    if plan.keys:
        yield Step(
            "read the encryption keys that it refers to, and look at their length and hash",
            tuple(
                f"oc get secret -n {namespace} {shlex.quote(key)} -o jsonpath='{{.data.key}}'"
                for key in plan.keys
            ),
        )
    if plan.quiesce:
        yield from _quiesce(hosted, name, namespace, inside)
    for shard in [shard.name for shard in hosted.shards] or [""]:
        yield _snapshot(hosted, plan.transport, shard, inside)
    if plan.quiesce:
        yield from _put_back(hosted, name, namespace, inside)
    yield Step(
        "compare the snapshot with its SHA-256, check structure and content",
        ("etcdutl snapshot status -w table snapshot.db",),
    )
    yield Step("prove that the saved keys open what is encrypted in it (no stock command)")
    yield Step(
        "compress, encrypt and store it, and read it back",
        ("zstd -c snapshot.db | age -r RECIPIENT > snapshot.zst.age", f"upload it to {plan.repo}"),
    )
    sealing = "zstd | age -r RECIPIENT > keyring.zst.age"
    yield Step(
        "encrypt and store keys and Secrets apart from it",
        (
            f"oc get secrets -n {namespace} ... -o yaml | {sealing}",
            f"upload it to {plan.keys_repo}",
        ),
    )
    yield Step("write the manifest: from then on the backup is listed")


def _quiesce(hosted: Hosted, name: str, namespace: str, inside: str) -> Iterator[Step]:
    pause = '{"spec":{"pausedUntil":"IN 30 MINUTES, RFC 3339"}}'
    yield Step(
        "write down what is, and pause; renew the pause while this runs",
        (
            f"oc patch hostedcluster -n {namespace} {name} --type=merge -p '{pause}'",
            *(
                f"oc patch nodepool -n {namespace} {pool} --type=merge -p '{pause}'"
                for pool in _pools(hosted)
            ),
            (
                f"oc wait hostedcluster -n {namespace} {name}"
                " --for=condition=ReconciliationActive=False"
            ),
        ),
    )
    yield Step(
        "stop what writes, and wait until nothing was written for 5 seconds",
        (
            f"oc scale deployment -n {inside} --replicas=0 {' '.join(WRITERS)}",
            f'etcdctl {_TLS} watch --prefix ""',
        ),
    )


def _put_back(hosted: Hosted, name: str, namespace: str, inside: str) -> Iterator[Step]:
    back = '{"spec":{"pausedUntil":WHAT IT WAS}}'
    yield Step(
        "put back exactly what was, and look that it took",
        (
            f"oc scale deployment -n {inside} --replicas=WHAT-IT-WAS {' '.join(WRITERS)}",
            f"oc patch hostedcluster -n {namespace} {name} --type=merge -p '{back}'",
            *(
                f"oc patch nodepool -n {namespace} {pool} --type=merge -p '{back}'"
                for pool in _pools(hosted)
            ),
            f"oc wait hostedcluster -n {namespace} {name} --for=condition=Available",
        ),
    )


def _pools(hosted: Hosted) -> list[str]:
    return [shlex.quote(at(pool, "metadata.name", "")) for pool in hosted.node_pools]


def _snapshot(hosted: Hosted, transport: str, shard: str, inside: str) -> Step:
    title = f"take a snapshot of {shard}" if len(hosted.shards) > 1 else "take a snapshot"
    if hosted.unmanaged is not None:
        endpoint = shlex.quote(hosted.unmanaged.endpoint)
        return Step(
            f"{title}, straight from the etcd that you run",
            (f"etcdctl --endpoints {endpoint} {_TLS} snapshot save snapshot.db",),
        )
    pod = shlex.quote(f"{shard}-0")
    if transport == "exec":
        return Step(
            f"{title} inside a healthy pod, outside of its data directory, and stream it here",
            (
                (
                    f"oc exec -n {inside} {pod} -c etcd -- env ETCDCTL_API=3 etcdctl {_POD_TLS}"
                    " --endpoints localhost:2379 snapshot save /var/lib/backstay.db"
                ),
                f"oc exec -n {inside} {pod} -c etcd -- cat /var/lib/backstay.db > snapshot.db",
                f"oc exec -n {inside} {pod} -c etcd -- rm /var/lib/backstay.db",
            ),
        )
    material = (
        f"oc extract -n {inside} secret/etcd-client-tls configmap/etcd-ca",
        *((f"oc port-forward -n {inside} {pod} 2379",) if transport == "port-forward" else ()),
    )
    endpoint = "localhost:2379"
    if transport == "direct":
        service = next((s.service for s in hosted.shards if s.name == shard), "etcd-client")
        endpoint = f"https://{service}.{inside}.svc:2379"
    return Step(
        f"{title} from a healthy member, a follower where one is as good",
        (*material, f"etcdctl --endpoints {endpoint} {_TLS} snapshot save snapshot.db"),
    )


def restore_steps(
    name: str, *, namespace: str, staging: str, hours: int, apply: bool
) -> tuple[Step, ...]:
    """List the steps of a restore.

    Args:
        name: of the HostedCluster that will be made.
        namespace: of it.
        staging: URL of the place where the snapshot will lie.
        hours: for which the presigned URL will work.
        apply: whether the manifests are applied too.
    """
    namespace, name = shlex.quote(namespace), shlex.quote(name)
    steps = [
        Step(
            "fetch the backup, decrypt and check it",
            ("age -d -i IDENTITY snapshot.zst.age | zstd -d > snapshot.db",),
        ),
        Step("prove that the keys of the manifests open it (no stock command)"),
        Step(
            "raise its revision, and mark what is older as compacted",
            (
                (
                    "etcdutl snapshot restore snapshot.db --bump-revision 1000000000"
                    " --mark-compacted ...  (at the restore itself; etcd-init may not do it)"
                ),
            ),
        ),
        Step(
            "put it where etcd-init can download it, for a while",
            (
                f"aws s3 cp snapshot.db {staging}/...",
                f"aws s3 presign --expires-in {hours * 3600} {staging}/...",
            ),
        ),
        Step(
            "edit the manifests: restoreSnapshotURL, the saved keys, what can't be changed later",
            ("yq -i '.spec.etcd.managed.storage.restoreSnapshotURL = [env(URL)]' rendered.yaml",),
        ),
    ]
    if apply:
        steps += [
            Step("look that nothing of that name exists, then apply", ("oc apply -f FILE",)),
            Step(
                "follow etcd-init, then prove the members equal and a Secret readable",
                (
                    f"oc logs -f -n {namespace}-{name} etcd-0 -c etcd-init",
                    f"oc wait hostedcluster -n {namespace} {name} --for=condition=Available",
                ),
            ),
            Step("delete the restore object", (f"aws s3 rm {staging}/...",)),
        ]
    return tuple(steps)
