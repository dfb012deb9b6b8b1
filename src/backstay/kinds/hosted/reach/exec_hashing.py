"""HashKV of members that are reached by exec: etcdctl in the pod says it.

What it takes is what the snapshot takes. Nothing is written in the pod.
"""

import json
from collections.abc import Sequence

from backstay.client.answer import Hash, Status
from backstay.client.endpoint import Endpoint
from backstay.client.health import MemberHealth
from backstay.clock import Clock
from backstay.errors import CompactedError, EtcdError
from backstay.kinds.hosted.reach import pod_script
from backstay.kinds.hosted.reach.exec_snapshot import ExecSource
from backstay.kinds.hosted.reach.pod_script import PodPaths
from backstay.kubeapi.exec import tail

#: Bytes of an answer.
_MAX_ANSWER = 64 << 10
_COMPACTED = "required revision has been compacted"
_MAX_64 = (1 << 64) - 1
_MAX_63 = (1 << 63) - 1
_MAX_32 = (1 << 32) - 1


class PodMembers:
    """The members of a hosted etcd, by exec in their pods; see `client.hashing.Members`.

    Args:
        source: who runs scripts there.
        replicas: members that the etcd should have.
        paths: where things are in the container.
        clock: measures.
    """

    def __init__(
        self, source: ExecSource, replicas: int, paths: PodPaths | None, clock: Clock
    ) -> None:
        self._source = source
        self._replicas = replicas
        self._paths = paths or PodPaths()
        self._clock = clock

    def look(self) -> tuple[Sequence[MemberHealth], int]:
        """Look at every pod."""
        choice = self._source.survey()
        return [opinion.member for opinion in choice.opinions], self._replicas

    def status(self, endpoint: Endpoint) -> Status:
        """Ask one how it is."""
        return self._source.status(endpoint)

    def hashkv(self, endpoint: Endpoint, revision: int) -> tuple[Hash, float]:
        """Have one sum its keys; the seconds are those of etcdctl, not of the exec."""
        printed, began = bytearray(), [self._clock.monotonic()]

        def keep(data: bytes) -> None:
            if not printed:
                began[0] = self._clock.monotonic()
            printed.extend(data[: _MAX_ANSWER - len(printed)])

        done = self._source.run(endpoint, pod_script.hashkv(self._paths, revision), keep)
        seconds = self._clock.monotonic() - began[0]
        if done.exit_code:
            said = tail(done.stderr) or f"exit code {done.exit_code}"
            kind = CompactedError if _COMPACTED in said else EtcdError
            raise kind(f"etcdctl in the pod of {endpoint} gives no HashKV: {said}")
        return parse_hashkv(bytes(printed), endpoint, revision), seconds


def parse_hashkv(output: bytes, endpoint: Endpoint, revision: int) -> Hash:
    """Read what the script `hashkv` printed.

    Args:
        output: may be anything.
        endpoint: what the member is called.
        revision: that was asked for; 0 = its newest.

    Raises:
        EtcdError: it is something else.
    """
    try:
        document = json.loads(output.partition(b"\n")[2])
    except (ValueError, RecursionError):
        document = None
    entry = document[0] if isinstance(document, list) and len(document) == 1 else None
    found = entry.get("HashKV") if isinstance(entry, dict) else None
    header = found.get("header") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(header, dict):
        raise EtcdError(f"{endpoint}: etcdctl tells HashKV in a form that is not known")

    def number(source: dict[str, object], name: str, least: int, most: int) -> int:
        value = source.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise EtcdError(f"{endpoint}: etcdctl tells a {name} that is none")
        return value

    number(header, "member_id", 1, _MAX_64)
    told = number(found, "hash_revision", 0, _MAX_63)
    return Hash(
        number(found, "hash", 0, _MAX_32),
        told or revision or number(header, "revision", 0, _MAX_63),
        number(found, "compact_revision", -1, _MAX_63),
    )
