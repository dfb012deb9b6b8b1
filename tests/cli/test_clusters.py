"""Backups of etcds of other versions, of several members, with users, with alarms."""

import subprocess

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.client.member import serving
from backstay.client.tools import find_etcd
from backstay.report import Report
from kit import fixtures, needs
from kit.cli import Cli, etcd_variables
from kit.etcd import Etcd, EtcdCluster


def prepared(tmp_path, etcd):
    """The program with an encrypted repository, and its identity at hand."""
    home = tmp_path / "home"
    home.mkdir()
    cli = Cli(home, etcd_variables(etcd, tmp_path / "pki"))
    recipient = cli("keygen", "-o", "identity.txt", "--json").json["recipient"]
    cli.variables |= {
        "BACKSTAY_REPO": f"file://{tmp_path}/repo",
        "BACKSTAY_IDENTITY": "identity.txt",
    }
    cli("init", "--recipient", recipient)
    return cli


def test_etcd_34(tmp_path):
    with Etcd.start(tmp_path / "etcd", binary=needs.debian("etcd")) as etcd:
        for number in range(50):
            etcd.ctl("put", f"k{number}", "value")
        cli = prepared(tmp_path, etcd)
        made = cli("backup", "etcd", "--cluster", "old", "--json").json
        hashkv = etcd.ctl_json("endpoint", "hashkv")[0]["HashKV"]
    assert made["hashkv"]["hash"] == hashkv["hash"]
    assert made["snapshots"][0]["etcd_version"].startswith("3.4.")
    cli("drill", "old/latest")
    cli("restore", "etcd", "old/latest", "--data-dir", "data")


def test_promise_3_a_backup_only_reads(tmp_path):
    with Etcd.start(tmp_path / "etcd") as etcd:
        etcd.ctl("put", "k", "value")

        def seen():
            status = etcd.ctl_json("endpoint", "status")[0]["Status"]
            members = etcd.ctl_json("member", "list")["members"]
            alarms = etcd.ctl_json("alarm", "list").get("alarms")
            # The raft index moves with every linearizable read, and etcd writes it down in pages
            # of its own: what is stored must not move.
            hashkv = etcd.ctl_json("endpoint", "hashkv")[0]["HashKV"]["hash"]
            return status["header"]["revision"], hashkv, members, alarms

        cli = prepared(tmp_path, etcd)
        before = seen()
        cli("preflight", "etcd", "--cluster", "prod")
        cli("backup", "etcd", "--cluster", "prod")
        assert seen() == before


def test_a_follower_is_asked_and_a_member_that_is_down_is_told(tmp_path):
    with EtcdCluster.start(tmp_path / "etcd", 3) as cluster:
        cluster.ctl("put", "k", "value")
        cli = prepared(tmp_path, cluster)
        leader = cluster.leader()
        done = cli("backup", "etcd", "--cluster", "prod")
        [line] = [line for line in done.err.splitlines() if line.startswith("taking a snapshot")]
        assert leader.endpoint not in line
        down = cluster.followers()[0]
        down.kill()
        done = cli("preflight", "etcd", "--json", expect=4)
        [check] = [c for c in done.json["checks"] if c["name"] == "members"]
        assert check["verdict"] == "COULD NOT VERIFY"
        assert down.endpoint in check["detail"]
        cli("backup", "etcd", "--cluster", "prod")


def test_promise_5_users_and_passwords(tmp_path):
    with Etcd.start(tmp_path / "etcd") as etcd:
        etcd.ctl("put", "k", "value")
        etcd.enable_auth("the-password-of-root")
        cli = prepared(tmp_path, etcd)
        backup = ("backup", "etcd", "--cluster", "prod")
        assert "--user" in cli(*backup, expect=1).err
        (cli.folder / "password").write_text("wrong\n")
        words = ("--user", "root", "--password-file", "password")
        assert "password" in cli(*backup, *words, expect=1).err
        (cli.folder / "password").write_text("the-password-of-root\n")
        done = cli(*backup, *words, "--debug")
        assert "the-password-of-root" not in done.out + done.err
        cli(*backup, ETCDCTL_USER="root:the-password-of-root")
        cli(*backup, ETCDCTL_USER="root", ETCDCTL_PASSWORD="the-password-of-root")
    # Nobody gave the drill a password: auth is off in its copy, and on again in what is restored.
    cli("drill", "prod/latest")
    done = cli("restore", "etcd", "prod/latest", "--data-dir", "data", "--json")
    assert done.json["auth_enabled"]


@pytest.mark.parametrize("keep", [False, True])
def test_alarms_are_dropped_unless_they_are_to_stay(tmp_path, keep):
    path = fixtures.write("etcd3516-alarm", tmp_path)
    cli = Cli(tmp_path)
    words = ["--keep-alarms"] if keep else []
    done = cli("restore", "etcd", path, "--data-dir", "data", *words)
    assert ("1 alarms were dropped" in done.err) is not keep
    tool = find_etcd(least=(3, 5, 0))
    with serving(tmp_path / "data", tool, Report()) as member, Client(member.access) as client:
        assert bool(client.alarms()) is keep


def test_restored_members_form_one_cluster(tmp_path, etcdutl):
    """Two members from one backup start, agree, and have what was backed up."""
    with Etcd.start(tmp_path / "etcd") as etcd:
        for number in range(20):
            etcd.ctl("put", f"k{number}", "value")
        cli = prepared(tmp_path, etcd)
        made = cli("backup", "etcd", "--cluster", "prod", "--json").json
    folder = tmp_path / "cluster"
    folder.mkdir()
    peers = "m1=unix://m1:0,m2=unix://m2:0"
    tokens = set()
    for name in ("m1", "m2"):
        done = cli(
            *("restore", "etcd", made["id"], "--data-dir", folder / f"{name}.etcd"),
            *("--name", name, "--initial-cluster", peers),
            *("--initial-advertise-peer-urls", f"unix://{name}:0", "--json"),
        )
        tokens.add(done.json["token"])
    assert len(tokens) == 1
    with EtcdCluster.start(folder, 2) as cluster:
        assert len(cluster.ctl("get", "", "--prefix", "--keys-only").split()) == 20
        hashes = {
            member.ctl_json("endpoint", "hashkv")[0]["HashKV"]["hash"] for member in cluster.members
        }
        assert len(hashes) == 1


def test_preflight_says_what_is_wrong(tmp_path):
    with Etcd.start(tmp_path / "etcd") as etcd:
        cli = prepared(tmp_path, etcd)
        good = cli("preflight", "etcd", "--quota", "2GiB", "--json").json["checks"]
        assert {c["name"] for c in good} == {
            *("members", "alarms", "quota", "space", "repository", "writable")
        }
        assert {c["verdict"] for c in good} == {"PASS"}
        full = cli("preflight", "etcd", "--quota", "1KiB", "--json", expect=3).json["checks"]
        assert {c["name"] for c in full if c["verdict"] == "FAIL"} == {"quota"}
        gone = cli("preflight", "etcd", "--repo", f"file://{tmp_path}/gone", "--json", expect=3)
        assert "backstay init" in gone.out
    down = cli("preflight", "etcd", "--json", expect=3).json["checks"]
    assert {c["name"] for c in down if c["verdict"] == "FAIL"} == {"members"}


def test_the_program_is_found_as_a_command(tmp_path):
    done = subprocess.run(
        [needs.binary("backstay"), "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("backstay ")
