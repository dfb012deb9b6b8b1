"""What came to an etcd after a backup, put away as a recorder does, a piece at a time.

class Story(Recorded): ...          # sets cli, base and log
story.record(first, last)           # of the revisions in its log
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from backstay.mvcc.delta import Position
from backstay.mvcc.deltawriter import DeltaWriter, Origin
from backstay.repo.catalogue import Repository
from backstay.repo.delta import put_delta
from backstay.repo.url import Access, open_store
from kit import deltas
from kit.cli import Cli

#: Milliseconds since 1970 of the first recorded revision; each later one comes a minute after.
BEGAN = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()) * 1000


@dataclass
class Recorded:
    """A backup, and a log of changes after it.

    Attributes:
        cli: made the backup.
        base: manifest of the backup, as JSON has it.
        log: keys and values of bucket `key` after it, as a watch saw them.
        hashes: what the server said, by revision.
    """

    cli: Cli
    base: dict = field(default_factory=dict)
    log: list[tuple[bytes, bytes]] = field(default_factory=list)
    hashes: dict = field(default_factory=dict)

    @property
    def first(self) -> int:
        """The first revision after the backup."""
        return self.base["revision"] + 1

    @property
    def repository(self) -> Repository:
        """Where the backup lies."""
        return Repository.open(open_store(self.cli.variables["BACKSTAY_REPO"], Access()))

    @property
    def lineage(self) -> str:
        """That of the backup."""
        return self.base["snapshots"][0]["lineage"]

    def backup(self) -> dict:
        """Make a backup; gives its manifest."""
        return self.cli("backup", "etcd", "--cluster", "prod", "--json").json

    def record(self, first: int, last: int, *, proofs=()):
        """Store what came in revisions `first` to `last`."""
        writer = DeltaWriter(Origin("prod", self.lineage, "w"), Position(first))
        for key, value in self.log:
            main = int.from_bytes(key[:8], "big")
            if first <= main <= last:
                if main > writer.end.main:
                    writer.mark(main - 1, self.at(main - 1))
                deltas.add(writer, key, value)
        writer.mark(last, self.at(last))
        for proof in proofs:
            writer.prove(proof)
        return put_delta(self.repository, writer.finish())

    def at(self, revision: int) -> int:
        """When a revision came, in milliseconds since 1970."""
        return BEGAN + 60_000 * (revision - self.first)

    def time(self, revision: int) -> datetime:
        """The same."""
        return datetime.fromtimestamp(self.at(revision) / 1000, UTC)
