"""A drill: restore into a throw-away etcd, compare with the original, and say how long it took.

Twice, since one proof would not do. First exactly: the history as it was, so that HashKV, the
number of keys and samples at several revisions can be compared with what the file says. Then in the
form that `restore` writes: it must start, and tell old watches that they are too old. Auth is
off in both copies, which nobody can reach but us.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backstay.checks import restored
from backstay.checks.question import Answer, ask
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

    Raises:
        DamagedError: the backup is damaged.
        ToolError: the copy does not start.
    """
    began = clock.monotonic()
    checks: list[Check] = []

    def put(name: str, question: Callable[[], Answer]) -> None:
        check = ask(name, question, clock)
        checks.append(check)
        report.judge(check)

    with subject.opened(report) as snapshot:
        # What the file itself says of its version counts, where nothing was known before.
        least = needed(snapshot.cluster_version, snapshot.storage_version)
        server = tools.etcd if tools.etcd.version >= least else find_etcd(None, least=least)
        fit = Tools(etcd=server, etcdutl=tools.etcdutl)
        with copy(snapshot, EXACT, fit, workplace, report) as (etcd, _):
            seconds = clock.monotonic() - began
            put("hashkv", lambda: restored.hashkv(snapshot, etcd))
            put("keys", lambda: restored.keys(snapshot, etcd))
            put("samples", lambda: restored.samples(snapshot, etcd))
        with copy(snapshot, BUMPED, fit, workplace, report) as (etcd, exported):
            put("watch", lambda: restored.watch(snapshot, etcd))
            put("writes", lambda: restored.writes(exported.revision, etcd))
    report.say(f"restored in {seconds:.1f} s")
    return Drilled(checks=tuple(checks), seconds=seconds, etcd=str(server))


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
