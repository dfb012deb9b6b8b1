"""`backstay backup etcd` beside what an administrator does by hand: save, look, upload."""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median

from benchmarks.programs import ETCDCTL, ETCDUTL, RCLONE, Run, compile_ours
from benchmarks.results import Row, compared
from benchmarks.servers import Servers, servers
from benchmarks.timing import by_turns
from benchmarks.workshop import LARGE_VALUES, LIKE_OBJECTS, Workshop, size_of
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

    def choose(self) -> dict[str, float]:
        """Try the ways to upload; gives what each took at best."""
        self.save()
        took = {}
        for way in _UPLOADS:
            self.copy(way)
            took[way] = min(self.copy(way).seconds for _ in range(2))
        self.upload = min(took, key=lambda way: took[way])
        return took

    def __call__(self) -> Run:
        """Do all three."""
        steps = (
            self.save(),
            self.running.run([ETCDUTL, "snapshot", "status", self.file]),
            self.copy(),
        )
        self.parts.append(tuple(step.seconds for step in steps))
        return Run(sum(s.seconds for s in steps), sum(s.cpu for s in steps), "")

    def medians(self) -> Iterator[tuple[str, float]]:
        """Give how long each part took; the first time is not counted."""
        parts = zip(*self.parts[1:], strict=True)
        yield from zip(("save", "status", "upload"), map(median, parts), strict=True)

    def save(self) -> Run:
        """Save a snapshot."""
        self.file.unlink(missing_ok=True)
        return self.running.run([ETCDCTL, "snapshot", "save", self.file])

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
        return self.running.run([RCLONE, "copyto", self.file, _REMOTE, *flags], remote)


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
        done = self.running.run(command)
        self.manifests.append(json.loads(done.out))
        return done


def backup(shop: Workshop) -> Iterator[Row]:
    """`backstay backup etcd` to S3."""
    compile_ours()
    for data in (LARGE_VALUES, LIKE_OBJECTS):
        snapshot = shop.snapshot(data)
        folder = shop.folder / "backup"
        with servers(folder, snapshot) as running:
            yield _row(shop, running, f"{size_of(snapshot)}, {data.random:.0%} random")
        shutil.rmtree(folder)


def _row(shop: Workshop, running: Servers, on: str) -> Row:
    by_hand, ours = ByHand(running), Ours(running)
    ways = by_hand.choose()
    times = by_turns(ours, by_hand, shop.times(_REPETITIONS))
    stored = ours.manifests[-1]["objects"][0]
    checks = ((check["name"], check["seconds"]) for check in ours.manifests[-1]["checks"])
    told = (
        f"- `backup etcd` on {on}: stored {stored['stored_size'] / stored['size']:.2f} of what"
        f" came. The checks of the last run: {_told(checks)}. Processor time of all programs,"
        f" the servers' too: {times[0].work:.1f} s, by hand {times[1].work:.1f} s. By hand:"
        f" {_told(by_hand.medians())}. The ways to upload: {_told(ways.items())}."
    )
    return compared("`backup etcd`", _AGAINST, on, times=times, goal=_GOAL, notes=[told])


def _told(seconds: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {took:.2f} s" for name, took in seconds)
