"""Points in time: a snapshot rewound, and a million recorded changes added to one."""

import random
import secrets
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from statistics import median

from backstay.client.answer import Put
from backstay.client.etcd import Etcd as Client
from backstay.flows.deltafetch import Fetched
from backstay.flows.fetch import BackupSubject
from backstay.mvcc.delta import Position, read_delta
from backstay.mvcc.deltawriter import DeltaWriter, Origin
from backstay.mvcc.export import export
from backstay.mvcc.history import look_back
from backstay.mvcc.recorded import Recorded
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.catalogue import Repository
from backstay.repo.delta import list_deltas, put_delta
from backstay.repo.stores.file import FileStore
from backstay.report import Report
from benchmarks.memory import peak
from benchmarks.programs import BACKSTAY, compile_ours, run
from benchmarks.results import Row, at_least, compared, limited
from benchmarks.snapshots import Data
from benchmarks.timing import Times, by_turns
from benchmarks.workshop import Workshop, size_of
from kit.etcd import Etcd
from kit.snapfile import varint

#: About 800 MB.
REWOUND = Data(keys=195_000, value_size=2560)
_CHANGES = 1_000_000
_VALUE = 1024
#: As the recorder seals by default.
_DELTA = 8 << 20
_REPETITIONS = 5
_GOAL_RATE = 250_000
_GOAL_MB = 200


def rewind(shop: Workshop) -> Iterator[Row]:
    """`backstay export FILE --to-revision R`, beside a copy and its checksum."""
    compile_ours()
    file = shop.snapshot(REWOUND)
    with Snapshot.open(file) as opened:
        revision = (opened.compact_revision + opened.revision) // 2
    ours, theirs = shop.folder / "rewound.db", shop.folder / "copied.db"
    command = [BACKSTAY, "export", file, "--to-revision", revision, "-o", ours, "--quiet"]
    by_hand = ["sh", "-c", 'cp "$1" "$2" && sha256sum "$2"', "sh", file, theirs]

    def fresh(path: Path, words: list[object]):
        path.unlink(missing_ok=True)
        return run(words)

    times = by_turns(
        lambda: fresh(ours, command), lambda: fresh(theirs, by_hand), shop.times(_REPETITIONS)
    )
    on = f"{size_of(file)}, revision {revision} of {opened.revision}"
    yield compared("`export FILE --to-revision`", "`cp`, `sha256sum`", on, times=times, goal=1.0)
    ours.unlink()
    theirs.unlink()


def apply(shop: Workshop) -> Iterator[Row]:
    """`backstay export ID --to-revision R` where all but a little was recorded."""
    compile_ours()
    changes = int(_CHANGES * shop.scale)
    for sealed in (True, False):
        folder = shop.folder / f"recorded-{sealed}"
        variables, words, revision = _recorded(folder, changes, sealed=sealed)
        target = folder / "out.db"
        command = [*words, "--to-revision", revision, "-o", target, "--quiet"]

        def once(target=target, command=command, variables=variables):
            target.unlink(missing_ok=True)
            return run(command, variables)

        runs = [once() for _ in range(1 + shop.times(_REPETITIONS))]
        seconds = Times.of(runs[1:]).median
        how = "encrypted" if sealed else "not encrypted"
        what = f"`export ID --to-revision`, {how}"
        on = f"{changes:,} recorded changes of {_VALUE} bytes"
        yield at_least(what, on, changes / seconds, "changes/s", _GOAL_RATE)
        target.unlink()
        yield limited(f"memory of {what}", on, peak(command, variables) / 1e6, "MB", _GOAL_MB)
    seconds = _put_together(folder, target, revision, shop.times(_REPETITIONS))
    what = "proven and put into a snapshot, of deltas that lie there in the clear"
    yield at_least(what, on, changes / seconds, "changes/s", _GOAL_RATE)


def _put_together(folder: Path, target: Path, revision: int, times: int) -> float:
    """Time what is left where nothing is to be fetched; gives seconds."""
    repository = Repository.open(FileStore(folder / "repo"))
    (entry,) = repository.backups("bench")
    subject = BackupSubject(repository, entry, "bench/latest", None, folder)
    lineage = entry.manifest.snapshots[0].lineage
    stored = list(list_deltas(repository, "bench", lineage))
    with subject.opened(Report()) as snapshot, Fetched(subject, stored) as fetched:
        for _ in fetched.read(Report()):
            pass
        starts = list(accumulate((one.name.size for one in stored), initial=0))

        def once() -> float:
            target.unlink(missing_ok=True)
            began = time.perf_counter()
            deltas = (
                read_delta(fetched.data, start, one.name.size, one.path)
                for one, start in zip(stored, starts, strict=False)
            )
            past = look_back(snapshot, revision, Recorded(snapshot, fetched.data, deltas, revision))
            with target.open("wb", buffering=0) as file:
                export(snapshot, file, past=past)
            return time.perf_counter() - began

        return median([once() for _ in range(1 + times)][1:])


def _recorded(folder: Path, changes: int, *, sealed: bool):
    """Make a repository with a small backup and many recorded changes after it."""
    folder.mkdir()
    identity = folder / "identity.txt"
    variables = {"BACKSTAY_REPO": f"file://{folder}/repo", "BACKSTAY_IDENTITY": str(identity)}
    run([BACKSTAY, "keygen", "-o", identity], variables)
    recipient = identity.read_text().split("public key: ")[1].split()[0]
    words = ["--recipient", recipient] if sealed else ["--no-encryption"]
    run([BACKSTAY, "init", *words], variables)
    with Etcd.start(folder / "etcd", tls=None) as etcd:
        with Client(etcd.access) as client:
            client.txn([Put(b"/registry/pods/%d" % n, b"first") for n in range(100)])
        access = ["--endpoints", etcd.endpoint]
        run([BACKSTAY, "backup", "etcd", "--cluster", "bench", *access], variables)
    repository = Repository.open(FileStore(folder / "repo"))
    (entry,) = repository.backups("bench")
    taken = entry.manifest.snapshots[0]
    last = _record(repository, taken.lineage, taken.revision + 1, changes)
    return variables, [BACKSTAY, "export", entry.manifest.id], last


def _record(repository: Repository, lineage: str, begin: int, changes: int) -> int:
    """Store changes as a recorder would: each a revision, half of each value random."""
    source = random.Random(changes)
    origin = Origin("bench", lineage, secrets.token_hex(8))
    words = [source.randbytes(4).hex().encode() for _ in range(4000)]
    text = b" ".join(source.choices(words, k=100_000))
    number, previous = 0, ""
    writer = DeltaWriter(origin, Position(begin))
    for main in range(begin, begin + changes):
        start = source.randrange(len(text) - _VALUE)
        value = source.randbytes(_VALUE // 2) + text[start : start + _VALUE // 2]
        key = b"/registry/pods/%06d" % source.randrange(100_000)
        writer.put(main, 0, _stored(key, main, value))
        if writer.size >= _DELTA or main == begin + changes - 1:
            writer.mark(main, 1_795_000_000_000 + main)
            written = writer.finish()
            put_delta(repository, written)
            number, previous = number + 1, written.digest
            writer = DeltaWriter(origin, Position(main + 1), number=number, previous=previous)
    return begin + changes - 1


def _stored(key: bytes, main: int, value: bytes) -> bytes:
    revision = varint(main)
    head = b"\x0a" + varint(len(key)) + key + b"\x10" + revision + b"\x18" + revision
    return head + b"\x20\x01\x2a" + varint(len(value)) + value
