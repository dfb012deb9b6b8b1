"""The demonstration: five acts on a real etcd and a real S3 server, in a minute.

It runs the very commands that a reader would type, and shows them. What it stores is its own; all
of it is gone at the end.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backstay.client.answer import Hash, Put
from backstay.client.etcd import Etcd
from backstay.client.member import Member, scratch, serving
from backstay.client.tools import Tool, find_etcd, find_restorer
from backstay.demo.s3 import S3Server, s3_server
from backstay.demo.secrets import configuration, encrypted_secret
from backstay.errors import BackstayError, CheckFailedError
from backstay.report import Report

KEYS = 2000
SECRETS = 40
#: Of AES, as a kube-apiserver has it in its EncryptionConfiguration.
_KEY = b"the key of a demonstration, only"
_BATCH = 100
_CLUSTER = "demo"
_RECORDED = "demo-recorded"
_REPOSITORY = "s3://backups/demo"
_BACKSTAY = (sys.executable, "-m", "backstay.cli.main")


@dataclass(frozen=True, slots=True)
class Act:
    """What was shown.

    Attributes:
        title: what it is about.
        seconds: how long it took.
    """

    title: str
    seconds: float


@dataclass(slots=True)
class Stage:
    """What the acts share.

    Attributes:
        folder: a private directory.
        store: the S3 server.
        etcd: the program.
        tell: shows a line to the reader.
    """

    folder: Path
    store: S3Server
    etcd: Tool
    tell: Callable[[str], None]
    report: Report
    before: Hash | None = field(default=None)

    @property
    def data_dir(self) -> Path:
        """The data directory that everybody relies on."""
        return self.folder / "etcd"

    @contextmanager
    def serving(self, data_dir: Path) -> Iterator[Member]:
        """Run etcd on a data directory."""
        with serving(data_dir, self.etcd, Report()) as member:
            yield member

    def run(self, *words: str, expect: int = 0, member: Member | None = None) -> None:
        """Show a command, and run it.

        Raises:
            BackstayError: it ended in another way than it should.
        """
        self.tell(f"  $ backstay {' '.join(words)}")
        done = subprocess.run(
            [*_BACKSTAY, *words],
            cwd=self.folder,
            env=self._environment(member),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        for line in done.stdout.splitlines():
            self.tell(f"    {line}")
        if done.returncode != expect:
            raise BackstayError(
                f"`backstay {words[0]}` ended with {done.returncode}, not {expect}",
                "this is a defect of backstay: report what is above",
            )

    def _environment(self, member: Member | None) -> dict[str, str]:
        environment = {
            **os.environ,
            **self.store.environment,
            "BACKSTAY_REPO": _REPOSITORY,
            "BACKSTAY_IDENTITY": "identity.txt",
        }
        if member is not None:
            environment["ETCDCTL_ENDPOINTS"] = str(member.access.endpoints[0])
        return environment

    @contextmanager
    def behind(self, *words: str, member: Member) -> Iterator[subprocess.Popen[str]]:
        """Show a command, and run it behind the act; it is ended with the block."""
        self.tell(f"  $ backstay {' '.join(words)} &")
        with (self.folder / "behind.log").open("w") as log:
            process = subprocess.Popen(
                [*_BACKSTAY, *words],
                cwd=self.folder,
                env=self._environment(member),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def recorded(self) -> list[Path]:
        """Name the deltas that are stored, once there is a full backup to which they belong."""
        root = self.store.root / "backups/demo"
        full = any(root.glob(f"clusters/{_RECORDED}/backups/*.json"))
        return list(root.glob(f"deltas/{_RECORDED}/*/*")) if full else []


def play(tell: Callable[[str], None], *, etcd: Path | None, etcdutl: Path | None) -> list[Act]:
    """Play all acts.

    Args:
        tell: shows a line to the reader.
        etcd: the program to use; None looks for it.
        etcdutl: likewise.

    Raises:
        ToolError: a program is missing.
        BackstayError: an act did not come out as it should.
    """
    tool = find_etcd(etcd, least=(3, 5, 0))
    find_restorer(etcdutl)
    acts = []
    with scratch() as folder, s3_server(folder / "s3") as store:
        stage = Stage(folder, store, tool, tell, Report())
        for number, (title, act) in enumerate(_acts(), start=1):
            began = time.monotonic()
            tell("")
            tell(f"Act {number}. {title}")
            act(stage)
            acts.append(Act(title, round(time.monotonic() - began, 1)))
    return acts


def _acts() -> Iterator[tuple[str, Callable[[Stage], None]]]:
    yield "A backup that is proven", _back_up
    yield "Everything is lost, and comes back", _lose_and_restore
    yield "A namespace is deleted, and the second before it comes back", _record
    yield "This key does not open this snapshot", _wrong_key
    yield "One bit flips in the bucket, and is found", _flip


def _back_up(stage: Stage) -> None:
    with stage.serving(stage.data_dir) as member:
        with Etcd(member.access) as etcd:
            _fill(etcd)
            stage.before = etcd.hashkv(member.access.endpoints[0])
        stage.tell(f"An etcd {_version(stage.etcd)} runs, with {KEYS} keys written, some changed,")
        stage.tell("some deleted. An S3 server runs too. First a key pair: the public half goes")
        stage.tell("into the repository, the private half stays with whoever may restore.")
        stage.run("keygen", "-o", "identity.txt")
        recipient = _recipient(stage.folder / "identity.txt")
        stage.run("init", "--recipient", recipient, "--allow-http")
        stage.run("backup", "etcd", "--cluster", _CLUSTER, "--allow-http", member=member)
        stage.tell("Every line that says PASS is a question that was asked of the backup. The last")
        stage.tell("proof is to restore it, into an etcd that is thrown away:")
        stage.run("drill", f"{_CLUSTER}/latest", "--allow-http")


def _lose_and_restore(stage: Stage) -> None:
    shutil.rmtree(stage.data_dir)
    stage.tell("etcd is stopped and its data directory is deleted. Nothing is left but the bucket")
    stage.tell("and identity.txt. (No client is left either that could be confused, so the")
    stage.tell("revision stays as it was; by default it is raised.)")
    restored = stage.folder / "restored"
    stage.run(
        *("restore", "etcd", f"{_CLUSTER}/latest-verified"),
        *("--data-dir", restored.name, "--no-bump", "--allow-http"),
    )
    with stage.serving(restored) as member, Etcd(member.access) as etcd:
        after = etcd.hashkv(member.access.endpoints[0])
    for word, found in (("before", stage.before), ("after", after)):
        assert found is not None
        stage.tell(f"  HashKV {word:>6}: {found.hash} at revision {found.revision}")
    if after != stage.before:
        raise CheckFailedError("the restored etcd differs from the lost one", "report it")
    stage.tell("Equal: the same hash over every key, every value and every revision.")


def _record(stage: Stage) -> None:
    prefix, end = b"/registry/pods/01", b"/registry/pods/02"
    stage.tell("The restored etcd goes on, and a recorder writes every change down.")
    with stage.serving(stage.folder / "restored") as member, Etcd(member.access) as etcd:
        words = ("record", "etcd", "--cluster", _RECORDED, "--every", "1s", "--allow-http")
        with stage.behind(*words, member=member) as recorder:
            _wait_for(lambda: etcd.put(b"/heart", b"beats") and stage.recorded())
            before = etcd.range(prefix, end, count_only=True).count
            revision = etcd.put(b"/registry/pods/01000", b"the last good change")
            stage.tell(f"At revision {revision} there are {before} pods 01000 to 01999. A slip:")
            stage.tell("  $ etcdctl del /registry/pods/01 --prefix")
            etcd.delete(prefix, end)
            left = etcd.range(prefix, end, count_only=True).count
            stage.tell(
                f"Now there are {left}. It is recorded as any change; the recorder is stopped."
            )
            recorder.terminate()
            _ended_well(recorder)
    stage.run("timeline", "--cluster", _RECORDED, "--allow-http")
    again = stage.folder / "again"
    stage.run(
        *("restore", "etcd", f"{_RECORDED}/latest", "--to-revision", str(revision)),
        *("--data-dir", again.name, "--no-bump", "--allow-http"),
    )
    with stage.serving(again) as member, Etcd(member.access) as etcd:
        after = etcd.range(prefix, end, count_only=True).count
    if after != before:
        raise CheckFailedError(f"there are {after} pods, and there were {before}", "report it")
    stage.tell(f"All {after} are there again: the state of the second before, to the last change.")


def _wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise BackstayError("the recorder stored nothing in a minute", "look at this machine")
        time.sleep(0.3)


def _ended_well(recorder: subprocess.Popen[str]) -> None:
    code = recorder.wait(60)
    if code:
        raise BackstayError(f"the recorder ended with {code}", "report it as a defect of backstay")


def _wrong_key(stage: Stage) -> None:
    stage.tell("Some of what was backed up are Secrets, encrypted as a kube-apiserver does it. The")
    stage.tell("backup is worth nothing without their key. Here is the one that was saved:")
    wrong = bytes([_KEY[0] ^ 1]) + _KEY[1:]
    for name, key in (("saved-key.json", _KEY), ("other-key.json", wrong)):
        (stage.folder / name).write_text(configuration(key, _KEY))
    verify = ("verify", f"{_CLUSTER}/latest", "--read-data", "--prove-all", "--allow-http")
    stage.run(*verify, "--encryption-config", "saved-key.json")
    stage.tell("And here is one that has the same name, and differs in one bit:")
    failed = CheckFailedError.exit_code
    stage.run(*verify, "--encryption-config", "other-key.json", expect=failed)
    stage.tell("Told before the day on which it would matter. Backups of hosted control planes ask")
    stage.tell("this each time, and keep the keys in a repository of their own.")


def _flip(stage: Stage) -> None:
    path = max(stage.store.root.glob(f"backups/demo/clusters/{_CLUSTER}/objects/*/*"))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    stage.tell(f"One bit of {path.stat().st_size * 8} is flipped, behind everybody's back.")
    stage.run("verify", f"{_CLUSTER}/latest", "--allow-http", expect=CheckFailedError.exit_code)
    stage.tell("Found, told with exit code 3, and written down: `latest` will never mean it again.")
    stage.run("list", "--allow-http")


def _fill(etcd: Etcd) -> None:
    """Write some history: puts, changes, deletes, a compaction in the middle."""
    source = random.Random(2001)  # noqa: S311 - the same play each time
    for start in range(0, KEYS, _BATCH):
        etcd.txn(
            [
                Put(f"/registry/pods/{n:05}".encode(), source.randbytes(source.randint(50, 900)))
                for n in range(start, start + _BATCH)
            ]
        )
    for number in range(0, KEYS, 7):
        revision = etcd.put(f"/registry/pods/{number:05}".encode(), source.randbytes(300))
        if number == 7 * _BATCH:
            etcd.compact(revision - 5)
    etcd.delete(b"/registry/pods/00100", b"/registry/pods/00150")
    for number in range(SECRETS):
        etcd.put(*encrypted_secret(f"secret-{number:02}", _KEY, source))


def _recipient(path: Path) -> str:
    lines = path.read_text().splitlines()
    return next(line.split()[-1] for line in lines if "public key" in line)


def _version(tool: Tool) -> str:
    return ".".join(map(str, tool.version))
