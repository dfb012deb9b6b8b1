"""change: what is worth a loud word about a backup, and what is not."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from backstay.checks.change import change
from backstay.repo.lineage import Lineage, Proof
from backstay.repo.manifest import HashKV, SnapshotEntry
from backstay.report import Verdict

BEFORE = SnapshotEntry(
    name="etcd",
    lineage="a" * 16,
    revision=100,
    compact_revision=-1,
    etcd_version="3.5.1",
    cluster_id="1",
    raft_term=2,
    raft_index=110,
    hash=1,
    total_keys=500,
    total_size=40960,
    hashkv=HashKV(hash=1, revision=100, compact_revision=-1),
    live_keys=100,
    live_size=10_000,
    object="clusters/prod/objects/x/snapshot.zst",
)
GOES_ON = Lineage("a" * 16, None, "a" * 16, Proof.CONTINUED, "as stored")


def verdict(lineage=GOES_ON, before=BEFORE, **now):
    return change(before, changed(BEFORE, **now), lineage)


@pytest.mark.parametrize(
    "now",
    [
        {},
        {"live_keys": 50, "live_size": 5000},
        {"live_keys": 1000, "live_size": 1_000_000, "revision": 10_000},
        # Compaction and defragmentation take nothing away that was there.
        {"total_keys": 1, "total_size": 1},
        {"live_keys": None, "live_size": None},
    ],
)
def test_what_goes_on_is_no_change(now):
    assert verdict(**now).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"live_keys": 49}, "49 keys, 100 before"),
        ({"live_keys": 0, "live_size": 0}, "0 keys, 100 before"),
        ({"live_size": 4999}, "4999 bytes, 10000 before"),
    ],
)
def test_promise_4_what_lost_more_than_half_is_told(now, words):
    found = verdict(**now)
    assert found.verdict is Verdict.COULD_NOT_VERIFY
    assert words in found.detail


def test_promise_4_another_life_is_told_and_an_unproven_one_is_not():
    other = replace(GOES_ON, proof=Proof.OTHER, reason="its revision went back from 100 to 50")
    found = verdict(other, revision=50)
    assert found.verdict is Verdict.COULD_NOT_VERIFY
    assert found.detail.count("went back") == 1
    unproven = replace(GOES_ON, proof=Proof.UNPROVEN, reason="compacted away")
    found = verdict(unproven)
    assert found.verdict is Verdict.PASS
    assert "a new lineage begins: compacted away" in found.detail
    assert verdict(unproven, revision=99).verdict is Verdict.COULD_NOT_VERIFY


def test_what_was_not_counted_is_not_compared():
    uncounted = changed(BEFORE, live_keys=None, live_size=None)
    assert verdict(before=uncounted, live_keys=0, live_size=0).verdict is Verdict.PASS
