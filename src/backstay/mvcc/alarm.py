"""Alarms as bucket `alarm` has them: in the keys, with empty values.

Source: etcd, api/etcdserverpb/rpc.proto (AlarmMember) and server/storage/schema/alarm.go.
"""

from dataclasses import dataclass

from backstay.mvcc.wire import numbers

_KINDS = {0: "NONE", 1: "NOSPACE", 2: "CORRUPT"}


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that stands.

    Attributes:
        member_id: who raised it.
        kind: `NOSPACE`, `CORRUPT`, or the number of a kind that is not known here.
    """

    member_id: int
    kind: str


def parse_alarm(key: bytes) -> Alarm:
    """Read a key of bucket `alarm`.

    Raises:
        MalformedError: it is no AlarmMember.
    """
    found = numbers(key, {1: "member_id", 2: "kind"})
    return Alarm(found["member_id"], _KINDS.get(found["kind"], str(found["kind"])))
