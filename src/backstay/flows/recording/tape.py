"""What a watch gives, in order and each once: proven to go on with what is recorded.

A watch begins with the last revision that is recorded already. Its changes are not recorded again:
they are compared with what that revision is known by. Until that is done nothing is given on, so
what comes from another life of an etcd never gets below the lineage of this one.

Border: order and proof. Where changes go is `recorder`'s business.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from backstay.client.answer import Change
from backstay.client.watch import Changes, place
from backstay.errors import DamagedError
from backstay.mvcc.delta import Position
from backstay.mvcc.keyvalue import encode_key
from backstay.mvcc.revision import element_key
from backstay.mvcc.tip import Fingerprint
from backstay.repo.manifest import Tip


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a watch is held to: the last changes that are recorded.

    Attributes:
        revision: whose they are.
        count: how many of that revision are recorded; None: all of it.
        tip: what they are known by; with an empty salt it is the fingerprint that never leaves us.
    """

    revision: int
    count: int | None
    tip: Tip

    @property
    def next(self) -> Position:
        """The position of the first change that is to be recorded."""
        if self.count is None:
            return Position(self.revision + 1)
        return Position(self.revision, self.count)

    def matches(self, found: Fingerprint) -> bool:
        """Whether these are the changes."""
        if not self.tip.salt:
            return found.plain == self.tip.digest
        return Fingerprint.salted(found.plain, bytes.fromhex(self.tip.salt)) == self.tip.digest


class Proven(Enum):
    """Whether a watch goes on with what is recorded."""

    NOT_YET = auto()
    YES = auto()
    NO = auto()


@dataclass(frozen=True, slots=True)
class Element:
    """One change to be recorded.

    Attributes:
        main: its revision.
        sub: its place in the transaction.
        delete: whether it is a delete.
        data: for a put the value as etcd stores it; for a delete the key.
        lease: id of its lease; 0: none.
    """

    main: int
    sub: int
    delete: bool
    data: bytes
    lease: int


class Tape:
    """Takes the messages of one watch.

    Args:
        anchor: what it begins with; None: nothing is recorded, and the first revision that comes
            will be the anchor.

    Attributes:
        proven: whether it goes on with what is recorded.
        whole: the last revision of which all has come; 0 before the first.
        revision: the one of which something came last.
        found: what that revision is known by so far.
        tip: what `whole` is known by; empty where there is nothing to know it by.
    """

    def __init__(self, anchor: Anchor | None) -> None:
        self._anchor = anchor
        self.proven = Proven.NOT_YET
        self.revision = anchor.revision if anchor else 0
        self.whole = 0
        self.tip = ""
        self.found = Fingerprint()

    @property
    def next(self) -> Position:
        """The position of the change that comes next."""
        if self.whole == self.revision:
            return Position(self.revision + 1)
        return Position(self.revision, self.found.count)

    @property
    def anchor(self) -> Anchor:
        """What another watch that goes on here is held to."""
        if self.whole == self.revision:
            return Anchor(self.whole, None, Tip(salt="", digest=self.tip))
        return Anchor(self.revision, self.found.count, Tip(salt="", digest=self.found.plain))

    def take(self, message: Changes) -> Iterator[Element]:
        """Take a message; gives what is to be recorded, one after the other.

        `proven` is to be looked at after all have been taken.

        Raises:
            DamagedError: what came can't follow what had come.
            EtcdError: a change makes no sense.
        """
        for change in message.changes:
            if self.proven is Proven.NO:
                return
            element = self._read(change)
            if self.proven is Proven.YES:
                yield element
            elif self._anchor and self._anchor.count == self.found.count:
                self._compare(self._anchor)
        if message.changes and not message.more:
            self._end()

    def _read(self, change: Change) -> Element:
        at = place(change)
        if at.revision != self.revision:
            self._step(at.revision)
        sub = self.found.count
        value = encode_key(at.key) if change.delete else change.keyvalue
        self.found.add(element_key(at.revision, sub, tombstone=change.delete), value)
        data = at.key if change.delete else value
        return Element(at.revision, sub, change.delete, data, at.lease)

    def _step(self, revision: int) -> None:
        """Begin the next revision."""
        if self.revision and self.found.count and self.whole != self.revision:
            self._end()
        unseen = self._anchor is not None and self.proven is Proven.NOT_YET
        if revision < self.revision or (unseen and revision > self.revision):
            # What the anchor has is not there any more, or never was.
            self.proven = Proven.NO
        elif self.proven is Proven.YES and revision != self.revision + 1:
            raise DamagedError(
                f"a watch gave revision {revision} after {self.revision}", "begin another one"
            )
        self.revision, self.found = revision, Fingerprint()

    def _end(self) -> None:
        """All of a revision has come."""
        if self.proven is Proven.NOT_YET:
            if self._anchor is None:
                # Without a value there is nothing to know it by: the next one will do.
                self.proven = Proven.YES if self.found.plain else Proven.NOT_YET
            else:
                self._compare(self._anchor)
        self.whole, self.tip = self.revision, self.found.plain

    def _compare(self, anchor: Anchor) -> None:
        same = anchor.revision == self.revision and anchor.matches(self.found)
        self.proven = Proven.YES if same else Proven.NO
