"""The servers of a run: an etcd that serves a snapshot's data, an S3 server, a repository in it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import BACKSTAY, ETCDUTL, run
from kit import s3
from kit.cli import etcd_variables
from kit.etcd import Etcd

REPOSITORY = f"s3://{s3.BUCKET}/bench"
_PEERS = "default=unix://default:0"
_QUOTA = ("--quota-backend-bytes", str(16 << 30))


@dataclass(frozen=True, slots=True)
class Servers:
    """What runs, and how it is reached.

    Attributes:
        folder: for what programs write.
        variables: of the environment, by which programs find etcd (over mTLS), S3 (plain http,
            on loopback) and the encrypted repository.
        objects: the bucket, as files.
    """

    folder: Path
    variables: dict[str, str]
    objects: Path

    def backstay(self, *words: object) -> list[object]:
        """Give a command line of ours that takes the S3 server as it is."""
        return [BACKSTAY, *words, "--allow-http", "--quiet"]


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
        server = stack.enter_context(s3.plain(folder / "s3"))
        variables = {
            **etcd_variables(etcd, folder / "pki"),
            **server.environment,
            "BACKSTAY_REPO": REPOSITORY,
            "BACKSTAY_SPOOL_DIR": str(folder),
            "BACKSTAY_IDENTITY": str(folder / "identity"),
        }
        run([BACKSTAY, "keygen", "-o", folder / "identity"])
        ready = Servers(folder, variables, server.root / s3.BUCKET)
        run(ready.backstay("init", "--recipient", _recipient(folder / "identity")), variables)
        yield ready


def _recipient(identity: Path) -> str:
    return next(word for word in identity.read_text().split() if word.startswith("age1"))
