"""`preflight okd` and `backup okd --dry-run`: every question is asked, and nothing is done."""

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from backstay.clock import SystemClock
from backstay.kinds.okd.etcd_files import find_etcd
from backstay.kinds.okd.hosttree import HostTree
from backstay.kinds.okd.lease import NAME, NAMESPACE, Turn
from backstay.kinds.okd.release import standing, version
from backstay.kinds.okd.static_pods import running
from backstay.kinds.okd.steps import Going, backup_steps
from backstay.kubeapi.connect import connect
from backstay.kubeapi.resource import LEASES
from backstay.repo.entry import Entry, Unreadable
from backstay.repo.manifest import CheckEntry, OkdEntry
from backstay.report import Verdict
from kit import manifests, okd_api
from kit.okd_host import NODE, PODS, REVISIONS

HOST = ("found", "rights", "members", "alarms")
STORES = ("repository", "keys repository", "writable", "apart")
GUARDS = ("rotation", "operators", "upgrade", "proxy", "space", "interval", "version")


@pytest.fixture
def look(host, cli):
    """Looks; gives each question's verdict."""

    def look(*words, expect=0):
        done = cli("preflight", "okd", "--host-root", host.root, "--json", *words, expect=expect)
        return {it["name"]: (it["verdict"], it["detail"]) for it in done.json["checks"]}

    return look


def verdicts(found):
    return {name: verdict for name, (verdict, _) in found.items()}


def test_all_is_well_and_nothing_was_changed(kube, cli, look, tmp_path):
    found = look()
    assert tuple(found) == (*HOST, *STORES, *GUARDS)
    assert set(verdicts(found).values()) == {"PASS"}
    for name, revision in REVISIONS.items():
        assert f"{name} {revision}" in found["found"][1]
    assert NODE in found["found"][1]
    assert {it.verb for it in kube.requests if it.resource != "selfsubjectaccessreviews"} == {"get"}
    assert cli("list", "--json").json == []


def test_for_people_it_prints_what_was_found_as_upstream_does(kube, host, cli):
    done = cli("preflight", "okd", "--host-root", host.root)
    for name, revision in REVISIONS.items():
        folder = f"/etc/kubernetes/static-pod-resources/{name}-pod-{revision}"
        assert f"found latest {name}: {folder}" in done.err
    assert "no restorable backup of the running release 4.15.3 exists" in done.err


def test_a_directory_has_no_repositories_and_no_release_to_look_for(kube, look, tmp_path):
    found = look("--output-dir", tmp_path / "not" / "there")
    assert tuple(found) == (*HOST, *[it for it in GUARDS if it != "version"])
    assert str(tmp_path) in found["space"][1]
    assert "--output-dir" not in found["space"][1]
    assert not (tmp_path / "not").exists()


def test_promise_4_without_anything_to_go_to(kube, cli, look):
    cli.variables.pop("BACKSTAY_REPO")
    found = look(expect=4)
    assert found["version"][0] == "COULD NOT VERIFY"
    assert "no repository is named" in found["version"][1]


def test_one_question_hides_no_other(kube, host, look, tmp_path):
    host.remove("etc/kubernetes/manifests")
    kube.put(okd_api.operator("etcd", progressing="True"))
    shutil.rmtree(tmp_path / "keys")
    found = look("--window", "00:00-00:01", expect=3)
    wrong = {name for name, verdict in verdicts(found).items() if verdict == "FAIL"}
    assert {"found", "operators", "keys repository"} <= wrong
    assert verdicts(found)["members"] == "PASS"
    assert found["upgrade"][0] == "PASS"


def test_a_repository_that_cannot_be_opened_leaves_open_what_is_in_it(kube, cli, look, tmp_path):
    cli.variables["BACKSTAY_REPO"] = f"file://{tmp_path}/gone"
    found = look(expect=3)
    for name in ("interval", "version"):
        assert found[name][0] == "COULD NOT VERIFY"
        assert "could not be opened" in found[name][1]


def test_promise_4_where_this_is_no_control_plane_host(kube, cli, tmp_path):
    (tmp_path / "empty").mkdir()
    done = cli("preflight", "okd", "--host-root", tmp_path / "empty", "--json", expect=3)
    found = {it["name"]: it["verdict"] for it in done.json["checks"]}
    assert found["found"] == "FAIL"
    assert found["space"] == "COULD NOT VERIFY"
    assert found["upgrade"] == found["operators"] == "PASS"
    assert "members" not in found


def test_without_an_api_there_are_no_rights_to_ask_about(no_api, look):
    found = look(expect=4)
    assert "rights" not in found
    dark = {name for name, verdict in verdicts(found).items() if verdict == "COULD NOT VERIFY"}
    assert dark == {"rotation", "operators", "upgrade", "proxy", "interval"}
    # etcd knows which release it is.
    assert "4.15.3" in found["version"][1]


def test_a_host_that_is_at_work_is_told_and_left_alone(kube, look):
    api = connect(kube.kubeconfig, None)
    with api, Turn(api, "master-7", clock=SystemClock()) as turn:
        turn.take()
        before = kube.get(LEASES, NAME, NAMESPACE)["spec"]["holderIdentity"]
        found = look(expect=4)
        assert found["interval"][0] == "COULD NOT VERIFY"
        assert "master-7 has Lease backstay-okd/backstay-okd" in found["interval"][1]
        assert kube.get(LEASES, NAME, NAMESPACE)["spec"]["holderIdentity"] == before


def test_names_and_values_that_are_none(cli, no_api, tmp_path):
    cli("preflight", "okd", "--cluster", "../x", expect=2)
    cli("preflight", "okd", "--window", "noon", expect=2)
    cli("preflight", "okd", "--min-interval", "soon", expect=2)
    done = cli("preflight", "okd", "--host-root", tmp_path / "none", expect=4)
    assert "--host-root" in done.err
    assert "the cluster's name is not known: name it with --cluster" in done.err


# The steps


def test_a_dry_run_prints_what_would_be_done_and_does_nothing(kube, host, cli):
    done = cli("backup", "okd", "--host-root", host.root, "--dry-run", "--json").json
    titles = [it["step"] for it in done["steps"]]
    assert titles[0].startswith("ask the guards")
    assert titles[-1].startswith("write the manifest")
    commands = "\n".join(line for it in done["steps"] for line in it["commands"])
    for name, revision in REVISIONS.items():
        assert f"static-pod-resources/{name}-pod-{revision}" in commands
    assert host.etcd.endpoint in commands
    assert cli.variables["BACKSTAY_KEYS_REPO"] in commands
    assert {it["verdict"] for it in done["checks"]} == {"PASS"}
    assert cli("list", "--json").json == []
    assert kube.get(LEASES, NAME, NAMESPACE) is None
    told = cli("backup", "okd", "--host-root", host.root, "--dry-run")
    assert "1. ask the guards" in told.out


def test_a_dry_run_into_a_directory(kube, host, cli, tmp_path):
    out = tmp_path / "a b"
    done = cli("backup", "okd", "--host-root", host.root, "--dry-run", "--output-dir", out)
    assert f"'{out}'/snapshot_$STAMP.db" in done.out
    assert "upload" not in done.out
    assert not out.exists()


def test_a_dry_run_says_what_would_refuse(kube, host, cli):
    kube.put(okd_api.operator("etcd", progressing="True"))
    done = cli("backup", "okd", "--host-root", host.root, "--dry-run", expect=3)
    assert "FAILED: operators" in done.err


def test_the_commands_are_ones_that_do_it(host, tmp_path):
    """The tar and the search for revisions, as they stand, on this host."""
    with HostTree(host.root) as tree:
        pods, etcd = running(tree), find_etcd(tree)
    steps = backup_steps(pods, etcd, Going(output_dir=str(tmp_path)))
    finding, making = (next(it for it in steps if word in it.title) for word in ("find", "tar"))
    lines = "\n".join((*finding.commands, *making.commands))
    script = lines.replace("/etc/kubernetes", f"{host.root}/etc/kubernetes")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        f"/static-pod-resources/{n}-pod-{r}" for n, r in REVISIONS.items()
    ]
    [made] = tmp_path.glob("static_kuberesources_*.tar.gz")
    named = subprocess.run(["tar", "-tzf", made], capture_output=True, text=True, check=True)
    assert {line.split("/")[1] for line in named.stdout.splitlines()} == {
        f"{name}-pod-{revision}" for name, revision in REVISIONS.items()
    }
    assert made.stat().st_mode & 0o777 == 0o600


def test_steps_of_a_host_that_nobody_knows():
    steps = backup_steps((), None, Going(repo="s3://a", keys_repo="s3://b"))
    commands = "\n".join(line for it in steps for line in it.commands)
    for name in PODS:
        assert f"static-pod-resources/{name}-pod-N" in commands
    assert "https://THIS-HOST:2379" in commands


# Is there a backup of the release that runs?


def entry(release="4.15.3", *, names=(*manifests.PROVEN, "partner"), forced=(), at=1, **more):
    made = manifests.manifest(verdicts=manifests.checks(names=names), **more)
    okd = OkdEntry(snapshot_name="snapshot_x.db", version=release, forced=forced)
    made = msgspec.structs.replace(made, okd=okd, kind="okd")
    written = datetime(2026, 11, 20, tzinfo=UTC) + timedelta(hours=at)
    return Entry(made, (), written)


BROKEN = Unreadable("prod", "x", "no manifest", "", datetime(2026, 11, 20, tzinfo=UTC))


@pytest.mark.parametrize(
    ("running", "entries", "due", "words"),
    [
        ("4.15.3", [entry()], False, "restores release 4.15.3"),
        ("4.15.3", [entry(forced=("window",))], False, ""),
        ("4.15.3", [], True, "no restorable backup of the running release 4.15.3"),
        ("4.15.4", [entry(), BROKEN], True, "there are some of 4.15.3"),
        ("", [entry()], True, "not known"),
        # What restores nothing: without its partner, unproven, or taken in a rollout.
        ("4.15.3", [entry(names=manifests.PROVEN)], True, ""),
        ("4.15.3", [entry(names=("transfer", "stored", "partner"))], True, ""),
        ("4.15.3", [entry(forced=("operators",))], True, ""),
        ("4.15.3", [entry(""), BROKEN], True, "an unknown one"),
    ],
)
def test_where_a_cluster_stands(running, entries, due, words):
    found = standing(running, entries)
    assert found.due is due
    assert words in found.reason
    answer = version(running, found)
    # It never stands in the way of the backup that is due.
    assert answer.verdict is (Verdict.PASS if running else Verdict.COULD_NOT_VERIFY)
    assert ("this backup is due" in answer.detail) == (due and bool(running))


def test_the_newest_is_named():
    found = standing("4.15.3", [entry(at=3, revision=3), entry(at=9, revision=9), entry(at=1)])
    assert "-r9-" in found.backup


def test_a_later_failure_counts():
    made = entry()
    bad = CheckEntry(name="stored", verdict=Verdict.FAIL, detail="gone", seconds=0.0)
    checks = (*made.manifest.checks, bad)
    spoiled = replace(made, manifest=msgspec.structs.replace(made.manifest, checks=checks))
    assert not standing("4.15.3", [made]).due
    assert standing("4.15.3", [spoiled]).due
