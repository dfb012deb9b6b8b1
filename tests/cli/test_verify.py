import json

import pytest

from kit import fixtures
from kit.manifests import PROVEN


@pytest.fixture
def made(cli, identity):
    """A backup; its manifest."""
    return cli("backup", "etcd", "--cluster", "prod", "--json").json


def verdicts(done):
    return {check["name"]: check["verdict"] for check in done.json["checks"]}


def flip(path, place=0.5):
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x10
    path.write_bytes(data)


def test_a_good_backup(cli, made):
    assert verdicts(cli("verify", "prod/latest", "--json")) == {
        "stored": "PASS",
        "openable": "PASS",
    }
    found = verdicts(cli("verify", "prod/latest", "--read-data", "--json"))
    assert set(found) == {*PROVEN, "sealed", "figures"}
    assert set(found.values()) == {"PASS"}


def test_reading_back_needs_no_identity(cli, made):
    del cli.variables["BACKSTAY_IDENTITY"]
    cli("verify", "prod/latest")
    assert "--identity" in cli("verify", "prod/latest", "--read-data", expect=1).err


@pytest.mark.parametrize("words", [[], ["--read-data"]])
def test_promise_1_a_flipped_bit_is_found_and_remembered(cli, made, file_repo, words):
    good = cli("backup", "etcd", "--cluster", "prod", "--json").json
    flip(file_repo / good["objects"][0]["path"])
    found = cli("verify", good["id"], *words, "--json", expect=3)
    assert verdicts(found)["stored"] == "FAIL"
    assert cli("show", "prod/latest", "--json").json["id"] == made["id"]
    assert "FAILED" in cli("list").out


def test_a_lost_object_is_a_fail(cli, made, file_repo):
    (file_repo / made["objects"][0]["path"]).unlink()
    found = verdicts(cli("verify", made["id"], "--json", expect=3))
    assert found == {"stored": "FAIL", "openable": "FAIL"}


def test_promise_4_a_store_that_cannot_be_asked_is_no_pass(cli, made, file_repo):
    path = file_repo / made["objects"][0]["path"]
    path.unlink()
    path.mkdir()
    found = verdicts(cli("verify", made["id"], "--json", expect=4))
    assert found == {"stored": "COULD NOT VERIFY", "openable": "COULD NOT VERIFY"}


def test_a_manifest_that_lies_is_found(cli, made, file_repo):
    [path] = file_repo.glob("clusters/prod/backups/*.json")
    text = path.read_text().replace(f'"hash": {made["hash"]}', f'"hash": {made["hash"] ^ 1}')
    path.write_text(text)
    assert (
        verdicts(cli("verify", made["id"], "--read-data", "--json", expect=3))["figures"] == "FAIL"
    )


def test_files(cli, made):
    cli("export", made["id"], "-o", "copy.db")
    copy = cli.folder / "copy.db"
    assert verdicts(cli("verify", "copy.db", "--json")) == {
        name: "PASS" for name in PROVEN if name != "stored"
    }
    data = copy.read_bytes()
    (cli.folder / "raw.db").write_bytes(data[:-32])
    assert verdicts(cli("verify", "raw.db", "--json", expect=4))["transfer"] == "COULD NOT VERIFY"
    (cli.folder / "cut.db").write_bytes(data[:-5000])
    cli("verify", "cut.db", expect=3)
    flip(copy)
    assert verdicts(cli("verify", "copy.db", "--json", expect=3))["transfer"] == "FAIL"


@pytest.mark.parametrize("data", [b"", b"hello", b"\0" * 8192, b"\xff" * 100_000])
def test_what_is_no_snapshot(cli, etcd, data):
    (cli.folder / "no.db").write_bytes(data)
    assert cli("verify", "no.db", expect=3).err


def test_a_file_that_is_missing(cli, etcd):
    assert "gone.db: No such file" in cli("verify", "./gone.db", expect=1).err
    assert "no repository is given" in cli("verify", "gone.db", expect=2).err


@pytest.mark.parametrize("name", ["kube-aescbc", "kube-aescbc-rotation", "kube-secretbox"])
def test_the_api_servers_keys_are_tried(cli, tmp_path, name):
    path = fixtures.write(name, tmp_path)
    configuration = json.dumps(fixtures.facts(name)["encryption_configuration"])
    (cli.folder / "config.yaml").write_text(configuration)
    words = ("verify", path, "--encryption-config", "config.yaml", "--json")
    found = cli(*words, "--prove-all")
    assert verdicts(found)["keys"] == "PASS"
    secrets = [group for group in found.json["keys"] if group["resource"] == "secrets"]
    encrypted = [group for group in secrets if group["provider"] != "identity"]
    assert encrypted
    assert all(group["tried"] == group["opened"] == group["values"] for group in encrypted)


def test_a_wrong_key_is_a_fail(cli, tmp_path):
    path = fixtures.write("kube-aescbc", tmp_path)
    configuration = json.dumps(fixtures.facts("kube-aescbc-rotation")["encryption_configuration"])
    (cli.folder / "config.yaml").write_text(configuration)
    found = cli("verify", path, "--encryption-config", "config.yaml", "--json", expect=3)
    assert verdicts(found)["keys"] == "FAIL"
    assert verdicts(found)["content"] == "PASS"


def test_keys_want_the_data(cli, made):
    (cli.folder / "config.yaml").write_text(
        json.dumps(fixtures.facts("kube-aescbc")["encryption_configuration"])
    )
    words = ("verify", made["id"], "--encryption-config", "config.yaml")
    assert "--read-data" in cli(*words, expect=2).err
    # Nothing is encrypted there, so nothing is proven of the keys; and the backup stays verified.
    assert verdicts(cli(*words, "--read-data", "--json", expect=4))["keys"] == "COULD NOT VERIFY"
    assert "not verified" not in cli("list").out
