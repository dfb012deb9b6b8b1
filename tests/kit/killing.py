"""The program, killed at any moment of what it asks of the API and of its stores.

    with Killing.start(tmp_path) as killing:
        clean = killing.run(["backup", "hosted", ...])            # lives
        killed = killing.run(["backup", "hosted", ...], at=17)    # kill -9 at the 17th moment

Each request has two moments: before it is served, which it then never is; and when the server has
done it, and the program has not heard of that. One that puts something into a store has a third:
when half of it is there. One counter goes over all of them, of the API and of the store (rclone's
S3, over TLS), so that the numbers from 1 up to those of a run that lives are all there is. What
runs at the same time may change places from run to run.

The program runs in a process of its own, born of one that has everything imported.
"""

import contextlib
import functools
import importlib
import multiprocessing
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from urllib.parse import urlsplit

from backstay.demo.s3 import S3Server, ServerCertificate, s3_server
from kit import needs, s3
from kit.kubeserver import HangUpError, KubeServer

#: Nothing is shared between the two: who can read one bucket can read all of it.
BUCKETS = ("backups", "keys")
FORKS = multiprocessing.get_context("forkserver")
#: What the program imports in the end; a child has it from birth.
PRELOADED = [
    "backstay.cli.backup_hosted",
    "backstay.cli.main",
    "backstay.cli.restore_hosted",
    "backstay.kinds.hosted.backup",
    "backstay.kinds.hosted.recovery.rollout",
    "backstay.kubeapi.connect",
    "backstay.repo.stores.s3",
]
#: As a user has them, but for the waiting: a moment more or less is no other moment.
QUICK = {"quiet": 0.1, "poll": 0.05, "drain": 5.0, "timeout": 60.0}
_PATIENCE = 90


def writes(what: str) -> bool:
    """Whether a moment is one of a request that changes something."""
    _, verb, *about = what.split(" ")
    changes = verb in {"PUT", "POST", "DELETE", "create", "patch", "update", "delete"}
    return changes and not about[0].startswith("selfsubjectaccessreviews")


class Moments:
    """Counts the moments of one run, and kills it at one of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._born = threading.Event()
        self._born.set()
        self._child: multiprocessing.process.BaseProcess | None = None
        self._at = self._open = 0
        self._only: Callable[[str], bool] = bool
        self.seen: list[str] = []
        self.killed = ""

    @contextmanager
    def of(
        self, at: int, only: Callable[[str], bool]
    ) -> Iterator[Callable[[multiprocessing.process.BaseProcess], None]]:
        """Count those of the child that is told of, and kill it at one; 0 lets it live."""
        with self._lock:
            self._at, self._only, self.seen, self.killed = at, only, [], ""
            self._born.clear()

        def born(child: multiprocessing.process.BaseProcess) -> None:
            self._child = child
            self._born.set()

        try:
            yield born
        finally:
            with self._idle:
                # What had come to a server before the kill is still done there.
                assert self._idle.wait_for(lambda: not self._open, _PATIENCE), "a request hangs"
                self._child = None
            self._born.set()

    def before(self, what: str) -> bool:
        """A request has come; whether it may be served."""
        with self._lock:
            self._open += 1
        if self._ends(f"before {what}"):
            with self._idle:
                self._open -= 1
                self._idle.notify_all()
            return False
        return True

    def during(self, what: str) -> bool:
        """Half of what it brings has come; whether more will."""
        return not self._ends(f"during {what}")

    def after(self, what: str) -> None:
        """A request was served, and nobody knows it."""
        try:
            self._ends(f"after {what}")
        finally:
            with self._idle:
                self._open -= 1
                self._idle.notify_all()

    def _ends(self, what: str) -> bool:
        """Count one; whether the child is dead by now for it."""
        assert self._born.wait(_PATIENCE)
        with self._lock:
            child = self._child
            if child is None or self.killed or not self._only(what):
                return False
            self.seen.append(what)
            if len(self.seen) != self._at:
                return False
            self.killed = what
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            wait([child.sentinel])
            return True

    # Where they are counted.

    def watch(self, kube: KubeServer) -> None:
        """Count the requests to an API."""

        def before(_, seen):
            if not self.before(f"{seen.verb} {seen.resource}/{seen.subresource} {seen.name}"):
                raise HangUpError

        def after(_, seen):
            self.after(f"{seen.verb} {seen.resource}/{seen.subresource} {seen.name}")

        kube.on_request, kube.after_request = before, after


@contextmanager
def gate(upstream: str, moments: Moments, tls: ServerCertificate) -> Iterator[str]:
    """Stand between clients and an S3 server: https there, http here; gives the URL."""
    parts = urlsplit(upstream)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve(raw: socket.socket) -> None:
        with contextlib.suppress(OSError):
            raw.settimeout(_PATIENCE)
            with context.wrap_socket(raw, server_side=True) as client:
                _pass_on(client, (parts.hostname, parts.port), moments)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # A close alone does not wake the thread that waits in accept.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(5)


def _pass_on(client: ssl.SSLSocket, upstream: tuple[str, int], moments: Moments) -> None:
    """Serve one request: all of it goes there, and then all of the answer comes back."""
    head, body = b"", b""
    while not (end := head.find(b"\r\n\r\n")) >= 0:
        piece = client.recv(1 << 16)
        if not piece:
            return
        head += piece
    head, body = head[: end + 4], head[end + 4 :]
    line, *fields = head.decode("latin-1").split("\r\n")
    what = " ".join(line.partition("?")[0].split(" ")[:2]) + ("?" if "?" in line else "")
    if not moments.before(what):
        return
    answer, length = b"", _length(fields)
    try:
        with socket.create_connection(upstream, _PATIENCE) as server:
            server.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            body += _read(client, length // 2 - len(body))
            server.sendall(body[: length // 2])
            if length and not moments.during(what):
                return
            body += _read(client, length - len(body))
            server.sendall(body[length // 2 :])
            # Where its sender has died over it, the server finds that it has ended too early.
            while len(body) == length and (piece := server.recv(1 << 16)):
                answer += piece
    finally:
        moments.after(what)
    client.sendall(answer)


def _length(fields: list[str]) -> int:
    named = dict(field.lower().split(": ", 1) for field in fields if ": " in field)
    assert "transfer-encoding" not in named, "no client of S3 sends chunks"
    return int(named.get("content-length", 0))


def _read(client: ssl.SSLSocket, left: int) -> bytes:
    """Read so much, or what there is when it ends."""
    data = b""
    while left > 0 and (piece := client.recv(min(left, 1 << 16))):
        data += piece
        left -= len(piece)
    return data


def run_program(words: list[str], variables: dict[str, str], folder: str, log: str) -> None:
    """Be the program, in a process of its own."""
    kept = ("PATH", "HOME", "LANG", "NO_PROXY", "no_proxy")
    for name in set(os.environ) - set(kept):
        del os.environ[name]
    os.environ.update(variables)
    os.chdir(folder)
    tempfile.tempdir = None
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number in (1, 2):
        os.dup2(file, number)
    # Where other tests have started the server that forks, it has other modules; what is changed
    # below must have been imported by those that use it.
    for name in PRELOADED:
        importlib.import_module(name)
    from backstay.cli.main import main
    from backstay.kinds.hosted.quiescing import quiesce

    quiesce.Options = functools.partial(quiesce.Options, **QUICK)
    sys.exit(main(words))


@dataclass
class Run:
    """How a run ended.

    Attributes:
        code: its exit code; -9 for one that was killed.
        moments: what it had asked, in order.
        killed: at what; empty where it lived.
        told: what it said.
    """

    code: int
    moments: list[str]
    killed: str
    told: str


@dataclass
class Killing:
    """A store and a program that is killed over it; `runs.txt` in its folder tells all runs."""

    folder: Path
    server: S3Server
    variables: dict[str, str]
    moments: Moments = field(default_factory=Moments)

    @classmethod
    @contextmanager
    def start(cls, folder: Path) -> Iterator["Killing"]:
        """Start a store with two buckets."""
        # Others may name other modules on import; the first child decides.
        FORKS.set_forkserver_preload(PRELOADED)
        moments = Moments()
        certificate = s3.throw_away_certificate(folder / "tls")
        rclone = needs.binary("rclone")
        with (
            s3_server(folder / "s3", buckets=BUCKETS, rclone=rclone) as server,
            gate(server.endpoint, moments, certificate) as url,
            # The path of a socket in it must be short.
            tempfile.TemporaryDirectory(prefix="k-") as temporary,
        ):
            (folder / "spool").mkdir()
            variables = server.environment | {
                "AWS_ENDPOINT_URL": url,
                "AWS_CA_BUNDLE": str(certificate.authority),
                "SSL_CERT_FILE": str(certificate.authority),
                "BACKSTAY_REPO": "s3://backups/hosted",
                "BACKSTAY_KEYS_REPO": "s3://keys/hosted",
                "BACKSTAY_SPOOL_DIR": str(folder / "spool"),
                "TMPDIR": temporary,
            }
            yield cls(folder, server, variables, moments)

    def run(
        self, words: Sequence, at: int = 0, *, only: Callable[[str], bool] = bool, **variables: str
    ) -> Run:
        """Run a command line, and kill it at a moment; 0 lets it live.

        Args:
            words: the command line.
            at: which one of those that count, from 1.
            only: which moments count, by their words.
            variables: more of its environment.
        """
        log = self.folder / "told.txt"
        arguments = [str(word) for word in words]
        settings = self.variables | variables
        child = FORKS.Process(
            target=run_program, args=(arguments, settings, str(self.folder), str(log))
        )
        with self.moments.of(at, only) as born:
            child.start()
            born(child)
            child.join(_PATIENCE)
            assert child.exitcode is not None, "it hangs"
        run = Run(child.exitcode, self.moments.seen, self.moments.killed, log.read_text())
        with (self.folder / "runs.txt").open("a") as file:
            print(at, run.code, run.killed, file=file)
        return run

    @property
    def temporary(self) -> list[Path]:
        """Whatever lies where the program puts files for a while."""
        folders = (Path(self.variables["TMPDIR"]), self.folder / "spool")
        return [path for folder in folders for path in sorted(folder.rglob("*"))]

    def objects(self) -> set[str]:
        """All objects of both buckets, by bucket and path."""
        return {
            str(path.relative_to(self.server.root))
            for path in self.server.root.rglob("*")
            if path.is_file()
        }

    def age(self, seconds: float) -> None:
        """Let everything that is left be older, in both buckets and here."""
        for path in [*self.server.root.rglob("*"), *self.temporary]:
            if path.is_file() or path in self.temporary:
                then = path.stat().st_mtime - seconds
                os.utime(path, (then, then))
        time.sleep(0.15)  # rclone remembers a directory for 100 ms

    def clear(self, keep: set[str]) -> None:
        """Delete all other objects."""
        for name in self.objects() - keep:
            (self.server.root / name).unlink()
        time.sleep(0.15)  # rclone remembers a directory for 100 ms
