"""What `preflight` asks of the objects of a hosted control plane, one function a question.

Pure but for the certificates, which are read; who asks, in which order, is `preflight`'s business.
"""

from datetime import datetime, timedelta

from backstay.checks.question import Answer, failed, passed, unknown
from backstay.client.certificates import expiry
from backstay.client.text import one_line
from backstay.errors import ConnectionFailedError, FormatError
from backstay.kinds.hosted.belongings import encryption
from backstay.kinds.hosted.belongings.keys import SavedKeys
from backstay.kinds.hosted.cluster import Hosted, Shard, at
from backstay.kinds.hosted.quiescing.putback import resume_command
from backstay.kinds.hosted.quiescing.record import annotation
from backstay.kinds.hosted.reach.tls import client_tls
from backstay.kubeapi.api import Api, Object

#: A certificate that runs out sooner than that is worth a word.
_SOON = timedelta(days=7)
#: Characters of a server's word in a message.
_WORD = 60


def conditions(hosted: Hosted) -> Answer:
    """Does the operator say that something is wrong with it?"""
    document = hosted.hosted_cluster
    recovery = encryption.condition(document, "EtcdRecoveryActive")
    if recovery == "True":
        return failed("EtcdRecoveryActive: the operator is replacing a member; wait until it has")
    if _reason(document, "EtcdRecoveryActive") == "EtcdRecoveryJobFailed":
        return failed("EtcdRecoveryJobFailed: a member was not recovered; mend it by hand")
    kind = "UnmanagedEtcdAvailable" if hosted.unmanaged else "EtcdAvailable"
    etcd, reason = encryption.condition(document, kind), _reason(document, kind)
    if etcd == "False":
        return failed(f"{kind} is False ({reason}); look at the pods of etcd")
    if encryption.condition(document, "Degraded") == "True":
        return unknown(f"Degraded is True ({_reason(document, 'Degraded')}); look at the cluster")
    if etcd != "True":
        return unknown(f"the HostedCluster does not say {kind}; look whether its operator runs")
    return passed(f"{kind} is True, nothing is degraded")


def quiesced(hosted: Hosted) -> Answer:
    """Is it still quiesced by a run that died, or is at work now?"""
    for document in (hosted.hosted_cluster, *hosted.node_pools):
        if annotation(document) is not None:
            kind, name = at(document, "kind", "NodePool"), at(document, "metadata.name", "")
            return failed(
                f"{one_line(kind)} {one_line(name)} was quiesced, and not put back; where no"
                f" backup is at work: `{resume_command(hosted.name, hosted.namespace)}`"
            )
    paused = at(hosted.spec, "pausedUntil", "")
    if paused:
        return passed(f"not by Backstay; its owner has paused it: {one_line(paused)[:_WORD]}")
    return passed("no")


def pods(hosted: Hosted) -> Answer:
    """Does each etcd have its members?"""
    if hosted.unmanaged:
        return passed(f"etcd is unmanaged, at {one_line(hosted.unmanaged.endpoint)}")
    if not hosted.shards:
        return failed("there is no control plane yet; wait until its operator has made it")
    lines, answer = [], passed
    for shard in hosted.shards:
        ready = _ready(shard)
        lines.append(f"{shard.name}: {ready} of {shard.replicas} ready")
        if not shard.replicas:
            lines[-1] = f"{shard.name}: no StatefulSet, or one without replicas"
        if ready * 2 <= shard.replicas:
            answer = failed
        elif ready < shard.replicas and answer is passed:
            answer = unknown
    text = "; ".join(lines)
    return answer(text if answer is passed else f"{text}; mend these first")


def certificates(api: Api, hosted: Hosted, now: datetime) -> Answer:
    """Are the certificates that etcd wants from us, and that we trust, in their time?

    Raises:
        KubeError: they can't be read.
    """
    try:
        tls = client_tls(api, hosted, now)
    except (FormatError, ConnectionFailedError) as error:
        return failed(str(error))
    dates = {
        "the authority": expiry(tls.ca or b""),
        "our certificate": expiry(tls.certificate or b""),
    }
    told = "; ".join(f"{name} runs out on {date:%Y-%m-%d}" for name, date in dates.items())
    soon = [name for name, date in dates.items() if date - now < _SOON]
    return passed(f"{told}; soon: {', '.join(soon)}" if soon else told)


def rotation(hosted: Hosted, keys: SavedKeys | None) -> Answer:
    """Are keys being changed, and are both there then?"""
    rotating = encryption.is_rotating(hosted) if keys is None else keys.rotating
    if not rotating:
        return passed("no rotation of keys is under way")
    state = encryption.rotation_state(hosted)
    text = f"keys are being rotated{f' ({one_line(state)[:_WORD]})' if state else ''}"
    if keys is None:
        return unknown(f"{text}, and the keys could not be read")
    if keys.kms is None and len(keys.keys) < 2:
        return failed(
            f"{text}, but only {len(keys.keys)} of two keys was found; wait until it ends"
        )
    return passed(f"{text}: the snapshot will need both keys, and both are saved")


def _ready(shard: Shard) -> int:
    return sum(pod.ready for pod in shard.pods[: shard.replicas])


def _reason(document: object, kind: str) -> str:
    listed: list[Object] = at(document, "status.conditions", [])
    told = (at(c, "reason", "") for c in listed if at(c, "type", "") == kind)
    return one_line(next(told, ""))[:_WORD]
