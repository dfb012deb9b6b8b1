"""Names that become paths in a repository: clusters, backups, objects."""

import re
import secrets
import string
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from backstay.errors import UsageError

#: As long as a part of an object's path may be.
CLUSTER = re.compile(r"[a-z0-9][a-z0-9.-]{0,199}")
_POINT = re.compile(r"([0-9]{8}T[0-9]{6}Z)-r(0|[1-9][0-9]{0,18})-([a-z0-9]{4})")
_ALPHABET = string.ascii_lowercase + string.digits
_TIME = "%Y%m%dT%H%M%SZ"
#: Earlier ones are not written back as they were read.
_FIRST_YEAR = 1000

LATEST = "latest"
LATEST_VERIFIED = "latest-verified"


def check_cluster(name: str) -> str:
    """Give a cluster's name back if it is one.

    Raises:
        UsageError: it is none.
    """
    if not CLUSTER.fullmatch(name) or ".." in name:
        raise UsageError(
            f"{name[:100]!r} is no name for a cluster",
            "use a-z, 0-9, dots and dashes, begin with a letter or digit, and end before 200",
        )
    return name


@dataclass(frozen=True, slots=True)
class BackupId:
    """A backup's full name: `CLUSTER/20261120T231000Z-r2001-k3f9`.

    Attributes:
        cluster: the cluster's name.
        taken_at: when the backup was begun, in UTC, whole seconds.
        revision: the true revision of its first snapshot.
        random: four characters, so that no two writers share a name.
    """

    cluster: str
    taken_at: datetime
    revision: int
    random: str

    def __str__(self) -> str:
        return f"{self.cluster}/{self.name}"

    @property
    def name(self) -> str:
        """The part after the cluster."""
        return f"{self.taken_at.astimezone(UTC):{_TIME}}-r{self.revision}-{self.random}"

    @property
    def run(self) -> str:
        """What the run that made it calls its objects: `TIME-RAND`."""
        return _run(self.taken_at, self.random)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a full ID.

        Raises:
            UsageError: it is none.
        """
        cluster, _, name = text.partition("/")
        check_cluster(cluster)
        match = _POINT.fullmatch(name)
        try:
            taken_at = datetime.strptime(match[1], _TIME).replace(tzinfo=UTC) if match else None
        except ValueError:
            taken_at = None
        if match is None or taken_at is None or taken_at.year < _FIRST_YEAR:
            raise UsageError(
                f"{text[:200]!r} is no ID of a backup",
                f"write {cluster}/20261120T231000Z-r2001-k3f9, {cluster}/latest or"
                f" {cluster}/latest-verified; `backstay list` has the IDs",
            )
        return cls(cluster, taken_at, int(match[2]), match[3])


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt to make a backup, before its revision is known.

    Attributes:
        cluster: the cluster's name.
        began: when it began, in UTC.
        random: four characters that its objects and its ID share.
    """

    cluster: str
    began: datetime
    random: str

    @classmethod
    def begin(cls, cluster: str, now: datetime) -> Self:
        """Mint the names of a new attempt."""
        random = "".join(secrets.choice(_ALPHABET) for _ in range(4))
        began = now.astimezone(UTC).replace(microsecond=0)
        return cls(check_cluster(cluster), began, random)

    @property
    def name(self) -> str:
        """What its objects are called by: `TIME-RAND`."""
        return _run(self.began, self.random)

    @property
    def folder(self) -> str:
        """Where the objects of this attempt lie."""
        return f"{objects_of(self.cluster)}{self.name}/"

    def backup(self, revision: int) -> BackupId:
        """Name the backup, now that its revision is known."""
        return BackupId(self.cluster, self.began, revision, self.random)


def _run(began: datetime, random: str) -> str:
    return f"{began.astimezone(UTC):{_TIME}}-{random}"


def objects_of(cluster: str) -> str:
    """Prefix of the objects of all backups of a cluster."""
    return f"clusters/{cluster}/objects/"


def manifests_of(cluster: str) -> str:
    """Prefix of the manifests of a cluster."""
    return f"clusters/{cluster}/backups/"


def notes_of(cluster: str) -> str:
    """Prefix of what was said of a cluster's backups later."""
    return f"clusters/{cluster}/notes/"


def pins_of(cluster: str) -> str:
    """Prefix of the pins of a cluster's backups."""
    return f"clusters/{cluster}/pins/"


def removals_of(cluster: str) -> str:
    """Prefix of the removals of a cluster's backups that were announced."""
    return f"clusters/{cluster}/removals/"
