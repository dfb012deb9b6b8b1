from datetime import UTC, datetime

from msgspec.structs import replace

from backstay.cli.tables import columns, describe, state, table_of
from backstay.repo.entry import Entry, Unreadable
from backstay.repo.note import Note
from backstay.report import Verdict
from kit.manifests import checks, manifest

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)


def entry(*notes, **how):
    return Entry(manifest(**how), notes, NOW)


def note(verdict):
    return Note(backup=manifest().id, action="verify", at=NOW, seconds=1.5, checks=checks(verdict))


def test_columns_are_as_wide_as_their_widest_word():
    assert columns([("A", "B"), ("long", "x"), ("", "yy")]) == "A      B\nlong   x\n       yy"


def test_a_cell_makes_no_row():
    assert columns([("A",), ("x\ny\x1b[0m",)]).splitlines() == ["A", "x\\ny\\x1b[0m"]


def test_a_list_for_people():
    bad = Unreadable("prod", "clusters/prod/backups/20261120T231000Z-r1-aaaa.json", "x", "y", NOW)
    good = entry()
    lines = table_of([good, bad]).splitlines()
    assert lines[0].split() == [
        "ID",
        "KIND",
        "TAKEN",
        "REVISION",
        "KEYS",
        "SIZE",
        "STORED",
        "STATE",
    ]
    assert lines[1].split()[0] == good.manifest.id
    assert lines[1].endswith("verified")
    assert "2026-11-20 23:10:00Z" in lines[1]
    assert lines[2].split() == ["prod/20261120T231000Z-r1-aaaa", "UNREADABLE"]


def test_states():
    assert state(entry()) == "verified"
    assert state(entry(verdicts=checks(names=("stored",)))) == "not verified"
    assert state(entry(verdicts=checks(Verdict.COULD_NOT_VERIFY))) == "not verified"
    assert state(entry(verdicts=checks(Verdict.FAIL))) == "FAILED"
    assert state(entry(note(Verdict.FAIL))) == "FAILED"
    assert state(entry(note(Verdict.PASS), verdicts=())) == "verified"


def test_a_backup_written_out():
    made = entry(note(Verdict.FAIL))
    text = describe(made)
    assert made.manifest.id in text
    assert "nobody: not encrypted" in text
    assert "Later, verify at 2026-11-20 23:10:00Z:" in text
    assert text.count("PASS") == 4
    assert text.count("FAIL") == 4 + 1
    sealed = Entry(replace(made.manifest, recipients=("age1x", "age1y")), (), NOW)
    assert "age1x, age1y" in describe(sealed)
