"""The delta that grows: what comes is added and dated, until it is cut off to be stored.

Border: what is in it. When it is cut is decided by `plan`, who stores it is `sealer`.
"""

import secrets
import time
from dataclasses import replace

from backstay.flows.recording.asking import Leases
from backstay.flows.recording.keynames import KeyNames
from backstay.flows.recording.plan import Open
from backstay.flows.recording.sealer import Piece
from backstay.flows.recording.tape import Anchor, Element
from backstay.mvcc.delta import Position, Proof
from backstay.mvcc.deltawriter import DeltaWriter, Origin
from backstay.repo.lineage import Stored

#: Times are noted that many milliseconds apart, or more.
_MARKS = 5


class OpenDelta:
    """The delta that is open, one after the other; at first none is.

    Args:
        cluster: the cluster's name.
        leases: asks for the TTLs of leases that changes name.
        key_names: takes note of keys that encrypt; None where nobody saves keys.
    """

    def __init__(self, cluster: str, leases: Leases, key_names: KeyNames | None) -> None:
        self._cluster = cluster
        self._leases = leases
        self._key_names = key_names
        self._writer_id = secrets.token_hex(8)
        self._writer: DeltaWriter | None = None
        self._since = 0.0
        self._numbers: dict[str, tuple[int, str]] = {}
        self._pending: tuple[int, int] | None = None
        self._marked = 0

    @property
    def is_open(self) -> bool:
        """Whether there is one."""
        return self._writer is not None

    @property
    def something(self) -> bool:
        """Whether it covers anything, be it that a revision has come to its end."""
        return self._writer is not None and self._writer.begin != self._writer.end

    def is_full(self, max_bytes: int) -> bool:
        """Whether it has so many bytes of changes, or takes no more of them."""
        writer = self._writer
        return writer is not None and (writer.size >= max_bytes or writer.full)

    def look(self) -> Open | None:
        """Say how it stands; None where none is open."""
        writer = self._writer
        if writer is None:
            return None
        return Open(
            something=self.something,
            size=writer.size,
            age=time.monotonic() - self._since,
            full=writer.full,
            dated=writer.dated or bool(writer.changes) or self._pending is not None,
        )

    def begin(self, lineage: str, at: Position) -> DeltaWriter:
        """Open one.

        Args:
            lineage: whose.
            at: where it begins.
        """
        number, previous = self._numbers.get(lineage, (0, ""))
        origin = Origin(self._cluster, lineage, self._writer_id)
        self._writer = DeltaWriter(origin, at, number=number, previous=previous)
        self._since = time.monotonic()
        return self._writer

    def add(self, lineage: str, element: Element) -> None:
        """Add a change; it opens a delta where none is open.

        Args:
            lineage: whose.
            element: the change.

        Raises:
            DamagedError: it is not the one after the last.
        """
        writer = self._writer or self.begin(lineage, Position(element.main, element.sub))
        if not writer.changes:
            self._since = time.monotonic()
        if element.sub == 0:
            self._flush_mark(element.main - 1)
        if element.delete:
            writer.delete(element.main, element.sub, element.data)
        else:
            writer.put(element.main, element.sub, element.data)
            if self._key_names is not None:
                self._key_names.see(element.data)
        if element.lease:
            self._leases.see(element.lease)

    def date(self, whole: int, now: int) -> None:
        """Everything up to a revision has come: note when.

        Args:
            whole: that revision.
            now: milliseconds since 1970.
        """
        # Where nothing has come since, both times tell something.
        self._flush_mark(whole)
        self._pending = (whole, now)
        if self._writer is not None and not self._writer.changes:
            self._flush_mark(whole)

    def prove(self, proof: Proof) -> bool:
        """Note what a member answered to HashKV; whether there was a place for it."""
        if self._writer is None:
            return False
        self._writer.prove(proof)
        return True

    def cut(self, known: Stored, anchor: Anchor, *, now: int, patience: float) -> Piece | None:
        """End it; None where it has nothing to tell, and stays open.

        Args:
            known: by what its lineage is known.
            anchor: by what its end is known.
            now: milliseconds since 1970.
            patience: seconds to wait for what was asked about its leases.
        """
        writer = self._writer
        if writer is None:
            return None
        self._last_mark(writer, anchor, now)
        if not writer.dated:
            return None
        for lease, ttl in self._leases.take(patience if writer.changes else 0).items():
            writer.lease(lease, ttl)
        written = writer.finish()
        self._numbers[known.lineage] = (written.header.number + 1, written.digest)
        tip = anchor.tip if anchor.tip.digest else None
        end = replace(known, revision=anchor.revision, tip=tip)
        names = frozenset() if self._key_names is None else self._key_names.take()
        self._writer = None
        return Piece(written, end, writer.size, names)

    def drop(self) -> None:
        """Give up what is open: another lineage begins."""
        self._writer, self._pending = None, None

    def _flush_mark(self, whole: int) -> None:
        """Write the last time down, unless one was written just before."""
        if self._pending is None or self._writer is None:
            return
        revision, at = self._pending
        if revision == whole and at - self._marked >= _MARKS:
            self._writer.mark(revision, at)
            self._marked = at
            self._pending = None

    def _last_mark(self, writer: DeltaWriter, anchor: Anchor, now: int) -> None:
        """Date what has come."""
        pending, self._pending = self._pending, None
        last = anchor.revision if anchor.count is None else anchor.revision - 1
        if pending is not None and pending[0] == last:
            self._marked = pending[1]
            writer.mark(*pending)
        elif writer.end.sub:
            writer.mark(last, now)
