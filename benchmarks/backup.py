"""`backstay backup etcd` beside what an administrator does by hand: save, look, upload."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.programs import ETCDCTL, ETCDUTL, RCLONE, Run, compile_ours, run
from benchmarks.results import Row, compared
from benchmarks.servers import Servers, servers
from benchmarks.timing import by_turns
from benchmarks.workshop import LARGE_VALUES, Workshop, size_of
from kit import s3

_GOAL = 0.75
_REPETITIONS = 3
_AGAINST = "`etcdctl snapshot save`, `etcdutl snapshot status`, upload of the plain file"
_REMOTE = f":s3:{s3.BUCKET}/by-hand/snapshot.db"
#: Ways to upload with rclone. The quickest on this machine stands for the administrator.
_UPLOADS = {
    "rclone copyto": (),
    "rclone copyto, no MD5 before": ("--s3-disable-checksum",),
    "rclone copyto, no MD5 before, parts of 32 MiB": (
        *("--s3-disable-checksum", "--s3-chunk-size", "32M"),
    ),
    "rclone copyto, in one request": ("--s3-upload-cutoff", "5G"),
}


@dataclass
class ByHand:
    """The administrator's way: three programs, one after the other."""

    running: Servers
    upload: str = ""
    parts: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def file(self):
        """Where the snapshot is saved."""
        return self.running.folder / "saved.db"

    def choose(self) -> str:
        """Try the ways to upload; gives what each took."""
        self.save()
        took = {}
        for way in _UPLOADS:
            self.copy(way)
            took[way] = min(self.copy(way).seconds for _ in range(2))
        self.upload = min(took, key=lambda way: took[way])
        return ", ".join(f"{way} {seconds:.2f} s" for way, seconds in took.items())

    def __call__(self) -> Run:
        """Do all three."""
        steps = (self.save(), run([ETCDUTL, "snapshot", "status", self.file]), self.copy())
        self.parts.append(tuple(step.seconds for step in steps))
        return Run(sum(s.seconds for s in steps), sum(s.cpu for s in steps), "")

    def save(self) -> Run:
        """Save a snapshot."""
        self.file.unlink(missing_ok=True)
        return run([ETCDCTL, "snapshot", "save", self.file], self.running.variables)

    def copy(self, way: str = "") -> Run:
        """Upload it."""
        shutil.rmtree(self.running.objects / "by-hand", ignore_errors=True)
        known = self.running.variables
        remote = {
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_S3_PROVIDER": "Rclone",
            "RCLONE_S3_ENDPOINT": known["AWS_ENDPOINT_URL"],
            "RCLONE_S3_ACCESS_KEY_ID": known["AWS_ACCESS_KEY_ID"],
            "RCLONE_S3_SECRET_ACCESS_KEY": known["AWS_SECRET_ACCESS_KEY"],
            # What costs a request and gains nothing here.
            "RCLONE_S3_NO_CHECK_BUCKET": "true",
        }
        flags = _UPLOADS[way or self.upload]
        return run([RCLONE, "copyto", self.file, _REMOTE, *flags], remote)


@dataclass
class Ours:
    """`backstay backup etcd`, each time into a repository without other backups."""

    running: Servers
    manifests: list[dict] = field(default_factory=list)

    def __call__(self) -> Run:
        """Make one backup."""
        # What an earlier backup stored must not fill the disk.
        shutil.rmtree(self.running.objects / "bench" / "clusters", ignore_errors=True)
        command = self.running.backstay("backup", "etcd", "--cluster", "bench", "--json")
        done = run(command, self.running.variables)
        self.manifests.append(json.loads(done.out))
        return done


def backup(shop: Workshop) -> Iterator[Row]:
    """`backstay backup etcd` to S3."""
    compile_ours()
    snapshot = shop.snapshot(LARGE_VALUES)
    folder = shop.folder / "backup"
    with servers(folder, snapshot) as running:
        by_hand, ours = ByHand(running), Ours(running)
        shop.say(f"uploads: {(ways := by_hand.choose())}")
        times = by_turns(ours, by_hand, shop.times(_REPETITIONS))
        size = size_of(by_hand.file)
    shutil.rmtree(folder)
    notes = tuple(_notes(times, ours, by_hand, ways))
    on = f"{size}, encrypted and checked"
    yield compared("`backup etcd`", _AGAINST, on, times=times, goal=_GOAL, notes=notes)


def _notes(times, ours: Ours, by_hand: ByHand, ways: str) -> Iterator[str]:
    stored = ours.manifests[-1]["objects"][0]
    checks = ", ".join(
        f"{check['name']} {check['seconds']:.2f} s" for check in ours.manifests[-1]["checks"]
    )
    named = zip(("save", "status", "upload"), zip(*by_hand.parts[1:], strict=True), strict=True)
    parts = ", ".join(f"{name} {sorted(took)[len(took) // 2]:.2f} s" for name, took in named)
    yield f"- By hand: {parts}; by the quickest of these ways to upload: {ways}."
    yield (
        f"- Ours: stored {stored['stored_size'] / stored['size']:.2f} of what came; the checks of"
        f" the last run: {checks}; seconds of processor time"
        f" {sorted(times[0].cpu)[len(times[0].cpu) // 2]:.1f}, by hand"
        f" {sorted(times[1].cpu)[len(times[1].cpu) // 2]:.1f} (the servers' not counted)."
    )
