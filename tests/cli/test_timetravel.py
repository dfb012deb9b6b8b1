"""--to-revision and --to-time: export, restore and drill of points, over a real repository."""

from datetime import timedelta
from pathlib import Path

import pytest

from backstay.client.answer import Delete, Put
from backstay.client.etcd import Etcd as Client
from backstay.client.member import serving
from backstay.client.tools import find_etcd
from backstay.errors import CompactedError
from backstay.mvcc.delta import Proof
from backstay.mvcc.snapshot import Snapshot
from backstay.report import Report
from kit.etcd import Etcd
from kit.histories import elements
from kit.story import Recorded


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    """A real etcd of this module alone, since its history is counted."""
    with Etcd.start(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


class Story(Recorded):
    """A cluster with a backup, changes after it that were recorded, and another backup.

    Attributes:
        last: manifest of the second backup.
        pairs: what was there, by revision.
        compacted: at which revision the second is.
        said: what the server said of the revision before the head after that compaction.
    """

    def __init__(self, cli, etcd):
        super().__init__(cli)
        self.etcd, self.pairs = etcd, {}
        with Client(etcd.access) as client:
            client.txn([Put(b"k/%d" % n, b"first") for n in range(30)])
            client.compact(client.put(b"k/0", b"second") - 1)
            self.note(client)
            self.base = self.backup()
            for number in range(12):
                client.txn([Put(b"k/%d" % number, b"third"), Delete(b"k/%d" % (number + 15))])
                self.note(client)
            self.head = client.range(b"\0").header.revision
            self.log = elements(client, self.base["revision"] + 1, self.head)
            self.compacted = self.head - 2
            client.compact(self.compacted)
            self.said = client.hashkv(client.endpoints[0], self.head - 1)
            self.last = self.backup()

    def note(self, client):
        found = client.range(b"\0")
        said = client.hashkv(client.endpoints[0], found.header.revision)
        self.hashes[found.header.revision] = said
        self.pairs[found.header.revision] = {kv.key: kv.value for kv in client.scan()}

    def rfc(self, revision, seconds=0):
        return (self.time(revision) + timedelta(seconds=seconds)).isoformat()


@pytest.fixture
def story(tmp_path, cli, identity, etcd):
    return Story(cli, etcd)


def restored(folder):
    return serving(folder, find_etcd(least=(3, 5, 0)), Report())


def hash_of(cli, path, truth):
    words = (
        ("--compact-revision", str(truth.compact_revision)) if truth.compact_revision > 0 else ()
    )
    return cli("hashkv", path, *words, "--json").json["hash"]


def test_promise_8_any_recorded_revision_is_exported(cli, story):
    first, half = story.base["revision"] + 1, story.base["revision"] + 6
    story.record(first, half)
    story.record(half + 1, story.head)
    for revision in range(first, story.compacted):
        path = f"at-{revision}.db"
        done = cli("export", story.base["id"], "--to-revision", str(revision), "-o", path, "--json")
        made = done.json
        assert made["revision"] == revision
        assert made["changes_applied"] == 2 * (revision - story.base["revision"])
        assert made["point"]["base"] == story.base["id"]
        assert made["point"]["deltas"] == (1 if revision <= half else 2)
        # The base's own hash was compared on the way.
        assert made["point"]["hashkv"]["revision"] == story.base["revision"]
        assert hash_of(cli, path, story.hashes[revision]) == story.hashes[revision].hash


def test_latest_is_rewound_where_its_window_has_the_revision(cli, story):
    done = cli(
        "export", "prod/latest", "--to-revision", str(story.head - 1), "-o", "out.db", "--json"
    )
    assert done.json["point"] == {
        "base": story.last["id"],
        "to_revision": story.head - 1,
        "deltas": 0,
        "hashkv": None,
    }
    assert hash_of(cli, "out.db", story.said) == story.said.hash


def test_lineages_are_never_mixed(cli, story):
    """The second backup begins a lineage, so what was recorded of the first is not for it."""
    assert story.last["snapshots"][0]["lineage"] != story.lineage
    story.record(story.base["revision"] + 1, story.head)
    revision = story.compacted - 1
    done = cli("export", "prod/latest", "--to-revision", str(revision), "-o", "out.db", expect=1)
    assert f"revision {revision} is missing" in done.err
    assert f"begins with {story.last['id']}" in done.err
    assert not (cli.folder / "out.db").exists()


def test_a_gap_is_told_before_anything_is_fetched(cli, story):
    first = story.base["revision"] + 1
    story.record(first, first + 2)
    story.record(first + 6, story.head)
    revision = first + 8
    words = ("export", story.base["id"], "--to-revision", str(revision), "-o", "out.db")
    done = cli(*words, expect=1)
    assert f"revisions {first + 3} to {first + 5} are missing" in done.err
    assert f"recorded up to revision {first + 2}" in done.err
    assert "fetching" not in done.err
    assert not (cli.folder / "out.db").exists()


def test_a_time_is_a_revision_and_it_is_said_how_far_off(cli, story):
    first = story.base["revision"] + 1
    story.record(first, first + 4)
    story.record(first + 5, story.head)
    words = ("export", story.base["id"], "-o")
    done = cli(*words, "one.db", "--to-time", story.rfc(first + 6, 20), "--json")
    made = done.json
    assert made["revision"] == first + 6
    assert made["point"]["time"]["next_revision"] == first + 7
    assert "recorded 20.000 s before" in done.err
    assert "40.000 s after" in done.err
    # On the seam between two deltas.
    assert (
        cli(*words, "two.db", "--to-time", story.rfc(first + 4, 1), "--json").json["revision"]
        == first + 4
    )
    done = cli(*words, "no.db", "--to-time", story.rfc(story.head, 1), expect=1)
    assert "after the last time that is recorded" in done.err
    done = cli(*words, "no.db", "--to-time", story.rfc(first, -3600), expect=1)
    assert "before the first time that is recorded" in done.err
    assert not (cli.folder / "no.db").exists()


def test_what_a_member_said_is_compared_offline(cli, story):
    first = story.base["revision"] + 1
    truth = story.hashes[first + 3]
    good = Proof(first + 3, truth.compact_revision, truth.hash)
    early = Proof(first + 1, truth.compact_revision, 1)
    story.record(first, first + 5, proofs=(early, good))
    words = ("export", story.base["id"], "--to-revision")
    bump = ("--bump-revision", "1000", "--mark-compacted")
    for number, more in enumerate([(), bump]):
        done = cli(*words, str(first + 4), "-o", f"{number}.db", *more, "--json")
        assert done.json["point"]["hashkv"] == good._asdict()
        assert "as a member said" in done.err
    done = cli(*words, str(first + 2), "-o", "bad.db", expect=3)
    assert "a member said 1" in done.err
    assert not (cli.folder / "bad.db").exists()
    done = cli("restore", "etcd", *words[1:], str(first + 2), "--data-dir", "bad", expect=3)
    assert not (cli.folder / "bad").exists()


def test_a_restored_point_serves_what_was_there_and_old_watches_are_told(cli, story):
    first = story.base["revision"] + 1
    story.record(first, story.head)
    revision = first + 5
    words = ("restore", "etcd", story.base["id"], "--to-revision", str(revision))
    made = cli(*words, "--data-dir", "data", "--json").json
    assert made["revision"] == revision + 1_000_000_000
    assert made["point"]["to_revision"] == revision
    with restored(cli.folder / "data") as member, Client(member.access) as client:
        assert {kv.key: kv.value for kv in client.scan()} == story.pairs[revision]
        # A client that was ahead of the restored revision lists again.
        with pytest.raises(CompactedError), client.watch(start_revision=story.head) as events:
            next(iter(events))
        assert client.put(b"later", b"") > story.head + 900_000_000


def test_a_point_can_be_drilled(cli, story):
    first = story.base["revision"] + 1
    story.record(first, story.head)
    done = cli("drill", story.base["id"], "--to-revision", str(first + 5), "--json")
    assert done.json["point"]["to_revision"] == first + 5
    assert {check["verdict"] for check in done.json["checks"]} == {"PASS"}
    # It says nothing of the backup as it was taken.
    assert not list(
        (Path(cli.variables["BACKSTAY_REPO"].removeprefix("file://"))).glob(
            "clusters/prod/notes/*/*drill*"
        )
    )


def test_a_file_is_rewound_in_its_own_window(cli, story):
    cli("export", story.last["id"], "-o", "file.db")
    done = cli("export", "file.db", "--to-revision", str(story.compacted), "-o", "out.db", "--json")
    assert done.json["revision"] == story.compacted
    with Snapshot.open(cli.folder / "out.db") as made:
        assert made.revision == story.compacted
    done = cli(
        "export", "file.db", "--to-revision", str(story.compacted - 1), "-o", "x.db", expect=2
    )
    assert f"has revisions {story.compacted} to {story.head}" in done.err
    done = cli("export", "file.db", "--to-time", "2026-11-20T12:00:00Z", "-o", "x.db", expect=2)
    assert "has no times" in done.err
    done = cli("drill", "file.db", "--to-revision", str(story.head - 1), "--json")
    assert {check["verdict"] for check in done.json["checks"]} == {"PASS"}


def test_two_points_at_once_and_times_without_a_zone_are_refused(cli, story):
    words = ("export", story.base["id"], "-o", "x.db")
    both = ("--to-revision", "5", "--to-time", "2026-11-20T12:00:00Z")
    assert "two points" in cli(*words, *both, expect=2).err
    for text in ("2026-11-20T12:00:00", "yesterday", "2026-11-20", ""):
        assert "is no time" in cli(*words, "--to-time", text, expect=2).err


def test_a_damaged_delta_is_told_and_nothing_is_written(cli, story):
    stored = story.record(story.base["revision"] + 1, story.head)
    path = Path(cli.variables["BACKSTAY_REPO"].removeprefix("file://")) / stored.path
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    words = ("export", story.base["id"], "--to-revision", str(story.head), "-o", "out.db")
    done = cli(*words, expect=3)
    assert stored.path in done.err
    path.unlink()
    assert "are missing" in cli(*words, expect=1).err
    assert not (cli.folder / "out.db").exists()
