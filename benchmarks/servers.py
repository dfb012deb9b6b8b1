"""The servers of a run: an etcd that serves a snapshot's data, an S3 server, a repository in it.

`servers` has an etcd alone, `hosted_servers` one that belongs to a hosted control plane.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.apiserver import ControlPlane
from benchmarks.programs import BACKSTAY, ETCDUTL, Run, run
from kit import s3
from kit.cli import etcd_variables
from kit.etcd import Etcd

REPOSITORY = f"s3://{s3.BUCKET}/bench"
_PEERS = "default=unix://default:0"
#: rclone would read a whole object to make its ETag, for each request that names the object; stores
#: in the field keep what they know.
_NO_ETAGS = ("--etag-hash", "")
_TICKS = os.sysconf("SC_CLK_TCK")
_QUOTA = ("--quota-backend-bytes", str(16 << 30))


@dataclass(frozen=True, slots=True)
class Servers:
    """What runs, and how it is reached.

    Attributes:
        folder: for what programs write.
        variables: of the environment, by which programs find etcd (over mTLS), S3 (plain http,
            on loopback) and the encrypted repository.
        objects: the bucket, as files.
        pids: the servers' processes.
    """

    folder: Path
    variables: dict[str, str]
    objects: Path
    pids: tuple[int, ...]

    def backstay(self, *words: object) -> list[object]:
        """Give a command line of ours that takes the S3 server as it is."""
        return [BACKSTAY, *words, "--allow-http", "--quiet"]

    def run(self, command: Sequence[object], variables: Mapping[str, str] | None = None) -> Run:
        """Run a program; the servers' work for it counts as its own."""
        before = self._cpu()
        done = run(command, variables or self.variables)
        return replace(done, cpu=done.cpu + self._cpu() - before)

    def _cpu(self) -> float:
        return sum(map(cpu_of, self.pids))


def cpu_of(pid: int) -> float:
    """Tell for how many seconds a process has worked, without its children."""
    # Fields 14 and 15 (proc(5)), counted behind the program's name.
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    return sum(map(int, stat.split()[11:13])) / _TICKS


@contextmanager
def servers(folder: Path, snapshot: Path) -> Iterator[Servers]:
    """Serve a snapshot's data, and an empty repository, until the block ends."""
    folder.mkdir()
    # An own data directory: the etcd that wrote the data would still be busy with its history.
    command = [ETCDUTL, "snapshot", "restore", snapshot, "--data-dir", folder / "default.etcd"]
    run(
        [*command, "--initial-cluster", _PEERS, "--initial-advertise-peer-urls", "unix://default:0"]
    )
    with ExitStack() as stack:
        etcd = stack.enter_context(Etcd.start(folder, flags=_QUOTA))
        server = stack.enter_context(s3.plain(folder / "s3", flags=_NO_ETAGS))
        variables = {
            **etcd_variables(etcd, folder / "pki"),
            **server.environment,
            "BACKSTAY_REPO": REPOSITORY,
            "BACKSTAY_SPOOL_DIR": str(folder),
            "BACKSTAY_IDENTITY": str(folder / "identity"),
        }
        run([BACKSTAY, "keygen", "-o", folder / "identity"])
        ready = Servers(folder, variables, server.root / s3.BUCKET, (etcd.pid, server.pid))
        ready.run(ready.backstay("init", "--recipient", _recipient(folder / "identity")))
        yield ready


@contextmanager
def hosted_servers(folder: Path, snapshot: Path) -> Iterator[tuple[Servers, ControlPlane]]:
    """Serve a hosted control plane that has a snapshot's data, and its two repositories.

    The data's repository is in an S3 server over TLS, as a restore needs it; that of the keys is
    a directory.
    """
    folder.mkdir()
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane.start(folder / "plane", snapshot))
        certificate = s3.throw_away_certificate(folder / "tls")
        server = stack.enter_context(s3.plain(folder / "s3", tls=certificate, flags=_NO_ETAGS))
        variables = {
            **plane.variables,
            **server.environment,
            "SSL_CERT_FILE": str(certificate.authority),
            "BACKSTAY_REPO": REPOSITORY,
            "BACKSTAY_KEYS_REPO": f"file://{folder / 'keys'}",
            "BACKSTAY_SPOOL_DIR": str(folder),
            "BACKSTAY_IDENTITY": str(folder / "identity"),
        }
        pids = (plane.etcd_pid, plane.api_pid, server.pid)
        ready = Servers(folder, variables, server.root / s3.BUCKET, pids)
        run([BACKSTAY, "keygen", "-o", folder / "identity"])
        recipient = ("--recipient", _recipient(folder / "identity"))
        ready.run(ready.backstay("init", *recipient))
        keys = ("--repo", variables["BACKSTAY_KEYS_REPO"], "--role", "keys")
        ready.run(ready.backstay("init", *keys, *recipient))
        yield ready, plane


def _recipient(identity: Path) -> str:
    return next(word for word in identity.read_text().split() if word.startswith("age1"))
