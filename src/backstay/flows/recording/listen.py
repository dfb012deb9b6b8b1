"""Metrics and health of a recorder over HTTP: two pages, few at a time, nothing to be sent.

The text format of Prometheus, version 0.0.4. Labels are the cluster's name and nothing else.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from backstay.clock import Clock
from backstay.errors import BackstayError, UsageError
from backstay.flows.recording.plan import Options
from backstay.flows.recording.tally import Figures, Tally

PREFIX = "backstay_record_"
#: Seconds that a client may take for its request.
_PATIENCE = 5.0
_MAX_PORT = 65535

_COUNTERS = {
    "deltas_total": ("deltas", "Deltas that were stored."),
    "changes_total": ("changes", "Changes that are in them."),
    "change_bytes_total": ("bytes", "Bytes of these changes."),
    "stored_bytes_total": ("stored_bytes", "Bytes that the deltas take in the store."),
    "full_backups_total": ("fulls", "Full backups that were made."),
    "proofs_total": ("proofs", "Answers to HashKV that were recorded."),
    "rolls_total": ("rolls", "Rolls that were made."),
    "lineages_total": ("lineages", "Lineages that were begun."),
    "keyrings_total": ("keyrings", "Keyrings that were saved for new keys."),
    "gaps_total": ("gaps", "Windows that were lost."),
    "lost_revisions_total": ("lost", "Revisions in these windows."),
    "watches_total": ("restarts", "Watches that were begun."),
    "store_errors_total": ("store_errors", "Times that the store failed."),
    "etcd_errors_total": ("etcd_errors", "Times that etcd failed."),
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


def metrics(cluster: str, figures: Figures, now: float) -> str:
    """Write the metrics.

    Args:
        cluster: the cluster's name.
        figures: what there was so far.
        now: seconds since 1970.
    """
    lines: list[str] = []

    def add(name: str, kind: str, text: str, value: float) -> None:
        full = PREFIX + name
        lines.append(f"# HELP {full} {text}")
        lines.append(f"# TYPE {full} {kind}")
        lines.append(f'{full}{{cluster="{cluster}"}} {value:.17g}')

    for name, (field, text) in _COUNTERS.items():
        add(name, "counter", text, getattr(figures, field))
    for name, (field, text) in _GAUGES.items():
        add(name, "gauge", text, getattr(figures, field))
    behind = max(figures.head - figures.sealed, 0) if figures.sealed else 0
    add("lag_revisions", "gauge", "Revisions that are not stored yet.", behind)
    lag = "Seconds of history that would be lost with this machine now."
    add("lag_seconds", "gauge", lag, figures.lag(now))
    return "\n".join(lines) + "\n"


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

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE
        server_version = "backstay"
        sys_version = ""

        def do_GET(self) -> None:
            now = clock.now().timestamp()
            if self.path == "/metrics":
                self._answer(200, metrics(cluster, tally.figures, now))
            elif self.path == "/healthz":
                wrong = ill(tally.figures, options, now)
                self._answer(503 if wrong else 200, f"{wrong or 'ok'}\n")
            else:
                self._answer(404, "there are /metrics and /healthz\n")

        def _answer(self, code: int, text: str) -> None:
            data = text.encode()
            self.send_response(code)
            kind = "version=0.0.4; " if self.path == "/metrics" else ""
            self.send_header("Content-Type", f"text/plain; {kind}charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            del format, args

    class Server(HTTPServer):
        # One after the other, each for a few seconds at most: many can't take all memory.
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        request_queue_size = 16

        def handle_error(self, request: object, client_address: object) -> None:
            del request, client_address

    try:
        server = Server((host, port), Handler)
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
