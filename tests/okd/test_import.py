"""Backups that other tools made: proven, taken in, and taken in once."""

import os
import shutil
import zipfile
from datetime import UTC, datetime

import pytest

from kit import fixtures, okd_pair
from kit.okd_pair import INFRASTRUCTURE, STAMP, VERSION, write_pair, write_tar


def verdicts(one):
    return {check["name"]: check["verdict"] for check in one["checks"]}


def test_a_pair_of_cluster_backup_is_taken_in_as_a_verified_backup(places, tmp_path, okd_data):
    pair = write_pair(tmp_path / "assets", okd_data)
    [one] = places.taken(tmp_path / "assets")
    assert (one["fate"], one["cluster"], one["tool"]) == (
        "imported",
        INFRASTRUCTURE,
        "cluster-backup.sh",
    )
    assert set(verdicts(one).values()) == {"PASS"}
    assert {"transfer", "stored", "structure", "content", "keys", "partner"} <= set(verdicts(one))
    manifest = places.cli("show", one["id"], "--json").json
    assert (manifest["kind"], manifest["taken_at"]) == ("okd", "2026-11-20T19:00:35Z")
    okd = manifest["okd"]
    assert (okd["infrastructure"], okd["version"]) == (INFRASTRUCTURE, VERSION)
    assert okd["release_digest"] == okd_pair.DIGEST
    assert (okd["snapshot_name"], okd["archive_name"]) == (pair.snapshot.name, pair.archive.name)
    assert okd["static_pods"] == okd_pair.PODS
    assert okd["encryption"] == "aescbc"
    assert "verified" in places.cli("list").out
    places.cli("verify", one["id"], "--keys-repo", places.keys_url)


def test_promise_5_the_keys_of_a_pair_never_lie_with_the_data(places, tmp_path, okd_data):
    write_pair(tmp_path / "assets", okd_data)
    places.taken(tmp_path / "assets")
    assert not places.files("data", ".tar.gz.zst.age")
    assert len(places.files("keys", ".tar.gz.zst.age")) == 1
    places.cli.variables["BACKSTAY_KEYS_REPO"] = places.cli.variables["BACKSTAY_REPO"]
    places.cli("import", tmp_path / "assets", expect=5)


def test_a_pair_asks_for_a_repository_for_keys(places, tmp_path, okd_data):
    write_pair(tmp_path / "assets", okd_data)
    del places.cli.variables["BACKSTAY_KEYS_REPO"]
    done = places.cli("import", tmp_path / "assets", expect=2)
    assert "--keys-repo" in done.err
    assert not (tmp_path / "data" / "clusters").exists()


def test_running_it_twice_does_no_harm(places, tmp_path, okd_data):
    write_pair(tmp_path / "assets", okd_data)
    first = places.imported(tmp_path / "assets")
    before = [path.name for path in (*places.files("data"), *places.files("keys"))]
    [one] = places.taken(tmp_path / "assets")
    assert (one["fate"], one["detail"]) == ("there already", first)
    assert [path.name for path in (*places.files("data"), *places.files("keys"))] == before


def test_the_partner_that_comes_later_makes_a_whole_backup(places, tmp_path, okd_data):
    pair = write_pair(tmp_path / "assets", okd_data)
    shutil.move(pair.archive, tmp_path / "kept.tar.gz")
    [alone] = places.taken(tmp_path / "assets", expect=4)
    assert verdicts(alone)["partner"] == "COULD NOT VERIFY"
    assert "not verified" in places.cli("list").out
    shutil.move(tmp_path / "kept.tar.gz", pair.archive)
    [whole] = places.taken(tmp_path / "assets")
    assert whole["fate"] == "imported"
    assert (
        places.cli("show", f"{INFRASTRUCTURE}/latest-verified", "--json").json["id"]
        == (whole["id"])
    )


def test_promise_1_a_damaged_file_is_refused_and_the_others_go_on(places, tmp_path, okd_data):
    folder = tmp_path / "assets"
    write_pair(folder, okd_data)
    damaged = bytearray(okd_data)
    damaged[len(damaged) // 2] ^= 1
    write_pair(folder, bytes(damaged), "2026-11-21_190035")
    (folder / "cut.db").write_bytes(okd_data[: len(okd_data) // 2 + 7])
    (folder / "text.db").write_text("no database at all")
    (folder / "empty.db").touch()
    (folder / "etcd-snapshot-n-1624647635.zip").write_bytes(b"PK no zip")
    write_pair(folder, okd_data, "2026-11-22_190035").archive.write_bytes(b"\x1f\x8b no tar")
    found = {one["file"].rpartition("/")[2]: one for one in places.taken(folder, expect=3)}
    assert found.pop(f"snapshot_{STAMP}.db")["fate"] == "imported"
    assert len(found) == 6
    for name, one in found.items():
        assert one["fate"] == "damaged", name
        assert name in one["detail"] or "static_kuberesources" in one["detail"]
    assert len(places.data.backups()) == 1


def test_a_file_without_a_sha256_could_not_be_verified(places, tmp_path, okd_data):
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "db.db").write_bytes(okd_data[:-32])
    [one] = places.taken(folder, expect=4)
    assert one["fate"] == "imported"
    assert verdicts(one)["transfer"] == "COULD NOT VERIFY"
    [entry] = places.data.backups()
    assert not entry.verified


def test_snapshots_of_etcdctl_need_a_name_for_the_cluster(places, tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    path = fixtures.write("etcd36-plain", folder)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    [one] = places.taken(folder, expect=1)
    assert one["fate"] == "not imported"
    assert "--cluster" in one["detail"]
    backup = places.imported(folder, "--cluster", "prod")
    manifest = places.cli("show", backup, "--json").json
    assert (manifest["kind"], manifest["cluster"]) == ("etcd", "prod")
    assert datetime.fromisoformat(manifest["taken_at"]) == datetime.fromtimestamp(
        1_700_000_000, UTC
    )
    facts = fixtures.facts("etcd36-plain")["snapshot_status"]
    assert (manifest["hash"], manifest["revision"]) == (facts["hash"], facts["revision"])
    places.cli("verify", backup, "--read-data")
    [entry] = places.data.backups()
    assert entry.verified


@pytest.mark.parametrize("packing", [None, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_snapshots_of_k3s_plain_and_zipped(places, tmp_path, packing):
    folder = tmp_path / "snapshots"
    folder.mkdir()
    data = fixtures.data("kube-plain")
    name = "on-demand-ip-10-0-0-1-1624647635"
    if packing is None:
        (folder / name).write_bytes(data)
    else:
        with zipfile.ZipFile(folder / f"{name}.zip", "w", packing) as archive:
            archive.writestr(name, data)
    backup = places.imported(folder, "--cluster", "edge")
    manifest = places.cli("show", backup, "--json").json
    assert manifest["taken_at"] == "2021-06-25T19:00:35Z"
    places.cli("export", backup, "-o", "out.db")
    assert (places.cli.folder / "out.db").read_bytes() == data
    assert not list((tmp_path / "spool").iterdir())


def zipped(path, *members, **more):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_zip_files_that_are_not_what_k3s_makes_are_refused(places, tmp_path):
    folder = tmp_path / "snapshots"
    folder.mkdir()
    data = fixtures.data("etcd36-plain")
    names = iter(f"etcd-snapshot-n-16246476{n:02}.zip" for n in range(99))
    zipped(folder / next(names), ("a", data), ("b", data))
    zipped(folder / next(names))
    zipped(folder / next(names), ("folder/", b""))
    good = folder / next(names)
    zipped(good, ("a", data))
    whole = good.read_bytes()
    good.write_bytes(flipped(whole, len(whole) // 2))
    (folder / next(names)).write_bytes(whole[:-30])
    # A bomb: 8 MiB of zeros in 8 KiB are no snapshot.
    bomb = folder / next(names)
    zipped(bomb, ("a", bytes(8 << 20)))
    found = places.taken(folder, "--cluster", "edge", expect=3)
    assert len(found) == 6
    assert {one["fate"] for one in found} == {"damaged"}
    assert not places.data.backups()
    assert not list((tmp_path / "spool").iterdir())


def test_a_zip_file_that_would_fill_the_disk_is_not_unpacked(places, tmp_path, monkeypatch):
    folder = tmp_path / "snapshots"
    folder.mkdir()
    path = folder / "etcd-snapshot-n-1624647635.zip"
    zipped(path, ("a", bytes(1 << 20)))
    data = path.read_bytes()
    # The size in the clear, in the directory at the end: 4 bytes before the name's length.
    place = data.rindex(b"PK\1\2") + 24
    path.write_bytes(data[:place] + (0xFFFFFF00).to_bytes(4, "little") + data[place + 4 :])
    monkeypatch.setattr("backstay.flows.spool.free_space", lambda _: 1 << 30)
    done = places.cli("import", folder, "--cluster", "edge", expect=1)
    assert "bytes free" in done.err


def test_what_is_no_backup_is_listed_and_no_error(places, tmp_path, okd_data):
    folder = tmp_path / "assets"
    write_pair(folder, okd_data)
    write_tar(folder / "static_kuberesources_2026-01-01_000000.tar.gz", okd_pair.files())
    (folder / "notes.txt").write_text("mine")
    (folder / ".hidden.db").write_text("mine")
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "deep" / "deeper" / "x.db").write_bytes(okd_data)
    os.mkfifo(folder / "pipe.db")
    found = {one["file"].removeprefix(f"{folder}/"): one for one in places.taken(folder)}
    assert found.pop(f"snapshot_{STAMP}.db")["fate"] == "imported"
    assert {name: one["fate"] for name, one in found.items()} == dict.fromkeys(found, "skipped")
    assert set(found) == {
        *("notes.txt", ".hidden.db", "deep/deeper", "pipe.db"),
        "static_kuberesources_2026-01-01_000000.tar.gz",
    }


def test_links_are_not_followed(places, tmp_path, okd_data):
    outside = tmp_path / "outside"
    write_pair(outside, okd_data)
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "there").symlink_to(outside)
    (folder / f"snapshot_{STAMP}.db").symlink_to(outside / f"snapshot_{STAMP}.db")
    assert {one["fate"] for one in places.taken(folder)} == {"skipped"}
    assert not places.data.backups()


def test_the_folders_of_automated_backups_are_looked_into(places, tmp_path, okd_data):
    folder = tmp_path / "pvc"
    write_pair(folder / "backup-daily-2026-11-21_190035", okd_data, "2026-11-21_190035")
    write_pair(
        folder / "backup-daily-2026-11-20_190035",
        okd_data,
        content=okd_pair.files(more={"static-pod-resources/etcd-pod-3/more": b"1"}),
    )
    found = places.taken(folder)
    assert [one["fate"] for one in found] == ["imported", "imported"]
    # What is there may be newer, so nothing is held against it.
    assert "change" not in {check["name"] for one in found for check in one["checks"]}
    # The oldest first, so that `latest` is the newest.
    assert [one["taken_at"][:10] for one in found] == ["2026-11-20", "2026-11-21"]
    latest = places.cli("show", f"{INFRASTRUCTURE}/latest", "--json").json
    assert latest["taken_at"] == "2026-11-21T19:00:35Z"


def test_a_dry_run_proves_and_stores_nothing(places, tmp_path, okd_data):
    write_pair(tmp_path / "assets", okd_data)
    (tmp_path / "assets" / "bad.db").write_bytes(b"x")
    for variables in ({}, {"BACKSTAY_REPO": "", "BACKSTAY_KEYS_REPO": ""}):
        done = places.cli("import", tmp_path / "assets", "--dry-run", expect=3, **variables)
        assert f"with static_kuberesources_{STAMP}.tar.gz" in done.out
        assert "would be imported" in done.out
        assert "damaged" in done.out
    assert not (tmp_path / "data" / "clusters").exists()
    assert not (tmp_path / "keys" / "clusters").exists()


def test_what_force_skipped_is_kept_in_mind(places, tmp_path, okd_data):
    pair = write_pair(tmp_path / "assets", okd_data, f"{STAMP}__POSSIBLY_DIRTY__")
    okd = places.cli("show", places.imported(tmp_path / "assets"), "--json").json["okd"]
    assert okd["forced"] == ["cluster-backup.sh --force"]
    assert okd["snapshot_name"] == pair.snapshot.name


def test_keys_of_another_cluster_fail(places, tmp_path, okd_data):
    """Each cluster has a key `1`, and this is another one."""
    other = okd_pair.CONFIGURATION.replace(
        okd_pair.CONFIGURATION.split(b'"secret": "')[1][:8], b"AAAAAAAA"
    )
    write_pair(tmp_path / "assets", okd_data, content=okd_pair.files(other))
    [one] = places.taken(tmp_path / "assets", expect=3)
    assert verdicts(one)["keys"] == "FAIL"
    [entry] = places.data.backups()
    assert entry.failed


def test_an_archive_that_changes_meanwhile_is_no_partner(places, tmp_path, okd_data, monkeypatch):
    from backstay.kinds.okd.imported import ImportedOkd

    pair = write_pair(tmp_path / "assets", okd_data)
    examine = ImportedOkd.examine

    def changing(self, snapshot):
        with pair.archive.open("r+b") as file:
            file.seek(100)
            file.write(b"changed")
        return examine(self, snapshot)

    monkeypatch.setattr(ImportedOkd, "examine", changing)
    [one] = places.taken(tmp_path / "assets", expect=3)
    assert one["fate"] == "damaged"
    assert not places.data.backups()
