"""A drill: restore into a throw-away etcd, compare with the original, and say how long it took.

Twice, since one proof would not do. First exactly: the history as it was, so that HashKV, the
number of keys and samples at several revisions can be compared with what the file says. Then in the
form that `restore` writes: it must start, and tell old watches that they are too old. Auth is
off in both copies, which nobody can reach but us.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from backstay.checks import restored
from backstay.checks.question import Answer, ask, passed
from backstay.client.etcd import Etcd
from backstay.client.member import scratch, serving
from backstay.client.tools import Membership, Tool, find_etcd, find_restorer, restore
from backstay.clock import Clock
from backstay.flows.fetch import Subject
from backstay.flows.restore import BUMP, needed
from backstay.mvcc.export import Edits, Exported, export
from backstay.mvcc.snapshot import Snapshot
from backstay.report import Check, Report

EXACT = Edits(drop_alarms=True, disable_auth=True)
BUMPED = Edits(drop_alarms=True, disable_auth=True, bump=BUMP, mark_compacted=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """etcd's own programs.

    Attributes:
        etcd: the server.
        etcdutl: the tool that makes data directories.
    """

    etcd: Tool
    etcdutl: Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drilled:
    """What a drill found.

    Attributes:
        checks: its verdicts.
        seconds: from the first byte that was fetched until the restored etcd served.
        etcd: the server that it was restored into.
    """

    checks: tuple[Check, ...]
    seconds: float
    etcd: str


def find_tools(subject: Subject, etcd: Path | None, etcdutl: Path | None) -> Tools:
    """Find programs that are fit for a backup, before anything is fetched.

    Raises:
        ToolError: one is missing or unfit.
    """
    least = needed(subject.etcd_version)
    return Tools(etcd=find_etcd(etcd, least=least), etcdutl=find_restorer(etcdutl))


def drill(
    subject: Subject, tools: Tools, workplace: Path, *, clock: Clock, report: Report
) -> Drilled:
    """Restore into a throw-away etcd, and compare.

    Args:
        subject: the backup or file.
        tools: see `find_tools`.
        workplace: a directory with room for two copies; a private one is made in it.
        clock: measures.
        report: is told each verdict.

    What is damaged is a FAIL; a copy that can't be made or does not start is COULD NOT VERIFY,
    since that may be the tools' or this machine's fault.
    """
    play = _Play(tools, workplace, clock, report)
    with ExitStack() as stack:
        snapshot = play.opened(stack, subject)
        if snapshot is not None:
            play.exact(snapshot)
            play.bumped(snapshot)
    report.say(f"restored in {play.seconds:.1f} s")
    return Drilled(checks=tuple(play.checks), seconds=play.seconds, etcd=str(play.tools.etcd))


class _Play:
    """One drill, and what it has found so far."""

    def __init__(self, tools: Tools, workplace: Path, clock: Clock, report: Report) -> None:
        self.tools = tools
        self.checks: list[Check] = []
        self.seconds = 0.0
        self._workplace = workplace
        self._clock = clock
        self._report = report
        self._began = clock.monotonic()

    def _put(self, name: str, question: Callable[[], Answer]) -> None:
        check = ask(name, question, self._clock)
        self.checks.append(check)
        self._report.judge(check)

    def opened(self, stack: ExitStack, subject: Subject) -> Snapshot | None:
        """Fetch the backup; what is damaged is a verdict, and the end of the drill."""
        found: list[Snapshot] = []

        def fetch() -> Answer:
            snapshot = stack.enter_context(subject.opened(self._report))
            # What the file itself says of its version counts, where nothing was known before.
            least = needed(snapshot.cluster_version, snapshot.storage_version)
            if self.tools.etcd.version < least:
                self.tools = replace(self.tools, etcd=find_etcd(None, least=least))
            found.append(snapshot)
            return passed(f"{subject.name} is here")

        self._put("fetch", fetch)
        return found[0] if found else None

    def exact(self, snapshot: Snapshot) -> None:
        """Restore the history as it was, and compare."""
        with ExitStack() as stack:
            served = self._served(stack, snapshot, EXACT, "restore")
            if served is None:
                return
            self.seconds = self._clock.monotonic() - self._began
            etcd, _ = served
            self._put("hashkv", lambda: restored.hashkv(snapshot, etcd))
            self._put("keys", lambda: restored.keys(snapshot, etcd))
            self._put("samples", lambda: restored.samples(snapshot, etcd))

    def bumped(self, snapshot: Snapshot) -> None:
        """Restore as `restore` does, and see that clients are told."""
        with ExitStack() as stack:
            served = self._served(stack, snapshot, BUMPED, "restore-bumped")
            if served is None:
                return
            etcd, exported = served
            self._put("watch", lambda: restored.watch(snapshot, etcd))
            self._put("writes", lambda: restored.writes(exported.revision, etcd))

    def _served(
        self, stack: ExitStack, snapshot: Snapshot, edits: Edits, name: str
    ) -> tuple[Etcd, Exported] | None:
        found: list[tuple[Etcd, Exported]] = []

        def serve() -> Answer:
            made = copy(snapshot, edits, self.tools, self._workplace, self._report)
            found.append(stack.enter_context(made))
            return passed(f"{self.tools.etcd} serves it")

        self._put(name, serve)
        return found[0] if found else None


@contextmanager
def copy(
    snapshot: Snapshot, edits: Edits, tools: Tools, workplace: Path, report: Report
) -> Iterator[tuple[Etcd, Exported]]:
    """Serve a copy of a snapshot, with edits, until the block ends."""
    with scratch(workplace) as private:
        file, data_dir = private / "snapshot.db", private / "data"
        with (
            file.open("xb") as target,
            report.task("writing the copy", snapshot.size) as progress,
        ):
            exported = export(snapshot, target, edits, progress)
        with report.task(f"restoring it with {tools.etcdutl.path.name}"):
            restore(
                tools.etcdutl,
                file,
                data_dir,
                Membership(peer_urls="unix://peer:0", initial_cluster="default=unix://peer:0"),
            )
        file.unlink()
        with serving(data_dir, tools.etcd, report) as member, Etcd(member.access) as etcd:
            yield etcd, exported
