"""Metrics and health of a recorder over HTTP: two pages, few at a time, nothing to be sent.

The text format of Prometheus, version 0.0.4. Labels are the cluster's name and nothing else.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backstay.clock import Clock
from backstay.errors import BackstayError, UsageError
from backstay.flows.recording.plan import Options
from backstay.flows.recording.tally import Figures, Tally

PREFIX = "backstay_record_"
#: Seconds that a client may take for its request.
_PATIENCE = 5.0
#: Clients at a time; who comes when there are so many is hung up on.
_CLIENTS = 16
_MAX_PORT = 65535

_COUNTERS = {
    "deltas": ("deltas", "Deltas that were stored."),
    "changes": ("changes", "Changes that are in them."),
    "change_bytes": ("bytes", "Bytes of these changes."),
    "stored_bytes": ("stored_bytes", "Bytes that the deltas take in the store."),
    "full_backups": ("fulls", "Full backups that were made."),
    "proofs": ("proofs", "Answers to HashKV that were recorded."),
    "rolls": ("rolls", "Rolls that were made."),
    "lineages": ("lineages", "Lineages that were begun."),
    "keyrings": ("keyrings", "Keyrings that were saved for new keys."),
    "gaps": ("gaps", "Windows that were lost."),
    "lost_revisions": ("lost", "Revisions in these windows."),
    "watches": ("restarts", "Watches that were begun."),
    "store_errors": ("store_errors", "Times that the store failed."),
    "etcd_errors": ("etcd_errors", "Times that etcd failed."),
}
_GAUGES = {
    "head_revision": ("head", "The newest revision of the etcd that was heard of."),
    "recorded_revision": ("recorded", "The last revision that came whole."),
    "sealed_revision": ("sealed", "The last revision that is stored whole."),
    "sealed_timestamp_seconds": ("sealed_at", "When a delta was stored last."),
    "known_timestamp_seconds": ("known_at", "Until when it is stored what happened."),
    "heard_timestamp_seconds": ("heard_at", "When a member was heard last."),
    "full_backup_timestamp_seconds": ("full_at", "When a full backup was made last."),
    "waiting_bytes": ("waiting", "Bytes of changes that wait to be stored."),
}


@dataclass(frozen=True, slots=True)
class _Told(Collector):
    """What a recorder tells at one moment."""

    cluster: str
    figures: Figures
    now: float

    def collect(self) -> Iterator[Metric]:
        figures, labels = self.figures, ["cluster"]
        for name, (field, text) in _COUNTERS.items():
            counter = CounterMetricFamily(PREFIX + name, text, labels=labels)
            counter.add_metric([self.cluster], getattr(figures, field))
            yield counter
        gauges = {name: (getattr(figures, field), text) for name, (field, text) in _GAUGES.items()}
        behind = max(figures.head - figures.sealed, 0) if figures.sealed else 0
        gauges["lag_revisions"] = behind, "Revisions that are not stored yet."
        lag = "Seconds of history that would be lost with this machine now."
        gauges["lag_seconds"] = figures.lag(self.now), lag
        for name, (value, text) in gauges.items():
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=labels)
            gauge.add_metric([self.cluster], value)
            yield gauge


def metrics(cluster: str, figures: Figures, now: float) -> bytes:
    """Write the metrics.

    Args:
        cluster: the cluster's name.
        figures: what there was so far.
        now: seconds since 1970.
    """
    registry = CollectorRegistry()
    registry.register(_Told(cluster, figures, now))
    return generate_latest(registry)


def ill(figures: Figures, options: Options, now: float) -> str:
    """Say what is wrong with a recorder; empty where it is well.

    It is well while a member is heard, and what comes is stored: three times the time that either
    may take.
    """
    heard = now - (figures.heard_at or figures.began)
    if heard > 3 * options.patience:
        return f"no member has been heard for {heard:.0f} s"
    lag = figures.lag(now)
    if lag > 3 * options.idle_every:
        return f"nothing has been stored for {lag:.0f} s"
    return ""


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise UsageError(f"{text!r} is no address to listen on", "write 127.0.0.1:9414 or :9414")
    return host.strip("[]"), int(port)


#: A page: its code, and what it says.
_Page = tuple[int, bytes]


class _Server(ThreadingHTTPServer):
    """Serves pages, to few clients at a time and to each for a few seconds at most.

    So many of them can't take all memory, and one that says nothing keeps nobody from asking.
    """

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, host: str, port: int, page: Callable[[str], _Page]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.page = page
        self._slots = threading.BoundedSemaphore(_CLIENTS)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: object, client_address: object) -> None:
        del request, client_address


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE
    server_version = "backstay"
    sys_version = ""

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        code, data = self.server.page(self.path)
        self.send_response(code)
        kind = "version=0.0.4; " if self.path == "/metrics" else ""
        self.send_header("Content-Type", f"text/plain; {kind}charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        del format, args


@contextmanager
def serve(
    address: str, cluster: str, tally: Tally, options: Options, clock: Clock
) -> Iterator[str]:
    """Serve the two pages while the block runs; gives the address.

    Args:
        address: `HOST:PORT`; without a host: everywhere.
        cluster: the cluster's name.
        tally: what is told.
        options: of the recorder.
        clock: says how long ago things were.

    Raises:
        UsageError: that is no address.
        BackstayError: it can't be listened on.
    """
    host, port = _address(address)

    def page(path: str) -> _Page:
        now = clock.now().timestamp()
        if path == "/metrics":
            return 200, metrics(cluster, tally.figures, now)
        if path == "/healthz":
            wrong = ill(tally.figures, options, now)
            return 503 if wrong else 200, f"{wrong or 'ok'}\n".encode()
        return 404, b"there are /metrics and /healthz\n"

    try:
        server = _Server(host, port, page)
    except OSError as error:
        raise BackstayError(
            f"{address} can't be listened on: {error.strerror or error}", "name another address"
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="backstay-listen", daemon=True)
    thread.start()
    try:
        name = f"[{host}]" if ":" in host else host
        yield f"{name or '0.0.0.0'}:{server.server_address[1]}"  # noqa: S104 - what was asked for
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_PATIENCE)
