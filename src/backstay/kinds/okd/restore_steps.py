"""What remains of an OKD restore when both files are there: what a person does on the hosts.

These are the steps of the official procedures, with the names of this cluster. There are two: since
4.13 cluster-restore.sh stops etcd alone, and the operators do the rest; before, it stopped all four
static pods, and much was done by hand.

Source: openshift/cluster-etcd-operator, bindata/etcd (cluster-restore.sh, disable-etcd.sh); the
product documentation on restoring to an earlier cluster state, 4.6 to 4.12 and later.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from backstay.kinds.step import Step
from backstay.mvcc.membership import Member
from backstay.repo.manifest import OkdEntry

#: The first minor release of the procedure of today.
NEW = 13
_VERSION = re.compile(r"4\.([0-9]{1,4})(?:\.|$)", re.ASCII)
_RECOVERY = "RECOVERY-HOST"
_SCRIPT = "sudo -E /usr/local/bin/cluster-restore.sh"
_OPERATORS = ("etcd", "kubeapiserver", "kubecontrollermanager", "kubescheduler")
_GUARD = "useUnsupportedUnsafeNonHANonProductionUnstableEtcd"
_REDEPLOY = (
    'oc patch {} cluster --type=merge -p="{{\\"spec\\": {{\\"forceRedeploymentReason\\":'
    ' \\"recovery-$(date --rfc-3339=ns)\\"}}}}"'
)
_ROLLED = '{.items[0].status.conditions[?(@.type=="NodeInstallerProgressing")].reason}'


@dataclass(frozen=True, slots=True)
class Hosts:
    """The control plane hosts of a cluster.

    Attributes:
        recovery: the one that is restored; a word that stands for it where it is not known.
        others: the others, as far as the snapshot names them.
        known: whether the recovery host was chosen: the one that the backup was made on.
    """

    recovery: str
    others: tuple[str, ...]
    known: bool

    @property
    def all(self) -> tuple[str, ...]:
        """All of them."""
        return (self.recovery, *self.others)


def hosts_of(okd: OkdEntry, members: Sequence[Member]) -> Hosts:
    """Name the hosts of a cluster: members of etcd are called as their nodes.

    Args:
        okd: what the manifest says.
        members: as the snapshot has them.
    """
    names = tuple(dict.fromkeys(name for member in members if (name := _host(member))))
    if okd.node:
        others = tuple(name for name in names if not _same(name, okd.node))
        return Hosts(okd.node, others, known=True)
    if len(names) == 1:
        return Hosts(names[0], (), known=True)
    return Hosts(_RECOVERY, names, known=False)


def _host(member: Member) -> str:
    if member.name:
        return member.name
    for url in member.peer_urls:
        try:
            host = urlsplit(url).hostname
        except ValueError:
            continue
        if host:
            return host
    return ""


def _same(one: str, other: str) -> bool:
    """Nodes are called by their full names, or by the first part of these."""
    return one == other or other in _first(one) or one in _first(other)


def _first(name: str) -> tuple[str]:
    return (name.partition(".")[0],)


def restore_steps(okd: OkdEntry, members: Sequence[Member], directory: Path) -> tuple[Step, ...]:
    """Say what remains to be done.

    Args:
        okd: what the manifest says.
        members: as the snapshot has them.
        directory: where the pair is.
    """
    match = _VERSION.match(okd.version)
    old = match is not None and int(match[1]) < NEW
    hosts = hosts_of(okd, members)
    begin = _begin(hosts, directory, known=match is not None)
    rest = _old(hosts, directory) if old else _new(hosts, directory)
    return (*begin, *rest)


def _ssh(host: str, command: str = "") -> str:
    login = shlex.quote(f"core@{host}")
    return f"ssh {login} {shlex.quote(command)}" if command else f"ssh {login}"


def _begin(hosts: Hosts, directory: Path, *, known: bool) -> Iterator[Step]:
    if not known:
        yield Step(
            f"The release of this backup is not known. Before 4.{NEW} the procedure is another one:"
            " look it up before you go on"
        )
    if not hosts.known and hosts.others:
        yield Step(
            f"Choose the recovery host, a healthy one of {', '.join(hosts.others)}: it is"
            f" {_RECOVERY} below, and is left out where the others are named"
        )
    yield Step(
        "Open a shell on each control plane host, and keep it: the API goes away",
        tuple(_ssh(host) for host in (hosts.all if hosts.known else hosts.others or hosts.all)),
    )
    yield Step(
        "Where the cluster has a proxy, export it on the recovery host: its script pulls an image",
        (
            "oc get proxy cluster -o yaml",
            "export HTTP_PROXY=... HTTPS_PROXY=... NO_PROXY=...",
        ),
    )
    target = shlex.quote(f"core@{hosts.recovery}:{directory.name}")
    yield Step(
        "Copy both files to the recovery host, into a directory that has no others: the script"
        " picks by name",
        (f"scp -r {shlex.quote(str(directory))} {target}",),
    )


def _place(directory: Path) -> str:
    return shlex.quote(f"/home/core/{directory.name}")


def _new(hosts: Hosts, directory: Path) -> Iterator[Step]:
    if hosts.others:
        yield Step(
            "Stop etcd on the other hosts, so that they make no quorum. A host that has no such"
            " script: move /etc/kubernetes/manifests/etcd-pod.yaml away, and wait until `crictl ps`"
            " shows no etcd",
            tuple(_ssh(host, "sudo -E /usr/local/bin/disable-etcd.sh") for host in hosts.others),
        )
    yield Step(
        "Restore, on the recovery host. The pod that it starts raises the revision by what"
        " revision.json tells of raft, or by 1000000000, so that informers list again; releases"
        " that know no revision.json, and those told ETCD_ETCDCTL_RESTORE, do not: there restart"
        " whatever watches the API",
        (_ssh(hosts.recovery), f"{_SCRIPT} {_place(directory)}"),
    )
    if hosts.others:
        yield Step(
            "When the API answers, turn the quorum guard off (not on two nodes with fencing)",
            (_override('{"' + _GUARD + '": true}'),),
        )
    yield Step(
        "Wait until the operators have rolled everything out; a quarter of an hour is usual",
        ("oc adm wait-for-stable-cluster",),
    )
    if hosts.others:
        yield Step("Turn the quorum guard on again", (_override("null"),))
    yield Step("Only where etcd does not roll out: make it", (_REDEPLOY.format("etcd"),))
    yield _not_ready(hosts)
    yield _stale()


def _override(value: str) -> str:
    patch = '{"spec": {"unsupportedConfigOverrides": ' + value + "}}"
    return f"oc patch etcd/cluster --type=merge -p {shlex.quote(patch)}"


def _old(hosts: Hosts, directory: Path) -> Iterator[Step]:
    for host in hosts.others:
        yield Step(
            f"Stop etcd and kube-apiserver on {host}, and move its data away; each crictl until it"
            " prints nothing",
            (
                _ssh(host),
                "sudo mv -v /etc/kubernetes/manifests/etcd-pod.yaml /tmp",
                "sudo crictl ps | grep etcd | grep -v operator",
                "sudo mv -v /etc/kubernetes/manifests/kube-apiserver-pod.yaml /tmp",
                "sudo crictl ps | grep kube-apiserver | grep -v operator",
                "sudo mv -v /var/lib/etcd /tmp",
            ),
        )
    yield Step(
        "Restore, on the recovery host. It stops all four static pods, and does not raise the"
        " revision: clients that watched the lost cluster miss changes, so the last step is not to"
        " be left out",
        (_ssh(hosts.recovery), f"{_SCRIPT} {_place(directory)}"),
    )
    yield _not_ready(hosts)
    yield Step(
        "Restart the kubelet on all control plane hosts",
        tuple(_ssh(host, "sudo systemctl restart kubelet.service") for host in hosts.all),
    )
    yield Step(
        "Approve the requests for certificates that wait",
        ("oc get csr", "oc adm certificate approve NAME"),
    )
    yield Step(
        "Look that one member of etcd runs",
        ("oc get pods -n openshift-etcd -l k8s-app=etcd",),
    )
    for operator in _OPERATORS:
        yield Step(
            f"Roll {operator} out anew, and wait for AllNodesAtLatestRevision",
            (_REDEPLOY.format(operator), f"oc get {operator} -o=jsonpath='{_ROLLED}'"),
        )
    yield _stale()


def _not_ready(hosts: Hosts) -> Step:
    """Certificates of kubelets that were rotated after the backup are not known any more."""
    remove = "sudo sh -c 'rm -f /var/lib/kubelet/pki/*.pem && systemctl restart kubelet.service'"
    return Step(
        "Only where a node stays NotReady, its certificates are newer than the backup: remove"
        " them on that host, and approve the requests that come",
        (
            "oc get nodes",
            *(_ssh(host, remove) for host in hosts.all),
            "oc get csr",
            "oc adm certificate approve NAME",
        ),
    )


def _stale() -> Step:
    return Step(
        "Restart what keeps the state of the API in memory: operators, network, storage drivers;"
        " volumes and machines are as they are now, and not as they were at the backup",
        ("oc get clusteroperators", "oc get pods -A | grep -v -e Running -e Completed"),
    )
