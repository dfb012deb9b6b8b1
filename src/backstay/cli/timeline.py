"""`backstay timeline`: what can be restored, and what can't."""

from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.complete import clusters
from backstay.cli.connect import StoreOptions, open_repository
from backstay.cli.session import Session

if TYPE_CHECKING:
    from datetime import datetime

    from backstay.flows.timeline import Life, Timeline

_WIDTH = 60


@click.command("timeline")
@click.option("--cluster", shell_complete=clusters, help="Only what is of this cluster.")
@options.store
@options.recipients
@options.talk
@click.pass_obj
def command(
    session: Session, /, *, cluster: str | None, recipient: tuple[str, ...], **store: Any
) -> None:
    """Show what can be restored, and what can't: windows, gaps, lineages, backups, drills.

    Every revision of a window can be had, by export, restore and drill with --to-revision; every
    time between SINCE and UNTIL with --to-time.
    """
    from backstay.flows.timeline import look
    from backstay.repo.name import check_cluster

    repository = open_repository(StoreOptions.of(store), recipient)
    names = repository.clusters() if cluster is None else (check_cluster(cluster),)
    found = [look(repository, name) for name in names]
    if session.json:
        session.answer([_document(one) for one in found])
    else:
        for one in found:
            session.print(_drawn(one))
    for one in found:
        for line in one.unreadable:
            session.complain(f"unreadable: {line}", do="update backstay, or use another backup")


def _document(timeline: "Timeline") -> dict[str, Any]:
    return {
        "cluster": timeline.cluster,
        "lineages": [
            {
                "lineage": life.lineage,
                "predecessor": life.predecessor,
                "reason": life.reason,
                "windows": [
                    {
                        "first": one.first,
                        "last": one.last,
                        "since": _rfc3339(one.since),
                        "until": _rfc3339(one.until),
                        "backups": list(one.backups),
                        "deltas": one.deltas,
                        "stored_size": one.stored_size,
                    }
                    for one in life.windows
                ],
                "missing": [
                    {"first": one.first, "last": one.last, "reason": one.reason}
                    for one in life.missing
                ],
                "backups": [
                    {
                        "id": one.id,
                        "snapshot": one.snapshot,
                        "first": one.first,
                        "revision": one.revision,
                        "taken_at": _rfc3339(one.taken_at),
                        "state": one.state,
                        "drilled_at": _rfc3339(one.drilled_at),
                    }
                    for one in life.points
                ],
            }
            for life in timeline.lives
        ],
        "unreadable": list(timeline.unreadable),
    }


def _rfc3339(time: "datetime | None") -> str | None:
    from backstay.flows.point import rfc3339

    return None if time is None else rfc3339(time)


def _drawn(timeline: "Timeline") -> str:
    if not timeline.lives:
        return f"{timeline.cluster}: nothing can be restored"
    return "\n\n".join(_life(timeline.cluster, life) for life in timeline.lives)


def _life(cluster: str, life: "Life") -> str:
    from backstay.cli.tables import columns
    from backstay.cli.values import printable, show_size

    after = f", after {life.predecessor}" if life.predecessor else ""
    lines = [f"{cluster}, lineage {life.lineage}{after}"]
    if life.reason:
        lines.append(f"  why: {printable(life.reason)}")
    lines.append(f"  {_bar(life)}")
    rows = [("", "REVISIONS", "SINCE", "UNTIL", "WHAT")]
    for window in life.windows:
        what = f"{len(window.backups)} backup{'s'[: len(window.backups) != 1]}"
        if window.deltas:
            what += f", {window.deltas} deltas ({show_size(window.stored_size)})"
        span = f"{window.first}-{window.last}"
        rows.append(("window", span, _short(window.since), _short(window.until), what))
    rows += [("MISSING", f"{one.first}-{one.last}", "", "", one.reason) for one in life.missing]
    for point in life.points:
        drill = f", drilled {_short(point.drilled_at)}" if point.drilled_at else ""
        what = f"{point.id} {point.state}{drill}"
        rows.append(("backup", str(point.revision), _short(point.taken_at), "", what))
    lines += [f"  {line}" for line in columns(rows).split("\n")]
    return "\n".join(lines)


def _short(time: "datetime | None") -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%SZ}"


def _bar(life: "Life") -> str:
    """Draw a lineage: `=` can be restored, `.` can't, `B` is a backup."""
    spans = [(one.first, one.last) for one in life.windows]
    spans += [(one.first, one.last) for one in life.missing]
    low = min((first for first, _ in spans), default=1)
    high = max((last for _, last in spans), default=low)
    step = max(high - low + 1, 1) / _WIDTH

    def place(revision: int) -> int:
        return min(max(int((revision - low) / step), 0), _WIDTH - 1)

    cells = ["."] * _WIDTH
    # What is missing comes last: it is never hidden behind what is there.
    for mark, some in (("=", spans[: len(life.windows)]), (".", spans[len(life.windows) :])):
        for first, last in some:
            begin, end = place(first), place(last) + 1
            cells[begin:end] = mark * (end - begin)
    for point in life.points:
        if low <= point.revision <= high:
            cells[place(point.revision)] = "B" if point.usable else "x"
    return f"{low} {''.join(cells)} {high}"
