"""What is fuzzed: bytes in, and nothing out but our own errors, soon, and the same both ways.

Each target takes any bytes. It returns, or raises what is a finding. `bolt` makes the checksums of
metas and the SHA-256 at the end right, so that what is inside is reached.
"""

import json
import os
from collections.abc import Callable
from contextlib import contextmanager, suppress
from io import BytesIO

from google.protobuf.message import DecodeError

from backstay.bolt import sweep
from backstay.client.proto.rpc_pb2 import KeyValue as Generated
from backstay.errors import DamagedError, FormatError, UsageError
from backstay.mvcc.content import Content
from backstay.mvcc.examination import examine
from backstay.mvcc.export import Edits, export
from backstay.mvcc.hashkv import compute_hashkv
from backstay.mvcc.keyvalue import parse_keyvalue
from backstay.mvcc.snapshot import Snapshot, Trailer
from backstay.mvcc.status import read_status
from backstay.mvcc.wire import MalformedError
from backstay.repo.config import parse_config
from backstay.repo.document import MAX_SIZE, encode
from backstay.repo.manifest import parse_manifest
from backstay.repo.note import parse_note
from kit.boltbytes import fnv, with_trailer

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
            return repr(found.structure), repr(found.content), found.status, hashkv
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


TARGETS: dict[str, Callable[[bytes], None]] = {
    "bolt": bolt,
    "keyvalue": keyvalue,
    "document": document,
}
