"""The host that a backup is made on: its files and its etcd, open for as long as that takes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backstay.client.access import Timeouts
from backstay.client.etcd import Etcd
from backstay.clock import Clock
from backstay.kinds.okd.etcd_files import HostEtcd, find_etcd
from backstay.kinds.okd.guards import decide
from backstay.kinds.okd.hosttree import HostTree
from backstay.report import Check, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A control plane host.

    Attributes:
        tree: its files.
        etcd: what they say of etcd.
        client: of that etcd.
    """

    tree: HostTree
    etcd: HostEtcd
    client: Etcd


@contextmanager
def open_host(
    root: Path, clock: Clock, *, endpoints: str = "", timeouts: Timeouts | None = None
) -> Iterator[Host]:
    """Open the host whose root is mounted at a directory.

    Args:
        root: that directory; `/` on the host itself.
        clock: for the dates of certificates.
        endpoints: of etcd, where the host's own are not to be used; comma-separated.
        timeouts: patience with etcd.

    Raises:
        UsageError: there is no such directory.
        NotFoundError: it is no control plane host.
        BackstayError: its files can't be read.
    """
    with HostTree(root) as tree:
        etcd = find_etcd(tree, endpoints=endpoints, timeouts=timeouts)
        with Etcd(etcd.access, clock=clock) as client:
            yield Host(tree=tree, etcd=etcd, client=client)


@dataclass(frozen=True, slots=True)
class Guarded:
    """What came of asking the guards.

    Attributes:
        checks: those that count; none of those that were skipped.
        forced: the names of those that were skipped.
    """

    checks: tuple[Check, ...] = ()
    forced: tuple[str, ...] = ()

    @property
    def dirty(self) -> bool:
        """Whether names of files must say that a rule was skipped."""
        return bool(self.forced)


def guarded(guards: Callable[[], Sequence[Check]], report: Report, *, force: bool) -> Guarded:
    """Ask the guards, and go on only where they let us.

    Args:
        guards: asks them, and tells their verdicts.
        report: is warned of what was skipped.
        force: whether the user takes it upon themself.

    Raises:
        RefusedError: a guard refuses.
    """
    checks = tuple(guards())
    forced = decide(checks, force=force)
    for check in checks:
        if check.name in forced:
            report.warn(f"skipped by --force: {check.name}: {check.detail}")
    return Guarded(tuple(check for check in checks if check.name not in forced), forced)
