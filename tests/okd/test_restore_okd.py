"""`restore okd`: what the restore pod runs takes the pair. Force lifts rules, and no damage."""

import hashlib
import json
import os
import signal
import subprocess

import pytest
from msgspec.structs import replace

from backstay.client.etcd import Etcd as Client
from kit import okd_pair
from kit.certificates import Authority, days
from kit.disk_steps import run_killed
from kit.etcd import Etcd
from kit.kubeserver import KubeServer
from kit.okd_pair import INFRASTRUCTURE, NODE, STAMP, VERSION, files, write_pair
from kit.world import restored

EXPIRED = "static-pod-resources/kube-apiserver-pod-6/secrets/aggregator-client/tls.crt"


def restore(places, backup, *words, expect=0, directory=None, version=VERSION):
    target = directory or places.root / "restored"
    said = ("--version", version) if version else ()
    return places.cli(
        "restore", "okd", backup, "--output-dir", target, *said, *words, "--json", expect=expect
    )


def verdicts(done):
    return {check["name"]: check["verdict"] for check in done.json["checks"]}


def remade(places, tmp_path, okd_data, content):
    """A backup of a pair whose archive has other files."""
    write_pair(tmp_path / "assets", okd_data, content=content)
    [one] = places.taken(tmp_path / "assets", expect=None)
    assert one["fate"] == "imported", one
    return one["id"]


def test_the_pair_comes_back_as_it_was(places, backup, tmp_path):
    done = restore(places, backup)
    target = tmp_path / "restored"
    assert sorted(os.listdir(target)) == sorted(os.listdir(tmp_path / "assets"))
    for file in done.json["files"]:
        name = file["path"].removeprefix(f"{target}/")
        data = (target / name).read_bytes()
        assert data == (tmp_path / "assets" / name).read_bytes()
        assert (file["size"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert (target / name).stat().st_mode & 0o777 == 0o600
    assert target.stat().st_mode & 0o777 == 0o700
    assert set(verdicts(done).values()) == {"PASS"}
    assert {"release", "partner", "certificates", "transfer", "structure", "content", "keys"} <= (
        set(verdicts(done))
    )


def test_promise_2_the_commands_of_the_restore_pod_take_it(places, backup, tmp_path):
    """GNU tar unpacks the archive over /etc/kubernetes, and etcdutl restores the snapshot."""
    restore(places, backup)
    [archive] = (tmp_path / "restored").glob("static_kuberesources*.tar.gz")
    [snapshot] = (tmp_path / "restored").glob("snapshot*.db")
    kubernetes = tmp_path / "kubernetes"
    kubernetes.mkdir()
    subprocess.run(["tar", "-C", kubernetes, "-xzf", archive, "static-pod-resources"], check=True)
    found = {
        str(path.relative_to(kubernetes)): path.read_bytes()
        for path in kubernetes.rglob("*")
        if path.is_file()
    }
    assert found == files()
    restored(snapshot, tmp_path / "etcd", NODE)
    said = places.cli("hashkv", snapshot, "--json").json
    with Etcd.start(tmp_path / "etcd", name=NODE) as etcd, Client(etcd.access) as client:
        theirs = client.hashkv(client.endpoints[0], said["revision"])
        assert theirs.hash == said["hash"]
        kept = client.range(okd_pair.FOLDER + b"/infrastructures/cluster").kvs[0].value
        assert json.loads(kept)["status"]["infrastructureName"] == INFRASTRUCTURE


def test_an_empty_directory_is_taken_and_a_full_one_stays(places, backup, tmp_path):
    (tmp_path / "empty").mkdir()
    restore(places, backup, directory=tmp_path / "empty")
    assert len(os.listdir(tmp_path / "empty")) == 2
    for name in ("snapshot_2020-01-01_000000.db", "notes"):
        full = tmp_path / f"full-{name}"
        full.mkdir()
        (full / name).write_text("mine")
        for words in ((), ("--force",)):
            done = restore(places, backup, *words, directory=full, expect=5)
            assert "not empty" in done.err
        assert [(p.name, p.read_text()) for p in full.iterdir()] == [(name, "mine")]


def left_over(tmp_path):
    return [p.name for p in tmp_path.iterdir() if "restored" in p.name]


def test_another_release_is_refused_before_anything_is_fetched(places, backup, tmp_path):
    done = restore(places, backup, version="4.15.4", expect=5)
    assert "same z-stream release" in done.err
    assert VERSION in done.err
    assert not left_over(tmp_path)
    done = restore(places, backup, "--force", version="4.15.4")
    assert verdicts(done)["release"] == "FAIL"
    assert "lifted by --force" in done.err


def test_promise_4_a_release_that_is_not_known_is_said_and_does_not_stop(places, backup):
    done = restore(places, backup, version="", expect=4)
    assert verdicts(done)["release"] == "COULD NOT VERIFY"
    assert "--version" in done.err
    assert len(done.json["files"]) == 2


def test_the_cluster_tells_which_release_runs(places, backup, tmp_path):
    with KubeServer.start(tmp_path / "kube") as kube:
        kube.put(
            {
                "apiVersion": "config.openshift.io/v1",
                "kind": "ClusterVersion",
                "metadata": {"name": "version"},
                "status": {"history": [{"state": "Completed", "version": "4.16.0"}]},
            }
        )
        words = ("--kubeconfig", kube.kubeconfig)
        done = restore(places, backup, *words, version="", expect=5)
        assert "4.16.0" in done.err
    done = restore(places, backup, *words, version="", expect=4)
    assert "does not tell" in done.err


def test_certificates_that_have_run_out_are_named(places, tmp_path, okd_data):
    old = okd_pair.authority().issue("system:old", start=days(-9), end=days(-2)).certificate
    backup = remade(places, tmp_path, okd_data, files(more={EXPIRED: old}))
    done = restore(places, backup, expect=5)
    assert EXPIRED in done.err
    assert "system:old" in done.err
    assert f"{days(-2):%Y-%m-%d}" in done.err
    assert not left_over(tmp_path)
    done = restore(places, backup, "--force")
    assert verdicts(done)["certificates"] == "FAIL"


def test_certificates_that_soon_run_out_are_a_warning(places, tmp_path, okd_data):
    soon = okd_pair.authority().issue("system:soon", start=days(-9), end=days(1)).certificate
    backup = remade(places, tmp_path, okd_data, files(more={EXPIRED: soon}))
    done = restore(places, backup)
    assert "run out soon" in done.err
    assert "system:soon" in done.err
    assert verdicts(done)["certificates"] == "PASS"


def test_an_old_authority_may_stand_beside_a_good_one(places, tmp_path, okd_data):
    name = "static-pod-resources/etcd-pod-3/configmaps/ca-bundle/ca-bundle.crt"
    old = Authority.make("old-signer", start=days(-90), end=days(-2)).pem
    bundle = {name: old + okd_pair.authority().pem}
    backup = remade(places, tmp_path, okd_data, files(more=bundle))
    restore(places, backup)
    alone = remade(places, tmp_path / "b", okd_data, files(more={name: old}))
    assert "old-signer" in restore(places, alone, directory=tmp_path / "c", expect=5).err


def test_keys_that_do_not_open_the_data_are_refused(places, tmp_path, okd_data):
    secret = okd_pair.CONFIGURATION.split(b'"secret": "')[1][:8]
    other = files(okd_pair.CONFIGURATION.replace(secret, b"AAAAAAAA"))
    backup = remade(places, tmp_path, okd_data, other)
    # It is listed as failed, since they were tried when it was imported.
    assert "listed" in restore(places, backup, expect=5).err
    done = restore(places, backup, "--force")
    assert (verdicts(done)["listed"], verdicts(done)["keys"]) == ("FAIL", "FAIL")


def test_a_snapshot_without_a_sha256_is_none_that_the_scripts_take(places, tmp_path, okd_data):
    write_pair(tmp_path / "assets", okd_data[:-32])
    [one] = places.taken(tmp_path / "assets", expect=4)
    done = restore(places, one["id"], expect=5)
    assert "no SHA-256" in done.err
    done = restore(places, one["id"], "--force")
    assert verdicts(done)["transfer"] == "FAIL"


def test_what_was_forced_at_the_backup_is_told_at_the_restore(places, backup):
    republish(places, backup, forced=("rotation",))
    assert "made past guards: rotation" in restore(places, backup).err


def republish(places, backup, **fields):
    """A manifest by somebody who can write to the repository: the same objects, other words."""
    entry = places.data.find(backup)
    manifest = entry.manifest
    changed = replace(manifest, okd=replace(manifest.okd, **fields))
    places.data.store.delete(f"clusters/{manifest.cluster}/backups/{manifest.name.name}.json")
    places.data.publish(changed)
    return backup


HOSTILE = (
    {"snapshot_name": "../../etc/cron.d/x.db"},
    {"snapshot_name": "/etc/passwd"},
    {"snapshot_name": ""},
    {"snapshot_name": f"snapshot_{STAMP}.db\n"},
    {"archive_name": f"static_kuberesources_{STAMP}.tar.gz/../x"},
    {"archive_name": "static_kuberesources_2020-01-01_000000.tar.gz"},
    {"archive_name": f"snapshot_{STAMP}.db"},
)


def test_names_from_a_manifest_are_not_believed(places, backup, tmp_path):
    before = places.data.find(backup).manifest.okd
    for fields in HOSTILE:
        names = {"snapshot_name": before.snapshot_name, "archive_name": before.archive_name}
        republish(places, backup, **(names | fields))
        done = restore(places, backup, "--force", expect=1)
        assert "names its files" in done.err
    assert not left_over(tmp_path)


def test_two_that_do_not_belong_together_are_refused(places, backup, tmp_path):
    for fields in ({"archive_sha256": "0" * 64}, {"archive_size": 7}):
        done = restore(places, republish(places, backup, **fields), "--force", expect=3)
        assert "static pod resources" in done.err
    assert not left_over(tmp_path)


def test_the_archive_of_another_backup_is_found_by_its_keyring(places, backup, tmp_path, okd_data):
    """Somebody swaps the keyring of one backup for that of another, header, archive and all."""
    write_pair(tmp_path / "b", okd_data, "2026-11-21_190035", files(more={EXPIRED: b"1"}))
    other = places.imported(tmp_path / "b")
    runs = ["-".join((name.split("/")[1].split("-")[0], name[-4:])) for name in (backup, other)]
    for path in places.files("keys"):
        if runs[1] in path.name:
            path.rename(path.with_name(path.name.replace(runs[1], "spare")))
    for path in places.files("keys"):
        if runs[0] in path.name:
            path.with_name(path.name.replace(runs[0], runs[1])).write_bytes(path.read_bytes())
    done = restore(places, other, "--force", expect=3)
    assert "not the keyring that the manifest means" in done.err


def test_a_backup_without_its_partner_restores_no_control_plane(places, tmp_path, okd_data):
    pair = write_pair(tmp_path / "assets", okd_data)
    pair.archive.unlink()
    [one] = places.taken(tmp_path / "assets", expect=4)
    done = restore(places, one["id"], "--force", expect=3)
    assert "no static pod resources" in done.err


@pytest.mark.parametrize("place", ["data", "keys"])
def test_promise_6_damage_is_found_and_nothing_appears(places, backup, tmp_path, place):
    ending = ".zst.age" if place == "data" else ".tar.gz.zst.age"
    [path] = places.files(place, ending)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    restore(places, backup, "--force", expect=3)
    assert not left_over(tmp_path)


def test_promise_6_what_comes_to_stand_there_meanwhile_stays(places, backup, tmp_path, monkeypatch):
    from backstay.flows import datadir

    publish, target = datadir.publish_whole, tmp_path / "restored"

    def late(built, found):
        target.mkdir(exist_ok=True)
        (target / "mine").write_text("mine")
        publish(built, found)

    monkeypatch.setattr(datadir, "publish_whole", late)
    restore(places, backup, expect=5)
    (target / "mine").unlink()
    restore(places, backup, expect=5)
    assert os.listdir(target) == ["mine"]
    assert left_over(tmp_path) == ["restored"]


def test_a_full_disk_is_told_before_anything_is_fetched(places, backup, tmp_path, monkeypatch):
    monkeypatch.setattr("backstay.kinds.okd.restore.free_space", lambda _: 1 << 20)
    assert "bytes free" in restore(places, backup, expect=1).err
    assert not left_over(tmp_path)


def test_the_steps_name_the_hosts_and_the_directory(places, backup, tmp_path):
    done = restore(places, backup)
    commands = [line for step in done.json["steps"] for line in step["commands"]]
    assert f"scp -r {tmp_path}/restored core@{NODE}:restored" in commands
    assert "sudo -E /usr/local/bin/cluster-restore.sh /home/core/restored" in commands
    place = done.json["steps"]
    text = places.cli(
        *("restore", "okd", backup, "--output-dir", tmp_path / "again", "--version", VERSION)
    ).out
    assert f"1. {place[0]['step']}" in text


def test_a_file_and_a_missing_repository_for_keys_are_misuse(places, backup, tmp_path):
    words = ("--output-dir", tmp_path / "x")
    places.cli("restore", "okd", "./snapshot.db", *words, expect=2)
    places.cli("restore", "okd", backup, *words, expect=2, BACKSTAY_KEYS_REPO="")


def test_promise_6_whenever_it_is_killed_nothing_or_all_is_there(places, backup, tmp_path):
    """Killed at each name that it makes and each file that it brings to the disk."""
    moment, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        moment += 1
        target = tmp_path / f"restored-{moment}"
        code = killed_at(places, moment, backup, target)
        if target.exists():
            assert sorted(os.listdir(target)) == sorted(os.listdir(tmp_path / "assets"))
        else:
            assert code == -signal.SIGKILL
    assert code == 0
    assert moment > 5
    # What the killed ones left goes with the next run to the same place.
    left = [path.name for path in tmp_path.glob(".restored-*")]
    assert left
    for number in range(1, moment):
        if not (tmp_path / f"restored-{number}").exists():
            restore(places, backup, directory=tmp_path / f"restored-{number}")
    # One that is killed when all is in place leaves its own directory, and nothing in it.
    assert not any(list(path.iterdir()) for path in tmp_path.glob(".restored-*"))


def killed_at(places, moment, backup, target):
    """Run it in a process of its own, killed before its n-th step to the disk; gives its end."""
    words = ("restore", "okd", backup, "--output-dir", target, "--version", VERSION)
    return run_killed(places.cli.variables, words, moment)
