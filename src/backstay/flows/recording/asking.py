"""What is asked beside a watch, in threads, so that nothing waits for an answer."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from backstay.client.etcd import Etcd
from backstay.client.health import choose, survey
from backstay.errors import BackstayError
from backstay.mvcc.delta import Proof

T = TypeVar("T")

#: Leases that are remembered; of one that was forgotten the TTL is asked, and written, again.
_REMEMBERED = 100_000
#: Leases that wait to be asked for; more than that are left out, and get the TTL of lost ones.
_WAITING = 10_000


class Job(Generic[T]):
    """One piece of work in a thread.

    Args:
        work: what to do.
        name: of the thread.
    """

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._work = work
        self._result: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"backstay-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - is raised by `result`
            self._error = error

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Wait until it has ended, or for so long."""
        self._thread.join(seconds)

    def result(self) -> T:
        """What came of it, when it is done; raises what it raised."""
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


class Leases:
    """Asks for the granted TTL of each lease once.

    Args:
        ask: gives the granted TTL of a lease in seconds; 0 where there is no such lease.
    """

    def __init__(self, ask: Callable[[int], int]) -> None:
        self._ask = ask
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._changed = threading.Condition()
        self._waiting: OrderedDict[int, None] = OrderedDict()
        self._known: dict[int, int] = {}
        self._closed = False
        threading.Thread(target=self._run, name="backstay-leases", daemon=True).start()

    def see(self, lease: int) -> None:
        """A change names a lease."""
        if lease in self._seen:
            self._seen.move_to_end(lease)
            return
        self._seen[lease] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        with self._changed:
            if len(self._waiting) < _WAITING:
                self._waiting[lease] = None
                self._changed.notify_all()

    def take(self, patience: float) -> dict[int, int]:
        """Give what was answered since the last time: lease and TTL.

        Args:
            patience: seconds to wait for what was asked last.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, patience)
            known, self._known = self._known, {}
        return known

    def close(self) -> None:
        """Ask no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                lease = next(iter(self._waiting))
            try:
                ttl = self._ask(lease)
            except BackstayError:
                ttl = 0
            with self._changed:
                self._waiting.pop(lease)
                if ttl > 0:
                    self._known[lease] = ttl
                self._changed.notify_all()


def ask_proof(etcd: Etcd, revision: int) -> Proof:
    """Ask one follower for its HashKV; the leader where there is no follower.

    Raises:
        EtcdError: nobody answers.
    """
    best = choose(survey(etcd).members).best
    found = etcd.hashkv(best.endpoint, revision)
    return Proof(found.revision, found.compact_revision, found.hash)
