"""Metrics as Prometheus reads them from a file: the text exposition format, version 0.0.4.

A textfile is what node_exporter's textfile collector picks up. It is replaced whole, by a rename,
so that no half of one is ever read; it holds no secret, and others may read it. The format itself
is written and parsed by prometheus_client.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from backstay.errors import FormatError, RefusedError
from backstay.files import explained, is_there, read_private, sync_directory

#: Of the names of all our metrics.
PREFIX = "backstay_"
#: node_exporter runs as another user.
MODE = 0o644
#: More than the metrics of ten thousand clusters have.
LIMIT = 32 << 20
#: Seconds to wait for another run that writes the same file.
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: all are gauges, since a run that ends counts nothing up.

    Attributes:
        name: with its unit at the end, as Prometheus wants it.
        help: one line.
        labels: the names of its labels.
    """

    name: str
    help: str
    labels: tuple[str, ...]

    def of(self, *labels: str, value: float) -> "Sample":
        """Make a sample."""
        return Sample(self, labels, float(value))


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric.

    Attributes:
        family: the metric.
        labels: the values of its labels, in their order. Never words of an error: each new one
            would be a new series.
        value: seconds, bytes, or a number.
    """

    family: Family
    labels: tuple[str, ...]
    value: float


class Samples(Collector):
    """Samples as a collector of prometheus_client."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = tuple(samples)

    def collect(self) -> Iterator[Metric]:
        """Give the metrics, each with all its samples, as the format wants them."""
        found: dict[str, GaugeMetricFamily] = {}
        for sample in self._samples:
            family = sample.family
            metric = found.setdefault(
                family.name, GaugeMetricFamily(family.name, family.help, labels=family.labels)
            )
            metric.add_metric(sample.labels, sample.value)
        yield from found.values()


def exposed(samples: Iterable[Sample]) -> bytes:
    """Write samples in the text format."""
    return generate_latest(Samples(samples))


def parsed(data: bytes, families: Sequence[Family], name: str) -> tuple[Sample, ...]:
    """Read samples of some metrics; others of ours are passed over.

    Args:
        data: what `exposed` wrote.
        families: the metrics that are asked for.
        name: what messages call the data.

    Raises:
        FormatError: it is not in the text format.
        RefusedError: it has metrics that are none of ours, and would be lost.
    """
    known = {family.name: family for family in families}
    found = []
    try:
        for metric in text_string_to_metric_families(data.decode()):
            for name_, labels, value, *_ in metric.samples:
                if not name_.startswith(PREFIX):
                    raise RefusedError(f"{name} has other metrics", "name a file for these alone")
                family = known.get(name_)
                if family is not None and labels.keys() == set(family.labels):
                    values = tuple(labels[label] for label in family.labels)
                    found.append(family.of(*values, value=value))
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # Its parser promises no error of its own for what is no exposition.
        raise FormatError(f"{name} is no textfile of metrics", "name another file") from error
    return tuple(found)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep other runs from writing textfiles into a directory, as long as that takes them a moment.

    Raises:
        BackstayError: the directory can't be opened.
    """
    with explained(directory):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    """Wait for the others; who holds it for long is none of us, or hangs."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.02)


def read_textfile(path: Path, families: Sequence[Family]) -> tuple[Sample, ...]:
    """Read what a textfile has of some metrics; nothing where there is no file.

    Raises:
        FormatError: it is no textfile.
        RefusedError: it is somebody else's.
        BackstayError: it can't be read.
    """
    if not is_there(path):
        return ()
    return parsed(read_private(path, limit=LIMIT), families, str(path))


def write_textfile(path: Path, samples: Iterable[Sample]) -> None:
    """Replace a textfile, whole.

    Raises:
        SpaceError: the disk is full.
        BackstayError: it can't be written there.
    """
    data = exposed(samples)
    # Another suffix than .prom: the collector does not look at it.
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with explained(path):
        fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(file.fileno(), MODE)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(path)
        finally:
            with suppress(FileNotFoundError):
                hidden.unlink()
        sync_directory(path.parent)
