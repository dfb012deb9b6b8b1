"""`rewrap` of OKD backups: snapshot, keyring and archive, each to the recipients of its place."""

import pytest

from backstay.repo.keyring import Keyring, headers, save
from backstay.repo.name import Run
from kit.okd_pair import VERSION


@pytest.fixture
def rotated(places, backup):
    """The places since both have another recipient than when the backup was made."""
    cli = places.cli
    text = (cli.folder / "identity.txt").read_text()
    first = next(line.split()[-1] for line in text.splitlines() if "public key" in line)
    second = cli("keygen", "-o", "second.txt", "--json").json["recipient"]
    for url in (cli.variables["BACKSTAY_REPO"], places.keys_url):
        cli("recipients", "add", second, "--repo", url)
        cli("recipients", "remove", first, "--repo", url)
    return places


def restore(places, backup, identity, expect=0):
    target = places.root / f"restored-{identity}"
    return places.cli(
        *("restore", "okd", backup, "--output-dir", target, "--version", VERSION, "--json"),
        expect=expect,
        BACKSTAY_IDENTITY=str(places.cli.folder / identity),
    )


def check(places, identity, expect=0):
    for url in (places.cli.variables["BACKSTAY_REPO"], places.keys_url):
        words = ("--repo", url, "--identity", identity)
        places.cli("recipients", "check", *words, expect=expect)


def test_promise_5_after_a_rewrap_the_old_identity_opens_nothing(rotated, backup, tmp_path):
    done = rotated.cli("rewrap", "--all", "--json").json
    [saved] = headers(rotated.keys)
    assert [(one["id"], one["outcome"], one.get("keyring")) for one in done] == [
        (backup, "rewrapped", None),
        (saved.header.id, "rewrapped", True),
    ]
    assert len(done[1]["removed"]) == 2
    check(rotated, "second.txt")
    check(rotated, "identity.txt", expect=3)
    words = ("--keys-repo", rotated.keys_url, "--read-data", "--identity", "second.txt", "--json")
    verified = rotated.cli("verify", backup, *words).json
    assert {one["verdict"] for one in verified["checks"]} == {"PASS"}
    assert {"partner", "keys"} <= {one["name"] for one in verified["checks"]}
    restore(rotated, backup, "identity.txt", expect=1)
    restore(rotated, backup, "second.txt")
    for path in (tmp_path / "restored-second.txt").iterdir():
        assert path.read_bytes() == (tmp_path / "assets" / path.name).read_bytes()
    again = rotated.cli("rewrap", "--all", "--json", "--identity", "second.txt").json
    assert [one["outcome"] for one in again] == ["kept", "kept"]


def test_by_id_the_keyring_goes_with_its_backup(rotated, backup):
    done = rotated.cli("rewrap", backup, "--json").json
    assert [one["outcome"] for one in done] == ["rewrapped", "rewrapped"]
    check(rotated, "second.txt")


def test_without_the_repository_for_keys_it_says_what_is_left(rotated, backup):
    del rotated.cli.variables["BACKSTAY_KEYS_REPO"]
    done = rotated.cli("rewrap", "--all")
    assert "1 of these have keyrings, which keep their recipients" in done.err
    before = rotated.files("keys")
    # The repository for keys can be named by itself.
    told = rotated.cli("rewrap", "--repo", rotated.keys_url, "--all").err
    assert f"keyring {headers(rotated.keys)[0].header.id}: rewrapped, 2 old objects" in told
    assert not [path for path in before if path.suffix == ".age" and path.exists()]
    check(rotated, "second.txt")


def test_keyrings_are_named_as_a_check_names_them(rotated, backup):
    [saved] = headers(rotated.keys)
    words = ("--repo", rotated.keys_url)
    missing = rotated.cli("rewrap", "other/20261120T231000Z-k3f9", *words, expect=1)
    assert "has no keyring other/" in missing.err
    rotated.cli("rewrap", saved.header.id, "--deltas", *words, expect=2)
    [done] = rotated.cli("rewrap", saved.header.id, *words, "--json").json
    assert (done["id"], done["outcome"]) == (saved.header.id, "rewrapped")


def test_what_a_recorder_saved_goes_with_all_and_with_the_deltas_of_a_lineage(rotated, backup):
    manifest = rotated.data.find(backup).manifest
    lineage = manifest.snapshots[0].lineage
    [saved] = headers(rotated.keys)
    names = {}
    # Sealed to the recipient of before, as by a recorder that was not started again.
    keys = rotated.keys
    keys.config = keys.first
    for of in (lineage, "f" * 16):
        made = Keyring(cluster=manifest.cluster, kind="okd", made_at=saved.header.made_at, keys=())
        run = Run.begin(manifest.cluster, saved.header.made_at)
        save(keys, made, run, data=manifest.repository, lineage=of)
        names[of] = f"{manifest.cluster}/{run.name}"
    done = rotated.cli("rewrap", backup, "--deltas", "--json").json
    keyrings = [one["id"] for one in done if one.get("keyring")]
    assert keyrings == [saved.header.id, names[lineage]]
    done = rotated.cli("rewrap", "--all", "--json").json
    outcomes = {one["id"]: one["outcome"] for one in done if one.get("keyring")}
    assert outcomes[names["f" * 16]] == "rewrapped"
    assert sorted(outcomes.values()) == ["kept", "kept", "rewrapped"]


def test_a_keyring_that_is_gone_is_told_and_the_backup_is_sealed_anew(rotated, backup):
    for path in rotated.files("keys", ".json"):
        path.unlink()
    done = rotated.cli("rewrap", backup, "--json", expect=1).json
    assert [one["outcome"] for one in done] == ["rewrapped", "failed"]
    assert "has no keys of" in done[1]["detail"]
