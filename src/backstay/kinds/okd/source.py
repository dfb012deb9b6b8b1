"""The etcd of an OKD cluster, as backups see it: read no faster than is wanted."""

from backstay.client.etcd import Etcd
from backstay.client.snapshot import Received, Sink
from backstay.clock import Clock
from backstay.kinds.etcd import EtcdSource
from backstay.report import Report

#: Seconds that one pause lasts at most: whoever is told to stop does so soon.
_PAUSE = 0.25


class Limited:
    """A sink that takes only so many bytes a second.

    What is not taken is not asked for: gRPC's flow control holds the member back. Its read
    transaction stays open for as long, and its file can grow meanwhile: slow is gentle on the
    disk, not on the file's size.

    Args:
        sink: where the bytes go.
        rate: bytes a second.
        clock: the time.
    """

    def __init__(self, sink: Sink, rate: int, clock: Clock) -> None:
        self._sink = sink
        self._rate = rate
        self._clock = clock
        self._began = clock.monotonic()
        self._taken = 0

    def write(self, data: bytes, /) -> None:
        """Take what comes next, and wait until that is not too soon."""
        self._sink.write(data)
        self._taken += len(data)
        due = self._began + self._taken / self._rate
        while (left := due - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, _PAUSE))

    def reset(self) -> None:
        """Forget everything: another stream begins."""
        self._sink.reset()
        self._began, self._taken = self._clock.monotonic(), 0


class OkdSource(EtcdSource):
    """A cluster of kind `okd`, as backups see it.

    Args:
        etcd: an open client.
        rate: bytes a second that are read at most; 0: as fast as they come.
        clock: the time.
    """

    kind = "okd"

    def __init__(self, etcd: Etcd, *, rate: int = 0, clock: Clock) -> None:
        super().__init__(etcd)
        self._rate = rate
        self._clock = clock

    def fetch(self, sink: Sink, report: Report) -> Received:
        """Write a whole snapshot to a sink.

        Raises:
            EtcdError: no member gave one.
        """
        return super().fetch(Limited(sink, self._rate, self._clock) if self._rate else sink, report)
