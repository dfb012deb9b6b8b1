"""A snapshot file as a source of a backup: no etcd is asked, and no stream can break."""

import hashlib
import os
from dataclasses import dataclass

from backstay.client.answer import Header, Status
from backstay.client.endpoint import Endpoint, Scheme
from backstay.client.snapshot import Received, Sink
from backstay.errors import DamagedError
from backstay.mvcc.snapshot import SECTOR, TRAILER_SIZE, Snapshot
from backstay.report import Report

_PIECE = 1 << 20
#: What a manifest takes.
_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A file that was looked at already, and is read once more.

    Attributes:
        kind: of the cluster that it is of.
        fd: the file, open; it stays the caller's.
        size: its bytes.
        sha256: of the file, as it was when it was looked at; hex.
        status: what it says of the member that gave it, as far as it does.
        name: what messages call it.
    """

    kind: str
    fd: int
    size: int
    sha256: str
    status: Status
    name: str

    def choose(self, report: Report) -> int:
        """Say how large it is."""
        del report
        return self.size

    def fetch(self, sink: Sink, report: Report) -> Received:
        """Copy the file.

        Raises:
            DamagedError: it was changed since it was looked at.
        """
        whole, database = hashlib.sha256(), hashlib.sha256()
        # The SHA-256 at the end is no part of what it is of.
        left = self.size - (TRAILER_SIZE if self.size % SECTOR == TRAILER_SIZE else 0)
        offset = 0
        with report.task("reading the file", self.size) as progress:
            while piece := os.pread(self.fd, _PIECE, offset):
                offset += len(piece)
                whole.update(piece)
                database.update(piece[:left])
                left = max(left - len(piece), 0)
                sink.write(piece)
                progress(len(piece))
        if whole.hexdigest() != self.sha256:
            raise DamagedError(f"{self.name} was changed while it was imported", "import it again")
        return Received(
            source=self.status,
            size=offset,
            db_sha256=database.hexdigest(),
            sha256=self.sha256,
            storage_version=self.status.storage_version,
            seconds=0.0,
        )


def status_of(snapshot: Snapshot) -> Status:
    """Say of the member that gave a snapshot what is written in it. Ids of clusters are not.

    Args:
        snapshot: an open snapshot.

    Raises:
        DamagedError: an entry is damaged.
    """
    term, index = snapshot.term or 0, snapshot.consistent_index or 0
    return Status(
        endpoint=Endpoint(Scheme.UNIX, "file", 0),
        header=Header(0, 0, max(snapshot.revision, 0), min(term, _MAX)),
        version=snapshot.storage_version or snapshot.cluster_version,
        db_size=snapshot.size,
        db_size_in_use=snapshot.size,
        quota=None,
        leader=0,
        is_learner=False,
        raft_index=min(index, _MAX),
        raft_applied_index=min(index, _MAX),
        storage_version=snapshot.storage_version,
        errors=(),
    )
