"""The steps that remain: for old and new releases, with the names of this cluster."""

import shlex
from pathlib import Path

import pytest

from backstay.kinds.okd.restore import Running, same_release
from backstay.kinds.okd.restore_steps import hosts_of, restore_steps
from backstay.mvcc.membership import Member
from backstay.repo.manifest import OkdEntry
from backstay.report import Verdict
from kit.okd_pair import STAMP

DIRECTORY = Path("/backups/prod")
THREE = tuple(f"master-{n}.prod.example" for n in range(3))


def member(name, *urls):
    return Member(1, name, urls, (), is_learner=False)


def entry(version="4.15.3", node=THREE[0]):
    return OkdEntry(
        version=version,
        node=node,
        snapshot_name=f"snapshot_{STAMP}.db",
        archive_name=f"static_kuberesources_{STAMP}.tar.gz",
    )


def steps(okd=None, names=THREE):
    members = [member(name) for name in names]
    return restore_steps(okd or entry(), members, DIRECTORY)


def commands(found):
    return [line for step in found for line in step.commands]


def place(found, text):
    [number] = [n for n, line in enumerate(commands(found)) if text in line]
    return number


def test_the_host_of_the_backup_is_restored_and_the_others_are_stopped():
    found = steps()
    stopped = [line for line in commands(found) if "disable-etcd.sh" in line]
    assert [shlex.split(line)[1] for line in stopped] == [f"core@{name}" for name in THREE[1:]]
    assert f"scp -r /backups/prod core@{THREE[0]}:prod" in commands(found)


def test_the_order_of_new_releases():
    found = steps()
    words = ("get proxy cluster", "scp -r", "cluster-restore.sh", "wait-for-stable-cluster")
    places = [place(found, word) for word in words]
    assert places == sorted(places)
    guard = [n for n, line in enumerate(commands(found)) if "unsupportedConfigOverrides" in line]
    assert guard[0] < place(found, "wait-for-stable-cluster") < guard[1]
    assert not any("kube-apiserver-pod.yaml" in line for line in commands(found))


@pytest.mark.parametrize("version", ["4.6.1", "4.12.60", "4.12.0-0.okd-2023-03-18-084815"])
def test_old_releases_stop_the_api_servers_and_roll_all_four_out(version):
    found = steps(entry(version))
    assert sum("kube-apiserver-pod.yaml" in line for line in commands(found)) == 2
    rolled = [line.split()[2] for line in commands(found) if "forceRedeploymentReason" in line]
    assert rolled == ["etcd", "kubeapiserver", "kubecontrollermanager", "kubescheduler"]
    assert any("does not raise the revision" in step.title for step in found)
    assert not any("wait-for-stable-cluster" in line for line in commands(found))


def test_a_single_node_has_no_others_and_no_quorum():
    found = steps(names=THREE[:1])
    assert not any("disable-etcd" in line for line in commands(found))
    assert not any("unsupportedConfigOverrides" in line for line in commands(found))


def test_an_imported_backup_does_not_know_its_host():
    found = steps(entry(node=""))
    assert ", ".join(THREE) in found[0].title
    assert any("RECOVERY-HOST" in line for line in commands(found))
    alone = steps(entry(node=""), names=THREE[:1])
    assert not any("RECOVERY-HOST" in line for line in commands(alone))


def test_a_release_that_is_not_known_is_said():
    for version in ("", "nonsense", "5.1.2", "4.", "4.x"):
        assert "not known" in steps(entry(version))[0].title
    assert not any("not known" in step.title for step in steps())


@pytest.mark.parametrize("node", ["master-0", "master-0.prod.example"])
def test_nodes_are_called_by_short_names_too(node):
    hosts = hosts_of(entry(node=node), [member(name) for name in THREE])
    assert hosts.others == THREE[1:]
    short = hosts_of(entry(node=node), [member(name.split(".")[0]) for name in THREE])
    assert short.others == ("master-1", "master-2")


def test_a_member_without_a_name_is_known_by_its_address():
    hosts = hosts_of(
        entry(), [member("", "https://10.0.0.2:2380"), member("", "https://[::1"), member("")]
    )
    assert hosts.others == ("10.0.0.2",)


def test_names_from_a_snapshot_run_nothing():
    evil = "$(reboot);x"
    found = steps(entry(node=""), names=(evil, THREE[1]))
    for line in commands(found):
        if "reboot" in line:
            assert f"core@{evil}" in shlex.split(line)


@pytest.mark.parametrize(
    ("backup", "running", "verdict"),
    [
        ("4.7.2", "4.7.2", Verdict.PASS),
        ("4.7.2", "4.7.3", Verdict.FAIL),
        ("4.7.2", "4.8.2", Verdict.FAIL),
        # All of OKD's releases of a minor are x.y.0.
        ("4.15.0-0.okd-2024-01-27-070424", "4.15.0-0.okd-2024-03-10-010116", Verdict.FAIL),
        ("4.15.0-0.okd-2024-01-27-070424", "4.15.0-0.okd-2024-01-27-070424", Verdict.PASS),
        ("4.7.2", "", Verdict.COULD_NOT_VERIFY),
        ("", "4.7.2", Verdict.COULD_NOT_VERIFY),
    ],
)
def test_the_same_z_stream_release_is_the_same_version(backup, running, verdict):
    assert same_release(backup, Running(version=running)).verdict is verdict
