"""`verify --encryption-config` where other API servers keep their keys inside the snapshot."""

import base64
import shutil

import pytest

from backstay.client.etcd import Etcd as Client
from kit import openshift as ocp
from kit.cli import Cli
from kit.etcd import Etcd
from kit.openshift import KUBE, OAUTH, OPENSHIFT

ROUTES, TOKENS = "routes.route.openshift.io", "oauthaccesstokens.oauth.openshift.io"
GROUP = {
    "prefix", "resource", "provider", "key_name", "values", "tried", "opened", "verdict", "reason",
}  # fmt: skip
OAUTHS = tuple(
    f"/kubernetes.io/secrets/openshift-config-managed/encryption-{name}".encode()
    for name in (f"config-{OAUTH}", f"key-{OAUTH}-1")
)


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    """Snapshots of a real etcd: a whole cluster, and one that has lost a configuration."""
    folder = tmp_path_factory.mktemp("openshift")
    with Etcd.start(folder, tls=None) as etcd, Client(etcd.access) as client:
        for key, value in ocp.cluster():
            client.put(key, value)
        etcd.ctl("snapshot", "save", str(folder / "whole.db"))
        for key in OAUTHS:
            client.delete(key)
        etcd.ctl("snapshot", "save", str(folder / "lost.db"))
    return folder


@pytest.fixture
def given(tmp_path, snapshots):
    """The program, with kube-apiserver's configuration and no other."""
    cli = Cli(tmp_path, {})
    (tmp_path / "config.json").write_bytes(ocp.configuration(KUBE, 1))
    for name in ("whole.db", "lost.db"):
        shutil.copy(snapshots / name, tmp_path)
    return cli


def groups(done):
    return {group["resource"]: group for group in done.json["keys"]}


def test_a_whole_cluster_passes_with_one_configuration(given):
    words = ("verify", "./whole.db", "--encryption-config", "config.json")
    done = given(*words, "--prove-all", "--json")
    found = groups(done)
    assert {name: (g["verdict"], g["tried"], g["opened"]) for name, g in found.items()} == {
        "secrets": ("PASS", 7, 7), ROUTES: ("PASS", 1, 1), TOKENS: ("PASS", 1, 1),
    }  # fmt: skip
    assert {g["key_name"] for g in found.values()} == {"1"}
    assert all(set(group) == GROUP for group in found.values())
    assert set(done.json) == {"subject", "keys", "checks"}
    said = given(*words)
    lines = [line for line in (said.out + said.err).splitlines() if "found in the snapshot" in line]
    [line] = lines
    assert "openshift-apiserver" in line
    assert "oauth-apiserver" in line


def test_promise_4_what_has_no_configuration_could_not_be_verified(given):
    words = ("verify", "./lost.db", "--encryption-config", "config.json")
    done = given(*words, "--json", expect=4)
    found = groups(done)
    assert {name: group["verdict"] for name, group in found.items()} == {
        "secrets": "PASS", ROUTES: "PASS", TOKENS: "COULD NOT VERIFY",
    }  # fmt: skip
    assert "none was found in the snapshot" in found[TOKENS]["reason"]


def test_a_wrong_configuration_finds_nothing_and_fails(given):
    (given.folder / "config.json").write_bytes(
        ocp.configuration(OPENSHIFT, 1, resources=["secrets"])
    )
    words = ("verify", "./whole.db", "--encryption-config", "config.json")
    found = groups(given(*words, "--json", expect=3))
    assert {name: group["verdict"] for name, group in found.items()} == {
        "secrets": "FAIL", ROUTES: "COULD NOT VERIFY", TOKENS: "COULD NOT VERIFY",
    }  # fmt: skip
    assert "found in the snapshot: keys" not in given(*words, expect=3).err


def test_promise_5_no_key_is_told(given):
    words = ("verify", "./whole.db", "--encryption-config", "config.json", "--debug")
    told = ""
    for more in ((), ("--json",), ("--prove-all",)):
        done = given(*words, *more)
        told += done.out + done.err
    for component in (KUBE, OPENSHIFT, OAUTH):
        key = ocp.raw(component, 1)
        assert base64.b64encode(key).decode()[:12] not in told
        assert key.hex()[:12] not in told
