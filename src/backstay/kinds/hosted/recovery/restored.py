"""The proof after a restore: what a hosted control plane is that came from a snapshot.

That upstream's condition EtcdSnapshotRestored is True proves nothing: an etcd-init that found data
and restored nothing counts there as well, and so do three clusters of one. So each member is
asked itself, and the hosted cluster's own API is asked for Secrets of the snapshot.

The border: nothing is connected here. Whoever calls brings a client for each member.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from backstay.checks import restored_cluster
from backstay.checks.question import Answer, ask, unknown
from backstay.client.etcd import Etcd
from backstay.clock import Clock
from backstay.errors import KubeError
from backstay.kinds.hosted.recovery.canary import Canary, ask_canaries, pick
from backstay.kubeapi.api import Api
from backstay.kubedata.encryption import EncryptionConfiguration
from backstay.mvcc.live import count_live
from backstay.mvcc.snapshot import Snapshot
from backstay.report import Check, Report, Verdict

#: By how much the fixed etcd-init raises the revision, whatever was done before.
UPSTREAM_BUMP = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a restored control plane must be like.

    Attributes:
        revision: of the file that was restored; no member may stand below.
        keys: that the backup has.
        canaries: Secrets that the API must give back.
    """

    revision: int
    keys: int
    canaries: tuple[Canary, ...] = ()


def expect(
    snapshot: Snapshot, revision: int, configuration: EncryptionConfiguration | None
) -> Expected:
    """Work out from a snapshot what a cluster restored from it must be like.

    Args:
        snapshot: the backup's.
        revision: of what was put into the staging place: the snapshot's, raised.
        configuration: the keys that open the snapshot; None where nothing is encrypted.

    Raises:
        DamagedError: the snapshot is damaged.
    """
    return Expected(
        revision=revision,
        keys=count_live(snapshot),
        canaries=pick(snapshot, configuration),
    )


def prove(
    members: Mapping[str, Etcd],
    expected: Expected,
    replicas: int,
    *,
    clock: Clock,
    report: Report,
) -> tuple[Check, ...]:
    """Ask a restored etcd whether it is one cluster, and the one of the backup.

    Best asked soon after the restore: once the control plane compacts, keys can't be counted
    exactly any more.

    Args:
        members: for each pod a client that reaches just that member.
        expected: what it must be like.
        replicas: how many members there should be.
        clock: measures, and waits between attempts.
        report: is told each verdict.
    """
    there, reason = restored_cluster.reachable(members)
    if not reason and len(there) < replicas:
        reason = f"{len(there)} of {replicas} members are known"
    questions: dict[str, Callable[[], Answer]] = {
        "one-cluster": lambda: restored_cluster.one_cluster(there, replicas),
        "hashkv": lambda: restored_cluster.same_hashkv(there, clock),
        "revision": lambda: restored_cluster.revision_reached(there, expected.revision),
        "keys": lambda: restored_cluster.key_count(
            there, expected.keys, expected.revision, UPSTREAM_BUMP
        ),
    }
    return tuple(
        _judged(name, _of_all(question, reason, some=bool(there)), clock, report)
        for name, question in questions.items()
    )


def _of_all(question: Callable[[], Answer], reason: str, *, some: bool) -> Callable[[], Answer]:
    """Let no question pass that not all members have been asked."""

    def asked() -> Answer:
        if not some:
            return unknown(reason)
        answer = question()
        if reason and answer.verdict is Verdict.PASS:
            return unknown(f"{answer.detail}; not all members: {reason}")
        return answer

    return asked


def prove_api(
    guest: Callable[[], AbstractContextManager[Api]],
    expected: Expected,
    *,
    clock: Clock,
    report: Report,
) -> Check:
    """Ask the hosted cluster's own API for Secrets of the snapshot.

    Args:
        guest: opens that API; see `guest.open_guest`.
        expected: the Secrets.
        clock: measures.
        report: is told the verdict.
    """

    def asked() -> Answer:
        try:
            with guest() as api:
                return ask_canaries(api, expected.canaries)
        except KubeError as error:
            # Not found is no verdict here: it is the kubeconfig, or a server that is no API.
            return unknown(str(error))

    return _judged("canary", asked, clock, report)


def _judged(name: str, question: Callable[[], Answer], clock: Clock, report: Report) -> Check:
    check = ask(name, question, clock)
    report.judge(check)
    return check
