"""Quiescing a control plane: everything that writes to its etcd is stopped, and put back.

The block that this is entered for is the snapshot's stream. Whatever ends it, and whatever fails
on the way in, what was found is put back; the parts are in their own modules (record, pause,
writers, quiet, putback), and here is their order. Whoever is killed in the middle leaves records
on the objects, for `resume`, and a pause that ends by itself.
"""

import socket
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from secrets import token_hex
from types import TracebackType
from typing import Self

from backstay.clock import Clock
from backstay.errors import BackstayError, KubeError, KubeNotFoundError, QuiesceError, RefusedError
from backstay.kinds.hosted.cluster import Hosted, at
from backstay.kinds.hosted.quiescing.pause import (
    Hold,
    Keeper,
    Target,
    ahead,
    await_paused,
    change,
    check_free,
    hold,
    lasts,
    longer,
    paused_objects,
    pauses,
)
from backstay.kinds.hosted.quiescing.putback import PutBack, put_back, resume_command
from backstay.kinds.hosted.quiescing.quiet import Drained, Stillness, Watched, Watcher
from backstay.kinds.hosted.quiescing.record import Record, ours, paused_until, pausing, recorded
from backstay.kinds.hosted.quiescing.resume import Proof, prove
from backstay.kinds.hosted.quiescing.shield import shielded
from backstay.kinds.hosted.quiescing.writers import Stopping, find_writers
from backstay.kubeapi.api import Api, Object
from backstay.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to quiesce; all durations in seconds.

    Attributes:
        timeout: for all that comes before the snapshot.
        pause: how far ahead to pause; renewed at a third of it.
        quiet: for how long nobody may have written.
        poll: between two looks.
        drain: at most so long for the last events, when the snapshot is there.
        back: at most so long for the control plane to be as it was.
        grace: that the clocks of two machines may differ by.
        run: id of this run.
        by: the machine that it runs on.
    """

    timeout: float = 300.0
    pause: float = 1800.0
    quiet: float = 5.0
    poll: float = 0.5
    drain: float = 2.0
    back: float = 600.0
    grace: float = 60.0
    run: str = field(default_factory=lambda: token_hex(4))
    by: str = field(default_factory=lambda: socket.gethostname()[:64] or "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiesced:
    """How it went.

    Attributes:
        quiet: whether it was seen that nobody wrote, from before the snapshot to its end.
        lapsed: whether the pause did not hold, or was not seen to, until the snapshot's end.
        back: whether everything was seen to be as it was.
        downtime_seconds: from the first scaling to all writers' replicas being ready again; None
            where that was not seen.
        stopped: the writers that were stopped, and their replicas.
        detail: what was seen, in one line.
    """

    quiet: bool
    lapsed: bool
    back: bool
    downtime_seconds: float | None
    stopped: tuple[tuple[str, int], ...]
    detail: str

    @property
    def holds(self) -> bool:
        """Whether the snapshot may be called quiesced."""
        return self.quiet and not self.lapsed


class Quiesce:
    """Stops what writes to a control plane's etcd for as long as a block lasts.

    Entering raises, with everything put back:
        RefusedError: another run is at work.
        QuiesceError: the pause did not take, the writers did not leave, or someone still wrote.
        FormatError: there is a record that can't be read.
        KubeError: the API failed.
        EtcdError: etcd can't be watched.

    Leaving raises QuiesceError where something could not be put back and the block went well;
    else that is a warning beside the block's own error.

    Args:
        api: of the management cluster.
        hosted: the control plane, as it was found just now.
        watch: opens a watch on everything in its etcd.
        options: how long things may take.
        clock: tells the time.
        report: is told what is done.
    """

    def __init__(
        self,
        api: Api,
        hosted: Hosted,
        watch: Watcher,
        *,
        options: Options,
        clock: Clock,
        report: Report,
    ) -> None:
        self._api, self._hosted, self._watch = api, hosted, watch
        self._options, self._clock, self._report = options, clock, report
        self._open = ExitStack()
        self._record: Record | None = None
        self._keeper: Keeper | None = None
        self._watched: Watched | None = None
        self._stillness = Stillness(0.0)
        self._down_at: float | None = None
        self.outcome: Quiesced | None = None

    def __enter__(self) -> Self:
        try:
            self._quiesce(self._clock.monotonic() + self._options.timeout)
        except BaseException as error:
            done = self._leave(error)
            if isinstance(error, Exception) and self._down_at is not None:
                self._prove(done, self._options.back)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        lapsed, noise = "", "the snapshot was not finished"
        done: PutBack | None = None
        try:
            if error is None:
                lapsed, noise = self._held(), self._noise()
        except BaseException as caught:
            error = caught
            raise
        finally:
            done = self._leave(error)
        # A program that is told to stop has seconds: it does not wait for a control plane.
        hurried = error is not None and not isinstance(error, Exception)
        proof = self._prove(done, 0.0 if hurried else self._options.back)
        self._conclude(lapsed, noise, proof)

    # On the way in.

    def _quiesce(self, deadline: float) -> None:
        options, hosted = self._options, self._hosted
        first, *pools = paused_objects(hosted)
        self._clear(first)
        writers = find_writers(self._api, hosted.control_plane_namespace)
        replicas = tuple((writer.name, writer.replicas) for writer in writers)
        until = ahead(self._clock.now(), options.pause)
        self._record = self._draft(self._clock.now(), until, replicas)
        self._record = self._pause(first, self._record)
        for pool in pools:
            self._pause_pool(pool, self._record)
        self._keeper = Keeper(
            self._api,
            (first, *pools),
            run=options.run,
            until=until,
            seconds=options.pause,
            clock=self._clock,
        )
        await_paused(self._api, hosted, clock=self._clock, deadline=deadline, poll=options.poll)
        self._watched = self._open.enter_context(self._watch())
        stopping = Stopping(self._api, writers, self._clock)
        began = self._down_at = self._clock.monotonic()
        self._stillness = Stillness(began)
        stopping.scale_down()
        named = ", ".join(f"{name} ({number})" for name, number in replicas)
        self._report.say(f"paused {hosted.title} and stopped {named or 'no writers'}")
        self._settle(stopping, deadline)
        self._report.say(f"quiet after {self._clock.monotonic() - began:.1f} s")

    def _draft(
        self, now: datetime, until: datetime, writers: tuple[tuple[str, int], ...]
    ) -> Record:
        return Record(
            run=self._options.run,
            by=self._options.by,
            since=now,
            until=until,
            writers=writers,
        )

    def _clear(self, target: Target) -> None:
        """Put back what a dead run has left.

        Raises:
            RefusedError: another run is at work.
        """
        dead = check_free(target.get(self._api), self._clock.now(), self._options.grace)
        if dead is not None:
            self._report.warn(f"{dead.title}, has died: what it had stopped is put back first")
            self._put_back(dead.run)

    def _pause(self, target: Target, draft: Record) -> Record:
        """Record and pause the HostedCluster, in one patch."""
        made = [draft]

        def decide(document: Object) -> Object:
            if check_free(document, self._clock.now(), self._options.grace) is not None:
                raise RefusedError(f"{target.title} is being quiesced by someone else")
            own = paused_until(document)
            conditions: list[Object] = at(document, "status.conditions", [])
            available = any(
                at(c, "type", "") == "Available" and at(c, "status", "") == "True"
                for c in conditions
            )
            record = replace(draft, own=own, available=available)
            made[:] = [record]
            return pausing(document, record, longer(own, record.until))

        change(self._api, target, decide, self._clock)
        own_end = lasts(made[0].own)
        if own_end is not None and own_end > draft.until:
            self._report.warn(
                f"{target.title} is paused by its owner until {made[0].own}: should this program"
                " be killed, only `backstay resume hosted` brings the API back before that"
            )
        return made[0]

    def _pause_pool(self, target: Target, draft: Record) -> None:
        def decide(document: Object) -> Object:
            before = recorded(document)
            # What a run that died on the HostedCluster's side has left: what was is in its record.
            stale = before is not None and ours(document, before)
            own = before.own if before is not None and stale else paused_until(document)
            record = replace(draft, own=own, writers=())
            return pausing(document, record, longer(own, record.until))

        try:
            change(self._api, target, decide, self._clock)
        except KubeNotFoundError:
            return  # deleted meanwhile

    def _settle(self, stopping: Stopping, deadline: float) -> None:
        """Wait until the writers' pods are gone and nobody has written for a while."""
        assert self._watched is not None
        next_look = self._clock.monotonic()
        gone = False
        while True:
            now = self._clock.monotonic()
            if not gone and now >= next_look:
                gone = stopping.look()
                next_look = self._clock.monotonic() + self._options.poll
            if (
                gone
                and self._stillness.has_lasted(self._options.quiet, now)
                and self._watched.settled()
            ):
                return
            if now >= deadline:
                raise self._too_late(stopping, gone=gone)
            self._listen(min(self._options.poll, max(0.01, deadline - now)))

    def _listen(self, seconds: float) -> None:
        assert self._watched is not None
        events = self._watched.next(seconds)
        self._stillness = self._stillness.after(events, self._clock.monotonic())

    def _too_late(self, stopping: Stopping, *, gone: bool) -> QuiesceError:
        within = f"in {self._options.timeout:g} s"
        more = "give it longer with --quiesce-timeout"
        if not gone:
            left = ", ".join(stopping.left[:3])
            who = f"writers of {self._hosted.title}"
            return QuiesceError(f"{who} did not leave {within}: {left}", more)
        who = f"etcd of {self._hosted.title}"
        return QuiesceError(
            f"{who} did not become quiet {within}: {self._stillness.words()}",
            "find out what writes there beside the API servers, or leave out --quiesce",
        )

    # On the way out.

    def _held(self) -> str:
        """Look whether the pause has held until now; gives why not."""
        lapsed = self._keeper.stop() if self._keeper is not None else ""
        if lapsed:
            return lapsed
        try:
            document = paused_objects(self._hosted)[0].get(self._api)
        except KubeError as error:
            return f"nobody could see whether the pause held: {error.what}"
        # The operator's word comes later than the spec that it is about.
        if not pauses(paused_until(document), self._clock.now()):
            return "someone else has ended the pause"
        held = hold(document)
        return "" if held is Hold.PAUSED else "HyperShift went on before the snapshot was there"

    def _noise(self) -> str:
        """Look whether someone wrote while the snapshot was taken; gives who."""
        assert self._watched is not None
        before = self._stillness.writes
        try:
            drained = Drained.of(self._watched, self._stillness, self._clock, self._options.drain)
        except BackstayError as error:
            return f"nobody could see whether etcd stayed quiet: {error.what}"
        self._stillness = drained.stillness
        if self._stillness.writes > before:
            return f"someone wrote while the snapshot was taken: {self._stillness.words()}"
        return "" if drained.complete else "nobody could see whether etcd stayed quiet"

    def _leave(self, error: BaseException | None) -> PutBack | None:
        """Put back what was, whatever happens; then let go of the rest."""
        if self._keeper is not None:
            self._keeper.stop()
        done: PutBack | None = None
        try:
            if self._record is not None:
                done = self._put_back(self._options.run)
        except BackstayError as failure:
            if error is None:
                raise
            self._report.warn(str(failure))
        finally:
            self._open.close()
            if self._keeper is not None:
                self._keeper.close()
        return done

    def _put_back(self, run: str) -> PutBack:
        hosted = self._hosted
        try:
            done = shielded(
                lambda: put_back(
                    self._api, hosted.name, hosted.namespace, clock=self._clock, run=run
                ),
                self._report,
            )
        except KubeError as error:
            # A patch may have been done although its answer was lost.
            raise QuiesceError(
                f"nobody could see whether {hosted.title} is as it was: {error.what}",
                f"run `{resume_command(hosted.name, hosted.namespace)}`",
            ) from error
        for text in done.left:
            self._report.warn(f"{text}: left as it is")
        return done

    def _prove(self, done: PutBack | None, patience: float) -> Proof:
        if done is None or done.expected is None:
            return Proof(back=False, detail="the record of what was has gone")
        hosted, options = self._hosted, self._options
        proof = prove(
            self._api,
            hosted.name,
            hosted.namespace,
            done.expected,
            clock=self._clock,
            patience=patience,
            poll=options.poll,
        )
        if not proof.back:
            self._report.warn(proof.detail)
        return proof

    def _conclude(self, lapsed: str, noise: str, proof: Proof) -> None:
        down, up = self._down_at, proof.ready_at
        seconds = up - down if up is not None and down is not None else None
        for trouble in filter(None, (lapsed, noise)):
            self._report.warn(f"this snapshot is not quiesced: {trouble}")
        if seconds is not None:
            self._report.say(f"the API was down for {seconds:.1f} s")
        self.outcome = Quiesced(
            quiet=not noise,
            lapsed=bool(lapsed),
            back=proof.back,
            downtime_seconds=seconds,
            stopped=self._record.writers if self._record is not None else (),
            detail="; ".join(filter(None, (lapsed, noise, proof.detail))),
        )
