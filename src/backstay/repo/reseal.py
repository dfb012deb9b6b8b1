"""Resealing: where the objects of a backup lie that was sealed anew, to other recipients.

Nothing is replaced, the manifest neither. A note beside it (action `rewrap`) says where its objects
lie now, and who can read them; what they are in the clear still stands in the manifest, so that no
note can put other bytes in their place. The note is one put: before it the old objects count, from
then on the new ones. So the backup keeps its ID, its place in `latest`, its notes, pins and keys.

Of several notes that with the highest number counts; of two with the same number, which two
rewraps at the same time have written, that with the later paths. Source: docs/formats.md.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from backstay.errors import BackstayError, FormatError, NotFoundError, StoreError
from backstay.repo.document import MAX_SIZE, encode
from backstay.repo.manifest import Manifest, ObjectEntry
from backstay.repo.name import objects_of
from backstay.repo.note import Note, Resealing, parse_note
from backstay.repo.note import path as mint
from backstay.repo.store import Store, is_path


def publish(store: Store, note: Note) -> None:
    """Make the new objects count, in one put, and read back what says so.

    Raises:
        StoreError: the store refuses, or did not keep what was written; then the old ones count.
    """
    path, data = mint(note), encode(note)
    parse_note(data, path)
    store.put_new(path, data)
    try:
        kept = store.read(path, MAX_SIZE)
    except (NotFoundError, FormatError):
        kept = b""
    if kept != data:
        with suppress(BackstayError):
            store.delete(path)
        raise StoreError(
            f"{store.url}/{path} is not what was written to it, so the backup is as it was",
            "find out why the store changes what it is given",
        )


class Told(Protocol):
    """What may say that something was sealed anew."""

    @property
    def resealed(self) -> Resealing | None:
        """How; None where it says nothing of it."""
        ...


def current(notes: Sequence[Told]) -> Resealing | None:
    """Choose the resealing that counts; None where something was never sealed anew."""
    found = [note.resealed for note in notes if note.resealed is not None]
    return max(found, key=_order, default=None)


def _order(one: Resealing) -> tuple[int, list[str]]:
    return one.number, [moved.now for moved in one.objects]


def applied(manifest: Manifest, notes: Sequence[Note], name: str) -> Manifest:
    """Say of a backup where its objects lie now.

    Args:
        manifest: as it was written.
        notes: on it.
        name: what messages call it.

    Raises:
        FormatError: a note names other objects than the manifest, or places that are not its.
    """
    one = current(notes)
    if one is None:
        return manifest
    moved = {entry.path: entry for entry in one.objects}
    paths = [entry.path for entry in manifest.objects]
    if sorted(moved) != sorted(paths) or len(one.objects) != len(paths):
        raise FormatError(f"{name}: a note on its resealing names other objects than it has", _DO)
    prefix, places = objects_of(manifest.cluster), [entry.now for entry in one.objects]
    for place in places:
        if not place.startswith(prefix) or not is_path(place):
            raise FormatError(f"{name}: a note puts its objects outside of its cluster", _DO)
    if len(set(places)) < len(places):
        raise FormatError(f"{name}: a note puts two objects in one place", _DO)
    return msgspec.structs.replace(
        manifest,
        objects=tuple(_moved(entry, one) for entry in manifest.objects),
        snapshots=tuple(
            msgspec.structs.replace(snapshot, object=moved[snapshot.object].now)
            for snapshot in manifest.snapshots
        ),
        recipients=one.recipients,
    )


_DO = "find out who wrote it; without that note the manifest counts as it is"


def _moved(entry: ObjectEntry, one: Resealing) -> ObjectEntry:
    moved = next(moved for moved in one.objects if moved.path == entry.path)
    return msgspec.structs.replace(
        entry,
        path=moved.now,
        stored_size=moved.stored_size,
        stored_sha256=moved.stored_sha256,
    )


def superseded(notes: Sequence[Told]) -> tuple[str, ...]:
    """Name the places where objects lay before, and do not any more."""
    one = current(notes)
    if one is None:
        return ()
    before = {
        place
        for note in notes
        if note.resealed is not None and note.resealed.number < one.number
        for place in (moved.now for moved in note.resealed.objects)
    }
    before |= {moved.path for moved in one.objects}
    return tuple(sorted(before - {moved.now for moved in one.objects}))
