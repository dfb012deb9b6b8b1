"""Metrics of a repository over HTTP, for a Prometheus that has no node_exporter at hand.

The repository is read by the clock, not by each scrape: a scrape has seconds, a repository with a
year of backups may take longer, and nobody can make us read a bucket by asking often. Plain
HTTP, since nothing that is served is a secret.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backstay.clock import Clock
from backstay.errors import BackstayError
from backstay.exposition import Sample, Samples
from backstay.flows.metrics import FAMILIES, collect
from backstay.repo.catalogue import Repository
from backstay.report import Report


class Exporter(Collector):
    """What was last read of a repository.

    Args:
        opened: opens the repository that is measured. Each reading begins so: a directory that
            is not mounted any more would look like one without backups.
        cluster: one of its clusters; None measures all.
        clock: says when it was read.
        report: is told where it can't be read.
    """

    def __init__(
        self,
        opened: Callable[[], Repository],
        cluster: str | None,
        clock: Clock,
        report: Report,
    ) -> None:
        self._opened = opened
        self._cluster = cluster
        self._clock = clock
        self._report = report
        self._samples: tuple[Sample, ...] = ()

    def refresh(self) -> None:
        """Read the repository; where that fails what was read before stays, and gets old."""
        try:
            self._samples = collect(self._opened(), self._cluster, self._clock)
        except BackstayError as error:
            self._report.warn(f"the repository could not be read: {error}")

    def describe(self) -> Iterator[Metric]:
        """Name the metrics, for scrapes that ask for some of them."""
        for family in FAMILIES:
            yield GaugeMetricFamily(family.name, family.help, labels=family.labels)

    def collect(self) -> Iterator[Metric]:
        """Give the metrics to a scrape."""
        return Samples(self._samples).collect()

    def keep_fresh(self, every: float) -> None:
        """Read the repository again and again, until the program is stopped.

        Args:
            every: seconds between two readings.
        """
        while True:
            self.refresh()
            self._clock.sleep(every)


@contextmanager
def serving(exporter: Exporter, host: str, port: int) -> Iterator[int]:
    """Serve metrics until the block ends.

    Args:
        exporter: has them.
        host: address to listen at; empty is every one.
        port: TCP port; 0 takes a free one.

    Yields:
        The port.

    Raises:
        BackstayError: the address can't be listened at.
    """
    registry = CollectorRegistry()
    registry.register(exporter)
    try:
        server, thread = start_http_server(port, host or "::", registry)
    except OSError as error:
        shown = f"{host}:{port}"
        raise BackstayError(
            f"nobody can listen at {shown}: {error.strerror or error}", "name another --listen"
        ) from error
    try:
        yield server.server_port
    finally:
        with suppress(OSError):
            server.shutdown()
            server.server_close()
        thread.join(timeout=5)
