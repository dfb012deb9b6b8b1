"""`backstay prune`: say which backups to keep, see why, and remove the others."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from backstay.cli import options
from backstay.cli.complete import clusters
from backstay.cli.connect import StoreOptions, open_keys_repository, open_repository
from backstay.cli.measured import metrics_file
from backstay.cli.session import Session
from backstay.cli.values import Age
from backstay.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from backstay.flows.prune import Plan, Pruned
    from backstay.repo.retention import Policy

_MANY = click.IntRange(0, 1_000_000)
#: Of one cluster: more than restores make.
_MANY_LINEAGES = 3


@click.command()
@click.option("--cluster", shell_complete=clusters, help="Only what is of this cluster.")
@click.option("--keep-last", type=_MANY, default=0, metavar="N", help="Keep the N newest.")
@click.option("--keep-hourly", type=_MANY, default=0, metavar="N", help="Keep one of N hours.")
@click.option("--keep-daily", type=_MANY, default=0, metavar="N", help="Keep one of N days.")
@click.option("--keep-weekly", type=_MANY, default=0, metavar="N", help="Keep one of N weeks.")
@click.option("--keep-monthly", type=_MANY, default=0, metavar="N", help="Keep one of N months.")
@click.option("--keep-yearly", type=_MANY, default=0, metavar="N", help="Keep one of N years.")
@click.option(
    "--keep-recorded",
    type=Age(),
    metavar="30d",
    help="Keep what was recorded in that time: 36h, 30d, 8w, and what leads to it from a backup."
    "  [default: all since the oldest backup of its lineage]",
)
@click.option("--keep-none", is_flag=True, help="Keep nothing but what is never removed.")
@click.option(
    "--across-unproven",
    is_flag=True,
    help="Count lineages as one that may be one life of etcd: nothing proves it, as where"
    " Kubernetes compacts between two backups, and nothing speaks against it.",
)
@click.option(
    "--across-lineages",
    is_flag=True,
    help="Count all lineages of a cluster as one, whatever speaks against it.",
)
@click.option("--yes", is_flag=True, help="Remove; else the plan is printed, and that is all.")
@options.keys_store
@options.keys_recipients
@options.store
@options.recipients
@metrics_file
@options.talk
@click.pass_obj
def command(
    session: Session,
    /,
    *,
    cluster: str | None,
    keep_recorded: timedelta | None,
    keep_none: bool,
    across_unproven: bool,
    across_lineages: bool,
    yes: bool,
    recipient: tuple[str, ...],
    **more: Any,
) -> int:
    """Say which backups to keep, and remove the others.

    Of each cluster, and of each lineage in it, those are kept that a rule asks for.  Never removed
    are the newest verified backup of a lineage, what is pinned or locked, what one that is kept
    needs, and what is younger than 24 hours.  Without --yes the plan is printed.  With --keys-repo
    the keyring of a removed backup goes, too.  Recorded changes go where no backup that is kept
    leads on to them.
    """
    from backstay.cli.pin import whoever
    from backstay.clock import SystemClock
    from backstay.flows.prune import Options, Prune, Pruned

    if across_unproven and across_lineages:
        raise UsageError("--across-unproven and --across-lineages were given", "give one of them")
    policy = _policy(more, across_unproven=across_unproven, across_lineages=across_lineages)
    if policy.empty and not keep_none:
        raise UsageError(
            "nothing says what to keep", "give --keep-daily 7 or the like, or --keep-none"
        )
    if keep_none and not policy.empty:
        raise UsageError("--keep-none and another --keep were given", "give one of them")
    prune = Prune(
        open_repository(StoreOptions.of(more), recipient),
        Options(policy=policy, cluster=cluster, by=whoever(), recorded=keep_recorded),
        open_keys_repository(more) if more["keys_repo"] else None,
        SystemClock(),
        session.report(),
    )
    plan = prune.plan()
    if not session.json:
        _show(session, plan)
    pruned = prune.execute(plan) if yes else Pruned()
    session.close()
    if session.json:
        document = _document(plan, pruned, policy, executed=yes)
        document["policy"]["keep_recorded"] = (
            None if keep_recorded is None else keep_recorded.total_seconds()
        )
        session.answer(document)
    else:
        _tell(session, plan, pruned, policy, executed=yes)
    if pruned.failed:
        return 1
    return RefusedError.exit_code if yes and plan.unreadable else 0


def _policy(options: dict[str, Any], **across: bool) -> "Policy":
    from backstay.repo.retention import RULES, Policy

    numbers = {rule: options[f"keep_{rule}"] for rule in RULES}
    return Policy(**numbers, **across)


def _show(session: Session, plan: "Plan") -> None:
    """Print the plan: what stays and what goes, and why."""
    from backstay.cli.tables import columns

    rows = [("ID", "LINEAGE", "WRITTEN", "PLAN", "WHY")]
    rows += [
        (
            one.fact.id,
            one.fact.lineage[:8],
            f"{one.fact.written:%Y-%m-%d %H:%M:%SZ}",
            "keep" if one.keep else "remove",
            "; ".join(one.reasons),
        )
        for one in plan.decisions
    ]
    session.print(columns(rows))
    if plan.recorded:
        session.print("")
        session.print(columns(_recorded(plan)))


def _recorded(plan: "Plan") -> list[tuple[str, ...]]:
    """Make a row of each range of what is recorded."""
    from backstay.cli.values import show_size

    rows: list[tuple[str, ...]] = [("RECORDED", "REVISIONS", "DELTAS", "SIZE", "PLAN", "WHY")]
    for one in plan.recorded:
        first, last = one.revisions
        rows.append(
            (
                f"{one.cluster} {one.lineage[:8]}",
                f"{first}-{last}",
                str(one.deltas),
                show_size(one.stored_size),
                "keep" if one.keep else "remove",
                "; ".join(one.reasons),
            )
        )
    return rows


def _tell_recorded(session: Session, plan: "Plan", pruned: "Pruned", *, executed: bool) -> None:
    from backstay.cli.values import show_size

    going = [one for one in plan.recorded if not one.keep]
    if executed and pruned.recorded.deltas:
        size = show_size(pruned.recorded.size)
        session.tell(f"removed {pruned.recorded.deltas} deltas ({size})")
    elif not executed and going:
        number = sum(one.deltas for one in going)
        size = show_size(sum(one.stored_size for one in going))
        session.tell(f"{number} deltas would be removed ({size})")


def _tell(
    session: Session, plan: "Plan", pruned: "Pruned", policy: "Policy", *, executed: bool
) -> None:
    """Sum up, and say what to do next."""
    from backstay.cli.values import show_size
    from backstay.flows.prune import Fate

    for bad in plan.unreadable:
        session.complain(f"nothing of {bad.cluster} is removed: {bad.reason}", do=bad.do)
    _tell_recorded(session, plan, pruned, executed=executed)
    of_all = f"of {len(plan.decisions)} backups"
    if not executed:
        going = len(plan.removed)
        if going:
            freed = show_size(plan.freed)
            session.tell(f"{going} {of_all} would be removed ({freed}); run it again with --yes")
        else:
            session.tell(f"none {of_all} would be removed")
        _hint(session, plan, policy)
        return
    removed = [one.id for one in pruned.outcomes if one.fate is Fate.REMOVED]
    freed = show_size(sum(plan.sizes[name] for name in removed))
    session.tell(f"removed {len(removed)} {of_all} ({freed})")
    for name in pruned.finished:
        session.tell(f"finished what had been begun: {name}")
    failed = sum(one.fate is Fate.FAILED for one in pruned.outcomes)
    failed += len(pruned.recorded.troubles)
    if failed:
        session.tell(f"FAILED: {failed}; run it again when the store answers")
    if pruned.keys_left:
        session.tell(
            f"the keyrings of {len(pruned.keys_left)} removed backups stay where they are; with"
            " --keys-repo they go, too"
        )
    _hint(session, plan, policy)


def _hint(session: Session, plan: "Plan", policy: "Policy") -> None:
    """Say why so much stays, where hardly a backup goes on with the lineage of another."""
    for cluster, number in plan.lineages.items():
        if number <= _MANY_LINEAGES or policy.across_lineages or policy.across_unproven:
            continue
        lives = plan.lives[cluster]
        told = (
            f"--across-unproven counts those together that nothing speaks against: {lives}"
            if lives < number
            else "where they are one etcd, --across-lineages counts them together"
        )
        session.tell(f"{cluster} has {number} lineages, and each is counted for itself; {told}")


def _document(
    plan: "Plan", pruned: "Pruned", policy: "Policy", *, executed: bool
) -> dict[str, Any]:
    fates = {one.id: one for one in pruned.outcomes}
    return {
        "executed": executed,
        "now": plan.now.isoformat(),
        "policy": policy.as_json(),
        "backups": [
            {
                "id": one.fact.id,
                "lineage": one.fact.lineage,
                "revision": one.fact.revision,
                "written": one.fact.written.isoformat(),
                "keep": one.keep,
                "reasons": list(one.reasons),
                "stored_size": plan.sizes[one.fact.id],
                "fate": str(fates[one.fact.id].fate) if one.fact.id in fates else None,
                "detail": fates[one.fact.id].detail if one.fact.id in fates else "",
            }
            for one in plan.decisions
        ],
        "recorded": [
            {
                "cluster": one.cluster,
                "lineage": one.lineage,
                "first_revision": one.revisions[0],
                "last_revision": one.revisions[1],
                "first_time": one.first,
                "last_time": one.last,
                "deltas": one.deltas,
                "stored_size": one.stored_size,
                "keep": one.keep,
                "reasons": list(one.reasons),
            }
            for one in plan.recorded
        ],
        "recorded_removed": {"deltas": pruned.recorded.deltas, "bytes": pruned.recorded.size},
        "unreadable": [{"path": bad.path, "reason": bad.reason} for bad in plan.unreadable],
        "finished": list(pruned.finished),
        "keys_left": list(pruned.keys_left),
        "troubles": list(pruned.troubles),
    }
