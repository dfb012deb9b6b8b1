"""A Kubernetes API of which one request goes wrong; cases made from a clean run.

    with disturbed(kube) as watch: ...                  # watch.moments: what was asked
    for case in cases(watch.moments):                   # every request x every harm
        with disturbed(kube, case) as watch: ...

A moment is the n-th request for the same thing: threads ask at the same time, and where two of them
change places each case still means what it did. A harm that lasts comes to all later requests, too.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from kit.cases import Case
from kit.kubeserver import HangUpError, KubeServer, Seen


class Harm(Enum):
    """What happens to a request."""

    FORBID = auto()  # it is refused: 403
    FAIL = auto()  # 500
    BUSY = auto()  # 503
    RESET = auto()  # the connection breaks before anything is done
    LOSE = auto()  # it is done, and the answer does not come
    CUT = auto()  # half of a document comes
    EMPTY = auto()  # a document comes that has nothing in it


_CODES = {Harm.FORBID: 403, Harm.FAIL: 500, Harm.BUSY: 503}
_BODIES = {Harm.CUT: b'{"kind": "List", "items": [{"metada', Harm.EMPTY: b"{}"}


def cases(moments: Sequence[tuple[str, int]]) -> list[Case]:
    """Everything that can happen, once and lasting."""
    return [
        Case(*moment, harm, lasts) for moment in moments for harm in Harm for lasts in (False, True)
    ]


@dataclass
class Watch:
    """What was asked of the API, with one thing that goes wrong."""

    kube: KubeServer
    case: Case | None = None
    moments: list[tuple[str, int]] = field(default_factory=list)
    hit: bool = False
    _seen: Counter = field(default_factory=Counter)
    _losing: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, number: int, seen: Seen) -> None:
        """Count a request, and let it go wrong."""
        what = f"{seen.verb} {seen.path}"
        with self._lock:
            self._seen[what] += 1
            moment = (what, self._seen[what])
            self.moments.append(moment)
            case = self.case
            if case is None:
                return
            if moment != (case.name, case.number) and not (self.hit and case.lasts):
                return
            self.hit = True
            if case.harm is Harm.LOSE:
                self._losing.add(number)
                return
        if case.harm is Harm.RESET:
            raise HangUpError
        self.kube.fail(_CODES.get(case.harm, 200), body=_BODIES.get(case.harm), request=seen)

    def after(self, number: int, _seen: Seen) -> None:
        """Lose the answer of a request."""
        if number in self._losing:
            raise HangUpError


@contextlib.contextmanager
def disturbed(kube: KubeServer, case: Case | None = None) -> Iterator[Watch]:
    """Stand between clients and an API."""
    watch = Watch(kube, case)
    kube.on_request, kube.after_request = watch.before, watch.after
    try:
        yield watch
    finally:
        kube.on_request = kube.after_request = None
