"""What a backup is made from, where no etcd is asked for a snapshot."""

from datetime import datetime
from typing import Protocol

from backstay.checks.question import Answer
from backstay.flows.ancestry import Past
from backstay.mvcc.snapshot import Trailer
from backstay.repo.lineage import Lineage


class Origin(Protocol):
    """Another backup, and what was recorded since."""

    @property
    def base(self) -> str:
        """The ID of that backup."""
        ...

    @property
    def past(self) -> Past:
        """What the new backup comes after, as `checks.change` sees it."""
        ...

    @property
    def lineage(self) -> Lineage:
        """The lineage: that of the other backup, since nothing else was recorded into it."""
        ...

    @property
    def taken_at(self) -> datetime:
        """When the revision was recorded; known when the snapshot has been made. Aware."""
        ...

    def came(self, trailer: Trailer, sha256: str) -> Answer:
        """Say whether the spooled file is what was made, and whether that is proven.

        Args:
            trailer: how the file's own SHA-256 compares with its bytes, read again.
            sha256: of the database, as it is in the file; hex.
        """
        ...
