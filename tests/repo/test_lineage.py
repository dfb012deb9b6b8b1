"""Lineages: what is proof that an etcd is still the one that something is stored of."""

from dataclasses import replace

import pytest
from google_crc32c import extend

from backstay.repo import lineage
from backstay.repo.lineage import Proof, Shown, Stored, continue_or_begin
from backstay.repo.manifest import Tip

TIP = Tip(salt="0" * 32, digest="a" * 64)
STORED = Stored(
    lineage="old",
    predecessor="older",
    root="oldest",
    revision=100,
    compact_revision=50,
    cluster_id="c1",
    raft_term=3,
    raft_index=120,
    hash=7,
    tip=TIP,
)
#: The same etcd, some changes later, compacted meanwhile but not past what is stored.
SHOWN = Shown(
    revision=140,
    compact_revision=90,
    cluster_id="c1",
    raft_term=3,
    raft_index=170,
    hash=None,
    tip=TIP.digest,
)


def decide(stored=STORED, **more):
    return continue_or_begin(stored, replace(SHOWN, **more), "fresh")


def test_the_first_backup_begins_a_lineage_without_a_predecessor():
    found = continue_or_begin(None, SHOWN, "fresh")
    assert (found.id, found.predecessor, found.proof) == ("fresh", None, Proof.FIRST)


def test_the_stored_entry_continues_the_lineage_and_keeps_its_predecessor():
    found = decide()
    assert (found.id, found.predecessor, found.proof) == ("old", "older", Proof.CONTINUED)
    assert "100" in found.reason


def test_a_row_of_lineages_goes_on_until_something_speaks_against_it():
    assert decide().root == "oldest"
    unproven = decide(tip="", compact_revision=120)
    assert (unproven.proof, unproven.id, unproven.root) == (Proof.UNPROVEN, "fresh", "oldest")
    other = decide(cluster_id="c2")
    assert (other.proof, other.id, other.root) == (Proof.OTHER, "fresh", "fresh")
    assert continue_or_begin(None, SHOWN, "fresh").root == "fresh"
    assert continue_or_begin(STORED, None, "fresh").root == "oldest"
    assert unproven.followed("next", Proof.UNPROVEN, "").root == "oldest"
    assert unproven.followed("next", Proof.OTHER, "").root == "next"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"cluster_id": "c2"}, "cluster id is c2"),
        ({"revision": 99}, "revision went back from 100 to 99"),
        ({"raft_term": 2}, "raft term went back from 3 to 2"),
        ({"raft_index": 119}, "raft index went back from 120 to 119"),
        ({"tip": "b" * 64}, "revision 100 are others"),
        ({"tip": ""}, "revision 100 are others"),
        ({"hash": 8}, "HashKV at revision 100 is 8, 7 is stored"),
    ],
)
def test_what_speaks_against_it_begins_another_that_names_its_predecessor(more, words):
    found = decide(**more)
    assert (found.id, found.predecessor, found.proof) == ("fresh", "old", Proof.OTHER)
    assert words in found.reason


@pytest.mark.parametrize("compacted", [100, 101, 140])
@pytest.mark.parametrize("tip", ["", "b" * 64])
def test_what_is_compacted_past_proves_nothing_either_way(compacted, tip):
    found = decide(compact_revision=compacted, tip=tip)
    assert (found.id, found.predecessor, found.proof) == ("fresh", "old", Proof.UNPROVEN)
    assert "compacted away" in found.reason


def test_an_entry_that_outlived_the_compaction_is_proof():
    assert decide(compact_revision=130).proof is Proof.CONTINUED


def test_the_same_revision_again_is_the_same_lineage():
    assert decide(revision=100, raft_index=120).proof is Proof.CONTINUED


def test_an_equal_hashkv_is_proof_without_an_entry():
    found = decide(replace(STORED, tip=None), hash=7, tip="")
    assert found.proof is Proof.CONTINUED
    assert "HashKV" in found.reason


def test_without_an_entry_and_without_hashkv_nothing_is_proven():
    assert decide(replace(STORED, tip=None), tip="").proof is Proof.UNPROVEN


def test_an_unequal_hashkv_outweighs_an_equal_entry():
    assert decide(hash=8).proof is Proof.OTHER


def test_histories_without_any_change_are_no_proof():
    nothing = extend(0, b"key")
    assert nothing == lineage._HASH_OF_NOTHING
    found = decide(replace(STORED, tip=None, hash=nothing), hash=nothing, tip="")
    assert found.proof is Proof.UNPROVEN


def test_what_is_too_damaged_to_compare_begins_a_lineage():
    found = continue_or_begin(STORED, None, "fresh")
    assert (found.id, found.predecessor, found.proof) == ("fresh", "old", Proof.UNPROVEN)
