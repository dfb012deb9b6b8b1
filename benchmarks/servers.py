"""The servers of a run: an etcd that serves a snapshot's data, an S3 server, a repository in it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

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
        # Fields 14 and 15 (proc(5)), counted behind the program's name.
        stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for pid in self.pids)
        return sum(sum(map(int, stat.split()[11:13])) for stat in stats) / _TICKS


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


def _recipient(identity: Path) -> str:
    return next(word for word in identity.read_text().split() if word.startswith("age1"))
