"""`consolidate`: a full backup from an old one and what a real watch saw, in a real repository."""

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from backstay.client.answer import Delete, Put
from backstay.client.etcd import Etcd as Client
from backstay.mvcc.delta import Proof
from kit.etcd import Etcd
from kit.histories import elements
from kit.story import Recorded


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    """A real etcd of this module alone, since its history is counted."""
    with Etcd.start(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


class Story(Recorded):
    """A cluster with a backup, and changes after it that a watch saw.

    Attributes:
        head: the last revision.
    """

    def __init__(self, cli, etcd):
        super().__init__(cli)
        with Client(etcd.access) as client:
            client.txn([Put(b"k/%d" % n, b"first") for n in range(30)])
            client.compact(client.put(b"k/0", b"second") - 1)
            self.base = self.backup()
            lease = client.lease_grant(600)
            for number in range(12):
                put = Put(b"k/%d" % number, b"third", lease=lease.id if number == 3 else 0)
                client.txn([put, Delete(b"k/%d" % (number + 15))])
                revision = client.range(b"\0").header.revision
                self.hashes[revision] = client.hashkv(client.endpoints[0], revision)
            self.head = revision
            self.log = elements(client, self.first, self.head)

    def listed(self):
        return [one["id"] for one in self.cli("list", "--json").json]

    def hash_of(self, backup, revision):
        said = self.hashes[revision]
        self.cli("export", backup, "-o", f"{revision}.db")
        words = ("--compact-revision", str(said.compact_revision))
        return self.cli("hashkv", f"{revision}.db", *words, "--json").json["hash"]


@pytest.fixture
def reached(cli, repo, monkeypatch):
    """A repository in a store of each kind, that this process reaches, too."""
    for name, value in cli.variables.items():
        if name.startswith(("AWS_", "SSL_")):
            monkeypatch.setenv(name, value)
    cli.variables["BACKSTAY_IDENTITY"] = str(cli.folder / "identity.txt")
    return repo


@pytest.fixture
def story(cli, etcd, reached):
    return Story(cli, etcd)


@pytest.fixture
def filed(cli, etcd, identity):
    """The same in a directory."""
    return Story(cli, etcd)


def consolidate(cli, *words, expect=0):
    return cli("consolidate", "--cluster", "prod", *words, "--json", expect=expect)


def test_the_newest_recorded_revision_becomes_a_verified_backup(cli, story):
    half = story.first + 5
    said = story.hashes[half]
    proof = Proof(half, said.compact_revision, said.hash)
    story.record(story.first, half, proofs=[proof])
    story.record(half + 1, story.head)
    done = consolidate(cli)
    made = done.json["manifest"]
    assert done.json["made"]
    assert made["id"] == done.json["id"]
    assert (made["revision"], made["kind"], made["base"]) == (story.head, "etcd", story.base["id"])
    [snapshot], [old] = made["snapshots"], story.base["snapshots"]
    for word in ("lineage", "predecessor", "cluster_id", "etcd_version", "raft_term"):
        assert snapshot[word] == old[word]
    assert snapshot["hashkv"]["hash"] == story.hashes[story.head].hash
    assert datetime.fromisoformat(made["taken_at"]) == story.time(story.head)
    verdicts = {check["name"]: check for check in made["checks"]}
    assert {one["verdict"] for one in verdicts.values()} == {"PASS"}
    assert set(verdicts) == {
        *("transfer", "stored", "structure", "content", "proof", "change"),
    }
    assert f"HashKV {said.hash} at revision {half}" in verdicts["proof"]["detail"]
    assert "as a member says" in verdicts["proof"]["detail"]
    assert "2 deltas" in verdicts["transfer"]["detail"]
    assert cli("show", "prod/latest-verified", "--json").json["id"] == made["id"]
    cli("verify", made["id"])
    assert cli("drill", made["id"], "--json").json["checks"]


def test_it_is_whole_when_all_that_it_was_made_from_has_gone(cli, story):
    stored = story.record(story.first, story.head)
    made = consolidate(cli).json["manifest"]
    store = story.repository.store
    for path in (stored.path, story.base["objects"][0]["path"]):
        store.delete(path)
    store.delete(f"clusters/prod/backups/{story.base['id'].partition('/')[2]}.json")
    assert story.listed() == [made["id"]]
    assert story.hash_of(made["id"], story.head) == story.hashes[story.head].hash


def test_a_second_run_has_nothing_to_do(cli, filed):
    filed.record(filed.first, filed.head)
    made = consolidate(cli).json
    again = consolidate(cli).json
    assert again["made"] is False
    assert again["id"] == made["id"]
    assert "nothing newer is recorded" in again["reason"]
    told = cli("consolidate", "--cluster", "prod")
    assert "nothing to do" in told.err
    assert filed.listed() == [filed.base["id"], made["id"]]
    assert consolidate(cli, "--to-revision", str(filed.head)).json["made"] is False


def test_where_nothing_is_recorded_there_is_nothing_to_do(cli, filed):
    assert consolidate(cli).json == {
        "made": False,
        "id": filed.base["id"],
        "reason": f"{filed.base['id']} is at revision {filed.first - 1}, and nothing newer is"
        " recorded",
    }


def test_from_a_consolidated_one_it_goes_on(cli, filed):
    half = filed.first + 5
    filed.record(filed.first, half)
    one = consolidate(cli).json["manifest"]
    filed.record(half + 1, filed.head)
    two = consolidate(cli).json["manifest"]
    assert (two["base"], two["revision"]) == (one["id"], filed.head)
    assert filed.hash_of(two["id"], filed.head) == filed.hashes[filed.head].hash


def test_a_revision_may_be_named(cli, filed):
    filed.record(filed.first, filed.head)
    wanted = filed.first + 3
    made = consolidate(cli, "--to-revision", str(wanted)).json["manifest"]
    assert made["revision"] == wanted
    assert datetime.fromisoformat(made["taken_at"]) == filed.time(wanted)
    assert filed.hash_of(made["id"], wanted) == filed.hashes[wanted].hash
    # The rest of its own window is nobody's to consolidate, and the future was not recorded.
    done = consolidate(cli, "--to-revision", str(wanted - 1), expect=2)
    assert f"{made['id']} has revision {wanted - 1} in its own window" in done.err
    assert "missing" in consolidate(cli, "--to-revision", str(filed.head + 9), expect=1).err


def test_an_older_revision_does_not_become_the_latest(cli, filed):
    filed.record(filed.first, filed.head)
    newest = consolidate(cli).json["id"]
    cli("pin", newest)
    (path,) = Path(cli.variables["BACKSTAY_REPO"].removeprefix("file://")).glob(
        f"clusters/prod/backups/{newest.partition('/')[2]}.json"
    )
    kept = path.read_bytes()
    path.unlink()
    old = consolidate(cli, "--to-revision", str(filed.first + 1)).json["id"]
    path.write_bytes(kept)
    assert cli("show", "prod/latest", "--json").json["id"] == newest
    assert old in filed.listed()


def test_a_hole_ends_it_and_is_told(cli, filed):
    filed.record(filed.first, filed.first + 2)
    filed.record(filed.first + 6, filed.head)
    done = consolidate(cli)
    assert done.json["manifest"]["revision"] == filed.first + 2
    assert f"revisions from {filed.first + 3} on are missing" in done.err
    again = consolidate(cli)
    assert again.json["made"] is False
    assert f"recorded from {filed.first + 6} on" in again.err
    assert "missing" in consolidate(cli, "--to-revision", str(filed.first + 8), expect=1).err


def change_manifest(cli, backup, change):
    root = Path(cli.variables["BACKSTAY_REPO"].removeprefix("file://"))
    path = root / f"clusters/prod/backups/{backup.partition('/')[2]}.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(json.dumps(document).encode())


def test_promise_4_what_is_made_from_an_unverified_one_is_not_verified(cli, filed):
    filed.record(filed.first, filed.head)

    def unverify(document):
        document["checks"][0]["verdict"] = "COULD NOT VERIFY"

    change_manifest(cli, filed.base["id"], unverify)
    done = consolidate(cli, expect=4)
    made = done.json["manifest"]
    [check] = [one for one in made["checks"] if one["name"] == "transfer"]
    assert check["verdict"] == "COULD NOT VERIFY"
    assert f"{filed.base['id']} is not verified" in check["detail"]
    cli("show", "prod/latest-verified", expect=1)


def test_a_verified_one_is_preferred_as_its_base(cli, filed):
    half = filed.first + 5
    filed.record(filed.first, half)
    newer = consolidate(cli).json["id"]
    filed.record(half + 1, filed.head)

    def unverify(document):
        document["checks"][0]["verdict"] = "COULD NOT VERIFY"

    change_manifest(cli, newer, unverify)
    assert consolidate(cli).json["manifest"]["base"] == filed.base["id"]


def test_a_control_plane_without_its_keys_is_refused(cli, filed):
    """With them: tests/hosted/test_record_hosted.py, tests/okd/test_record_okd.py."""
    filed.record(filed.first, filed.head)
    change_manifest(cli, filed.base["id"], lambda document: document.update(kind="hosted"))
    done = consolidate(cli, expect=1)
    assert "no keys were saved with" in done.err
    assert filed.listed() == [filed.base["id"]]


def test_without_an_identity_it_says_why_it_needs_one(cli, filed):
    filed.record(filed.first, filed.head)
    del cli.variables["BACKSTAY_IDENTITY"]
    assert "are encrypted, and this opens one" in consolidate(cli, expect=1).err


def test_promise_8_what_a_member_did_not_say_is_not_stored(cli, filed):
    said = filed.hashes[filed.head]
    wrong = Proof(filed.head, said.compact_revision, said.hash ^ 1)
    filed.record(filed.first, filed.head, proofs=[wrong])
    assert "a member said" in consolidate(cli, expect=3).err
    assert filed.listed() == [filed.base["id"]]


def test_a_damaged_delta_is_told_and_nothing_is_listed(cli, filed):
    stored = filed.record(filed.first, filed.head)
    path = Path(cli.variables["BACKSTAY_REPO"].removeprefix("file://")) / stored.path
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    assert stored.path in consolidate(cli, expect=3).err
    assert filed.listed() == [filed.base["id"]]


def test_a_cluster_without_backups_is_told(cli, identity):
    assert "has no good backup of prod" in consolidate(cli, expect=1).err


def aged(cli, days):
    """Let everything in the repository be older."""
    for path in Path(cli.variables["BACKSTAY_REPO"].removeprefix("file://")).rglob("*"):
        then = path.stat().st_mtime - 86400 * days
        os.utime(path, (then, then))


def restorable(cli, story, backup):
    """The revisions that can be had from a backup on, each with its HashKV."""
    found = {}
    for revision in range(story.first, story.head + 1):
        words = ("export", backup, "--to-revision", str(revision), "-o", "point.db", "--json")
        done = cli(*words, expect=None)
        if not done.code:
            said = story.hashes[revision]
            compacted = ("--compact-revision", str(said.compact_revision))
            found[revision] = cli("hashkv", "point.db", *compacted, "--json").json["hash"]
            (cli.folder / "point.db").unlink()
    return found


def test_promise_7_what_could_be_restored_from_what_stays_still_can(cli, filed):
    first, head = filed.first, filed.head
    for begin in range(first, head, 3):
        filed.record(begin, begin + 2)
    made = consolidate(cli, "--to-revision", str(first + 5)).json["manifest"]
    aged(cli, 3)
    before = restorable(cli, filed, made["id"])
    truth = {revision: said.hash for revision, said in filed.hashes.items()}
    assert {revision for revision in before if revision > first + 4} == set(
        range(first + 5, head + 1)
    )
    plan = cli("prune", "--keep-last", "1")
    assert f"ends before {made['id']}" in plan.out
    assert "1 deltas would be removed" in plan.err
    done = cli("prune", "--keep-last", "1", "--yes", "--json").json
    assert [one["fate"] for one in done["backups"]] == ["removed", None]
    assert done["recorded_removed"]["deltas"] == 1
    assert done["policy"]["keep_recorded"] is None
    [gone, _, *_] = done["recorded"]
    assert (gone["first_revision"], gone["last_revision"], gone["keep"]) == (
        first,
        first + 2,
        False,
    )
    assert filed.listed() == [made["id"]]
    after = restorable(cli, filed, "prod/latest")
    assert after == before
    assert {revision: truth[revision] for revision in after} == after


def test_a_time_to_keep_is_taken_in_hours_days_and_weeks(cli, filed):
    filed.record(filed.first, filed.head)
    for text, seconds in (("36h", 129600), ("30d", 2592000), ("8w", 4838400)):
        done = cli("prune", "--keep-last", "1", "--keep-recorded", text, "--json").json
        assert done["policy"]["keep_recorded"] == seconds
    for text in ("30", "1h30m", "-1d", "1y", ""):
        words = ("prune", "--keep-last", "1", "--keep-recorded", text)
        assert "is no stretch of time" in cli(*words, expect=2).err
