"""`backstay list`: the backups of a repository, or the restore objects of a staging place."""

import shlex
from typing import Any

import click

from backstay.cli import options
from backstay.cli.complete import clusters
from backstay.cli.connect import StoreOptions, open_repository
from backstay.cli.session import Session

_BESIDE = "beside the repository"


@click.command("list")
@click.option("--cluster", shell_complete=clusters, help="Only what is of this cluster.")
@click.option(
    "--staging",
    is_flag=False,
    flag_value=_BESIDE,
    metavar="[URL]",
    help="List the plain snapshots that restores have put into a staging place"
    " (default: the one beside the repository).",
)
@options.store_where("unless --staging names another place")
@options.recipients
@options.talk
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    cluster: str | None,
    staging: str | None,
    recipient: tuple[str, ...],
    **store: Any,
) -> None:
    """List the backups of a repository, oldest first."""
    session = ctx.ensure_object(Session)
    if not store["repo"] and staging in {None, _BESIDE}:
        raise options.no_repository(ctx)
    if staging is None:
        _list_backups(session, cluster, recipient, store)
    else:
        _list_staged(session, cluster, staging, store)


def _list_backups(
    session: Session, cluster: str | None, recipient: tuple[str, ...], store: dict[str, Any]
) -> None:
    from backstay.cli.tables import document, table_of
    from backstay.repo.entry import Entry

    found = open_repository(StoreOptions.of(store), recipient).backups(cluster)
    unreadable = [entry for entry in found if not isinstance(entry, Entry)]
    if session.json:
        session.answer([document(entry) for entry in found if isinstance(entry, Entry)])
    else:
        session.print(table_of(found))
    for entry in unreadable:
        session.complain(f"unreadable: {entry.reason}", do=entry.do)


def _list_staged(session: Session, cluster: str | None, place: str, store: dict[str, Any]) -> None:
    from backstay.cli.connect import open_store
    from backstay.cli.tables import columns
    from backstay.cli.values import show_duration, show_size
    from backstay.clock import SystemClock
    from backstay.repo.staging import Staging, default_place

    url = default_place(store["repo"]) if place == _BESIDE else place
    clock = SystemClock()
    staging = Staging(open_store(StoreOptions.of({**store, "repo": url})), clock)
    now = clock.now()
    found = [one for one in staging.staged() if cluster in {None, one.name.backup.cluster}]
    if session.json:
        session.answer(
            [
                {
                    "path": one.path,
                    "url": f"{staging.url}/{one.path}",
                    "cluster": one.name.backup.cluster,
                    "backup": str(one.name.backup),
                    "size": one.size,
                    "written": one.written.isoformat(),
                    "expires": one.name.expires.isoformat(),
                    "expired": one.expired(now),
                }
                for one in found
            ]
        )
        return
    rows = [("BACKUP", "EXPIRES", "STATE", "AGE", "SIZE", "PATH")]
    rows += [
        (
            str(one.name.backup),
            f"{one.name.expires:%Y-%m-%d %H:%M:%SZ}",
            "EXPIRED" if one.expired(now) else "in use",
            show_duration(max((now - one.written).total_seconds(), 0)),
            show_size(one.size),
            one.path,
        )
        for one in found
    ]
    session.print(columns(rows))
    endpoint = store["s3_endpoint"]
    more = f" --endpoint-url {shlex.quote(endpoint)}" if endpoint else ""
    expired = [one.path for one in found if one.expired(now)]
    if expired:
        session.tell("not encrypted, and nobody needs them any more; delete them:")
    for path in expired:
        session.tell(f"    aws s3 rm {shlex.quote(f'{staging.url}/{path}')}{more}")
