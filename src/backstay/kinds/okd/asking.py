"""Asks the guards, in their order, each with what it is about; none hides another.

What is asked of others (the repository, the Lease, the host's files) comes as functions, and is
asked once: where it fails, the guards that want it say why, and the others are asked all the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from backstay.checks.question import Answer, ask, failed
from backstay.client.proxy import Proxies
from backstay.client.text import one_line
from backstay.clock import Clock
from backstay.errors import BackstayError
from backstay.kinds.okd import guards, release
from backstay.kinds.okd.cluster import Cluster
from backstay.kinds.okd.guards import Dated, Made, Room
from backstay.kinds.okd.lease import Taken
from backstay.kinds.okd.window import Window
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry, Unreadable
from backstay.report import Check, Report


@dataclass(frozen=True, slots=True)
class Backups:
    """What a repository has of this cluster.

    Attributes:
        entries: in any order.
        now: the time by the store's own clock.
    """

    entries: tuple[Entry | Unreadable, ...]
    now: datetime

    @classmethod
    def of(cls, repository: Repository, cluster: str) -> "Backups":
        """Read them.

        Raises:
            StoreError: the store refuses.
        """
        return cls(repository.backups(cluster), repository.store.now())


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """In which a backup is to be made.

    Attributes:
        cluster: what its API says.
        running: the release that runs, whoever told it; empty where nobody did.
        node: this host's name in the cluster.
        certificates: reads those of this host.
        environment: proxies that are exported here.
        servers: URLs of those that are uploaded to.
        rooms: looks at the directories that will be written to.
        window: the hours for it; None leaves them out.
        least: seconds that must have passed since another host's backup.
        backups: reads those that the repository has of this cluster; None where there is none.
        stored: whether backups of this kind go to a repository, so that `version` applies.
        turn: asks for the Lease, or just looks at it; None where there is no API.
        lease: what messages call the Lease.
    """

    cluster: Cluster
    running: str = ""
    node: str
    certificates: Callable[[], Sequence[Dated]]
    environment: Proxies = field(default_factory=Proxies)
    servers: tuple[str, ...] = ()
    rooms: Callable[[], Sequence[Room]]
    window: Window | None = None
    least: float = 0.0
    backups: Callable[[], Backups] | None = None
    stored: bool = True
    turn: Callable[[], Taken] | None = None
    lease: str = "the Lease"


def ask_guards(found: Circumstances, *, clock: Clock, report: Report) -> tuple[Check, ...]:
    """Ask the guards that apply.

    Args:
        found: the circumstances.
        clock: the machine's.
        report: is told each verdict, and of a backup that is due.

    Returns:
        One check for each, in the order of `guards.NAMES`.
    """
    asker = _Asker(found, clock, report)
    checks = []
    for name, question in asker.questions():
        check = ask(name, question, clock)
        checks.append(check)
        report.judge(check)
    if asker.standing is not None and asker.standing.due:
        report.warn(asker.standing.reason)
    return tuple(checks)


class _Asker:
    """The guards of one run, and what they share."""

    def __init__(self, found: Circumstances, clock: Clock, report: Report) -> None:
        self._found = found
        self._clock = clock
        self._report = report
        self._backups: Backups | None = None
        self._gap = "no repository is named"
        self.standing: release.Standing | None = None

    def questions(self) -> Iterator[tuple[str, Callable[[], Answer]]]:
        """Give each guard that applies, and its question."""
        it, now = self._found, self._clock.now()
        yield "rotation", lambda: guards.rotation(it.cluster, it.certificates(), now)
        yield "operators", lambda: guards.operators(it.cluster)
        yield "upgrade", lambda: guards.upgrade(it.cluster)
        yield "proxy", lambda: guards.proxy(it.cluster, it.environment, it.servers)
        yield "space", lambda: guards.space(it.rooms())
        wanted = it.window
        if wanted is not None:
            yield "window", lambda: guards.window(wanted, now.astimezone())
        self._read_backups()
        yield "interval", self._interval
        if it.stored:
            yield "version", self._version

    def _read_backups(self) -> None:
        if self._found.backups is None:
            return
        try:
            self._backups = self._found.backups()
        except BackstayError as error:
            self._gap = one_line(str(error))

    def _interval(self) -> Answer:
        """The repository is asked by its clock, the Lease by the other host's."""
        it = self._found
        made, gaps = [], []
        if self._backups is not None:
            made += newest(self._backups)
        elif it.backups is not None:
            gaps.append(self._gap)
        if it.turn is None:
            gaps.append("without the API there is no Lease; see to it that one host does it")
        else:
            try:
                taken = it.turn()
            except BackstayError as error:
                gaps.append(one_line(str(error)))
            else:
                if not taken.mine:
                    return failed(
                        f"{taken.record.node or 'another run'} is backing up this cluster now"
                        f" ({it.lease}); wait until it is done"
                    )
                record = taken.record
                if record.finished_at is not None:
                    age = (self._clock.now() - record.finished_at).total_seconds()
                    made.append(Made(where=it.lease, node=record.finished_by, age=age))
        return guards.interval(it.least, it.node, made, gaps)

    def _version(self) -> Answer:
        running = self._found.running
        if self._backups is not None:
            self.standing = release.standing(running, self._backups.entries)
        return release.version(running, self.standing, self._gap)


def newest(backups: Backups) -> list[Made]:
    """Give the newest backup of each host, with its age by the store's own clock."""
    last: dict[str, Entry] = {}
    for entry in backups.entries:
        if isinstance(entry, Entry):
            node = entry.manifest.okd.node if entry.manifest.okd else ""
            if node not in last or entry.written > last[node].written:
                last[node] = entry
    return [
        Made(
            where=entry.manifest.id,
            node=one_line(node),
            age=(backups.now - entry.written).total_seconds(),
        )
        for node, entry in last.items()
    ]
