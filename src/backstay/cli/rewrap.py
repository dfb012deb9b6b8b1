"""`backstay rewrap`: seal backups anew, to the recipients of now."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import complete, options
from backstay.cli.connect import (
    StoreOptions,
    no_identity,
    open_repository,
    read_identities,
    spool_directory,
)
from backstay.cli.sealing import sealing
from backstay.cli.session import Session
from backstay.errors import BackstayError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from backstay.flows.deltarewrap import DeltasOutcome
    from backstay.flows.rewrap import Options, Outcome
    from backstay.repo.catalogue import Entry, Repository
    from backstay.report import Report


@click.command()
@click.argument("backups", metavar="[ID]...", nargs=-1, shell_complete=complete.backups)
@click.option("--all", "everything", is_flag=True, help="All backups that have other recipients.")
@click.option(
    "--cluster", shell_complete=complete.clusters, help="With --all: only what is of this cluster."
)
@click.option(
    "--deltas/--no-deltas",
    default=None,
    help="Also what was recorded: with IDs of their lineages, with --all (the default there) all.",
)
@options.store
@options.recipients
@options.identity
@options.spool
@sealing
@options.talk
@click.pass_obj
def command(
    session: Session,
    /,
    *,
    backups: tuple[str, ...],
    everything: bool,
    cluster: str | None,
    deltas: bool | None,
    recipient: tuple[str, ...],
    identity: str | None,
    spool_dir: str | None,
    level: int,
    threads: int | None,
    **store: Any,
) -> int:
    """Seal backups anew, to the recipients that the repository has now.

    Each is decrypted with --identity, proven equal to its manifest, sealed and stored anew, and
    read back; then the new objects count, and the old ones are deleted.  It keeps its ID, and is
    never missing meanwhile.  One that has the recipients of now is left as it is.  Deltas likewise,
    one by one: of each there is always a copy that is whole.
    """
    from backstay.flows.rewrap import Options, check_sealed
    from backstay.repo.sealing import Sealing

    if bool(backups) == everything or (cluster and not everything):
        raise UsageError("which backups is not clear", "give IDs, or --all (with --cluster)")
    repository = open_repository(StoreOptions.of(store), recipient)
    check_sealed(repository)
    identities = read_identities(identity)
    if identities is None:
        raise no_identity(f"the backups in {repository.store.url}")
    wanted = Options(
        identities=identities,
        spool_dir=spool_directory(spool_dir),
        sealing=Sealing(level=level, threads=threads),
    )
    chosen = list(_chosen(repository, backups, cluster))
    work = _Work(repository, wanted, session.report())
    work.backups(chosen)
    if everything if deltas is None else deltas:
        work.deltas(cluster, None if everything else _lineages(chosen))
    session.close()
    return _tell(session, work)


def _chosen(
    repository: "Repository", backups: tuple[str, ...], cluster: str | None
) -> "Iterator[Entry | BackstayError]":
    from backstay.errors import FormatError
    from backstay.repo.catalogue import Entry

    if backups:
        yield from [repository.find(backup) for backup in backups]
        return
    for one in repository.backups(cluster):
        yield one if isinstance(one, Entry) else FormatError(one.reason, one.do)


def _lineages(chosen: "Iterable[Entry | BackstayError]") -> frozenset[tuple[str, str]]:
    """Name the lineages of backups, each with its cluster."""
    manifests = [one.manifest for one in chosen if not isinstance(one, BackstayError)]
    return frozenset(
        (manifest.cluster, snapshot.lineage)
        for manifest in manifests
        for snapshot in manifest.snapshots
    )


@dataclass(slots=True)
class _Work:
    """What is done, in the words of --json and in those for people; and what failed."""

    repository: "Repository"
    wanted: "Options"
    report: "Report"
    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    failed: list[tuple[str, BackstayError]] = field(default_factory=list)

    def backups(self, chosen: "Iterable[Entry | BackstayError]") -> None:
        """Seal one after the other; that one can't be stops no other."""
        from backstay.clock import SystemClock
        from backstay.flows.rewrap import rewrap

        clock = SystemClock()
        for one in chosen:
            if isinstance(one, BackstayError):
                self.failed.append(("", one))
                continue
            try:
                outcome = rewrap(self.repository, one, self.wanted, clock=clock, report=self.report)
            except BackstayError as error:
                self.failed.append((one.manifest.id, error))
            else:
                self._add(_as_json(outcome), f"{outcome.id}: {_words(outcome)}")

    def deltas(self, cluster: str | None, lineages: frozenset[tuple[str, str]] | None) -> None:
        """Seal what is recorded; that one delta can't be stops no other."""
        from backstay.clock import SystemClock
        from backstay.flows.deltarewrap import rewrap_deltas

        found = rewrap_deltas(
            self.repository,
            self.wanted,
            cluster=cluster,
            lineages=lineages,
            clock=SystemClock(),
            report=self.report,
        )
        try:
            for outcome in found:
                name = f"{outcome.cluster}/{outcome.lineage}"
                self._add(_deltas_as_json(name, outcome), _deltas_words(name, outcome))
                self.failed += [(name, failure) for failure in outcome.failures]
        except BackstayError as error:
            self.failed.append(("deltas", error))

    def _add(self, row: dict[str, Any], line: str) -> None:
        self.rows.append(row)
        self.lines.append(line)


def _tell(session: Session, done: _Work) -> int:
    if session.json:
        session.answer(
            done.rows
            + [{"id": name, "outcome": "failed", "detail": str(why)} for name, why in done.failed]
        )
    else:
        for line in done.lines:
            session.tell(line)
    for name, trouble in done.failed:
        session.complain(f"{name or 'unreadable'}: {trouble.what}", do=trouble.do)
    return max((trouble.exit_code for _, trouble in done.failed), default=0)


def _deltas_words(name: str, one: "DeltasOutcome") -> str:
    words = [f"{one.rewrapped} deltas rewrapped, {one.kept} kept", *_left(one, "copies")]
    return f"{name}: {', '.join(words)}"


def _deltas_as_json(name: str, one: "DeltasOutcome") -> dict[str, Any]:
    return {
        "id": name,
        "outcome": "rewrapped" if one.rewrapped else "kept",
        "deltas": one.rewrapped + one.kept + len(one.failures),
        "rewrapped": one.rewrapped,
        **_gone(one),
    }


def _words(one: "Outcome") -> str:
    return ", ".join([str(one.fate), *_left(one, "objects")])


def _as_json(one: "Outcome") -> dict[str, Any]:
    return {"id": one.id, "outcome": str(one.fate), **_gone(one)}


def _left(one: "Outcome | DeltasOutcome", what: str) -> list[str]:
    words = []
    if one.removed:
        words.append(f"{len(one.removed)} old {what} deleted")
    if one.locked:
        last = max(until for _, until in one.locked)
        words.append(f"{len(one.locked)} old {what} are locked until {last:%Y-%m-%d %H:%M:%SZ}")
    return words


def _gone(one: "Outcome | DeltasOutcome") -> dict[str, Any]:
    return {
        "removed": list(one.removed),
        "locked": [{"path": path, "until": until.isoformat()} for path, until in one.locked],
    }
