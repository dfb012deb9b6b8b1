"""The thread that stores what is recorded, in order, and does not give up.

It has one delta in hand and takes one more: then whoever records must wait, and so must etcd. A
delta is stored or it is still here; nothing goes by. Source of the order (tip, delta, old tips):
`repo.tipnote`.
"""

import queue
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from backstay.clock import Clock
from backstay.errors import AlreadyExistsError, BackstayError
from backstay.flows.recording.keynames import KeySaver
from backstay.flows.recording.plan import Options, backoff
from backstay.flows.recording.tally import Tally
from backstay.mvcc.delta import Position
from backstay.mvcc.deltawriter import Written
from backstay.mvcc.tip import SALT_SIZE, Fingerprint
from backstay.repo.catalogue import Repository
from backstay.repo.delta import put_delta
from backstay.repo.lineage import Stored
from backstay.repo.manifest import Tip
from backstay.repo.roll import roll_up
from backstay.repo.tipnote import TipNote, clear_tips, put_tip
from backstay.report import Report

#: After so many deltas it is looked whether a roll is due.
_ROLL_EVERY = 200


@dataclass(frozen=True, slots=True)
class Piece:
    """A delta that is to be stored.

    Attributes:
        written: the delta.
        end: what its end is known by; its tip has no salt yet.
        size: bytes of its changes.
        key_names: of keys whose names had not come before.
    """

    written: Written
    end: Stored
    size: int
    key_names: frozenset[str] = frozenset()


class Sealer:
    """Stores deltas in a thread of its own.

    Args:
        repository: where to.
        options: how.
        tally: is told what was stored.
        report: is told what failed.
        clock: waits, and says when.
        keys: saves the keys that a delta needs before it is stored; None where there are none.
    """

    def __init__(
        self,
        repository: Repository,
        options: Options,
        tally: Tally,
        report: Report,
        clock: Clock,
        *,
        keys: KeySaver | None = None,
    ) -> None:
        self._repository = repository
        self._options = options
        self._tally = tally
        self._report = report
        self._clock = clock
        self._keys = keys
        #: Keys were saved that no full backup has yet.
        self.keys_saved = threading.Event()
        self._pieces: queue.Queue[Piece | None] = queue.Queue(maxsize=1)
        self._idle = threading.Event()
        self._stopping = threading.Event()
        self._since_roll = 0
        self._told = ""
        self._defect: BaseException | None = None
        self._last: dict[str, Position] = {}
        self._thread = threading.Thread(target=self._run, name="backstay-seal", daemon=True)
        self._thread.start()

    def offer(self, piece: Piece, patience: float) -> bool:
        """Hand over a delta.

        Args:
            piece: the delta.
            patience: seconds to wait for room.

        Returns:
            Whether it was taken; else it is to be offered again.
        """
        self._look()
        with suppress(queue.Full):
            self._pieces.put(piece, timeout=patience)
            return True
        return False

    def finish(self, patience: float) -> bool:
        """Store what is left; whether that was possible in so many seconds."""
        deadline = time.monotonic() + patience
        with suppress(queue.Full):
            self._pieces.put(None, timeout=patience)
        self._thread.join(max(deadline - time.monotonic(), 0))
        self._stopping.set()
        self._look()
        return not self._thread.is_alive()

    def _look(self) -> None:
        if self._defect is not None:
            raise self._defect

    def _run(self) -> None:
        try:
            while (piece := self._pieces.get()) is not None:
                self._store(piece)
                self._roll(piece)
        except BaseException as error:  # noqa: BLE001 - is raised in the thread that records
            self._defect = error

    def _store(self, piece: Piece) -> None:
        failures = 0
        note = self._note(piece)
        while not self._stopping.is_set():
            try:
                self._save_keys(piece)
                self._put(piece, note)
            except BackstayError as error:
                failures += 1
                self._tally.add(store_errors=1)
                self._complain(error, failures)
                self._stopping.wait(backoff(failures))
                continue
            if self._told:
                self._report.say("deltas are stored again")
                self._told = ""
            return

    def _save_keys(self, piece: Piece) -> None:
        lineage = piece.written.header.lineage
        if self._keys is None or not piece.key_names:
            return
        if self._keys.save(piece.key_names, lineage):
            self._tally.add(keyrings=1)
            self.keys_saved.set()

    def _complain(self, error: BackstayError, failures: int) -> None:
        text = str(error)
        if text != self._told or failures % 20 == 0:
            self._report.warn(
                f"a delta can't be stored, and is kept and tried again (time {failures}): {text}"
            )
        self._told = text

    def _note(self, piece: Piece) -> TipNote | None:
        """Make the tip; none where nothing has come, since the one before stands for it."""
        header, end = piece.written.header, piece.end
        if end.tip is None or header.begin == header.end:
            return None
        salt = secrets.token_bytes(SALT_SIZE)
        return TipNote(
            cluster=header.cluster,
            lineage=header.lineage,
            predecessor=end.predecessor,
            root=end.root,
            end=header.end,
            cluster_id=end.cluster_id,
            raft_term=end.raft_term,
            raft_index=end.raft_index,
            tip=Tip(salt=salt.hex(), digest=Fingerprint.salted(end.tip.digest, salt)),
        )

    def _put(self, piece: Piece, note: TipNote | None) -> None:
        store, header = self._repository.store, piece.written.header
        if note is not None:
            put_tip(store, note)
        size = 0
        # An answer that was lost: its name has its digest, so what is there is this one.
        with suppress(AlreadyExistsError):
            size = put_delta(self._repository, piece.written, self._options.sealing).stored_size
        now = self._clock.now().timestamp()
        self._tally.add(deltas=1, changes=header.changes, bytes=piece.size, stored_bytes=size)
        self._tally.add(waiting=-piece.size)
        self._tally.set(
            sealed=header.end[0] - 1,
            sealed_at=now,
            known_at=max(piece.written.last / 1000, self._tally.figures.known_at),
        )
        if note is not None:
            self._clear(header.lineage, Position(*header.end))

    def _clear(self, lineage: str, end: Position) -> None:
        before = self._last.get(lineage)
        self._last[lineage] = end
        if before is not None:
            # They do no harm where they stay.
            with suppress(BackstayError):
                clear_tips(self._repository.store, self._options.cluster, lineage, before)

    def _roll(self, piece: Piece) -> None:
        self._since_roll += 1
        if self._since_roll % _ROLL_EVERY != 1:
            return
        try:
            lineage = piece.written.header.lineage
            made = roll_up(self._repository, self._options.cluster, lineage)
        except BackstayError as error:
            self._tally.add(store_errors=1)
            self._report.warn(f"no roll of many deltas could be made now: {error}")
        else:
            self._tally.add(rolls=made)
