"""What a shell completes: IDs of backups and names of clusters, out of names of files alone.

Only where the repository is a directory of this machine: who presses a key waits for no network,
and a directory is asked for no more than a list of names. What goes wrong gives no completions.
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click
from click.shell_completion import CompletionItem

#: More than anybody reads.
MOST = 500


def clusters(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a cluster."""
    del param
    return [CompletionItem(name) for name in _clusters(ctx) if name.startswith(incomplete)]


def backups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the ID of a backup: the cluster first, then what it has, newest first."""
    del param
    cluster, slash, name = incomplete.partition("/")
    if not slash:
        names = [f"{one}/" for one in _clusters(ctx) if one.startswith(cluster)]
    else:
        found = ("latest", "latest-verified", *_backups(ctx, cluster))
        names = [f"{cluster}/{one}" for one in found if one.startswith(name)]
    return [CompletionItem(one) for one in names]


def subjects(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the ID of a backup, or the name of a file where no ID begins so."""
    found = [] if incomplete.startswith((".", "/")) else backups(ctx, param, incomplete)
    return found or [CompletionItem(incomplete, type="file")]


def _repository(ctx: click.Context) -> Path | None:
    """Find the directory of the repository; None where it is none, or is not known."""
    from backstay.cli.settings import find_settings
    from backstay.errors import BackstayError
    from backstay.repo.url import parse_url

    try:
        url = ctx.params.get("repo") or os.environ.get("BACKSTAY_REPO")
        if not url:
            settings = find_settings(os.environ.get("BACKSTAY_CONFIG"))
            url = str(settings.table.get("repo", "")) if settings else ""
        location = parse_url(url) if url else None
    except BackstayError:
        return None
    return Path(location.path) if location and location.scheme == "file" else None


def _clusters(ctx: click.Context) -> list[str]:
    repository = _repository(ctx)
    return sorted(_names(repository / "clusters")) if repository else []


def _backups(ctx: click.Context, cluster: str) -> list[str]:
    from backstay.repo.name import CLUSTER, manifests_of

    repository = _repository(ctx)
    if repository is None or not CLUSTER.fullmatch(cluster):
        return []
    names = sorted(_names(repository / manifests_of(cluster)), reverse=True)
    return [name.removesuffix(".json") for name in names if name.endswith(".json")][:MOST]


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            yield from islice((entry.name for entry in found if entry.name.isprintable()), 100_000)
    except OSError:
        return
