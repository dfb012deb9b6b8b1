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
        "hashkv": "PASS",
        "keys": "PASS",
        "samples": "PASS",
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
