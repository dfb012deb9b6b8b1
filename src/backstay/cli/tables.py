"""Tables as kubectl prints them: columns under capitals, nothing drawn, made for grep."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from backstay.cli.values import printable, show_duration, show_size
from backstay.repo.document import plain
from backstay.repo.entry import Entry, Unreadable
from backstay.repo.manifest import CheckEntry, Manifest


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows under each other; the first one is the heading.

    What a repository says stays in its cell: a line end in it makes no row.
    """
    rows = [[printable(word) for word in row] for row in rows]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = (
        "   ".join(word.ljust(width) for word, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def table_of(found: Sequence[Entry | Unreadable]) -> str:
    """List backups."""
    heading = ("ID", "KIND", "TAKEN", "REVISION", "KEYS", "SIZE", "STORED", "STATE")
    return columns([heading, *(_row(entry) for entry in found)])


def _row(entry: Entry | Unreadable) -> Sequence[str]:
    if isinstance(entry, Unreadable):
        name = entry.path.rpartition("/")[2].removesuffix(".json")
        return (f"{entry.cluster}/{name}", "", "", "", "", "", "", "UNREADABLE")
    manifest = entry.manifest
    return (
        manifest.id,
        manifest.kind,
        _time(manifest.taken_at),
        str(manifest.revision),
        str(manifest.total_keys),
        show_size(manifest.total_size),
        show_size(manifest.stored_size),
        state(entry) + (", pinned" if entry.pins else ""),
    )


def state(entry: Entry) -> str:
    """Sum up what is known of a backup."""
    if entry.failed:
        return "FAILED"
    return "verified" if entry.verified else "not verified"


def document(entry: Entry) -> dict[str, Any]:
    """Give a backup as JSON has it: its manifest, and its pins where there are some."""
    found: dict[str, Any] = plain(entry.manifest)
    pins = [pin.as_json() for pin in entry.pins]
    return {**found, "pins": pins} if pins else found


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def describe(entry: Entry) -> str:
    """Write a backup out, as `kubectl describe` does."""
    manifest = entry.manifest
    parts = [_facts(entry), "", "Snapshots:", _snapshots(manifest)]
    parts += ["", "Objects:", _objects(manifest), "", "Checks:", _checks(manifest.checks)]
    for note in entry.notes:
        parts += ["", f"Later, {printable(note.action)} at {_time(note.at)}:", _checks(note.checks)]
    return "\n".join(parts)


def _facts(entry: Entry) -> str:
    manifest = entry.manifest
    sealed = ", ".join(manifest.recipients) or "nobody: not encrypted"
    compact = manifest.hashkv.compact_revision
    rows = (
        ("ID:", manifest.id),
        ("State:", state(entry)),
        *(("Pinned:", str(pin).removeprefix("pinned ")) for pin in entry.pins),
        ("Kind:", manifest.kind),
        ("Taken:", _time(manifest.taken_at)),
        ("Revision:", f"{manifest.revision} (compacted at {compact})"),
        ("Keys:", str(manifest.total_keys)),
        ("HashKV:", str(manifest.hashkv.hash)),
        ("Sealed to:", sealed),
        ("Written by:", f"backstay {manifest.backstay_version}"),
    )
    return columns(rows)


def _snapshots(manifest: Manifest) -> str:
    rows = [("NAME", "REVISION", "SIZE", "ETCD", "CLUSTER ID", "TERM", "LINEAGE")]
    rows += [
        (
            entry.name,
            str(entry.revision),
            show_size(entry.total_size),
            entry.etcd_version,
            entry.cluster_id,
            str(entry.raft_term),
            entry.lineage,
        )
        for entry in manifest.snapshots
    ]
    return columns(rows)


def _objects(manifest: Manifest) -> str:
    rows = [("ROLE", "SIZE", "STORED", "PATH")]
    rows += [
        (entry.role, show_size(entry.size), show_size(entry.stored_size), entry.path)
        for entry in manifest.objects
    ]
    return columns(rows)


def _checks(checks: Sequence[CheckEntry]) -> str:
    rows = [("CHECK", "VERDICT", "TOOK", "DETAIL")]
    rows += [
        (entry.name, str(entry.verdict), show_duration(entry.seconds), entry.detail)
        for entry in checks
    ]
    return columns(rows)
