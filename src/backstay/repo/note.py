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
from backstay.repo.manifest import CheckEntry, Short, Text
from backstay.repo.name import BackupId, notes_of

VERIFY = "verify"
DRILL = "drill"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """The verdicts of one later look at a backup."""

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: tuple[Short, ...] = ()
    backup: Text
    action: Short
    at: datetime
    seconds: Annotated[float, Meta(ge=0)]
    checks: Annotated[tuple[CheckEntry, ...], Meta(max_length=256)]
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
