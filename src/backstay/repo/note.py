"""Notes: what is said of a backup after its manifest was written.

The manifest never changes. A later verify or drill puts a small object beside it, under a name
that no two writers share; nothing is ever replaced. Source: docs/formats.md.
"""

import secrets
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from backstay import __version__
from backstay.repo.document import FORMAT, check_time, decode
from backstay.repo.manifest import CheckEntry, Count, Sha256, Short, Text
from backstay.repo.name import BackupId, notes_of

VERIFY = "verify"
DRILL = "drill"
REWRAP = "rewrap"


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """An object that was sealed anew.

    Attributes:
        path: as the manifest has it.
        now: where it lies from now on.
        stored_size: bytes, as it is stored there.
        stored_sha256: as it is stored there, hex.
    """

    path: Text
    now: Text
    stored_size: Count
    stored_sha256: Sha256


class Resealing(msgspec.Struct, frozen=True, kw_only=True):
    """How a backup was sealed anew; see `reseal`.

    Attributes:
        number: the first one is 1; the highest counts.
        recipients: who can read it from now on.
        objects: all objects of the manifest.
    """

    number: Annotated[int, Meta(ge=1, le=999_999)]
    recipients: Annotated[tuple[Short, ...], Meta(min_length=1, max_length=256)]
    objects: Annotated[tuple[Moved, ...], Meta(min_length=1, max_length=256)]


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """The verdicts of one later look at a backup."""

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: tuple[Short, ...] = ()
    backup: Text
    action: Short
    at: datetime
    seconds: Annotated[float, Meta(ge=0)]
    checks: Annotated[tuple[CheckEntry, ...], Meta(max_length=256)]
    resealed: Resealing | None = None
    backstay_version: Short = __version__


def folder(backup: BackupId) -> str:
    """Where the notes on a backup lie."""
    return f"{notes_of(backup.cluster)}{backup.name}/"


def path(note: Note) -> str:
    """Mint the name of a note."""
    when = note.at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{folder(BackupId.parse(note.backup))}{when}-{note.action}-{secrets.token_hex(4)}.json"


def parse_note(data: bytes, name: str) -> Note:
    """Read a note.

    Raises:
        FormatError: it is none, or is too new.
    """
    note = decode(data, Note, name)
    check_time(note.at, name)
    return note
