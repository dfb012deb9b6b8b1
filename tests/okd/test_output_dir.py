"""`backup okd --output-dir`: what cluster-backup.sh leaves, proven, and both or none."""

import json
import os
import re
import signal
import subprocess
import tarfile
import time
from uuid import uuid4

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.clock import SystemClock
from backstay.errors import (
    AlreadyExistsError,
    BackstayError,
    CheckFailedError,
    RefusedError,
    SpaceError,
)
from backstay.flows.spool import MARGIN
from backstay.kinds.okd.cluster import Cluster
from backstay.kinds.okd.host import open_host
from backstay.kinds.okd.output import OutputOptions, write_pair
from backstay.kinds.okd.pair import DIRTY, settle
from backstay.report import Check, Report, Said, Started, Verdict
from kit import disk, fixtures, needs, process
from kit.dying import dying
from kit.etcd import Etcd
from kit.okd_host import (
    DIGEST,
    INFRASTRUCTURE,
    NODE,
    PODS,
    REVISIONS,
    VERSION,
    OkdHost,
    okd_etcd,
)

STEM = r"[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{6}"
SNAPSHOT = re.compile(f"snapshot_({STEM}(?:{DIRTY})?)\\.db")
ARCHIVE = re.compile(f"static_kuberesources_({STEM}(?:{DIRTY})?)\\.tar\\.gz")


@pytest.fixture
def out(tmp_path):
    """Where the pair goes."""
    return tmp_path / "out"


def words(host, out, *more):
    return ("backup", "okd", "--host-root", host.root, "--output-dir", out, *more)


def pair_in(directory):
    """The two files, held to be all there is, private, and of one time."""
    names = sorted(os.listdir(directory))
    assert len(names) == 2, names
    snapshot, archive = SNAPSHOT.fullmatch(names[0]), ARCHIVE.fullmatch(names[1])
    assert snapshot[1] == archive[1]
    for name in names:
        facts = (directory / name).lstat()
        assert facts.st_mode == 0o100600
        assert facts.st_nlink == 1
    return directory / names[0], directory / names[1]


def status_of(snapshot):
    """What etcd's own tool says of a snapshot; it hashes the file before that."""
    command = [needs.binary("etcdutl"), "snapshot", "status", snapshot, "-w", "json"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def verdicts(document):
    return {check["name"]: check["verdict"] for check in document["checks"]}


def test_it_leaves_and_says_what_cluster_backup_does(host, cli, out):
    done = cli(*words(host, out))
    snapshot, archive = pair_in(out)
    assert done.out.splitlines() == [
        f"Snapshot saved at {snapshot}",
        status_of(snapshot).strip(),
        f"snapshot db and kube resources are successfully saved to {out}",
    ]
    for name in PODS:
        folder = f"/etc/kubernetes/static-pod-resources/{name}-pod-{REVISIONS[name]}"
        assert f"found latest {name}: {folder}\n" in done.err
    with tarfile.open(archive) as tar:
        assert {name.split("/")[1] for name in tar.getnames()} == {
            f"{name}-pod-{revision}" for name, revision in REVISIONS.items()
        }


def test_as_json_it_is_one_document(host, cli, out):
    document = cli(*words(host, out, "--json")).json
    snapshot, archive = pair_in(out)
    assert (document["snapshot"], document["archive"]) == (str(snapshot), str(archive))
    assert document["status"] == json.loads(status_of(snapshot))
    assert verdicts(document)["keys"] == "PASS"
    assert {"transfer", "structure", "content", "keys", "partner"} <= set(verdicts(document))
    okd = document["okd"]
    assert okd["infrastructure"] == INFRASTRUCTURE
    assert (okd["version"], okd["release_digest"]) == (VERSION, DIGEST)
    assert (okd["node"], okd["static_pods"]) == (NODE, REVISIONS)
    assert okd["etcd_revision"]["max_raft_index"] == 21345
    assert okd["encryption"] == "aescbc"
    assert (okd["snapshot_name"], okd["archive_name"]) == (snapshot.name, archive.name)
    assert okd["archive_size"] == archive.stat().st_size


def last_of(directory, pattern):
    command = ["bash", "-c", f'ls -vd "{directory}"/{pattern} | tail -1']
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("tool", ["etcdctl", "etcdutl"])
def test_the_pair_restores_as_upstreams_restore_pod_restores_it(host, cli, out, tmp_path, tool):
    cli(*words(host, out))
    # cluster-restore.sh takes the last of each by version sort.
    last = [last_of(out, "static_kuberesources*.tar.gz"), last_of(out, "snapshot*.db")]
    target = tmp_path / "restored"
    target.mkdir()
    subprocess.run(["tar", "-C", target, "-xzf", last[0], "static-pod-resources"], check=True)
    uuid = uuid4()
    subprocess.run(
        [
            *(needs.binary(tool), "snapshot", "restore", last[1], "--name", NODE),
            f"--initial-cluster={NODE}=unix://{NODE}:0",
            *("--initial-cluster-token", f"openshift-etcd-{uuid}"),
            *("--initial-advertise-peer-urls", f"unix://{NODE}:0"),
            f"--data-dir={target / f'{NODE}.etcd'}",
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "ETCDCTL_API": "3"},
    )
    revision = json.loads(status_of(last[1]))["revision"]
    with Etcd.start(target, name=NODE, tls=host.etcd.tls) as etcd, Client(etcd.access) as restored:
        [endpoint] = restored.endpoints
        found = restored.hashkv(endpoint, revision)
        with Client(host.etcd.access) as original:
            assert found.hash == original.hashkv(original.endpoints[0], revision).hash
        key = b"/kubernetes.io/config.openshift.io/infrastructures/cluster"
        assert INFRASTRUCTURE.encode() in restored.range(key).kvs[0].value
    folder = target / f"static-pod-resources/kube-apiserver-pod-{REVISIONS['kube-apiserver']}"
    configuration = (folder / "secrets/encryption-config/encryption-config").read_bytes()
    assert configuration == host.encryption_config.read_bytes()


def change_key(host, change):
    document = json.loads(host.encryption_config.read_text())
    [key] = document["resources"][0]["providers"][0]["aescbc"]["keys"]
    change(key)
    host.encryption_config.write_text(json.dumps(document))


@pytest.mark.parametrize("how", ["another", "renamed", "none"])
def test_keys_that_do_not_open_the_snapshot_leave_nothing(host, cli, out, how):
    if how == "another":
        change_key(
            host, lambda key: key.update(secret="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
        )
    elif how == "renamed":
        change_key(host, lambda key: key.update(name="1"))
    else:
        host.encryption_config.unlink()
    done = cli(*words(host, out), expect=3)
    assert "keys: " in done.err
    assert "nothing was written" in done.err
    assert os.listdir(out) == []
    assert done.out == ""


def test_promise_4_keys_that_cannot_be_read_never_pass(host, cli, out):
    host.encryption_config.write_text("{")
    document = cli(*words(host, out, "--json"), expect=4).json
    assert verdicts(document)["keys"] == "COULD NOT VERIFY"
    assert document["okd"]["encryption"] == ""
    pair_in(out)


def test_a_cluster_without_encryption_needs_no_keys(cli, out, tmp_path):
    with okd_etcd(tmp_path / "etcd", "kube-plain", told=False) as etcd:
        host = OkdHost.make(tmp_path / "host", etcd, "kube-plain")
        host.remove("var/lib/etcd/revision.json")
        document = cli(*words(host, out, "--json", "--force"), expect=4, KUBECONFIG="").json
    assert verdicts(document)["keys"] == "PASS"
    okd = document["okd"]
    assert okd["encryption"] == "identity"
    assert okd["etcd_revision"] is None
    # Nobody told what cluster it is, and here no name is needed.
    assert (okd["infrastructure"], okd["version"]) == ("", "")


def test_promise_5_no_key_is_shown(host, cli, out):
    key = fixtures.facts("kube-aescbc")["encryption_keys"][0]["key_base64"]
    private = host.etcd.tls.client.key.decode().splitlines()[1]
    for more in ((), ("--json",), ("--log-format", "json"), ("--debug",)):
        done = cli(*words(host, out, *more))
        for path in out.iterdir():
            path.unlink()
        assert key not in done.out + done.err
        assert private not in done.out + done.err


def test_what_cannot_be_read_of_raft_is_told_and_left_out(host, cli, out):
    host.write("var/lib/etcd/revision.json", "{}")
    done = cli(*words(host, out, "--json"))
    assert done.json["okd"]["etcd_revision"] is None
    assert "revision.json is not what etcd's operator writes" in done.err


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("etc/kubernetes/manifests/etcd-pod.yaml", "../../../../secret"),
        ("etc/kubernetes/static-pod-resources/etcd-pod-3", "../../../../elsewhere"),
    ],
)
def test_a_link_that_leaves_the_tree_is_named_and_nothing_is_left(host, cli, out, path, target):
    place = host.root / path
    place.rename(place.with_name("moved"))
    place.symlink_to(target)
    refused = cli(*words(host, out), expect=5)
    assert f"{place} is a symbolic link that leads out" in refused.err
    assert not out.exists()
    done = cli(*words(host, out, "--force"), expect=1)
    assert f"{place} is a symbolic link that leads out" in done.err
    assert os.listdir(out) == []


def test_something_that_is_no_file_is_named_and_nothing_is_left(host, cli, out):
    path = host.resources("kube-scheduler") / "secrets/client/tls.key"
    path.unlink()
    os.mkfifo(path)
    done = cli(*words(host, out), expect=1)
    assert str(path) in done.err
    assert os.listdir(out) == []


def test_a_tar_that_would_write_elsewhere_when_it_is_unpacked_leaves_nothing(host, cli, out):
    (host.resources("etcd") / "secrets/out").symlink_to("/etc/shadow")
    done = cli(*words(host, out), expect=3)
    assert "partner: " in done.err
    assert "secrets/out -> /etc/shadow" in done.err
    assert os.listdir(out) == []


def test_a_tar_that_the_disk_changes_leaves_nothing(host, out):
    def damage():
        [path] = out.glob(".*/static*")
        data = bytearray(path.read_bytes())
        data[4:8] = b"date"
        path.write_bytes(data)

    with pytest.raises(CheckFailedError, match=r"partner: .* is not what was written to it"):
        make(host, out, once("snapshot from", damage))
    assert os.listdir(out) == []


def test_no_control_plane_host_is_no_defect(cli, out, tmp_path):
    (tmp_path / "empty").mkdir()
    done = cli("backup", "okd", "--host-root", tmp_path / "empty", "--output-dir", out, expect=1)
    assert "etcd.env is not there" in done.err
    assert "control plane host" in done.err
    assert not out.exists()


def test_etcd_that_is_not_there_leaves_nothing(host, cli, out):
    done = cli(*words(host, out, "--endpoints", "https://127.0.0.1:9"), expect=1)
    assert "127.0.0.1:9" in done.err
    assert not out.exists() or os.listdir(out) == []


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        (("--repo", "file:///x"), "leave one out"),
        (("--keys-repo", "file:///x"), "leave one out"),
        (("--limit-rate", "0"), "20MiB/s"),
        (("--limit-rate", "fast"), "20MiB/s"),
        (("--cluster", "No Name"), "use a-z"),
        (("--host-root", "/does/not/exist"), "--host-root"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(host, cli, out, more, hint):
    done = cli(*words(host, out, *more), expect=2)
    assert hint in done.err
    assert not out.exists()


def test_repositories_of_the_environment_are_no_contradiction(host, cli, out):
    assert "BACKSTAY_REPO" in cli.variables
    cli(*words(host, out))
    pair_in(out)


# By the flow itself: with what happens meanwhile.


def make(host, out, *listeners, guards=lambda: (), clock=None, **more):
    clock = clock or SystemClock()
    with open_host(host.root, clock) as opened:
        return write_pair(
            opened,
            Cluster(),
            OutputOptions(directory=out, **more),
            guards=guards,
            clock=clock,
            report=Report(*listeners),
        )


def once(name, action):
    """Do something when a task of that name begins, for the first time."""
    done = []

    def listen(event):
        if isinstance(event, Started) and event.name.startswith(name) and not done:
            done.append(event)
            action()

    return listen


@pytest.mark.parametrize("name", PODS)
@pytest.mark.parametrize("moment", ["snapshot from", "examining"])
def test_a_rollout_that_moves_latest_after_the_tar_leaves_nothing(host, out, name, moment):
    listen = once(moment, lambda: host.roll_out(name, REVISIONS[name] + 1))
    with pytest.raises(BackstayError, match=f"rollout went on .*{name} from revision") as caught:
        make(host, out, listen)
    assert "run it again" in caught.value.do
    assert os.listdir(out) == []


def test_a_rollout_that_moves_latest_during_the_tar_is_in_the_pair(host, out):
    written = make(host, out, once("static pod", lambda: host.roll_out("kube-apiserver", 7)))
    assert written.okd.static_pods["kube-apiserver"] == 7
    with tarfile.open(pair_in(out)[1]) as tar:
        names = {name.split("/")[1] for name in tar.getnames()}
    assert "kube-apiserver-pod-7" in names
    assert "kube-apiserver-pod-6" not in names
    # The first try is not left behind the second one.
    assert written.okd.archive_size == written.archive.stat().st_size


def test_a_full_disk_leaves_nothing(host, tmp_path):
    with disk.small(tmp_path / "small", MARGIN + (4 << 20)) as folder:
        for moment, leave in (("snapshot from", 0), ("snapshot from", 1 << 20), ("static pod", 0)):
            listen = once(moment, lambda leave=leave: disk.fill(folder, leave=leave))
            with pytest.raises(SpaceError) as caught:
                make(host, folder, listen)
            assert str(folder) in caught.value.what
            assert os.listdir(folder) == ["ballast"]
            (folder / "ballast").unlink()
        make(host, folder)
        pair_in(folder)


def test_a_disk_that_is_too_small_is_found_before_anything_comes(host, cli, tmp_path):
    with disk.small(tmp_path / "small", MARGIN) as folder:
        done = cli(*words(host, folder), expect=5)
        assert "are needed" in done.err
        assert "--output-dir" in done.err
        with pytest.raises(SpaceError, match="are needed") as caught:
            make(host, folder)
        assert "--output-dir" in caught.value.do
        assert os.listdir(folder) == []


class Frozen(SystemClock):
    def __init__(self):
        self._now = super().now()

    def now(self):
        return self._now


def test_promise_6_a_second_backup_in_one_second_overwrites_nothing(host, out):
    clock = Frozen()
    make(host, out, clock=clock)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(AlreadyExistsError, match="nothing was overwritten"):
        make(host, out, clock=clock)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def guard(name, verdict):
    return Check(name=name, verdict=verdict, detail=f"about {name}", seconds=0.0)


def test_a_guard_that_refuses_leaves_nothing(host, out):
    checks = (guard("operators", Verdict.FAIL), guard("space", Verdict.PASS))
    with pytest.raises(RefusedError, match="about operators") as caught:
        make(host, out, guards=lambda: checks)
    assert "--force" in caught.value.do
    assert not out.exists()


def test_what_force_skips_is_named_in_the_names_and_counts_no_more(host, out):
    said = []
    checks = (
        guard("operators", Verdict.FAIL),
        guard("upgrade", Verdict.COULD_NOT_VERIFY),
        guard("interval", Verdict.COULD_NOT_VERIFY),
        guard("space", Verdict.PASS),
    )
    written = make(host, out, said.append, guards=lambda: checks, force=True)
    assert written.okd.forced == ("operators", "upgrade")
    for path in pair_in(out):
        assert DIRTY in path.name
    kept = {check.name: check.verdict for check in written.checks}
    assert not {"operators", "upgrade"} & set(kept)
    assert kept["interval"] is Verdict.COULD_NOT_VERIFY
    assert kept["space"] is Verdict.PASS
    warned = [event.text for event in said if isinstance(event, Said) and event.warning]
    assert "skipped by --force: operators: about operators" in warned


def test_force_without_anything_to_skip_marks_nothing(host, out):
    written = make(host, out, guards=lambda: (guard("space", Verdict.PASS),), force=True)
    assert written.okd.forced == ()
    assert DIRTY not in pair_in(out)[0].name


# The program, and what ends it.


#: Without an API nobody holds a Lease that a killed run would keep.
ALONE = {"KUBECONFIG": ""}
#: The snapshot takes some seconds then.
SLOWLY = ("--force", "--limit-rate", "600KiB/s")


def begun(host, out, folder):
    """Start the program, and wait until a snapshot is on its way into the directory."""
    running = process.start(words(host, out, *SLOWLY), folder, ALONE)
    process.wait_until(lambda: list(out.glob(".*.part/static*")) or running.poll(), 90)
    assert running.poll() is None, running.communicate()
    return running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whoever_stops_it_leaves_no_half(host, out, tmp_path, number):
    running = begun(host, out, tmp_path)
    _, err, took = process.stop(running, number)
    assert running.returncode in {143, -9}, err
    assert took < 8
    assert visible(out) == []
    if number == signal.SIGKILL:
        settle(out, Report())
    assert os.listdir(out) == []


def test_two_runs_at_once_are_one_pair_and_one_refusal(host, out, cli, tmp_path):
    running = begun(host, out, tmp_path)
    began = time.monotonic()
    refused = cli(*words(host, out, "--force"), expect=5, **ALONE)
    assert f"another backup is being written to {out}" in refused.err
    # The first goes on undisturbed.
    out_text, err = running.communicate(timeout=60)
    assert running.returncode == 4, err
    # It was read as slowly as was asked for: 2.6 MiB, of which some was on its way.
    assert time.monotonic() - began > 1
    assert out_text.splitlines()[-1].endswith(f"successfully saved to {out}")
    status_of(pair_in(out)[0])


def visible(out):
    """The files that somebody sees in the directory who looks for backups; both or none."""
    if not out.exists():
        return []
    found = [path for path in out.iterdir() if not path.name.startswith(".") and path.is_file()]
    stems = {kind: set() for kind in (SNAPSHOT, ARCHIVE)}
    for path in found:
        for kind, names in stems.items():
            match = kind.fullmatch(path.name)
            if match:
                names.add(match[1])
    assert stems[SNAPSHOT] == stems[ARCHIVE], os.listdir(out)
    assert len(found) == 2 * len(stems[SNAPSHOT])
    return found


def assert_whole(paths):
    for path in paths:
        if SNAPSHOT.fullmatch(path.name):
            status_of(path)
        else:
            with tarfile.open(path) as tar:
                assert len(tar.getnames()) > 20


def backup(host, out, folder, at=0):
    """Run the program, and kill it at a step."""
    return dying(words(host, out, "--force"), folder, out, at, **ALONE)


def kill_at(host, tmp_path, moments):
    """Kill backups at one step after the other, until one lives; gives how many each one left."""
    left = []
    for at in moments:
        out = tmp_path / f"out{at}"
        died = backup(host, out, tmp_path, at)
        found = visible(out)
        assert_whole(found)
        left.append(len(found))
        if out.exists():
            settle(out, Report())
            assert sorted(os.listdir(out)) == sorted(path.name for path in found)
            assert not any(path.is_symlink() for path in out.iterdir())
        if died.code != -signal.SIGKILL:
            assert died.code == 4, died.told
            return left
    raise AssertionError("it never came to its end")


def test_promise_1_killed_at_some_steps_no_half_is_seen(host, tmp_path):
    left = kill_at(host, tmp_path, range(5, 999, 7))
    assert 0 in left
    assert left[-1] == 2


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_promise_1_killed_at_every_step_no_half_is_seen(host, tmp_path):
    left = kill_at(host, tmp_path, range(1, 999))
    assert left.count(0) > 10
    assert left.count(2) > 3
    assert left == sorted(left)


def test_the_next_run_clears_up_what_a_killed_one_left(host, out, tmp_path):
    steps = backup(host, tmp_path / "clean", tmp_path).steps
    linked = [number for number, step in enumerate(steps, 1) if step.startswith("os.symlink")]
    for at in (linked[0], linked[1] + 1):
        assert backup(host, out, tmp_path, at).code == -signal.SIGKILL
        assert [name for name in os.listdir(out) if name.startswith(".")]
    assert backup(host, out, tmp_path).code == 4
    assert len(visible(out)) == len(os.listdir(out)) == 2
