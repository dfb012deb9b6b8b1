import os

import pytest

from kit import needs


@pytest.fixture
def made(cli, identity):
    """A backup; its manifest."""
    needs.binary("etcd")
    return cli("backup", "etcd", "--cluster", "prod", "--json").json


def test_a_drill_restores_compares_and_is_remembered(cli, made, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    done = cli("drill", "prod/latest", "--spool-dir", spool, "--json").json
    assert {check["name"]: check["verdict"] for check in done["checks"]} == {
        "fetch": "PASS",
        "restore": "PASS",
        "hashkv": "PASS",
        "keys": "PASS",
        "samples": "PASS",
        "restore-bumped": "PASS",
        "watch": "PASS",
        "writes": "PASS",
    }
    assert 0 < done["seconds"] < 60
    assert os.listdir(spool) == []
    assert "drill" in cli("show", made["id"]).out


def test_a_file_can_be_drilled(cli, made):
    cli("export", made["id"], "-o", "copy.db")
    cli("drill", "copy.db")


def test_damage_is_a_failed_drill(cli, made, file_repo):
    path = file_repo / made["objects"][0]["path"]
    path.write_bytes(path.read_bytes()[:-1])
    cli("drill", made["id"], expect=3)
    assert "FAILED" in cli("list").out


def test_a_missing_etcd_is_told_before_anything_is_fetched(cli, made, file_repo):
    (file_repo / made["objects"][0]["path"]).unlink()
    done = cli("drill", made["id"], "--etcd", "./nowhere", expect=1)
    assert "./nowhere" in done.err or "nowhere" in done.err
    assert "--etcd" in done.err


def test_promise_4_a_copy_that_does_not_start_is_no_pass(cli, made):
    etcd = cli.folder / "etcd"
    etcd.write_text("#!/bin/sh\necho etcd Version: 3.5.1\n[ $1 = --version ] || exit 1\n")
    etcd.chmod(0o755)
    done = cli("drill", made["id"], "--etcd", "./etcd", "--json", expect=4)
    assert {c["name"]: c["verdict"] for c in done.json["checks"]}["restore"] == "COULD NOT VERIFY"
    assert "verified" in cli("list").out
