"""What a backup of an OKD control plane does, step by step, each with the commands that it equals.

People trust a tool that shows its hands. These are the commands of cluster-backup.sh, as a person
would type them as root on the host; nothing here runs them.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backstay.kinds.okd.cluster import OPERATORS
from backstay.kinds.okd.etcd_files import HostEtcd
from backstay.kinds.okd.static_pods import KUBERNETES, StaticPod, manifest_of
from backstay.kinds.step import Step

_STAMP = "STAMP=$(date +%Y-%m-%d_%H%M%S)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """Where a backup goes.

    Attributes:
        repo: URL of the repository; empty where both files are left in a directory.
        keys_repo: URL of that for keys.
        output_dir: that directory; empty where they go to repositories.
    """

    repo: str = ""
    keys_repo: str = ""
    output_dir: str = ""


def backup_steps(
    pods: Sequence[StaticPod], etcd: HostEtcd | None, going: Going
) -> tuple[Step, ...]:
    """List the steps of a backup.

    Args:
        pods: that run on the host; empty where that is not known.
        etcd: how the host enters its etcd; None where that is not known.
        going: where the backup goes.
    """
    return tuple(_backup(pods, etcd, going))


def _backup(pods: Sequence[StaticPod], etcd: HostEtcd | None, going: Going) -> Iterator[Step]:
    yield Step(
        "ask the guards: may a backup be made now?",
        (
            "oc get clusterversion version -o yaml",
            *(
                f"oc get co {name} -o jsonpath="
                """'{.status.conditions[?(@.type=="Progressing")].status}'"""
                for name in OPERATORS
            ),
            "oc get proxy cluster -o yaml",
        ),
    )
    yield Step(
        "find the latest static pod resources, by the manifests",
        tuple(
            f"grep -o '/static-pod-resources/{name}-pod-[0-9]*' {manifest_of(name)} | sort -u"
            for name in OPERATORS
        ),
    )
    folder = shlex.quote(going.output_dir) if going.output_dir else "/var/tmp"  # noqa: S108 - shown
    snapshot = f"{folder}/snapshot_$STAMP.db"
    archive = f"{folder}/static_kuberesources_$STAMP.tar.gz"
    named = [shlex.quote(pod.folder.removeprefix(f"{KUBERNETES}/")) for pod in pods]
    folders = named or [f"static-pod-resources/{name}-pod-N" for name in OPERATORS]
    yield Step(
        "put them into a tar: it has the encryption keys",
        (
            _STAMP,
            f"tar -cpzf {archive} -C {KUBERNETES} {' '.join(folders)}",
            f"chmod 600 {archive}",
        ),
    )
    yield Step(
        "take a snapshot from a healthy member, a follower where one is as good",
        (f"etcdctl {_entry(etcd)} snapshot save {snapshot}",),
    )
    yield Step(
        "compare it with its SHA-256, check structure and content",
        (f"etcdutl snapshot status -w json {snapshot}",),
    )
    yield Step("prove that the keys in the tar open what is encrypted in it (no stock command)")
    yield Step("look once more at the manifests: a rollout meanwhile makes it no backup")
    if going.output_dir:
        yield Step("bring both to the disk, and give both their names in one step", ("sync",))
        return
    yield from _stored(going, snapshot, archive)


def _stored(going: Going, snapshot: str, archive: str) -> Iterator[Step]:
    yield Step(
        "compress, encrypt and store the tar apart from the snapshot, and read it back",
        (f"age -r RECIPIENT {archive} > tar.age", f"upload it to {going.keys_repo}"),
    )
    yield Step(
        "compress, encrypt and store the snapshot, and read it back",
        (f"zstd -c {snapshot} | age -r RECIPIENT > snapshot.zst.age", f"upload it to {going.repo}"),
    )
    yield Step("write the manifest: it binds both by their digests, and the backup is listed")


def _entry(etcd: HostEtcd | None) -> str:
    """The options of etcdctl."""
    if etcd is None:
        return "--endpoints https://THIS-HOST:2379 --cacert CA --cert CERT --key KEY"
    files = (("--cacert", etcd.ca), ("--cert", etcd.certificate), ("--key", etcd.key))
    first = shlex.quote(str(etcd.access.endpoints[0]))
    told = " ".join(f"{option} {shlex.quote(path)}" for option, path in files)
    return f"--endpoints {first} {told}"
