"""What an etcd answers, as plain values: no message of the wire goes up from this layer."""

from dataclasses import dataclass

from backstay.client.endpoint import Endpoint
from backstay.mvcc.alarm import Alarm
from backstay.mvcc.keyvalue import KeyValue

__all__ = [
    "Alarm",
    "Change",
    "Delete",
    "Hash",
    "Header",
    "KeyValue",
    "LeaseTtl",
    "Member",
    "Put",
    "Range",
    "Status",
]


@dataclass(frozen=True, slots=True)
class Header:
    """Who answered, and at what revision it stood.

    Attributes:
        cluster_id: hash of peer URLs and token; the same for a restored copy.
        member_id: of the member that answered.
        revision: its revision at that moment.
        raft_term: its raft term.
    """

    cluster_id: int
    member_id: int
    revision: int
    raft_term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What one member says of itself.

    Attributes:
        endpoint: where it was asked.
        header: who answered.
        version: its etcd's version, such as `3.5.1`.
        db_size: bytes of its file, free pages included.
        db_size_in_use: bytes in use.
        quota: bytes that its file may have; None before 3.6, which first tells it.
        leader: the leader's member id; 0 where there is none.
        is_learner: whether it only learns.
        raft_index: the last entry that it has.
        raft_applied_index: the last entry that it has applied.
        storage_version: of its file, such as `3.6.0`; empty before 3.6.
        errors: what it complains of, in its own words.
    """

    endpoint: Endpoint
    header: Header
    version: str
    db_size: int
    db_size_in_use: int
    quota: int | None
    leader: int
    is_learner: bool
    raft_index: int
    raft_applied_index: int
    storage_version: str
    errors: tuple[str, ...]

    @property
    def is_leader(self) -> bool:
        """Whether it leads."""
        return self.leader != 0 and self.leader == self.header.member_id


@dataclass(frozen=True, slots=True)
class Member:
    """A member as the cluster knows it.

    Attributes:
        id: its member id.
        name: its name; empty where it has not started yet.
        peer_urls: where the other members find it.
        client_urls: where it says that clients find it; not always true from outside.
        is_learner: whether it only learns.
    """

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


@dataclass(frozen=True, slots=True)
class Hash:
    """What HashKV says.

    Attributes:
        hash: CRC-32C over the `key` bucket, by etcd's rule.
        revision: for which revision.
        compact_revision: at which compact revision; -1 = never compacted. Hashes compare at
            equal ones only.
    """

    hash: int
    revision: int
    compact_revision: int


@dataclass(frozen=True, slots=True)
class Range:
    """Keys and values at one revision.

    Attributes:
        header: who answered; its revision is the member's, not the one that was asked for.
        kvs: in key order.
        count: how many there are in the range, whatever the limit.
        more: whether the limit cut them.
    """

    header: Header
    kvs: tuple[KeyValue, ...]
    count: int
    more: bool


@dataclass(frozen=True, slots=True)
class LeaseTtl:
    """A lease.

    Attributes:
        id: its id.
        ttl: seconds that are left; -1 where there is no such lease.
        granted_ttl: seconds that it was granted for.
        keys: what hangs on it, where that was asked for.
    """

    id: int
    ttl: int
    granted_ttl: int
    keys: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Put:
    """A put in a transaction."""

    key: bytes
    value: bytes
    lease: int = 0
    ignore_lease: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """A delete in a transaction: of one key, or of `[key, range_end)`."""

    key: bytes
    range_end: bytes = b""


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch.

    Attributes:
        delete: whether the key was deleted.
        keyvalue: a mvccpb.KeyValue as it came over the wire: for a put, the very bytes that
            etcd stores; for a delete, the key and the revision.
        previous: a mvccpb.KeyValue with what the key held before; empty where that was not asked
            for, where there was no such key, or where it has been compacted away.
    """

    delete: bool
    keyvalue: bytes
    previous: bytes = b""
