"""`backstay restore`: restore a backup."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from backstay.cli import options
from backstay.cli.complete import subjects
from backstay.cli.connect import at_point, check_point, subject_of
from backstay.cli.points import point_facts
from backstay.cli.restore_hosted import hosted
from backstay.cli.restore_okd import okd
from backstay.cli.session import Session
from backstay.cli.values import FilePath


@click.group()
def command() -> None:
    """Restore a backup."""


command.add_command(hosted)
command.add_command(okd)


@command.command("etcd")
@click.argument("subject", metavar="ID|FILE", shell_complete=subjects)
@click.option(
    "--data-dir",
    required=True,
    type=FilePath(path_type=Path),
    help="The data directory to make: new, or empty.",
)
@click.option("--name", default="default", show_default=True, help="Name of this member.")
@click.option("--initial-cluster", default="", help="All members: NAME=PEER-URL,...")
@click.option(
    "--initial-cluster-token",
    default="",
    help="What tells this cluster from others.  [default: made from the backup's ID]",
)
@click.option(
    "--initial-advertise-peer-urls", default="", help="Peer URLs of this member, comma-separated."
)
@click.option(
    "--no-bump",
    is_flag=True,
    help="Leave the revision as it was: clients that watched the old cluster miss changes.",
)
@click.option("--keep-alarms", is_flag=True, help="Leave alarms as they were.")
@click.option(
    "--skip-hash-check", is_flag=True, help="Take a file without a SHA-256 (a copy of a data dir)."
)
@options.point
@options.snapshot
@options.store_optional
@options.recipients
@options.identity
@options.spool
@click.option("--etcdutl", type=FilePath(path_type=Path), help="The etcdutl to use.")
@options.talk
@click.pass_obj
def etcd(
    session: Session,
    /,
    *,
    subject: str,
    data_dir: Path,
    name: str,
    initial_cluster: str,
    initial_cluster_token: str,
    initial_advertise_peer_urls: str,
    no_bump: bool,
    keep_alarms: bool,
    skip_hash_check: bool,
    etcdutl: Path | None,
    **more: Any,
) -> None:
    """Restore one member's data directory from a backup or a snapshot file.

    For a cluster of several members run it on each, with the same full ID.  The revision is raised
    by 1,000,000,000 and older ones are marked as compacted, so that clients list again instead of
    missing changes.  What stands at --data-dir is never overwritten.
    """
    from backstay.client.tools import Membership
    from backstay.flows.restore import BUMP, Options, restore_etcd

    wanted = Options(
        data_dir=data_dir,
        membership=Membership(
            name=name,
            initial_cluster=initial_cluster,
            token=initial_cluster_token,
            peer_urls=initial_advertise_peer_urls,
        ),
        bump=0 if no_bump else BUMP,
        keep_alarms=keep_alarms,
        unverified=skip_hash_check,
        etcdutl=etcdutl,
    )
    report = session.report()
    check_point(more)
    found = at_point(subject_of(subject, more), more, report)
    restored = restore_etcd(found, wanted, report)
    session.close()
    if session.json:
        facts = asdict(restored) | {"data_dir": str(restored.data_dir)}
        del facts["proof"]
        facts |= point_facts(found, restored.proof)
        session.answer(facts)
        return
    session.tell(f"{restored.data_dir} is restored, at revision {restored.revision}")
    session.tell(f"SHA-256 of the database: {restored.sha256}")
    if wanted.membership.size > 1:
        session.tell("Compare it on all members before you start them: it must be the same.")
    if restored.alarms_dropped:
        session.tell(f"{restored.alarms_dropped} alarms were dropped (--keep-alarms keeps them)")
    if restored.auth_enabled:
        session.tell("Users and passwords are those of the time of the backup.")
    session.tell(f"Next: {_next(restored.data_dir, wanted.membership, restored.token)}")


def _next(data_dir: Path, membership: Any, token: str) -> str:
    words = ["etcd", "--data-dir", str(data_dir), "--name", membership.name]
    if membership.initial_cluster:
        words += ["--initial-cluster", membership.initial_cluster]
    return " ".join([*words, "--initial-cluster-token", token, "..."])
