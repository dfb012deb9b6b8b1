"""What is fuzzed: bytes in, and nothing out but our own errors, soon, and the same both ways.

Each target takes any bytes. It returns, or raises what is a finding. `bolt` makes the checksums of
metas and the SHA-256 at the end right, and `delta` those of its blocks, so that what is inside is
reached.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Callable
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

from google.protobuf.message import DecodeError

from backstay.bolt import sweep
from backstay.client.proto.rpc_pb2 import KeyValue as Generated
from backstay.errors import DamagedError, FormatError, GapError, UsageError
from backstay.mvcc.checksum import extend
from backstay.mvcc.content import Content
from backstay.mvcc.delta import BLOCK, CHECKED, DONE, MAGIC, Position, read_delta, run_of
from backstay.mvcc.deltawriter import DeltaWriter, Origin
from backstay.mvcc.examination import examine
from backstay.mvcc.export import Edits, export
from backstay.mvcc.hashkv import compute_hashkv
from backstay.mvcc.history import look_back
from backstay.mvcc.keyvalue import parse_keyvalue
from backstay.mvcc.recorded import Recorded
from backstay.mvcc.revision import parse_revision
from backstay.mvcc.snapshot import Snapshot, Trailer
from backstay.mvcc.status import read_status
from backstay.mvcc.wire import MalformedError
from backstay.repo.config import parse_config
from backstay.repo.document import MAX_SIZE, encode
from backstay.repo.manifest import parse_manifest
from backstay.repo.note import parse_note
from kit.boltbytes import fnv, with_trailer

#: What deltas go on from: a snapshot at revision 4.
BASE = (Path(__file__).parent / "corpus" / "bolt" / "small").read_bytes()
EDITS = Edits(drop_alarms=True, disable_auth=True, bump=7, mark_compacted=True)
#: Files are padded to this: the sizes that bolt files have.
SECTOR = 512
_META = 16


def repaired(data: bytes) -> bytes:
    """Pad a file, and make right what only sums it up: checksums of both metas, and the SHA-256."""
    image = bytearray(data.ljust(-(-max(len(data), 1) // SECTOR) * SECTOR, b"\0"))
    page_size = int.from_bytes(image[_META + 8 : _META + 12], "little")
    for page in {0, page_size}:
        at = page + _META
        if at + 64 <= len(image):
            image[at + 56 : at + 64] = fnv(bytes(image[at : at + 56])).to_bytes(8, "little")
    return with_trailer(bytes(image))


@contextmanager
def opened(data: bytes):
    """Open a snapshot that has no name."""
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, data)
        with Snapshot.open(fd, name="it") as snapshot:
            yield snapshot
    finally:
        os.close(fd)


def _seen(data: bytes, bulk: int) -> tuple:
    """What an examination finds, in words that can be compared."""
    before, sweep._BULK_BYTES = sweep._BULK_BYTES, bulk
    try:
        with opened(data) as snapshot:
            found = examine(snapshot)
            assert found.trailer is Trailer.MATCHES
            if isinstance(found.structure, DamagedError):
                # How much of the content was seen before that is no matter.
                assert not isinstance(found.content, Content)
                assert found.status is None
                return ("damaged", str(found.structure))
            whole = isinstance(found.content, Content) and found.status is not None
            hashkv = None
            with suppress(DamagedError):
                assert read_status(snapshot) == found.status
            if whole:
                hashkv = compute_hashkv(snapshot)
                with suppress(DamagedError, UsageError):  # the bump may be beyond all numbers
                    export(snapshot, BytesIO(), EDITS)
            for ask in (snapshot.members, snapshot.leases, snapshot.alarms):
                with suppress(DamagedError):
                    list(ask())
            # Of two damages either may be named.
            content = repr(found.content) if isinstance(found.content, Content) else "damaged"
            return repr(found.structure), content, found.status, hashkv
    except DamagedError as error:
        return ("damaged", str(error))
    finally:
        sweep._BULK_BYTES = before


def bolt(data: bytes) -> None:
    """A snapshot file: the quick and the exact way say the same of it."""
    file = repaired(data)
    assert _seen(file, bulk=0) == _seen(file, bulk=1 << 40)


def keyvalue(data: bytes) -> None:
    """A stored value: what we take protobuf takes, and reads the same in it."""
    try:
        found = parse_keyvalue(data)
    except MalformedError:
        return
    theirs = Generated()
    try:
        theirs.ParseFromString(data)
    except DecodeError as error:
        raise AssertionError(f"protobuf refuses {data!r}") from error
    for name in ("key", "create_revision", "mod_revision", "version", "value", "lease"):
        assert getattr(found, name) == getattr(theirs, name), (name, data)


def document(data: bytes) -> None:
    """A document of a repository: refused, or whole; what is written again is read the same."""
    for parse in (parse_manifest, parse_note, parse_config):
        try:
            found = parse(data, "it")
        except FormatError:
            continue
        assert len(data) <= MAX_SIZE
        again = encode(found)
        json.loads(again)
        assert parse(again, "it") == found


def resealed(data: bytes) -> bytes:
    """Make right what only sums a delta up: the checksum of each block, and the digest."""
    image, at = bytearray(data), len(MAGIC)
    while at + BLOCK.size <= len(image):
        kind, count, size, _ = BLOCK.unpack_from(image, at)
        body = at + BLOCK.size
        if kind == DONE:
            image[body : body + size] = hashlib.sha256(image[:at]).digest()
            size = len(image) - body
        checked = extend(0, bytes(image[at : at + CHECKED.size]))
        BLOCK.pack_into(
            image, at, kind, count, size, extend(checked, bytes(image[body : body + size]))
        )
        at = body + size
    return bytes(image)


def delta(data: bytes) -> None:
    """A delta: what goes into a snapshot comes out of it, and is what the writer would write."""
    file = resealed(data) or b"\0"
    view = mmap.mmap(-1, len(file))
    view[:] = file
    try:
        found = read_delta(view, 0, len(file), "it")
    except (DamagedError, FormatError):
        return
    changes = []
    for block in found.blocks:
        run = run_of([block])
        for key, value, stop in zip(run.keys, run.values, run.stops, strict=True):
            changes.append((file[key:value], file[value:stop]))
    assert len(changes) == found.header.changes
    revision = max(found.end.main - 1, 5)
    with opened(repaired(BASE)) as snapshot, suppress(DamagedError, GapError):
        past = look_back(snapshot, revision, Recorded(snapshot, view, [found], revision))
        made = BytesIO()
        export(snapshot, made, past=past)
        _check_added(made.getvalue(), revision, changes)


def _main(key: bytes) -> int:
    return int.from_bytes(key[:8], "big")


def _check_added(made: bytes, revision: int, changes: list[tuple[bytes, bytes]]) -> None:
    """Hold a snapshot to the changes that were added to it."""
    writer = DeltaWriter(Origin("prod", "0" * 16, "w"), Position(5))
    with opened(made) as snapshot:
        bucket = snapshot.bucket(b"key")
        assert not isinstance(examine(snapshot).structure, DamagedError)
        assert snapshot.revision == revision
        there = [pair for pair in bucket.items() if _main(pair[0]) > 4]
        assert there == [pair for pair in changes if 4 < _main(pair[0]) <= revision]
    for key, value in there:
        at = parse_revision(key)
        if at.tombstone:
            writer.delete(at.main, at.sub, parse_keyvalue(value).key)
        else:
            writer.put(at.main, at.sub, value)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "bolt": bolt,
    "keyvalue": keyvalue,
    "document": document,
    "delta": delta,
}
