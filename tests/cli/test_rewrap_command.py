import json
import shutil
import subprocess

import pytest

from kit import needs


@pytest.fixture
def second(cli):
    return cli("keygen", "-o", "second.txt", "--json").json["recipient"]


@pytest.fixture
def first(cli):
    text = (cli.folder / "identity.txt").read_text()
    return next(line.split()[-1] for line in text.splitlines() if "public key" in line)


def backup(cli):
    return cli("backup", "etcd", "--cluster", "prod", "--json").json


def rotate(cli, first, second):
    cli("recipients", "add", second)
    cli("recipients", "remove", first)


def test_promise_5_after_a_rewrap_the_old_identity_opens_nothing(cli, repo, first, second):
    old = backup(cli)
    cli("verify", old["id"], "--read-data", "--identity", "identity.txt")
    rotate(cli, first, second)
    new = backup(cli)
    done = cli("rewrap", "--all", "--identity", "identity.txt", "--json").json
    assert [(one["id"], one["outcome"]) for one in done] == [
        (old["id"], "rewrapped"),
        (new["id"], "kept"),
    ]
    assert done[0]["removed"] == [one["path"] for one in old["objects"]]
    cli("recipients", "check", "--identity", "second.txt")
    found = cli("recipients", "check", "--identity", "identity.txt", "--json", expect=3).json
    assert {one["verdict"] for one in found["checks"]} == {"FAIL"}
    shown = cli("show", old["id"], "--json").json
    assert shown["recipients"] == [second]
    assert shown["objects"][0]["path"] != old["objects"][0]["path"]
    assert shown["objects"][0]["sha256"] == old["objects"][0]["sha256"]
    assert shown["taken_at"] == old["taken_at"]
    cli("verify", old["id"], "--read-data", "--identity", "second.txt")
    assert cli("list", "--json").json[0] == shown
    assert cli("show", "prod/latest", "--json").json["id"] == new["id"]
    assert cli("show", "prod/latest-verified", "--json").json["id"] == new["id"]
    # Once more, back to both.
    cli("recipients", "add", first)
    cli("rewrap", old["id"], "--identity", "second.txt")
    cli("verify", old["id"], "--read-data", "--identity", "identity.txt")
    assert cli("rewrap", old["id"], "--identity", "second.txt").err.strip().endswith("kept")
    cli("backup", "etcd", "--cluster", "prod")
    cli("verify", old["id"], "--read-data", "--identity", "identity.txt")


def test_promise_2_what_was_sealed_anew_is_opened_by_hand(cli, file_repo, first, second, tmp_path):
    old = backup(cli)
    rotate(cli, first, second)
    cli("rewrap", old["id"], "--identity", "identity.txt")
    (note,) = file_repo.glob("clusters/prod/notes/*/*-rewrap-*.json")
    (moved,) = json.loads(note.read_text())["resealed"]["objects"]
    assert moved["path"] == old["objects"][0]["path"]
    age = subprocess.run(
        [needs.binary("age"), "-d", "-i", cli.folder / "second.txt", file_repo / moved["now"]],
        capture_output=True,
        check=True,
    )
    plain = subprocess.run(
        [needs.binary("zstd"), "-d"], input=age.stdout, capture_output=True, check=True
    )
    (tmp_path / "plain.db").write_bytes(plain.stdout)
    cli("verify", tmp_path / "plain.db")


def test_a_damaged_backup_stays_as_it_is_and_stops_no_other(cli, file_repo, first, second):
    one, two = backup(cli), backup(cli)
    path = file_repo / one["objects"][0]["path"]
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    rotate(cli, first, second)
    done = cli("rewrap", "--all", "--identity", "identity.txt", "--json", expect=3)
    outcomes = {found["id"]: found["outcome"] for found in done.json}
    assert outcomes == {one["id"]: "failed", two["id"]: "rewrapped"}
    assert path.read_bytes() == data
    assert cli("show", one["id"], "--json").json == one


def test_an_identity_that_does_not_open_it_changes_nothing(cli, file_repo, first, second):
    old = backup(cli)
    rotate(cli, first, second)
    before = sorted(path for path in file_repo.rglob("*") if path.is_file())
    done = cli("rewrap", old["id"], "--identity", "second.txt", expect=1)
    assert "holds the key of none" in done.err
    assert sorted(path for path in file_repo.rglob("*") if path.is_file()) == before


def test_what_is_refused(cli, file_repo, tmp_path):
    old = backup(cli)
    cli("rewrap", expect=2)
    cli("rewrap", old["id"], "--all", expect=2)
    cli("rewrap", old["id"], "--cluster", "prod", expect=2)
    assert "--identity" in cli("rewrap", "--all", expect=1).err
    cli("rewrap", "prod/20261120T231000Z-r1-aaaa", "--identity", "identity.txt", expect=1)
    cli.variables["BACKSTAY_REPO"] = f"file://{tmp_path}/open"
    cli("init", "--no-encryption")
    assert "not encrypted" in cli("rewrap", "--all", expect=5).err


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one["resealed"]["objects"][0].update(now="clusters/other/objects/x/y"),
        lambda one: one["resealed"]["objects"][0].update(now="clusters/prod/objects/../x"),
        lambda one: one["resealed"]["objects"][0].update(path="clusters/prod/objects/x/y"),
        lambda one: one["resealed"].update(objects=one["resealed"]["objects"] * 2),
        lambda one: one["resealed"].update(number=0),
        lambda one: one["resealed"].update(recipients=[]),
        lambda one: one.update(requires=["moon"]),
    ],
)
def test_a_hostile_note_is_told_and_the_manifest_counts_without_it(
    cli, file_repo, first, second, change
):
    old = backup(cli)
    kept = shutil.copytree(file_repo / "clusters/prod/objects", file_repo.parent / "kept")
    rotate(cli, first, second)
    cli("rewrap", old["id"], "--identity", "identity.txt")
    (note,) = file_repo.glob("clusters/prod/notes/*/*-rewrap-*.json")
    document = json.loads(note.read_text())
    change(document)
    note.write_text(json.dumps(document))
    assert "UNREADABLE" in cli("list").out
    cli("show", old["id"], expect=1)
    note.unlink()
    shutil.copytree(kept, file_repo / "clusters/prod/objects", dirs_exist_ok=True)
    cli("verify", old["id"], "--read-data", "--identity", "identity.txt")


def test_promise_1_a_note_can_t_put_other_bytes_in_the_place_of_a_backup(
    cli, file_repo, first, second
):
    """What the objects are in the clear stands in the manifest."""
    one, other = backup(cli), backup(cli)
    cli("recipients", "add", second)
    cli("rewrap", "--all", "--identity", "identity.txt")
    notes = {
        key: next(file_repo.glob(f"clusters/prod/notes/{key['id'].split('/')[1]}/*-rewrap-*"))
        for key in map(_Key, (one, other))
    }
    documents = {key: json.loads(path.read_text()) for key, path in notes.items()}
    mine, theirs = documents
    moved = documents[mine]["resealed"]["objects"][0]
    moved |= {
        word: documents[theirs]["resealed"]["objects"][0][word]
        for word in ("now", "stored_size", "stored_sha256")
    }
    notes[mine].write_text(json.dumps(documents[mine]))
    done = cli("verify", one["id"], "--read-data", "--identity", "second.txt", expect=3)
    assert "sealed" in done.err


class _Key(dict):
    def __hash__(self):
        return hash(self["id"])


@pytest.fixture
def recorded(cli, etcd, tmp_path, first):
    """A backup and what was recorded after it; gives its ID and the last revision."""
    from backstay.client.answer import Put
    from backstay.client.etcd import Etcd as Client
    from backstay.flows.fetch import BackupSubject
    from backstay.mvcc.deltawriter import Origin
    from backstay.repo.catalogue import Repository
    from backstay.repo.delta import put_delta
    from backstay.repo.identity import Identities
    from backstay.repo.stores.file import FileStore
    from backstay.report import Report
    from kit import deltas
    from kit.recording import elements_of

    old = backup(cli)
    with Client(etcd.access) as client:
        for number in range(20):
            client.txn([Put(b"recorded/%d" % (number % 3), b"%d" % number)])
    late = backup(cli)
    repository = Repository.open(FileStore(tmp_path / "repo"))
    identities = Identities.parse((cli.folder / "identity.txt").read_bytes(), "identity")
    entry = repository.find(late["id"])
    subject = BackupSubject(repository, entry, late["id"], identities, tmp_path)
    with subject.opened(Report()) as snapshot:
        elements = elements_of(snapshot, old["revision"] + 1, late["revision"])
    origin = Origin("prod", old["snapshots"][0]["lineage"], "w")
    for one in deltas.chain(elements, old["revision"] + 1, 6, origin=origin):
        put_delta(repository, one)
    for path in (late["objects"][0]["path"], f"clusters/prod/backups/{late['id'][5:]}.json"):
        repository.store.delete(path)
    return old, late["revision"]


def export(cli, old, revision, identity, expect=0):
    words = ("--to-revision", revision, "-o", f"{identity}-{revision}.db", "--identity", identity)
    return cli("export", old["id"], *words, expect=expect)


def test_promise_8_what_was_recorded_is_sealed_anew_with_all_backups(
    cli, file_repo, first, second, recorded
):
    old, head = recorded
    export(cli, old, head - 1, "identity.txt")
    rotate(cli, first, second)
    one, two = cli("rewrap", "--all", "--identity", "identity.txt", "--json").json
    assert (one["id"], one["outcome"]) == (old["id"], "rewrapped")
    lineage = old["snapshots"][0]["lineage"]
    assert (two["id"], two["outcome"]) == (f"prod/{lineage}", "rewrapped")
    assert two["deltas"] == two["rewrapped"] == len(two["removed"]) == 4
    assert "holds the key of none" in export(cli, old, head, "identity.txt", expect=1).err
    for revision in (head - 7, head):
        export(cli, old, revision, "second.txt")
        cli("verify", cli.folder / f"second.txt-{revision}.db")
    made = cli("hashkv", f"identity.txt-{head - 1}.db", "--json").json
    export(cli, old, head - 1, "second.txt")
    assert cli("hashkv", f"second.txt-{head - 1}.db", "--json").json == made
    assert "0 deltas rewrapped, 4 kept" in cli("rewrap", "--all", "--identity", "second.txt").err


def test_deltas_of_chosen_backups_are_asked_for_by_name(cli, file_repo, first, second, recorded):
    old, _ = recorded
    rotate(cli, first, second)
    before = sorted(file_repo.glob("deltas/**/*.age"))
    for words in ([old["id"]], ["--all", "--no-deltas"], ["--all", "--cluster", "other"]):
        cli("rewrap", *words, "--identity", "identity.txt")
        assert sorted(file_repo.glob("deltas/**/*.age")) == before
    cli("rewrap", old["id"], "--deltas", "--identity", "identity.txt")
    after = sorted(file_repo.glob("deltas/**/*.age"))
    assert len(after) == len(before)
    assert not set(after) & set(before)


def test_a_delta_that_can_t_be_sealed_anew_is_named(cli, file_repo, first, second, recorded):
    rotate(cli, first, second)
    path = sorted(file_repo.glob("deltas/**/*.age"))[1]
    path.write_bytes(path.read_bytes()[:-5])
    done = cli("rewrap", "--all", "--identity", "identity.txt", "--json", expect=3)
    words = [(one["outcome"], one.get("rewrapped")) for one in done.json]
    assert words == [("rewrapped", None), ("rewrapped", 3), ("failed", None)]
    assert path.name in done.json[2]["detail"]


def test_promise_2_a_delta_that_was_sealed_anew_is_opened_by_hand(
    cli, file_repo, first, second, recorded
):
    rotate(cli, first, second)
    cli("rewrap", "--all", "--identity", "identity.txt")
    path = min(file_repo.glob("deltas/**/*.age"))
    age = subprocess.run(
        [needs.binary("age"), "-d", "-i", cli.folder / "second.txt", path],
        capture_output=True,
        check=True,
    )
    plain = subprocess.run(
        [needs.binary("zstd"), "-d"], input=age.stdout, capture_output=True, check=True
    )
    assert plain.stdout.startswith(b"bckstdlt")
    assert len(plain.stdout) == int(path.name.split("-")[4], 16)
