"""Calls to etcd of which one goes wrong; cases made from a clean run.

    with disturbed(etcd) as (dialer, watch): ...                 # watch.moments: what was asked
    for case in cases(watch.moments):                            # every call, and every message
        with disturbed(etcd, case) as (dialer, watch): ...       # of a snapshot, x every harm

All goes through to the real member. A moment is the n-th call of a name, or the n-th message of
all snapshots. A harm that lasts comes to all later ones of that name, too.

    with relay(etcd) as there:                                   # the same at an address that stays
        there.endpoint                                           # for whole programs: they are
        there.watch = Watch(case)                                # told it instead of the member's
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from backstay.client.dial import Dialer
from kit.cases import Case
from kit.etcd import Etcd
from kit.faulty import CallError, CutError, Messages, faulty, serving

MESSAGE = "message"


class Harm(Enum):
    """What happens to a call, or to a message of a snapshot."""

    REFUSE = auto()  # it does not come to the member
    RESET = auto()  # the connection breaks, when the member has done it
    STALL = auto()  # no answer comes
    CUT = auto()  # half of the answer comes; a stream ends, as if that had been all
    EMPTY = auto()  # an answer without anything in it comes
    LOSE = auto()  # a message is left out
    LIE = auto()  # the number of bytes that remain is wrong


_OF_CALLS = (Harm.REFUSE, Harm.RESET, Harm.STALL, Harm.CUT, Harm.EMPTY)
_OF_MESSAGES = (Harm.RESET, Harm.STALL, Harm.CUT, Harm.EMPTY, Harm.LOSE, Harm.LIE)


def cases(moments: Sequence[tuple[str, int]]) -> list[Case]:
    """Everything that can happen, once and lasting."""
    return [
        Case(name, number, harm, lasts)
        for name, number in moments
        for harm in (_OF_MESSAGES if name == MESSAGE else _OF_CALLS)
        for lasts in (False, True)
    ]


def _comes_to(case: Case, name: str, number: int) -> bool:
    """Whether it happens at a moment: it lasts for those of one name."""
    later = number > case.number if case.lasts else False
    return name == case.name and (number == case.number or later)


@dataclass
class Watch:
    """What was asked of a member, with one thing that goes wrong."""

    case: Case | None = None
    moments: list[tuple[str, int]] = field(default_factory=list)
    hit: bool = False
    _seen: Counter = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def harm(self, name: str) -> Harm | None:
        """Count a moment; gives what happens then."""
        with self._lock:
            self._seen[name] += 1
            moment = (name, self._seen[name])
            self.moments.append(moment)
            if self.case is None or not _comes_to(self.case, *moment):
                return None
            self.hit = True
            return self.case.harm

    def call(self, path: str, ask, ended: threading.Event) -> bytes:
        """One call with one answer."""
        harm = self.harm(path.rpartition("/")[2])
        if harm is Harm.REFUSE:
            raise CallError("refused on purpose")
        answer = ask()
        if harm is Harm.RESET:
            raise CallError("reset on purpose")
        if harm is Harm.STALL:
            ended.wait(60)
        if harm is Harm.CUT:
            # A field that says that it is longer than all that there is.
            return answer[: len(answer) // 2] + b"\x0a\x7f"
        return b"" if harm is Harm.EMPTY else answer

    def messages(self, messages: Messages, ended: threading.Event) -> Messages:
        """The messages of a snapshot."""
        for message in messages:
            harm = self.harm(MESSAGE)
            if harm is Harm.RESET:
                raise CutError("reset on purpose")
            if harm is Harm.STALL:
                ended.wait(60)
            if harm is Harm.CUT:
                return
            if harm is Harm.EMPTY:
                message.blob = b""
            if harm is Harm.LIE:
                message.remaining_bytes += 1
            if harm is not Harm.LOSE:
                yield message


@contextlib.contextmanager
def disturbed(etcd: Etcd, case: Case | None = None) -> Iterator[tuple[Dialer, Watch]]:
    """Stand between clients and a member."""
    watch = Watch(case)
    with faulty(etcd, watch.messages, calls=watch.call) as dialer:
        yield dialer, watch


@dataclass
class Relay:
    """A place where a member is reached through what goes wrong.

    Attributes:
        port: of this machine.
        watch: what goes wrong now, and what was asked since it was put there.
    """

    port: int
    watch: Watch = field(default_factory=Watch)

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"https://127.0.0.1:{self.port}"


@contextlib.contextmanager
def relay(etcd: Etcd) -> Iterator[Relay]:
    """Open one; it shows the member's own certificate."""
    there = Relay(0)

    def messages(found: Messages, ended: threading.Event) -> Messages:
        return there.watch.messages(found, ended)

    def call(path: str, ask, ended: threading.Event) -> bytes:
        return there.watch.call(path, ask, ended)

    with serving(etcd, messages, call) as there.port:
        yield there
