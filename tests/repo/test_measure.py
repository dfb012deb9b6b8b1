"""Figures of clusters: from entries alone, and never rosier than these."""

from datetime import UTC, datetime, timedelta

import msgspec

from backstay.checks import change, members
from backstay.repo import measure as measures
from backstay.repo.entry import Entry, Unreadable
from backstay.repo.manifest import OkdEntry
from backstay.repo.measure import measure
from backstay.repo.note import DRILL, VERIFY, Note
from backstay.repo.pin import BY_BACKUP, Pin
from backstay.report import Verdict
from kit.manifests import PROVEN, checks, manifest

NOW = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
DAY = timedelta(days=1)


def entry(taken=NOW, *, written=None, notes=(), verdict=Verdict.PASS, **fields):
    made = manifest(at=taken, verdicts=checks(verdict), **fields)
    return Entry(made, tuple(notes), written or taken)


def note(action, at, verdict=Verdict.PASS, seconds=7.0):
    found = checks(verdict, ("hashkv",))
    return Note(backup="prod/x", action=action, at=at, seconds=seconds, checks=found)


def of(*entries, now=NOW):
    [figures] = measure(entries, now)
    return figures


def test_a_cluster_is_measured_by_its_newest_good_backup():
    old = entry(NOW - DAY, revision=5)
    bad = entry(NOW, revision=9, verdict=Verdict.FAIL)
    figures = of(old, bad)
    assert (figures.backups, figures.failed, figures.verified) == (2, 1, 1)
    assert figures.newest.at == NOW - DAY
    assert figures.newest.revision == 5
    assert figures.last.failed == len(PROVEN)
    assert not figures.last.good


def test_a_backup_that_could_not_be_verified_is_newest_but_not_verified():
    old = entry(NOW - DAY, revision=5)
    unsure = entry(NOW, revision=9, verdict=Verdict.COULD_NOT_VERIFY)
    figures = of(old, unsure)
    assert figures.newest.at == NOW
    assert figures.verified_at == NOW - DAY
    assert figures.last.unverified == len(PROVEN)


def test_a_verify_that_fails_later_takes_the_backup_away():
    figures = of(entry(NOW - DAY, notes=[note(VERIFY, NOW, Verdict.FAIL)]))
    assert figures.newest is None
    assert figures.verified_at is None
    assert figures.verify.at == NOW
    assert figures.verify.verdicts.failed == 1
    assert figures.verify_good_at is None


def test_neither_a_clock_that_is_ahead_nor_a_copy_makes_a_backup_younger():
    ahead = entry(NOW + 100 * DAY, written=NOW - DAY)
    assert of(ahead).newest.at == NOW - DAY
    copied = entry(NOW - 9 * DAY, written=NOW)
    assert of(copied).newest.at == NOW - 9 * DAY


def test_looks_of_a_time_that_has_not_come_are_not_believed():
    notes = [note(DRILL, NOW - DAY), note(DRILL, NOW + 2 * DAY)]
    figures = of(entry(NOW - 2 * DAY, notes=notes))
    assert figures.drill.at == figures.drill_good_at == NOW - DAY


def test_a_drill_that_failed_does_not_hide_when_one_passed():
    passed = entry(NOW - 3 * DAY, revision=1, notes=[note(DRILL, NOW - 2 * DAY, seconds=3.0)])
    failed = entry(
        NOW - DAY, revision=2, notes=[note(DRILL, NOW, Verdict.COULD_NOT_VERIFY, seconds=0.0)]
    )
    figures = of(passed, failed)
    assert figures.drill.at == NOW
    assert figures.drill.verdicts.unverified == 1
    assert figures.drill_good_at == NOW - 2 * DAY
    assert figures.verify is None


def pin(by):
    return Pin("clusters/prod/pins/x/y.json", NOW, by, "")


def test_what_a_backup_pinned_is_told_apart_from_what_people_did():
    theirs = entry(NOW - 2 * DAY)
    both = entry(NOW - DAY)
    found = of(
        Entry(theirs.manifest, (), NOW, (pin("root@host"), pin("root@host"))),
        Entry(both.manifest, (), NOW, (pin(BY_BACKUP), pin("root@host"))),
        entry(),
    )
    assert (found.pinned, found.kept) == (2, 1)


def test_members_and_change_are_those_of_the_last_backup():
    assert (measures.CHANGE, measures.MEMBERS) == (change.NAME, members.NAME)
    made = manifest(at=NOW, verdicts=checks(Verdict.FAIL, ("members",)))
    before = manifest(
        at=NOW - DAY, verdicts=checks(Verdict.COULD_NOT_VERIFY, ("members", "change"))
    )
    found = of(Entry(before, (), NOW - DAY), Entry(made, (), NOW))
    assert (found.members.failed, found.members.unverified) == (1, 0)
    assert found.change is None
    assert of(Entry(before, (), NOW)).change.unverified == 1


def okd(days, version, *, forced=(), verdict=Verdict.PASS):
    made = manifest(
        at=NOW - days * DAY, verdicts=(*checks(), *checks(verdict, ("partner",))), revision=days
    )
    facts = OkdEntry(snapshot_name="s", version=version, forced=forced)
    return Entry(msgspec.structs.replace(made, kind="okd", okd=facts), (), NOW - days * DAY)


def test_releases_are_those_that_a_backup_restores():
    found = of(
        okd(5, "4.15.3"),
        okd(4, "4.15.3", forced=("window",)),
        okd(3, "4.15.3", forced=("operators",)),
        okd(2, "4.15.4", verdict=Verdict.COULD_NOT_VERIFY),
        okd(1, ""),
    )
    assert found.releases == (("4.15.3", NOW - 4 * DAY),)
    assert of(entry()).releases == ()


def test_clusters_are_told_apart_and_what_can_not_be_read_is_counted():
    unreadable = Unreadable("other", "clusters/other/backups/x.json", "no JSON", "", NOW)
    prod, other = sorted(measure([entry(), unreadable], NOW), key=lambda one: one.backups)[::-1]
    assert (prod.cluster, prod.backups, prod.unreadable) == ("prod", 1, 0)
    assert (other.cluster, other.backups, other.unreadable) == ("other", 0, 1)
    assert other.newest is None
    assert measure([], NOW) == ()


def test_bytes_are_those_of_objects_each_counted_once():
    figures = of(entry(NOW - DAY, revision=1), entry(NOW, revision=2))
    one = entry().manifest
    assert figures.newest.stored_size == one.stored_size
    assert figures.newest.size == sum(item.size for item in one.objects)
    assert figures.stored_size == 2 * one.stored_size
