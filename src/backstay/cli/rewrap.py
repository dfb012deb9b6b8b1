"""`backstay rewrap`: seal backups anew, to the recipients of now."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import complete, options
from backstay.cli.connect import (
    StoreOptions,
    no_identity,
    open_keys_repository,
    open_repository,
    read_identities,
    spool_directory,
)
from backstay.cli.sealing import sealing
from backstay.cli.session import Session
from backstay.errors import BackstayError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from backstay.flows.deltarewrap import DeltasOutcome
    from backstay.flows.keyrewrap import Meant
    from backstay.flows.rewrap import Options, Outcome
    from backstay.repo.catalogue import Repository
    from backstay.repo.entry import Entry
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
@options.keys_store
@options.keys_recipients
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
    keys_repo: str | None,
    keys_recipient: tuple[str, ...],
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

    With --keys-repo the keyrings of the backups too, to the recipients of that repository; --repo
    may also be one for keys itself, and ID the name of a keyring.
    """
    from backstay.flows.rewrap import Options, check_sealed
    from backstay.repo.sealing import Sealing

    if bool(backups) == everything or (cluster and not everything):
        raise UsageError("which backups is not clear", "give IDs, or --all (with --cluster)")
    repository = open_repository(StoreOptions.of(store), recipient)
    check_sealed(repository)
    of_keys = repository.config.role == "keys"
    if of_keys and deltas:
        raise UsageError(f"{repository.store.url} is for keys, and has no deltas")
    keys = None
    if keys_repo and not of_keys:
        more = {"keys_repo": keys_repo, "keys_recipient": keys_recipient}
        keys = open_keys_repository(store | more)
    identities = read_identities(identity)
    if identities is None:
        raise no_identity(f"the {'keyrings' if of_keys else 'backups'} in {repository.store.url}")
    wanted = Options(
        identities=identities,
        spool_dir=spool_directory(spool_dir),
        sealing=Sealing(level=level, threads=threads),
    )
    work = _Work(repository, wanted, session.report())
    also = everything if deltas is None else deltas
    if of_keys:
        work.keyrings(repository, _named(repository, backups, cluster))
    else:
        chosen = list(_chosen(repository, backups, cluster))
        work.backups(chosen)
        lineages = _lineages(chosen) if backups else None
        if also:
            work.deltas(cluster, lineages)
        if keys is not None:
            work.keyrings(keys, _belonging(repository, keys, chosen, cluster, lineages, also))
        else:
            _tell_left(work.report, chosen)
    session.close()
    return _tell(session, work)


def _chosen(
    repository: "Repository", backups: tuple[str, ...], cluster: str | None
) -> "Iterator[Entry | BackstayError]":
    from backstay.errors import FormatError
    from backstay.repo.entry import Entry

    if backups:
        yield from [repository.find(backup) for backup in backups]
        return
    for one in repository.backups(cluster):
        yield one if isinstance(one, Entry) else FormatError(one.reason, one.do)


def _named(keys: "Repository", names: tuple[str, ...], cluster: str | None) -> "Iterator[Meant]":
    """Find the keyrings of a repository for keys: all, or those of some names."""
    from backstay.errors import NotFoundError
    from backstay.flows.keyrewrap import all_keyrings

    missing = set(names)
    for one in all_keyrings(keys, cluster=cluster):
        if not names:
            yield one
        elif not isinstance(one, tuple) and one.header.id in names:
            missing.discard(one.header.id)
            yield one
    for name in sorted(missing):
        what = f"{keys.store.url} has no keyring {name[:200]}"
        yield name, NotFoundError(what, "`backstay recipients check` names them")


def _belonging(  # noqa: PLR0917 - what was chosen, from all sides
    repository: "Repository",
    keys: "Repository",
    chosen: "Sequence[Entry | BackstayError]",
    cluster: str | None,
    lineages: frozenset[tuple[str, str]] | None,
    also: bool,
) -> "Iterator[Meant]":
    """Find the keyrings of backups, and those that their recorded changes need."""
    from backstay.flows.keyrewrap import all_keyrings, keyrings_of

    data = repository.config.repository
    if lineages is None:
        yield from all_keyrings(keys, data=data, cluster=cluster)
        return
    yield from keyrings_of(keys, [one for one in chosen if not isinstance(one, BackstayError)])
    if also:
        yield from all_keyrings(keys, data=data, lineages=lineages)


def _tell_left(report: "Report", chosen: "Sequence[Entry | BackstayError]") -> None:
    entries = [one for one in chosen if not isinstance(one, BackstayError)]
    number = sum(one.manifest.keyring is not None for one in entries)
    if number:
        report.warn(
            f"{number} of these have keyrings, which keep their recipients: name the repository for"
            " keys with --keys-repo"
        )


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

    def keyrings(self, keys: "Repository", meant: "Iterable[Meant]") -> None:
        """Seal one keyring after the other; that one can't be stops no other."""
        from backstay.clock import SystemClock
        from backstay.flows.keyrewrap import rewrap_keyring

        clock = SystemClock()
        for one in meant:
            if isinstance(one, tuple):
                self.failed.append(one)
                continue
            name = f"keyring {one.header.id}"
            try:
                outcome = rewrap_keyring(keys, one, self.wanted, clock=clock, report=self.report)
            except BackstayError as error:
                self.failed.append((name, error))
            else:
                self._add(_as_json(outcome) | {"keyring": True}, f"{name}: {_words(outcome)}")

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
