"""A running etcd: what can be asked of it, in plain values.

Reads that any member can answer go to the next one when a member can't be reached. Writes are
sent once, to the first member that can be reached. What is about one member names its endpoint.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from backstay.client import methods
from backstay.client.access import Access
from backstay.client.answer import (
    Alarm,
    Delete,
    Hash,
    Header,
    KeyValue,
    LeaseTtl,
    Member,
    Put,
    Range,
    Status,
)
from backstay.client.dial import Dialer
from backstay.client.endpoint import Endpoint
from backstay.client.proto import rpc_pb2 as pb
from backstay.client.session import Session
from backstay.client.watch import Watch, watching
from backstay.clock import Clock
from backstay.closing import Closing
from backstay.errors import EtcdError

#: HashKV reads the whole `key` bucket: 4,000,000 small values took 2.7 s.
HASH_SECONDS = 300.0
_ALARMS = {pb.NOSPACE: "NOSPACE", pb.CORRUPT: "CORRUPT"}


class Etcd(Closing):
    """A client of one cluster; safe to use from several threads.

    Args:
        access: addresses, certificates, user and patience.
        dialer: makes the connections; default: straight.
        clock: for the dates of certificates.

    Every method raises `EtcdError` or one of its kinds: `ConnectionFailedError`,
    `EtcdUnavailableError`, `AuthenticationError`, `CompactedError`.

    Raises:
        UsageError: our certificate or key is unusable.
        ConnectionFailedError: a certificate of ours has run out, or is not valid yet.
    """

    def __init__(
        self, access: Access, dialer: Dialer | None = None, clock: Clock | None = None
    ) -> None:
        self.access = access
        self.session = Session(access, dialer, clock)

    def close(self) -> None:
        """Hang up everywhere."""
        self.session.close()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The addresses that were given."""
        return self.access.endpoints

    # What one member says of itself.

    def status(self, endpoint: Endpoint) -> Status:
        """Ask one member how it is; it answers without a leader too."""
        answer = self.session.call(endpoint, methods.STATUS, pb.StatusRequest(), log_in=False)
        return Status(
            endpoint=endpoint,
            header=_header(answer.header),
            version=answer.version,
            db_size=answer.dbSize,
            db_size_in_use=answer.dbSizeInUse,
            quota=answer.dbSizeQuota or None,
            leader=answer.leader,
            is_learner=answer.isLearner,
            raft_index=answer.raftIndex,
            raft_applied_index=answer.raftAppliedIndex,
            storage_version=answer.storageVersion,
            errors=tuple(answer.errors),
        )

    def hashkv(self, endpoint: Endpoint, revision: int = 0) -> Hash:
        """Have one member hash its keys; it serves no writes meanwhile.

        Args:
            endpoint: the member.
            revision: up to which; 0 = its newest.

        Raises:
            CompactedError: the revision is gone.
            EtcdError: what came is no member's answer.
        """
        answer = self.session.call(
            endpoint, methods.HASH_KV, pb.HashKVRequest(revision=revision), timeout=HASH_SECONDS
        )
        if not answer.header.member_id:
            # An empty answer would be a hash of 0: a member that disagrees.
            raise EtcdError(
                f"{endpoint} answers HashKV without saying who it is",
                "look at what stands between here and the member",
            )
        # Before 3.5.10 the answer does not say for which revision it is.
        at = answer.hash_revision or revision or answer.header.revision
        return Hash(answer.hash, at, answer.compact_revision)

    # What any member can say.

    def members(self, *, linearizable: bool = True) -> tuple[Member, ...]:
        """List the members; not linearizable, a member without a leader answers as well."""
        question = pb.MemberListRequest(linearizable=linearizable)
        answer = self.session.any(
            lambda e: self.session.call(e, methods.MEMBER_LIST, question, log_in=linearizable)
        )
        return tuple(
            Member(m.ID, m.name, tuple(m.peerURLs), tuple(m.clientURLs), m.isLearner)
            for m in answer.members
        )

    def alarms(self) -> tuple[Alarm, ...]:
        """List the alarms that stand; needs a leader."""
        answer = self.session.any(
            lambda e: self.session.call(
                e, methods.ALARM, pb.AlarmRequest(action=pb.AlarmRequest.GET)
            )
        )
        return tuple(Alarm(a.memberID, _ALARMS.get(a.alarm, str(a.alarm))) for a in answer.alarms)

    def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        revision: int = 0,
        limit: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        serializable: bool = False,
        endpoint: Endpoint | None = None,
    ) -> Range:
        """Read one key, or those in `[key, range_end)`.

        Args:
            key: the first key.
            range_end: the key after the last; empty: just `key`; a zero byte: no end.
            revision: as of when; 0 = now.
            limit: at most so many; 0 = all, which must fit in one message.
            keys_only: leave out the values.
            count_only: just count.
            serializable: take what the member has, without asking the leader.
            endpoint: ask this member only.

        Raises:
            CompactedError: the revision is gone.
        """
        question = pb.RangeRequest(
            key=key,
            range_end=range_end,
            revision=revision,
            limit=limit,
            keys_only=keys_only,
            count_only=count_only,
            serializable=serializable,
        )

        def ask(whom: Endpoint) -> pb.RangeResponse:
            return self.session.call(whom, methods.RANGE, question)

        answer = self.session.any(ask) if endpoint is None else ask(endpoint)
        return Range(
            _header(answer.header), tuple(map(_keyvalue, answer.kvs)), answer.count, answer.more
        )

    def scan(
        self, key: bytes = b"\0", range_end: bytes = b"\0", *, revision: int = 0, page: int = 500
    ) -> Iterator[KeyValue]:
        """Read a range of any size page by page, all as of one revision; default: everything.

        Raises:
            CompactedError: the revision is gone, perhaps while reading.
        """
        more = True
        while more:
            found = self.range(key, range_end, revision=revision, limit=page)
            revision = revision or found.header.revision
            yield from found.kvs
            more = found.more and bool(found.kvs)
            if more:
                key = found.kvs[-1].key + b"\0"

    def leases(self) -> tuple[int, ...]:
        """List the ids of all leases."""
        answer = self.session.any(
            lambda e: self.session.call(e, methods.LEASE_LEASES, pb.LeaseLeasesRequest())
        )
        return tuple(lease.ID for lease in answer.leases)

    def lease_ttl(self, lease: int, *, keys: bool = False) -> LeaseTtl:
        """Ask how long a lease still lives; its `ttl` is -1 where there is none."""
        question = pb.LeaseTimeToLiveRequest(ID=lease, keys=keys)
        answer = self.session.any(
            lambda e: self.session.call(e, methods.LEASE_TIME_TO_LIVE, question)
        )
        return LeaseTtl(answer.ID, answer.TTL, answer.grantedTTL, tuple(answer.keys))

    # What changes the cluster.

    def put(self, key: bytes, value: bytes, *, lease: int = 0, ignore_lease: bool = False) -> int:
        """Write a key; gives its revision."""
        question = pb.PutRequest(key=key, value=value, lease=lease, ignore_lease=ignore_lease)
        answer = self.session.once(lambda e: self.session.call(e, methods.PUT, question))
        return answer.header.revision

    def delete(self, key: bytes, range_end: bytes = b"") -> int:
        """Delete a key, or those in `[key, range_end)`; gives how many there were."""
        question = pb.DeleteRangeRequest(key=key, range_end=range_end)
        answer = self.session.once(lambda e: self.session.call(e, methods.DELETE, question))
        return answer.deleted

    def txn(self, operations: Sequence[Put | Delete]) -> int:
        """Do all operations in one transaction; gives its revision."""
        question = pb.TxnRequest(success=[_operation(o) for o in operations])
        answer = self.session.once(lambda e: self.session.call(e, methods.TXN, question))
        return answer.header.revision

    def compact(self, revision: int) -> None:
        """Forget the history before a revision; comes back when that is done on one member.

        Raises:
            CompactedError: that was done already.
        """
        question = pb.CompactionRequest(revision=revision, physical=True)
        self.session.once(
            lambda e: self.session.call(e, methods.COMPACT, question, timeout=HASH_SECONDS)
        )

    def lease_grant(self, ttl: int, lease: int = 0) -> LeaseTtl:
        """Make a lease of so many seconds; its id is etcd's choice unless given."""
        question = pb.LeaseGrantRequest(TTL=ttl, ID=lease)
        answer = self.session.once(lambda e: self.session.call(e, methods.LEASE_GRANT, question))
        if answer.error:
            raise EtcdError(f"etcd grants no lease: {answer.error}")
        return LeaseTtl(answer.ID, answer.TTL, answer.TTL)

    # What goes on.

    @contextmanager
    def watch(
        self,
        key: bytes = b"\0",
        range_end: bytes = b"\0",
        *,
        start_revision: int = 0,
        progress_notify: bool = False,
        previous: bool = False,
        endpoint: Endpoint | None = None,
    ) -> Iterator[Watch]:
        """Watch a range until the block ends; default: everything.

        Args:
            key: the first key.
            range_end: the key after the last; empty: just `key`; a zero byte: no end.
            start_revision: from which revision on; 0 = from now on.
            progress_notify: have etcd tell now and then that nothing was missed.
            previous: have each change tell what the key held before.
            endpoint: the member to ask; default: the first that can be reached.

        Raises:
            CompactedError: when reading: the start revision is gone.
        """
        question = pb.WatchCreateRequest(
            key=key,
            range_end=range_end,
            start_revision=start_revision,
            progress_notify=progress_notify,
            prev_kv=previous,
            fragment=True,
        )

        def begin(whom: Endpoint) -> Watch:
            return watching(self.session, whom, question)

        watch = self.session.any(begin) if endpoint is None else begin(endpoint)
        try:
            yield watch
        finally:
            watch.cancel()


def _header(header: pb.ResponseHeader) -> Header:
    return Header(header.cluster_id, header.member_id, header.revision, header.raft_term)


def _keyvalue(kv: pb.KeyValue) -> KeyValue:
    return KeyValue(kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease)


def _operation(operation: Put | Delete) -> pb.RequestOp:
    if isinstance(operation, Delete):
        delete = pb.DeleteRangeRequest(key=operation.key, range_end=operation.range_end)
        return pb.RequestOp(request_delete_range=delete)
    put = pb.PutRequest(
        key=operation.key,
        value=operation.value,
        lease=operation.lease,
        ignore_lease=operation.ignore_lease,
    )
    return pb.RequestOp(request_put=put)
