"""Hosted control planes: what a backup costs their users, and what reaching an etcd costs.

Kubernetes' API is that of the tests, in a process of its own: see benchmarks/apiserver.py.
"""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

from backstay.client.access import Access, Tls
from backstay.client.endpoint import parse_endpoints
from backstay.client.etcd import Etcd
from backstay.clock import SystemClock
from backstay.flows.source import Source
from backstay.kinds.hosted.find import find
from backstay.kinds.hosted.reach.transport import HostedSource, reach
from backstay.kubeapi.connect import connect
from backstay.report import Report
from benchmarks.apiserver import ControlPlane
from benchmarks.memory import peak
from benchmarks.programs import RCLONE, Run, compile_ours
from benchmarks.results import Row, compared, limited
from benchmarks.servers import Servers, cpu_of, hosted_servers
from benchmarks.timing import Times, in_turn
from benchmarks.workshop import CONTROL_PLANE, LARGE_CONTROL_PLANE, LITTLE, Workshop, size_of
from kit import s3
from kit.world import CLUSTER, NAME, NAMESPACE

ABOUT = """\
Kubernetes' API, HyperShift's operator, the kubelet's streams and the time that pods take to leave
are those of the tests: emulated, in Python, in a process of their own on the same cores
(benchmarks/apiserver.py). etcd and the S3 server (over TLS) are real. etcd has also 2,000 Secrets
that are encrypted with aescbc. `backstay` is run from outside of the cluster, so by port-forward.
A pod's end is seen, and a writer writes, every 0.1 s: so exact are the seconds of downtime.
"""
_REPETITIONS = 3
_GOAL_MB = 200
_GOAL_OWN = 5.0
#: Seconds that a writer's pod takes to leave. A real kube-apiserver takes more than a minute.
_LEAVES = 6.0
_WHICH = ("hosted", NAME, "-n", NAMESPACE)
_LATEST = f"{CLUSTER}/latest"
#: Bytes that etcd sends beside a snapshot: answers to questions.
_BESIDE = 2 << 20
_LOOK = 0.01


def downtime(shop: Workshop) -> Iterator[Row]:
    """`backup hosted`: what the API's users notice of it."""
    with _serving(shop, CONTROL_PLANE) as (running, plane, on):
        yield from _undisturbed(shop, running, plane, on)
        yield _quiesced(shop, running, plane, on, writes=False)
        yield _quiesced(shop, running, plane, on, writes=True)


def transports(shop: Workshop) -> Iterator[Row]:
    """The stream of a snapshot, by each transport."""
    with _serving(shop, CONTROL_PLANE) as (running, plane, on), _ways(running, plane) as ways:
        direct, *others = in_turn(ways, shop.times(_REPETITIONS))
        for way, times in zip(ways[1:], others, strict=True):
            told = (
                f"- Snapshot by {way.name}: {way.speed(times)}, direct {ways[0].speed(direct)}."
                f" Processor time: ours {median(way.ours):.1f} s (direct"
                f" {median(ways[0].ours):.1f} s), of the tests' API server, which is written in"
                f" Python and has the same cores, {median(way.api):.1f} s, of etcd"
                f" {median(way.etcd):.1f} s (direct {median(ways[0].etcd):.1f} s)."
            )
            what = f"snapshot stream by {way.name}"
            yield compared(what, "direct, over mTLS", on, times=(times, direct), notes=[told])


def restoring(shop: Workshop) -> Iterator[Row]:
    """`restore hosted`: fetch, export, upload, presign."""
    with _serving(shop, CONTROL_PLANE) as (running, _, on):
        running.run(_backup(running))
        restored, copied = _Restore(running), _Copy(running)
        restored()
        copied.prepare(restored.staged())
        ours, theirs = in_turn((restored, copied), shop.times(_REPETITIONS))
        told = (
            f"- `restore hosted` on {on}: fetches, decrypts, unpacks and checks, proves the keys,"
            " raises the revision, uploads in the clear, presigns and tries the URL. rclone fetches"
            " the plain file from one bucket and puts it into the other, through this machine, with"
            f" the settings that were the quickest for uploads. Processor time, the S3 server's"
            f" too: {ours.work:.1f} s, rclone {theirs.work:.1f} s."
        )
        against = "`rclone copyto` of the plain file, bucket to bucket"
        yield compared(
            "`restore hosted --from-backup`", against, on, times=(ours, theirs), notes=[told]
        )


def hosted_memory(shop: Workshop) -> Iterator[Row]:
    """Peak memory of backup and restore, on little and on much."""
    for data in (LITTLE, LARGE_CONTROL_PLANE):
        with _serving(shop, data) as (running, _, on):
            for command in (_backup(running), _restore(running, running.folder / "out.yaml")):
                most = peak(command, running.variables) / 1e6
                what = f"memory of `{command[1]} hosted`"
                yield limited(what, on, most, "MB", _GOAL_MB)


@contextmanager
def _serving(shop: Workshop, data) -> Iterator[tuple[Servers, ControlPlane, str]]:
    compile_ours()
    snapshot, folder = shop.snapshot(data), shop.folder / "hosted"
    try:
        with hosted_servers(folder, snapshot) as (running, plane):
            yield running, plane, size_of(snapshot)
    finally:
        shutil.rmtree(folder)


# Backups


def _backup(running: Servers, *words: object) -> list[object]:
    return running.backstay("backup", *_WHICH, *words)


@dataclass
class _Backup:
    """A backup, each time into a repository without other backups."""

    running: Servers
    command: list[object]
    manifests: list[dict] = field(default_factory=list)

    def __call__(self) -> Run:
        shutil.rmtree(self.running.objects / "bench" / "clusters", ignore_errors=True)
        done = self.running.run(self.command)
        self.manifests.append(json.loads(done.out))
        return done


def _undisturbed(shop: Workshop, running: Servers, plane: ControlPlane, on: str) -> Iterator[Row]:
    plain = running.backstay("backup", "etcd", "--cluster", "bench", "--json")
    ours, etcd = _Backup(running, _backup(running, "--json")), _Backup(running, plain)
    plane.ask("seen")
    times, theirs = in_turn((ours, etcd), shop.times(_REPETITIONS))
    seen = plane.ask("seen")
    number = len(ours.manifests)
    kinds = ", ".join(f"{count} {verb}" for verb, count in sorted(seen["kinds"].items()))
    told = (
        f"- `backup hosted` sent the API {seen['requests']} requests in {number} runs ({kinds}),"
        f" and {len(seen['writes'])} of them change something: no Deployment is touched, so the"
        " API of the control plane is never down. By port-forward, as from outside the cluster;"
        f" processor time of all programs, the servers' too: {times.work:.1f} s, `backup etcd`"
        f" {theirs.work:.1f} s."
    )
    yield Row(
        ("changes to the API by `backup hosted`", "", on, f"{len(seen['writes'])}", "", "", "0"),
        not seen["writes"],
    )
    yield compared(
        "`backup hosted`",
        "`backup etcd` of the same etcd, directly",
        on,
        times=(times, theirs),
        notes=[told],
    )


@dataclass(frozen=True, slots=True)
class _Down:
    """One time that the API was down; seconds.

    Attributes:
        told: the downtime that the program tells.
        seen: from the first request that scales down to all replicas being ready again.
        leaving: until the last pod was gone.
        waiting: from then until etcd sent the snapshot.
        stream: as long as it did.
        back: from then until all replicas were ready.
    """

    told: float
    seen: float
    leaving: float
    waiting: float
    stream: float
    back: float

    @property
    def own(self) -> float:
        """What is neither the stream nor the writers' leaving."""
        return self.waiting + self.back


def _quiesced(
    shop: Workshop, running: Servers, plane: ControlPlane, on: str, *, writes: bool
) -> Row:
    backup = _Backup(running, _backup(running, "--quiesce", "--json"))
    found = []
    for _ in range(shop.times(_REPETITIONS)):
        plane.ask("seen")
        plane.ask("operate", leaves=_LEAVES, writes=writes)
        with _sent(plane.etcd_pid) as sent:
            backup()
        found.append(_down(plane.ask("seen"), sent, backup.manifests[-1]))
    own = median(one.own for one in found)
    middle = sorted(found, key=lambda one: one.own)[len(found) // 2]
    who = "until their pods are gone" if writes else "not while they leave"
    told = (
        f"- `backup hosted --quiesce` on {on}, writers write {who}: the program told a downtime of"
        f" {middle.told:.1f} s, {middle.seen:.1f} s were seen from outside. Of these the pods took"
        f" {middle.leaving:.1f} s to leave and the stream {middle.stream:.1f} s; ours are"
        f" {middle.waiting:.2f} s from the last pod's end to the stream (5 s of quiet are part of"
        f" it, as far as they had not passed by then) and {middle.back:.2f} s from the stream's"
        " end until all replicas were ready."
        f" All runs: {', '.join(f'{one.own:.2f} s' for one in found)}."
    )
    what = f"downtime of our own, `--quiesce`, writers write {who}"
    cells = (what, "", on, f"{own:.2f} s", "", "", f"{_GOAL_OWN:g} s")
    return Row(cells, own <= _GOAL_OWN, (told,))


def _down(seen: dict, sent: list[tuple[float, int]], manifest: dict) -> _Down:
    scaled, gone, ready = seen["scaled"], seen["gone"], seen["ready"]
    at_first = next(number for at, number in sent if at >= gone)
    began = max(at for at, number in sent if number <= at_first + _BESIDE)
    ended = min(at for at, number in sent if number >= sent[-1][1] - _BESIDE)
    return _Down(
        told=manifest["hosted"]["api_downtime"],
        seen=ready - scaled,
        leaving=gone - scaled,
        waiting=began - gone,
        stream=ended - began,
        back=ready - ended,
    )


@contextmanager
def _sent(pid: int) -> Iterator[list[tuple[float, int]]]:
    """Note again and again how many bytes a process has written: to files, and to sockets."""
    looks: list[tuple[float, int]] = []
    over = threading.Event()
    lines = Path(f"/proc/{pid}/io")

    def look() -> None:
        while not over.wait(_LOOK):
            told = dict(line.split(": ") for line in lines.read_text().splitlines())
            looks.append((time.monotonic(), int(told["wchar"])))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield looks
    finally:
        over.set()
        thread.join()


# Transports


class _Nowhere:
    """Where a snapshot goes that nobody wants."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes, /) -> int:
        self.size += len(data)
        return len(data)

    def reset(self) -> None:
        self.size = 0


@dataclass
class _Way:
    """One way to take a snapshot; in this process, so that starting it costs nothing."""

    name: str
    source: Source
    plane: ControlPlane
    size: int = 0
    ours: list[float] = field(default_factory=list)
    api: list[float] = field(default_factory=list)
    etcd: list[float] = field(default_factory=list)

    def __call__(self) -> Run:
        self.source.choose(Report())
        sink, before, began = _Nowhere(), self._work(), time.perf_counter()
        self.source.fetch(sink, Report())
        seconds, after = time.perf_counter() - began, self._work()
        self.size = sink.size
        worked = [later - earlier for earlier, later in zip(before, after, strict=True)]
        for kept, one in zip((self.ours, self.api, self.etcd), worked, strict=True):
            kept.append(one)
        return Run(seconds, sum(worked), "")

    def _work(self) -> tuple[float, float, float]:
        return time.process_time(), cpu_of(self.plane.api_pid), cpu_of(self.plane.etcd_pid)

    def speed(self, times: Times) -> str:
        """Say how fast it was."""
        return f"{self.size / 1e6 / times.median:.0f} MB/s"


@contextmanager
def _ways(running: Servers, plane: ControlPlane) -> Iterator[list[_Way]]:
    known, clock = running.variables, SystemClock()
    ca, certificate, key = (
        Path(known[f"ETCDCTL_{name}"]).read_bytes() for name in ("CACERT", "CERT", "KEY")
    )
    access = Access(
        endpoints=parse_endpoints(known["ETCDCTL_ENDPOINTS"]),
        tls=Tls(ca=ca, certificate=certificate, key=key),
    )
    with (
        Etcd(access) as etcd,
        connect(Path(known["KUBECONFIG"]), None) as api,
        ExitStack() as stack,
    ):
        hosted = find(api, NAME, NAMESPACE)
        ways = [_Way("direct", HostedSource(etcd), plane)]
        for name in ("port-forward", "exec"):
            reached = stack.enter_context(reach(api, hosted, name, clock=clock))
            ways.append(_Way(name, reached.shards[0].source, plane))
        yield ways


# Restores

_STAGING = f"s3://{s3.BUCKET}/staging"


def _restore(running: Servers, output: Path) -> list[object]:
    words = ("--from-backup", "-o", output, "--staging", _STAGING)
    return running.backstay("restore", "hosted", _LATEST, *words)


@dataclass
class _Restore:
    """A restore, each time into a staging place with nothing in it."""

    running: Servers
    numbers: Iterator[int] = field(default_factory=count)

    def __call__(self) -> Run:
        shutil.rmtree(self.place, ignore_errors=True)
        output = self.running.folder / f"restore-{next(self.numbers)}.yaml"
        return self.running.run(_restore(self.running, output))

    @property
    def place(self) -> Path:
        """The staging place, as files."""
        return self.running.objects / "staging"

    def staged(self) -> Path:
        """What the last one has staged: by far the largest file."""
        files = (path for path in self.place.rglob("*") if path.is_file())
        return max(files, key=lambda path: path.stat().st_size)


@dataclass
class _Copy:
    """A copy of the plain snapshot from one bucket to another."""

    running: Servers

    def prepare(self, staged: Path) -> None:
        """Put the plain snapshot into a bucket of its own."""
        for bucket in (self.source, self.target):
            bucket.mkdir()
        shutil.copyfile(staged, self.source / "snapshot.db")

    def __call__(self) -> Run:
        (self.target / "snapshot.db").unlink(missing_ok=True)
        known = self.running.variables
        remote = {
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_S3_PROVIDER": "Rclone",
            "RCLONE_S3_ENDPOINT": known["AWS_ENDPOINT_URL"],
            "RCLONE_S3_ACCESS_KEY_ID": known["AWS_ACCESS_KEY_ID"],
            "RCLONE_S3_SECRET_ACCESS_KEY": known["AWS_SECRET_ACCESS_KEY"],
            "RCLONE_S3_NO_CHECK_BUCKET": "true",
            "RCLONE_S3_DISABLE_CHECKSUM": "true",
            "RCLONE_S3_CHUNK_SIZE": "32M",
            "RCLONE_CA_CERT": known["AWS_CA_BUNDLE"],
            # Not by the server alone: a restore can't do that either.
            "RCLONE_DISABLE": "copy",
        }
        names = (f":s3:{bucket.name}/snapshot.db" for bucket in (self.source, self.target))
        return self.running.run([RCLONE, "copyto", *names], remote)

    @property
    def source(self) -> Path:
        return self.running.objects.parent / "from"

    @property
    def target(self) -> Path:
        return self.running.objects.parent / "to"
