"""What the names of files say that other tools made: which tool, and when.

    snapshot_2021-06-25_190035.db, static_kuberesources_2021-06-25_190035.tar.gz
        openshift/cluster-etcd-operator, cluster-backup.sh; --force adds `__POSSIBLY_DIRTY__` before
        the ending. The time is the host's own; CoreOS hosts keep UTC
    etcd-snapshot-NODE-1624647635, on-demand-NODE-1624647635.zip
        k3s-io/k3s, pkg/etcd/snapshot.go; seconds since 1970
    anything.db
        `etcdctl snapshot save` leaves the name to its caller

Decisions about names alone; nothing is opened here.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

CLUSTER_BACKUP, K3S, ETCDCTL = "cluster-backup.sh", "k3s", "etcdctl"

_STAMP = r"(?P<stamp>[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{6})(?P<dirty>__POSSIBLY_DIRTY__)?"
_SNAPSHOT = re.compile(rf"snapshot_{_STAMP}\.db", re.ASCII)
_ARCHIVE = re.compile(rf"static_kuberesources_{_STAMP}\.tar\.gz", re.ASCII)
_K3S = re.compile(
    r"(?:etcd-snapshot|on-demand)-(?P<node>.+)-(?P<seconds>[0-9]{9,11})(?P<zip>\.zip)?",
    re.ASCII | re.DOTALL,
)
_TIME = "%Y-%m-%d_%H%M%S"
_FIRST_YEAR, _LAST_YEAR = 1970, 9000


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a name says.

    Attributes:
        tool: that made the file, by its name.
        pair: what a snapshot and its archive have in common; empty for a file that has no partner.
        archive: whether it is the archive of a pair.
        dirty: whether the tool was told to skip its checks.
        zipped: whether the snapshot is the one member of a zip file.
        taken_at: when it was taken; aware; None where the name does not say.
    """

    tool: str
    pair: str = ""
    archive: bool = False
    dirty: bool = False
    zipped: bool = False
    taken_at: datetime | None = None


def read_name(name: str) -> Named | None:
    """Tell what a file is by its name; None where it looks like nothing that is known.

    Args:
        name: without its folder.
    """
    for pattern, archive in ((_SNAPSHOT, False), (_ARCHIVE, True)):
        match = pattern.fullmatch(name)
        if match is not None:
            return Named(
                tool=CLUSTER_BACKUP,
                pair=match["stamp"] + (match["dirty"] or ""),
                archive=archive,
                dirty=match["dirty"] is not None,
                taken_at=_stamp(match["stamp"]),
            )
    match = _K3S.fullmatch(name)
    if match is not None:
        taken_at = _moment(int(match["seconds"]))
        return Named(tool=K3S, zipped=match["zip"] is not None, taken_at=taken_at)
    if name.endswith(".db") and not name.startswith("."):
        return Named(tool=ETCDCTL)
    return None


def is_pair(snapshot: str, archive: str) -> bool:
    """Whether two names are those of a pair that one run of cluster-backup.sh has left.

    Args:
        snapshot: name of the snapshot.
        archive: name of the archive.
    """
    one, other = read_name(snapshot), read_name(archive)
    return (
        one is not None
        and other is not None
        and not one.archive
        and other.archive
        and one.pair == other.pair != ""
    )


def _stamp(text: str) -> datetime | None:
    try:
        found = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return found if _FIRST_YEAR <= found.year <= _LAST_YEAR else None


def _moment(seconds: float) -> datetime | None:
    try:
        found = datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return found if _FIRST_YEAR <= found.year <= _LAST_YEAR else None


def moment_of(seconds: float) -> datetime:
    """Turn the date of a file into a time that a manifest takes.

    Args:
        seconds: since 1970.
    """
    return _moment(seconds) or datetime.fromtimestamp(0, UTC)
