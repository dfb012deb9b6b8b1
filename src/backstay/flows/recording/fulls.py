"""Full backups beside a watch: when one is due, and what came of it.

Each runs in a thread. What can't be made is tried again; the more often it failed, the later. A
backup that was made and is not good is stored all the same, so of these there are few.
"""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from backstay.client.etcd import Etcd
from backstay.client.health import survey
from backstay.clock import Clock
from backstay.errors import BackstayError
from backstay.flows.ancestry import Watched
from backstay.flows.recording.asking import Job
from backstay.flows.recording.plan import backoff
from backstay.flows.recording.tally import Tally
from backstay.mvcc.tip import SALT_SIZE, Fingerprint
from backstay.repo.manifest import Manifest, Tip
from backstay.report import Report, Verdict

#: Seconds for followers to come to where the watch is, before a full snapshot is taken.
_CATCH_UP = 10.0
#: Seconds between two looks at them.
_TICK = 0.2
#: Seconds until what could not be made is tried again, at most.
_AGAIN = 300.0
#: A backup that was made for nothing costs as many failures to make one.
_COSTLY = 6


class Fulls:
    """The full backups of one recorder.

    Args:
        take: makes one; is told which lineage the watch has gone on with. Called in a thread.
        every: seconds between two.
        tally: counts.
        clock: says when.
        report: is told.
    """

    def __init__(
        self,
        take: Callable[[Watched], Manifest],
        every: float,
        *,
        tally: Tally,
        clock: Clock,
        report: Report,
    ) -> None:
        self._take = take
        self._every = every
        self._tally = tally
        self._clock = clock
        self._report = report
        self._job: Job[Manifest] | None = None
        self._due = 0.0
        self._failures = 0
        self._strangers = 0

    def due_in(self, seconds: float) -> None:
        """Make the next one in so many seconds."""
        self._due = self._clock.monotonic() + max(seconds, 0.0)

    def restart(self) -> None:
        """Another lineage begins: what is being made is of no use, and one is due."""
        self._job, self._failures = None, 0
        self.due_in(0.0)

    @property
    def due(self) -> bool:
        """Whether one is to be begun."""
        return self._job is None and self._clock.monotonic() >= self._due

    def begin(self, etcd: Etcd, watched: Watched, stop: threading.Event) -> None:
        """Begin one.

        Args:
            etcd: a client; its members are looked at.
            watched: which lineage the watch has gone on with; its tip has no salt yet.
            stop: ends the patience with members.
        """
        tip = watched.end.tip
        assert tip is not None

        def work() -> Manifest:
            salt = secrets.token_bytes(SALT_SIZE)
            salted = Tip(salt=salt.hex(), digest=Fingerprint.salted(tip.digest, salt))
            _wait_for_followers(etcd, watched.end.revision, stop)
            return self._take(replace(watched, end=replace(watched.end, tip=salted)))

        self._job = Job(work, "full")

    def ended(self) -> Manifest | None:
        """Give one that was made since the last look, and is good; else say why it is not."""
        if self._job is None or not self._job.done:
            return None
        job, self._job = self._job, None
        try:
            manifest = job.result()
        except BackstayError as error:
            self._failed(str(error), backoff(self._failures + 1, _AGAIN))
            return None
        if any(check.verdict is Verdict.FAIL for check in manifest.checks):
            wait = backoff(self._failures + 1 + _COSTLY, self._every)
            self._failed(f"a check of {manifest.id} failed", wait)
            return None
        return manifest

    def accept(self, manifest: Manifest) -> None:
        """It is of the lineage that is recorded."""
        self._failures = self._strangers = 0
        self.due_in(self._every)
        self._tally.add(fulls=1)
        self._tally.set(full_at=manifest.taken_at.timestamp())
        self._report.say(f"full backup {manifest.id}: revision {manifest.revision}")

    def refuse(self) -> None:
        """It is of another lineage, and another begins. Were each one so, there is no end to it."""
        self._strangers += 1
        self.due_in(backoff(self._strangers + _COSTLY, self._every) if self._strangers > 1 else 0.0)

    def join(self, seconds: float) -> None:
        """Wait for the one that is being made, if there is one."""
        if self._job is not None:
            self._job.join(seconds)

    def _failed(self, reason: str, wait: float) -> None:
        self._failures += 1
        self.due_in(wait)
        self._tally.add(store_errors=1)
        self._report.warn(f"the full backup failed, it is tried again in {wait:.0f} s: {reason}")


def _wait_for_followers(etcd: Etcd, revision: int, stop: threading.Event) -> None:
    """A member that is a moment late would look like one whose history went back."""
    deadline = time.monotonic() + _CATCH_UP
    while time.monotonic() < deadline:
        found = [member.status for member in survey(etcd).members]
        if all(status is None or status.header.revision >= revision for status in found):
            return
        stop.wait(_TICK)
