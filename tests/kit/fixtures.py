"""Snapshots that real etcds and a real kube-apiserver made, and what their own tools said of them.

See tests/fixtures/README.md.
"""

import hashlib
import json
import sys
from functools import cache
from pathlib import Path

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FOLDER = Path(__file__).parent.parent / "fixtures"
NAMES = tuple(sorted(path.name.removesuffix(".db.zst") for path in FOLDER.glob("*.db.zst")))
DAMAGED = tuple(
    sorted(path.name.removesuffix(".db.zst") for path in (FOLDER / "damaged").glob("*.db.zst"))
)


def _folder(name: str) -> Path:
    return FOLDER / "damaged" if name in DAMAGED else FOLDER


@cache
def facts(name: str) -> dict:
    """What was said of a snapshot."""
    return json.loads((_folder(name) / f"{name}.json").read_text())


@cache
def data(name: str) -> bytes:
    """The snapshot file, as bytes."""
    packed = (_folder(name) / f"{name}.db.zst").read_bytes()
    found = zstd.decompress(packed)
    assert hashlib.sha256(found).hexdigest() == facts(name)["db_sha256"]
    return found


def write(name: str, folder: Path) -> Path:
    """Write the snapshot file into a folder."""
    path = folder / f"{name}.db"
    path.write_bytes(data(name))
    return path


def dumps(name: str) -> dict[int, list[bytes]]:
    """The lines of the dumps that are here, by their revisions."""
    found = {}
    for path in _folder(name).glob(f"{name}.rev*.dump.zst"):
        revision = int(path.name.split(".rev")[1].split(".")[0])
        found[revision] = zstd.decompress(path.read_bytes()).splitlines()
    return found


def events(name: str) -> list[bytes]:
    """The lines of the changes after the compaction, in their order."""
    path = _folder(name) / f"{name}.events.zst"
    return zstd.decompress(path.read_bytes()).splitlines()
