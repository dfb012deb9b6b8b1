"""Resealing of keyrings: where the sealed parts lie of one that was sealed to other recipients.

    clusters/CLUSTER/keyrings/NAME/TIME-RAND.zst.age          the keyring, sealed anew
    clusters/CLUSTER/keyrings/NAME/TIME-RAND.tar.gz.zst.age   its archive, where it has one
    clusters/CLUSTER/keyrings/NAME/TIME-RAND.json             the note that makes them count; last

The header stays as it is, byte for byte: its digest stands in the manifest of the backup. What the
parts are in the clear stands in the header, so that no note can put other bytes in their place. The
note is one put: before it the old parts count, from then on the new ones. Of several notes that
with the highest number counts, as for backups (see `reseal`). Source: docs/formats.md.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from backstay import __version__
from backstay.errors import FormatError
from backstay.repo.document import FORMAT, check_time, decode
from backstay.repo.keyring_document import NAME, KeyringHeader, check_bounds
from backstay.repo.manifest import ObjectEntry, Sha256, Short, Text
from backstay.repo.note import Resealing
from backstay.repo.reseal import current

_NAME = re.compile(NAME.strip("^$"))
_DO = "find out who wrote it; without that note the header counts as it is"


class KeyringNote(msgspec.Struct, frozen=True, kw_only=True):
    """Says that a keyring was sealed anew.

    Attributes:
        keyring: which: `CLUSTER/NAME`.
        digest: SHA-256 of its header's bytes, hex.
        at: when, by the writer's clock; aware.
        resealed: how.
    """

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: tuple[Short, ...] = ()
    keyring: Text
    digest: Sha256
    at: datetime
    resealed: Resealing
    backstay_version: Short = __version__


def parse_note(data: bytes, name: str, header: KeyringHeader, digest: str) -> KeyringNote:
    """Read a note on a keyring.

    Args:
        data: its bytes.
        name: what messages call it.
        header: of the keyring that it should be on.
        digest: of that.

    Raises:
        FormatError: it is none, is too new, or is on another keyring.
    """
    note = decode(data, KeyringNote, name)
    check_time(note.at, name)
    if (note.keyring, note.digest) != (header.id, digest):
        raise FormatError(f"{name} is on the keyring {note.keyring[:200]!r}, or another one", _DO)
    return note


def applied(header: KeyringHeader, notes: Sequence[KeyringNote], name: str) -> KeyringHeader:
    """Say in a header where the parts of its keyring lie now.

    Args:
        header: as it was written.
        notes: on its keyring.
        name: what messages call it.

    Raises:
        FormatError: a note names other parts than the header, or places that are not its.
    """
    one = current(notes)
    if one is None:
        return header
    parts = {part.path for part in header.parts}
    moved = {entry.path: entry for entry in one.objects}
    if moved.keys() != parts or len(one.objects) != len(parts):
        raise FormatError(f"{name}: a note on its resealing names other parts than it has", _DO)
    stem = header.object.path.removesuffix(".zst.age")
    for path, entry in moved.items():
        run = entry.now.removeprefix(f"{stem}/").removesuffix(path.removeprefix(stem))
        if not _NAME.fullmatch(run) or entry.now != f"{stem}/{run}{path.removeprefix(stem)}":
            raise FormatError(f"{name}: a note puts its parts where none of its lie", _DO)

    def now(part: ObjectEntry) -> ObjectEntry:
        entry = moved[part.path]
        return msgspec.structs.replace(
            part,
            path=entry.now,
            stored_size=entry.stored_size,
            stored_sha256=entry.stored_sha256,
        )

    found = msgspec.structs.replace(
        header,
        object=now(header.object),
        archive=now(header.archive) if header.archive is not None else None,
        recipients=one.recipients,
    )
    return check_bounds(found, name)
