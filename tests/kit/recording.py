"""A recorder in a thread of the test, and what is proven of what it stored.

with Recording.start(bench, access) as recording:
    recording.until(lambda f: f.sealed >= head)
with at(bench, revision) as (snapshot, point): ...
"""

import itertools
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

from backstay.client.etcd import Etcd as Client
from backstay.clock import SystemClock
from backstay.flows.ancestry import Watched
from backstay.flows.backup import NAME, Part, backup
from backstay.flows.backup import Options as BackupOptions
from backstay.flows.fetch import BackupSubject
from backstay.flows.recording.plan import Options
from backstay.flows.recording.recorder import Recorder
from backstay.flows.recording.tally import Figures, Tally
from backstay.flows.timetravel import Target, at_point
from backstay.kinds.etcd import EtcdSource
from backstay.mvcc.hashkv import compute_hashkv
from backstay.mvcc.tip import elements_at
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry
from backstay.report import Report, Said

CLOCK = SystemClock()
PATIENCE = 60.0


@dataclass
class Recording:
    """A recorder that runs."""

    tally: Tally
    stop_event: threading.Event
    said: list = field(default_factory=list)
    whole: bool | None = None
    error: BaseException | None = None
    thread: threading.Thread | None = None

    @classmethod
    @contextmanager
    def start(cls, bench, access, *, store=None, **options):
        """Record into a bench's repository until the block ends."""
        recording = cls(Tally(Figures(began=time.time())), threading.Event())
        repository = Repository(store or bench.store, bench.repository.config)
        wanted = Options(
            **{"cluster": "prod", "spool_dir": bench.spool, "every": 0.5, "patience": 6.0} | options
        )
        report = Report(recording.said.append)

        def run():
            try:
                with Client(access) as client:

                    def full(watched: Watched):
                        part = Part(NAME, EtcdSource(client), watched=watched)
                        how = BackupOptions(cluster="prod", spool_dir=bench.spool)
                        return backup([part], repository, how, clock=CLOCK, report=report)

                    recorder = Recorder(
                        client,
                        repository,
                        full,
                        wanted,
                        tally=recording.tally,
                        clock=CLOCK,
                        report=report,
                        stop=recording.stop_event,
                    )
                    recording.whole = recorder.run()
                    # What hangs up under a full backup would only make noise.
                    recorder.join(30)
            except BaseException as error:  # noqa: BLE001 - is raised in the test
                recording.error = error

        recording.thread = threading.Thread(target=run, daemon=True)
        recording.thread.start()
        try:
            yield recording
        finally:
            recording.stop()

    @property
    def figures(self) -> Figures:
        return self.tally.figures

    @property
    def words(self) -> list[str]:
        """What it said, warnings and all."""
        return [event.text for event in self.said if isinstance(event, Said)]

    def until(self, condition, seconds: float = PATIENCE) -> Figures:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not condition(figures := self.figures):
            if self.error is not None:
                raise self.error
            assert time.monotonic() < deadline, (figures, self.words)
            assert self.thread.is_alive(), (figures, self.words)
            time.sleep(0.02)
        return figures

    def stop(self) -> None:
        self.stop_event.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), self.words
        if self.error is not None:
            raise self.error


def entries(bench) -> list[Entry]:
    """The backups, oldest first."""
    return bench.listed


@contextmanager
def at(bench, revision, *, entry=None):
    """Open the snapshot of a revision: of the newest lineage, or of a backup's."""
    found = entry or bench.repository.find("prod/latest")
    subject = BackupSubject(bench.repository, found, "prod/latest", bench.identities, bench.spool)
    said = []
    point = at_point(subject, Target(revision=revision), bench.spool, Report(said.append))
    with point.opened(Report()) as snapshot:
        yield snapshot, point


def elements_of(snapshot, first: int, last: int) -> list[tuple[bytes, bytes]]:
    """What a snapshot has of some revisions."""
    found = (elements_at(snapshot, revision) for revision in range(first, last + 1))
    return list(itertools.chain.from_iterable(found))


def hashkv_at(snapshot, compact: int) -> int:
    return compute_hashkv(snapshot, compact_revision=compact).hash
