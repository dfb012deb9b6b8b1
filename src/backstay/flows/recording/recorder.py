"""The recorder: follows an etcd from where the store ends, through all that befalls either.

It holds a watch on one member. When that one falls silent another is asked, from the last revision
that came, and held to it. What can't be proven to be the same history is another lineage, with a
full backup of its own.

Border: what is decided by pure functions is in `plan`, `tape` and `repo.lineage`.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from backstay.client.answer import Status
from backstay.client.etcd import Etcd
from backstay.client.health import choose, survey
from backstay.client.watch import Changes, Watch
from backstay.clock import Clock
from backstay.errors import (
    AuthenticationError,
    BackstayError,
    CompactedError,
    DamagedError,
    EtcdError,
    EtcdUnavailableError,
    StoreError,
)
from backstay.flows.ancestry import Watched
from backstay.flows.backup import NAME, check_role
from backstay.flows.recording.asking import Job, Leases, ask_proof
from backstay.flows.recording.ending import Ending, find_ending
from backstay.flows.recording.fulls import Fulls
from backstay.flows.recording.keynames import KeyNames, KeySaver
from backstay.flows.recording.opendelta import OpenDelta
from backstay.flows.recording.plan import Options, backoff, seal_now
from backstay.flows.recording.sealer import Piece, Sealer
from backstay.flows.recording.tally import Tally
from backstay.flows.recording.tape import Anchor, Element, Proven, Tape
from backstay.mvcc.delta import Position, Proof
from backstay.repo.catalogue import Repository
from backstay.repo.lineage import Lineage, Shown, Stored, continue_or_begin
from backstay.repo.lineage import Proof as Kind
from backstay.repo.manifest import Manifest, Tip
from backstay.report import Report

#: Seconds between two looks at what is due.
_TICK = 0.2
#: So many watches in a row that give nothing, and etcd is reached anew.
_RENEW = 3
#: Seconds for what is left to be stored, when the recorder is stopped.
_LEAVE = 8.0
#: Seconds that a delta waits for the answers about its leases.
_LEASES = 1.0
_WATCHED = "recorded without a break"


class _AnotherLineage(Exception):  # noqa: N818 - no error: the watch ends, and another begins
    """The watch is not of what is recorded."""


@dataclass(frozen=True, slots=True)
class _Member:
    """The member that is watched, and what it said before.

    Attributes:
        status: what it said of itself.
        head: a revision that the cluster had agreed on.
    """

    status: Status
    head: int

    def shown(self, tip: str) -> Shown:
        header = self.status.header
        return Shown(
            revision=self.head,
            compact_revision=-1,
            cluster_id=f"{header.cluster_id:x}",
            raft_term=header.raft_term,
            raft_index=self.status.raft_applied_index,
            hash=None,
            tip=tip,
        )


class Recorder:
    """Records one etcd until it is stopped.

    Args:
        etcd: an open client of it.
        repository: where to.
        full: takes a full backup; is told which lineage the watch has gone on with. Called in a
            thread.
        options: how.
        tally: counts.
        clock: for times and names.
        report: is told what happens.
        stop: set by whoever wants it to end.
        keys: saves keys that encrypt what comes; None where nobody has them.
        renew: gives another client, where this one fails again and again: certificates and members
            may be others by now.
    """

    def __init__(
        self,
        etcd: Etcd,
        repository: Repository,
        full: Callable[[Watched], Manifest],
        options: Options,
        *,
        tally: Tally,
        clock: Clock,
        report: Report,
        stop: threading.Event,
        keys: KeySaver | None = None,
        renew: Callable[[], Etcd] | None = None,
    ) -> None:
        self._etcd = etcd
        self._renew = renew
        self._key_names = None if keys is None else KeyNames(keys.prefix)
        self._repository = repository
        self._options = options
        self._tally = tally
        self._clock = clock
        self._report = report
        self._stop = stop
        self._sealer = Sealer(repository, options, tally, report, clock, keys=keys)
        self._leases = Leases(self._granted)
        self._delta = OpenDelta(options.cluster, self._leases, self._key_names)
        self._lineage: Lineage | None = None
        self._known: Stored | None = None
        self._anchor: Anchor | None = None
        self._lost_from = 0
        self._left: Piece | None = None
        self._avoid = ""
        self._fulls = Fulls(full, options.full_every, tally=tally, clock=clock, report=report)
        self._proof: Job[Proof] | None = None
        self._proof_due = clock.monotonic() + options.prove_every

    def run(self) -> bool:
        """Record until `stop` is set.

        Returns:
            Whether everything that came is stored.

        Raises:
            AuthenticationError: etcd does not let us in.
            BackstayError: something that waiting does not mend.
        """
        try:
            check_role(self._repository)
            self._start()
            self._go_on()
        finally:
            self._leases.close()
        return self._finish()

    def join(self, seconds: float) -> None:
        """Wait for a full backup that is being made when the recorder has ended."""
        self._fulls.join(seconds)

    # From where.

    def _start(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                ending = find_ending(self._repository, self._options.cluster, NAME)
            except StoreError as error:
                failures += 1
                self._tally.add(store_errors=1)
                self._report.warn(f"where the store ends can't be seen, trying again: {error}")
                self._stop.wait(backoff(failures))
                continue
            self._adopt(ending)
            return

    def _adopt(self, ending: Ending | None) -> None:
        """Take what is stored as what is to be gone on with."""
        if ending is None:
            return
        self._known, self._anchor = ending.stored, ending.anchor
        age = self._clock.now() - ending.full_at
        left = timedelta(seconds=self._options.full_every) - age
        if ending.hole:
            self._report.warn(f"{ending.hole}: a full backup is made now")
            left = timedelta()
        self._fulls.due_in(left.total_seconds())
        stored = ending.stored
        self._lineage = stored.goes_on("as stored")
        self._tally.set(lineage=stored.lineage, sealed=ending.end.main - 1)
        self._report.say(f"the store ends before {ending.end}, in lineage {stored.lineage}")

    def _go_on(self) -> None:
        failures = 0
        while not self._stop.is_set():
            heard = self._tally.figures.heard_at
            try:
                self._follow_one()
            except _AnotherLineage:
                continue
            except CompactedError as error:
                self._lost(error)
                continue
            except DamagedError as error:
                self._broken(error)
            except EtcdError as error:
                if isinstance(error, AuthenticationError) and not heard:
                    raise
                self._tally.add(etcd_errors=1)
                self._report.warn(f"the watch ended, another one begins: {error}")
            failures = 0 if self._tally.figures.heard_at > heard else failures + 1
            self._stop.wait(backoff(failures, 5.0))
            if failures and failures % _RENEW == 0 and not self._stop.is_set():
                self._reach_anew()

    def _reach_anew(self) -> None:
        if self._renew is None:
            return
        try:
            self._etcd = self._renew()
        except BackstayError as error:
            self._report.warn(f"etcd can't be reached anew: {error}")

    def _follow_one(self) -> None:
        """Watch one member for as long as that goes well."""
        member = self._enter()
        if self._anchor is None or self._known is None:
            self._begin_unanchored(member)
        else:
            wanted = replace(self._known, revision=self._anchor.revision, tip=self._anchor.tip)
            found = continue_or_begin(wanted, member.shown(self._anchor.tip.digest), _fresh())
            if found.proof is not Kind.CONTINUED:
                self._begin(found)
        anchor = self._anchor
        start = anchor.revision if anchor else max(member.head, 1)
        endpoint = member.status.endpoint
        self._avoid = str(endpoint)
        with self._etcd.watch(
            start_revision=start, progress_notify=True, endpoint=endpoint
        ) as watch:
            self._report.say(f"watching {endpoint} from revision {start} on")
            self._tally.add(restarts=1)
            with self._taped(anchor) as tape:
                self._follow(watch, tape, member)

    def _enter(self) -> _Member:
        """Choose a member that is in touch with the others, and not the one that just failed."""
        order = [
            status
            for status in choose(survey(self._etcd).members).order
            if status.leader and not status.is_learner
        ]
        order.sort(key=lambda status: str(status.endpoint) == self._avoid)
        errors: list[EtcdError] = []
        for status in order:
            try:
                head = self._etcd.range(b"\0", endpoint=status.endpoint, count_only=True)
                fresh = self._etcd.status(status.endpoint)
            except EtcdError as error:
                errors.append(error)
                continue
            self._tally.set(head=max(self._tally.figures.head, head.header.revision))
            return _Member(fresh, head.header.revision)
        raise (
            errors[0]
            if errors
            else EtcdUnavailableError(
                "no member can be reached that has a leader", "look at the members"
            )
        )

    # Lineages.

    def _begin_unanchored(self, member: _Member) -> None:
        if self._known is not None:
            self._begin(continue_or_begin(self._known, member.shown(""), _fresh()))
        elif self._lineage is None:
            self._begin(continue_or_begin(None, None, _fresh()))

    def _begin(self, lineage: Lineage) -> None:
        """Another lineage begins: what was open is sealed as far as it is whole."""
        if lineage.predecessor:
            self._report.warn(
                f"a new lineage begins, {lineage.id} after {lineage.predecessor}: {lineage.reason}"
            )
        else:
            self._report.say(f"lineage {lineage.id} begins: {lineage.reason}")
        self._close_delta()
        self._lineage, self._anchor, self._known = lineage, None, None
        self._fulls.restart()
        self._tally.add(lineages=1)
        self._tally.set(lineage=lineage.id)

    def _lost(self, error: CompactedError) -> None:
        """Etcd has compacted away what was to come next."""
        at = self._anchor.next.main if self._anchor else 0
        self._tally.add(etcd_errors=1)
        if self._lineage is None or not at:
            return
        last = error.revision - 1
        if last >= at:
            self._report.warn(
                f"revisions {at} to {last} were not recorded: etcd has compacted them away"
            )
            self._tally.add(gaps=1, lost=last - at + 1)
        reason = f"revision {at - 1}, the last that is stored, is compacted away" + (
            f" (at {error.revision})" if error.revision else ""
        )
        self._begin(self._lineage.followed(_fresh(), Kind.UNPROVEN, reason))

    def _broken(self, error: DamagedError) -> None:
        """What came did not fit together: nothing that comes now can be told to go on with it."""
        self._tally.add(etcd_errors=1)
        if self._lineage is not None:
            self._begin(self._lineage.followed(_fresh(), Kind.UNPROVEN, error.what))

    # The watch.

    @contextmanager
    def _taped(self, anchor: Anchor | None) -> Iterator[Tape]:
        """Hold what one watch gives; at its end note where the next one goes on."""
        tape = Tape(anchor)
        try:
            yield tape
        finally:
            if tape.proven is Proven.YES and self._lineage is not None and self._known is not None:
                self._anchor = tape.anchor

    def _follow(self, watch: Watch, tape: Tape, member: _Member) -> None:
        heard = asked = time.monotonic()
        unproven_since = 0.0
        while not self._stop.is_set():
            message = watch.next(_TICK)
            now = time.monotonic()
            if message is not None:
                heard = now
                self._take(tape, message, member)
                if tape.proven is Proven.NOT_YET and tape.whole == 0 and self._anchor:
                    unproven_since = unproven_since or now
                    self._doubt(tape, now - unproven_since, message)
                # It may have many megabytes, and the next one may be long in coming.
                del message
            elif now - heard > self._options.patience:
                raise EtcdUnavailableError(
                    f"{watch.endpoint} has said nothing for {now - heard:.0f} s",
                    "another member is asked",
                )
            if now - max(heard, asked) >= self._options.ask_every:
                watch.ask_progress()
                asked = now
            if self._work(tape):
                # The store kept us waiting: that says nothing against the member.
                heard = time.monotonic()

    def _doubt(self, tape: Tape, seconds: float, message: Changes) -> None:
        """Nothing comes of the revision that the watch began with: it is compacted at it."""
        if seconds < self._options.patience / 3 or message.revision < tape.revision:
            return
        assert self._lineage is not None
        reason = f"nothing is left of revision {tape.revision}, the last that is stored"
        self._begin(self._lineage.followed(_fresh(), Kind.UNPROVEN, reason))
        raise _AnotherLineage

    def _take(self, tape: Tape, message: Changes, member: _Member) -> None:
        now = self._now()
        began = tape.proven
        for element in tape.take(message):
            self._add(tape, element, member)
        if tape.proven is Proven.NO:
            self._other()
        if tape.proven is not Proven.YES:
            return
        self._anchor = tape.anchor
        if began is not Proven.YES:
            self._proved(tape, member)
        self._tally.heard(at=now / 1000, head=message.revision, recorded=tape.whole)
        if message.changes and message.more:
            return
        if message.changes or message.revision == tape.whole:
            self._delta.date(tape.whole, now)

    def _other(self) -> None:
        assert self._lineage is not None
        at = self._anchor.revision if self._anchor else 0
        reason = f"its changes at revision {at} are others than those that are stored"
        self._begin(self._lineage.followed(_fresh(), Kind.OTHER, reason))
        raise _AnotherLineage

    def _proved(self, tape: Tape, member: _Member) -> None:
        """It is the lineage that is recorded, or the beginning of a new one."""
        self._know(member)
        assert self._lineage is not None
        if not self._delta.is_open:
            self._delta.begin(self._lineage.id, tape.next)
        if self._lineage.proof is Kind.CONTINUED:
            self._report.say(f"lineage {self._lineage.id} goes on after revision {tape.whole}")

    def _know(self, member: _Member) -> None:
        assert self._lineage is not None
        header = member.status.header
        self._known = Stored(
            lineage=self._lineage.id,
            predecessor=self._lineage.predecessor,
            root=self._lineage.root,
            revision=0,
            compact_revision=-1,
            cluster_id=f"{header.cluster_id:x}",
            raft_term=header.raft_term,
            raft_index=member.status.raft_applied_index,
            hash=None,
            tip=None,
        )

    # The open delta.

    def _add(self, tape: Tape, element: Element, member: _Member) -> None:
        if self._known is None:
            self._know(member)
        assert self._lineage is not None
        self._delta.add(self._lineage.id, element)
        if self._delta.is_full(self._options.max_bytes):
            self._seal(tape)

    def _seal(self, tape: Tape) -> bool:
        """Cut the open delta off and hand it over; whether that took a while."""
        self._anchor = tape.anchor
        if not self._cut(_LEASES):
            return False
        assert self._left is not None and self._known is not None  # noqa: PT018
        self._delta.begin(self._known.lineage, Position(*self._left.written.header.end))
        return self._hand_over()

    def _cut(self, patience: float) -> bool:
        """End the open delta; whether it has something to tell.

        Args:
            patience: seconds to wait for what was asked about its leases.
        """
        if self._known is None or self._anchor is None:
            return False
        found = self._delta.cut(self._known, self._anchor, now=self._now(), patience=patience)
        if found is None:
            return False
        self._tally.add(waiting=found.size)
        self._left = found
        return True

    def _hand_over(self) -> bool:
        """Give the sealer what is left for it; it is kept where the recorder is to stop."""
        waited = False
        while self._left is not None:
            if self._sealer.offer(self._left, 0.0 if not waited else 0.5):
                self._left = None
            elif self._stop.is_set():
                break
            else:
                waited = True
        return waited

    def _close_delta(self) -> None:
        """Seal what is open, where another lineage begins: it was proven when it came."""
        if self._delta.something and self._cut(0.0):
            self._hand_over()
        self._delta.drop()

    # What is due.

    def _work(self, tape: Tape) -> bool:
        """Do what is due; whether that took a while."""
        waited = False
        delta = self._delta.look()
        if delta is not None and tape.proven is Proven.YES:
            if seal_now(self._options, delta):
                waited = self._seal(tape)
            self._look_at_full(tape)
            self._look_at_proof(tape)
        return waited

    def _look_at_full(self, tape: Tape) -> None:
        made = self._fulls.ended()
        if made is not None:
            self._full_ended(made)
        if self._sealer.keys_saved.is_set():
            # A restore of what comes from now on has all keys in one place.
            self._sealer.keys_saved.clear()
            self._fulls.due_in(0.0)
        if not self._fulls.due or not tape.tip or not tape.whole:
            return
        assert self._lineage is not None and self._known is not None  # noqa: PT018
        # What a member says of raft is no measure for its file: etcd 3.4 writes it there later.
        tip = Tip(salt="", digest=tape.tip)
        end = replace(self._known, revision=tape.whole, raft_index=0, tip=tip)
        self._report.say(f"a full backup begins; the watch goes on from revision {tape.whole}")
        self._fulls.begin(self._etcd, Watched(self._lineage, end), self._stop)

    def _full_ended(self, manifest: Manifest) -> None:
        assert self._lineage is not None
        found = manifest.snapshots[0]
        if found.lineage != self._lineage.id:
            why = "the full backup is of another"
            its = Stored.of(found).goes_on(why)
            self._begin(its.followed(_fresh(), Kind.UNPROVEN, why))
            self._fulls.refuse()
            raise _AnotherLineage
        self._fulls.accept(manifest)
        if self._key_names is not None:
            self._key_names.forget()
        self._lineage = replace(self._lineage, proof=Kind.CONTINUED, reason=_WATCHED)

    def _look_at_proof(self, tape: Tape) -> None:
        if self._proof is not None:
            if not self._proof.done:
                return
            job, self._proof = self._proof, None
            try:
                found = job.result()
            except BackstayError as error:
                self._report.warn(f"no member said its HashKV: {error}")
            else:
                if self._delta.prove(found):
                    self._tally.add(proofs=1)
        if self._clock.monotonic() >= self._proof_due and tape.whole:
            self._proof_due = self._clock.monotonic() + self._options.prove_every
            whole = tape.whole
            self._proof = Job(lambda: ask_proof(self._etcd, whole), "proof")

    # The end.

    def _finish(self) -> bool:
        """Seal what came, and see to it that it is stored."""
        deadline = time.monotonic() + _LEAVE
        if self._left is None:
            self._cut(_LEASES)
        while self._left is not None and time.monotonic() < deadline:
            if self._sealer.offer(self._left, 0.5):
                self._left = None
        whole = self._sealer.finish(max(deadline - time.monotonic(), 0.1))
        if self._left is None and whole:
            return True
        sealed = self._tally.figures.sealed
        self._report.warn(
            f"what came after revision {sealed} could not be stored; it is recorded again at the"
            " next start, as far as etcd still has it"
        )
        return False

    def _granted(self, lease: int) -> int:
        found = self._etcd.lease_ttl(lease)
        return found.granted_ttl if found.ttl >= 0 else 0

    def _now(self) -> int:
        return round(self._clock.now().timestamp() * 1000)


def _fresh() -> str:
    """Mint the id of a lineage."""
    return secrets.token_hex(8)
