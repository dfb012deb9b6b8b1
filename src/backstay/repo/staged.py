"""A restore object: a plain snapshot that lies in a staging place for a while, and its name.

    EXPIRES-RAND/CLUSTER/BACKUP.db      20261122T101500Z-k3f9a2/clusters.prod/20261120T231000Z-...

The name says all that `list --staging` needs: a restore object has no manifest. It is short,
since the whole URL that is made of it may have 1024 characters (HyperShift's API).

Border: names and facts; nothing here asks a store. See docs/formats.md, "Staging".
"""

import re
import secrets
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from backstay.client.secret import Secret
from backstay.errors import UsageError
from backstay.repo.name import BackupId

_ALPHABET = string.ascii_lowercase + string.digits
_TIME = "%Y%m%dT%H%M%SZ"
_FOLDER = re.compile(r"([0-9]{8}T[0-9]{6}Z)-([a-z0-9]{6})")
_FIRST_YEAR = 1970


@dataclass(frozen=True, slots=True)
class StagedName:
    """The name of a restore object.

    Attributes:
        expires: when nobody needs it any more; aware, whole seconds.
        random: six characters, so that no two writers share a name.
        backup: what it was made from.
    """

    expires: datetime
    random: str
    backup: BackupId

    @classmethod
    def new(cls, backup: BackupId, expires: datetime) -> Self:
        """Mint a name."""
        random = "".join(secrets.choice(_ALPHABET) for _ in range(6))
        return cls(expires.astimezone(UTC).replace(microsecond=0), random, backup)

    @property
    def path(self) -> str:
        """Where the object lies."""
        return f"{self.expires:{_TIME}}-{self.random}/{self.backup}.db"

    @classmethod
    def parse(cls, path: str) -> Self | None:
        """Read a path; None where it is none of a restore object."""
        folder, _, rest = path.partition("/")
        match = _FOLDER.fullmatch(folder)
        if match is None or not rest.endswith(".db"):
            return None
        try:
            expires = datetime.strptime(match[1], _TIME).replace(tzinfo=UTC)
            found = cls(expires, match[2], BackupId.parse(rest.removesuffix(".db")))
        except (ValueError, UsageError):
            return None
        return found if expires.year >= _FIRST_YEAR and found.path == path else None


@dataclass(frozen=True, slots=True)
class StagedObject:
    """A restore object that is there.

    Attributes:
        name: what its name says.
        size: bytes.
        written: when, by the store's clock.
    """

    name: StagedName
    size: int
    written: datetime

    @property
    def path(self) -> str:
        """Where it lies in the staging place."""
        return self.name.path

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.name.expires <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A restore object that was just written.

    Attributes:
        name: of it.
        size: bytes.
        sha256: of all of it, in hex.
        head: its first bytes, up to `EDGE`.
        tail: its last bytes, up to `EDGE`.
        warnings: what is to know of the place that it lies in.
    """

    name: StagedName
    size: int
    sha256: str
    head: bytes = field(repr=False)
    tail: bytes = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Where it lies in the staging place."""
        return self.name.path


#: How many bytes of the two ends are kept for comparing; the SHA-256 of a snapshot is its last 32.
EDGE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A URL that gives a restore object to whoever has it.

    Attributes:
        url: the secret.
        expires: until when it is good, as far as that is known.
        certain: False where it is signed with temporary credentials that may end before, and
            nobody says when they do.
        warnings: what is to know of it.
    """

    url: Secret
    expires: datetime
    certain: bool = True
    warnings: tuple[str, ...] = ()
