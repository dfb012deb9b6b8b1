"""`status`, `hashkv` and `verify` on files that real etcds wrote."""

import json
import subprocess

import pytest

from kit import fixtures
from kit.cli import Cli


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path)


@pytest.mark.parametrize("name", fixtures.NAMES)
@pytest.mark.parametrize("form", ["json", "table", "simple", "fields"])
def test_status_is_that_of_etcdutl_byte_for_byte(cli, tmp_path, etcdutl, name, form):
    path = fixtures.write(name, tmp_path)
    theirs = subprocess.run(
        [etcdutl, "snapshot", "status", path, "-w", form], check=False, capture_output=True
    )
    assert cli("status", path, "-w", form).out.encode() == theirs.stdout
    assert theirs.stdout


@pytest.mark.parametrize("name", fixtures.NAMES)
def test_status_is_what_all_versions_said(cli, tmp_path, name):
    found = json.loads(cli("status", fixtures.write(name, tmp_path), "--json").out)
    facts = fixtures.facts(name)
    for theirs in facts.get(
        "snapshot_status_by_tool_version", {"": facts["snapshot_status"]}
    ).values():
        assert found == theirs


@pytest.mark.parametrize("name", fixtures.NAMES)
def test_promise_8_hashkv_is_what_the_server_said(cli, tmp_path, name):
    path = fixtures.write(name, tmp_path)
    facts = fixtures.facts(name)
    for theirs in facts["hashkv"]:
        assert cli("hashkv", path, "--rev", theirs["revision"], "--json").json == theirs
    newest = facts["hashkv"][-1]
    assert cli("hashkv", path, "--json").json == newest
    assert str(newest["hash"]) in cli("hashkv", path).out


def test_hashkv_outside_of_the_window_is_refused(cli, tmp_path):
    path = fixtures.write("etcd3516-plain", tmp_path)
    facts = fixtures.facts("etcd3516-plain")
    first, last = facts["compact_revision"], facts["revision"]
    for words in (["--rev", first - 1], ["--rev", last + 1], ["--compact-revision", first - 1]):
        done = cli("hashkv", path, *words, expect=2)
        assert str(first) in done.err


@pytest.mark.parametrize("name", fixtures.NAMES)
def test_whole_files_verify(cli, tmp_path, name):
    checks = cli("verify", fixtures.write(name, tmp_path), "--json").json["checks"]
    assert {c["name"]: c["verdict"] for c in checks} == {
        "transfer": "PASS",
        "structure": "PASS",
        "content": "PASS",
    }


def verdict_of(name):
    """What a good tool must say of a damaged file; of the one that is not, nothing is noted."""
    return fixtures.facts(name).get("verdict", "good")


CODES = {"good": {0}, "readable": {0}, "readable-unverified": {4}, "refuse": {3}}


@pytest.mark.parametrize("name", fixtures.DAMAGED)
def test_damaged_files_get_the_verdict_that_they_must(cli, tmp_path, name):
    codes = CODES[verdict_of(name)] | ({1} if name in {"not-a-db", "zero-length"} else set())
    done = cli("verify", fixtures.write(name, tmp_path), expect=None)
    assert done.code in codes, done
    if verdict_of(name) == "refuse":
        assert "FAIL" in done.err
    if name == "bad-meta0":
        assert "meta" in done.err


@pytest.mark.parametrize("name", fixtures.DAMAGED)
@pytest.mark.parametrize("command", ["status", "hashkv"])
def test_no_figures_come_from_what_cannot_be_read(cli, tmp_path, name, command):
    facts = fixtures.facts(name)
    done = cli(command, fixtures.write(name, tmp_path), "--json", expect=None)
    content = facts.get("same_content_as_valid", facts)
    if verdict_of(name) != "refuse":
        expected = content["snapshot_status"] if command == "status" else content["hashkv"][-1]
        assert done.json == expected
    elif name != "trailer-mismatch":  # only the trailer tells there, which these do not read
        assert done.code == 3
        assert done.out == ""


@pytest.mark.parametrize("name", fixtures.DAMAGED)
def test_promise_6_nothing_is_restored_from_what_is_damaged(cli, tmp_path, name):
    verdict = verdict_of(name)
    path = fixtures.write(name, tmp_path)
    code = {"good": 0, "readable": 0, "readable-unverified": 5, "refuse": 3}[verdict]
    cli("restore", "etcd", path, "--data-dir", "data", expect=code)
    assert (tmp_path / "data").exists() == (code == 0)
