import json
import re

import pytest

from backstay.repo.manifest import parse_manifest


def objects(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_backup_is_made_listed_and_shown(cli, repo, etcd):
    manifest = cli("backup", "etcd", "--cluster", "prod", "--json").json
    assert re.fullmatch(r"prod/\d{8}T\d{6}Z-r\d+-[a-z0-9]{4}", manifest["id"])
    assert {c["name"]: c["verdict"] for c in manifest["checks"]} == {
        "transfer": "PASS",
        "stored": "PASS",
        "structure": "PASS",
        "content": "PASS",
        "members": "PASS",
    }
    status = etcd.ctl_json("endpoint", "status")[0]["Status"]
    assert manifest["revision"] == status["header"]["revision"]
    assert manifest["snapshots"][0]["cluster_id"] == f"{status['header']['cluster_id']:x}"
    hashkv = etcd.ctl_json("endpoint", "hashkv")[0]["HashKV"]
    assert manifest["hashkv"]["hash"] == hashkv["hash"]
    assert manifest["hashkv"]["compact_revision"] == hashkv["compact_revision"]
    assert cli("show", "prod/latest", "--json").json == manifest
    assert [m["id"] for m in cli("list", "--json").json] == [manifest["id"]]
    assert "verified" in cli("list").out
    assert manifest["id"] in cli("show", manifest["id"]).out


def test_promise_1_the_manifest_is_written_last_and_alone_makes_a_backup(cli, file_repo):
    cli("backup", "etcd", "--cluster", "prod")
    [path] = file_repo.glob("clusters/prod/backups/*.json")
    manifest = parse_manifest(path.read_bytes(), "m")
    stored = file_repo / manifest.objects[0].path
    assert stored.stat().st_mtime_ns <= path.stat().st_mtime_ns
    path.unlink()
    assert cli("list", "--json").json == []


def test_with_json_nothing_else_is_on_standard_output(cli, file_repo):
    done = cli("backup", "etcd", "--cluster", "prod", "--json")
    assert json.loads(done.out)
    assert "PASS" in done.err
    piped = cli("backup", "etcd", "--cluster", "prod")
    assert piped.out == ""
    assert "verified" in piped.err


def test_log_lines_can_be_json(cli, file_repo):
    done = cli("backup", "etcd", "--cluster", "prod", "--log-format", "json")
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert {"transfer", "stored", "structure", "content"} <= {line.get("check") for line in lines}
    failed = cli("show", "prod/nothing", "--log-format", "json", expect=2)
    assert json.loads(failed.err)["level"] == "error"


def test_promise_5_the_store_holds_nothing_in_the_clear(cli, file_repo):
    cli("backup", "etcd", "--cluster", "prod")
    for path in file_repo.rglob("*"):
        if path.is_file():
            assert b"value 1 " not in path.read_bytes()
            assert path.stat().st_mode & 0o077 == 0


def test_without_encryption_it_must_be_asked_for(cli, tmp_path):
    url = f"file://{tmp_path}/open"
    assert "--recipient" in cli("init", "--repo", url, expect=2).err
    cli("init", "--repo", url, "--no-encryption")
    manifest = cli("backup", "etcd", "--cluster", "prod", "--repo", url, "--json").json
    assert manifest["recipients"] == []
    assert manifest["objects"][0]["path"].endswith(".zst")
    cli("verify", "prod/latest", "--read-data", "--repo", url)


def test_a_repository_is_made_once(cli, file_repo):
    recipient = cli("keygen", "--json").json["recipient"]
    assert "already" in cli("init", "--recipient", recipient, expect=5).err


def test_promise_5_other_recipients_than_the_pinned_ones_are_refused(cli, file_repo):
    other = cli("keygen", "--json").json["recipient"]
    done = cli("backup", "etcd", "--cluster", "prod", "--recipient", other, expect=5)
    assert "pinned" in done.err
    (cli.folder / "backstay.toml").write_text(f'recipient = ["{other}"]\n')
    assert "pinned" in cli("backup", "etcd", "--cluster", "prod", expect=5).err
    assert not (file_repo / "clusters").exists()


def test_keys_repositories_take_no_backups(cli, tmp_path):
    recipient = cli("keygen", "--json").json["recipient"]
    url = f"file://{tmp_path}/keys"
    cli("init", "--repo", url, "--recipient", recipient, "--role", "keys")
    done = cli("backup", "etcd", "--cluster", "prod", "--repo", url, expect=5)
    assert "for keys" in done.err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--cluster", "Prod"], 2, "no name for a cluster"),
        ([], 2, "--cluster"),
        (["--cluster", "prod", "--level", "99"], 2, "--level"),
        (["--cluster", "prod", "--endpoints", "https://127.0.0.1:1"], 1, "127.0.0.1:1"),
        (["--cluster", "prod", "--endpoints", "ftp://x"], 2, "https://HOST:2379"),
        (["--cluster", "prod", "--user", "root:secret"], 2, "--password-file"),
        (["--cluster", "prod", "--cert", "/nowhere"], 1, "/nowhere"),
        (["--cluster", "prod", "--repo", "abfs://x/y"], 2, "no kind of repository"),
        (["--cluster", "prod", "--repo", "s3://xyz", "--s3-endpoint", "http://h"], 2, "-http"),
        (["--cluster", "prod", "--repo", "file:///nowhere/at/all"], 1, "no repository"),
        (["--cluster", "prod", "--spool-dir", "/nowhere"], 2, "--spool-dir"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(cli, file_repo, words, code, told):
    done = cli("backup", "etcd", *words, expect=code)
    errors = [line for line in done.err.splitlines() if line.startswith("backstay: ")]
    assert len(errors) == 1
    assert told in errors[0]
    assert not (file_repo / "clusters").exists()


def test_promise_5_a_password_is_never_shown(cli, file_repo):
    done = cli("backup", "etcd", "--cluster", "prod", "--user", "root:hunter2", expect=2)
    assert "hunter2" not in done.err
    (cli.folder / "password").write_text("hunter2\n")
    done = cli(
        *("backup", "etcd", "--cluster", "prod", "--debug"),
        *("--user", "root", "--password-file", "password"),
        expect=None,
    )
    assert "hunter2" not in done.err + done.out


def test_a_dry_run_writes_nothing(cli, file_repo):
    before = objects(file_repo)
    done = cli("backup", "etcd", "--cluster", "prod", "--dry-run", "--json")
    assert {c["name"] for c in done.json["checks"]} >= {"members", "alarms", "space", "repository"}
    assert objects(file_repo) == before


def test_promise_4_members_are_asked_as_far_as_is_allowed(cli, file_repo):
    def backup(*words, expect=0):
        made = cli("backup", "etcd", "--cluster", "prod", "--json", *words, expect=expect).json
        verdicts = {check["name"]: check["verdict"] for check in made["checks"]}
        return verdicts.get("members"), made["snapshots"][0]["members"]

    assert backup("--members", "never") == (None, [])
    assert backup("--max-stall", "0s", expect=4) == ("COULD NOT VERIFY", [])
    accepted = ("--max-stall", "0s", "--accept-unverified", "members")
    assert backup(*accepted) == ("COULD NOT VERIFY", [])
    assert backup(*accepted[:2], "--accept-unverified", "keys", expect=4)
    told = cli("backup", "etcd", "--cluster", "prod", *accepted).err
    assert "COULD NOT VERIFY, which is accepted: members\n" in told
    for words in (("--members", "always", "--max-stall", "0s"), ("--members", "auto")):
        verdict, asked = backup(*words)
        assert verdict == "PASS"
        assert [one["revision"] for one in asked] == [asked[0]["revision"]] * 2
