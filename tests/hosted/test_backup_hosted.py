"""A hosted control plane is backed up, by the command line, from a real etcd."""

import pytest

from backstay.kinds.hosted.reach.tls import CLIENT_SECRET
from backstay.kubeapi.resource import PODS, SECRETS
from backstay.repo.catalogue import Repository
from backstay.repo.identity import Identities
from backstay.repo.keyring import Saved, headers, load
from backstay.repo.stores.file import FileStore
from kit.world import CLUSTER, NAME, NAMESPACE, hosted_world, inside_of, keys_of

CHECKS = ("transfer", "stored", "structure", "content", "members", "keys")


@pytest.fixture
def world(tmp_path):
    with hosted_world(tmp_path) as world:
        yield world


def verdicts(manifest):
    return {check["name"]: check["verdict"] for check in manifest["checks"]}


def detail(manifest, name):
    [check] = [check for check in manifest["checks"] if check["name"] == name]
    return check["detail"]


def keyrings(world):
    repository = Repository.open(FileStore(world.folder / "keys"))
    found = headers(repository)
    assert all(isinstance(one, Saved) for one in found)
    identities = Identities.read(world.identity)
    return [load(repository, one, identities) for one in found]


def all_bytes(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_backup_has_snapshot_keys_and_resources(world):
    manifest = world.backup("--json").json
    assert (manifest["cluster"], manifest["kind"]) == (CLUSTER, "hosted")
    assert verdicts(manifest) == dict.fromkeys(CHECKS, "PASS")
    assert "all open with the saved key" in detail(manifest, "keys")
    assert [entry["role"] for entry in manifest["objects"]] == ["snapshot", "resources.yaml"]
    assert manifest["hosted"]["transport"] == "port-forward"
    assert manifest["hosted"]["quiesced"] is None
    assert manifest["hosted"]["release_version"] == "4.20.3"
    assert manifest["hosted"]["missing"] == []
    [keyring] = keyrings(world)
    assert [key.value for key in keyring.keys] == list(keys_of("kube-aescbc"))
    assert "blue-pull-secret" in keyring.manifests
    [listed] = world.cli("list", "--json").json
    assert listed["id"] == manifest["id"]


def test_promise_5_no_secret_lies_with_the_data_or_in_the_clear(world):
    world.backup()
    [key] = keys_of("kube-aescbc")
    for folder in ("data", "keys"):
        found = all_bytes(world.folder / folder)
        assert key not in found
        for told in (b"BEGIN RSA", b"from-github", b"ldap-secret"):
            assert told not in found
    world.cli.variables["BACKSTAY_IDENTITY"] = str(world.identity)
    resources = world.cli("show", f"{CLUSTER}/latest").out
    assert "from-github" not in resources


def test_it_verifies_with_the_saved_keys_and_fails_with_others(world):
    world.backup()
    world.cli.variables["BACKSTAY_IDENTITY"] = str(world.identity)
    keys = world.cli.variables["BACKSTAY_KEYS_REPO"]
    good = world.cli("verify", f"{CLUSTER}/latest", "--keys-repo", keys, "--json").json
    assert {check["name"]: check["verdict"] for check in good["checks"]}["keys"] == "PASS"
    # Restored on a laptop, for a look at the data.
    world.cli("restore", "etcd", f"{CLUSTER}/latest", "--data-dir", "look")
    assert (world.folder / "look" / "member").is_dir()


@pytest.mark.parametrize("wrong", ["another", "one-bit", "same-name"])
def test_a_key_that_does_not_open_the_snapshot_fails_the_backup(tmp_path, wrong):
    [key] = keys_of("kube-aescbc")
    changed = bytes([key[0] ^ 1]) + key[1:]
    put = {"another": b"0123456789abcdef" * 2, "one-bit": changed, "same-name": changed}[wrong]
    with hosted_world(tmp_path, keys=(put,), status_keys=wrong != "same-name") as world:
        manifest = world.backup("--json", expect=3).json
        assert verdicts(manifest)["keys"] == "FAIL"
        # It is listed as what it is, and `latest` never means it.
        [listed] = world.cli("list", "--json").json
        assert listed["id"] == manifest["id"]
        world.cli("show", f"{CLUSTER}/latest", expect=1)


def test_in_mid_rotation_both_keys_are_saved_and_proven(tmp_path):
    writes, reads = keys_of("kube-aescbc-rotation")
    with hosted_world(
        tmp_path, fixture="kube-aescbc-rotation", keys=(reads, writes), rotating=True
    ) as world:
        manifest = world.backup("--json").json
        assert verdicts(manifest)["keys"] == "PASS"
        assert manifest["hosted"]["rotating"]
        [keyring] = keyrings(world)
        assert {key.value for key in keyring.keys} == {writes, reads}


def test_in_mid_rotation_one_key_is_not_enough(tmp_path):
    writes, _ = keys_of("kube-aescbc-rotation")
    with hosted_world(tmp_path, fixture="kube-aescbc-rotation", keys=(writes,)) as world:
        manifest = world.backup("--json", expect=3).json
        assert "missing" in detail(manifest, "keys")


def test_a_cluster_without_encryption(tmp_path):
    with hosted_world(tmp_path, fixture="kube-plain", encryption=None, keys=()) as world:
        manifest = world.backup("--json").json
        assert verdicts(manifest)["keys"] == "PASS"
        assert "no key is needed" in detail(manifest, "keys")


def test_what_is_encrypted_though_no_key_is_known_fails(tmp_path):
    with hosted_world(tmp_path, encryption=None, keys=()) as world:
        manifest = world.backup("--json", expect=3).json
        assert verdicts(manifest)["keys"] == "FAIL"


def test_promise_4_a_kms_proves_nothing_from_here(tmp_path):
    with hosted_world(tmp_path, fixture="kube-plain", encryption="kms", keys=()) as world:
        world.etcd.ctl("put", "/kubernetes.io/secrets/a/b", "k8s:enc:kms:v2:awskmskey-1:sealed")
        done = world.backup("--json", expect=4)
        assert verdicts(done.json)["keys"] == "COULD NOT VERIFY"
        assert done.json["hosted"]["kms"]["provider"] == "AWS"
        assert "useless" in done.err
        accepted = world.backup("--json", "--accept-unverified", "keys")
        assert verdicts(accepted.json)["keys"] == "COULD NOT VERIFY"


def test_both_repositories_must_be_two_places(world):
    keys = world.cli.variables["BACKSTAY_KEYS_REPO"]
    nested = f"{world.cli.variables['BACKSTAY_REPO']}/keys"
    made = world.cli("keygen", "-o", "other.txt", "--json").json
    world.cli("init", "--repo", nested, "--role", "keys", "--recipient", made["recipient"])
    refused = world.backup("--keys-repo", nested, expect=5)
    assert "one place" in refused.err or "must not lie with the data" in refused.err
    world.backup("--keys-repo", keys)


@pytest.mark.parametrize("how", ["option", "settings"])
def test_promise_5_a_repository_for_keys_that_is_sealed_to_others_is_refused(world, how):
    """Whoever can write its configuration would else have all keys sealed to themselves."""
    [right] = Repository.open(FileStore(world.folder / "keys")).config.recipients
    other = world.cli("keygen", "--json").json["recipient"]
    before = all_bytes(world.folder / "data"), all_bytes(world.folder / "keys")
    settings = world.folder / "backstay.toml"

    def pinned(*recipients):
        settings.unlink(missing_ok=True)
        if how == "option":
            return [f"--keys-recipient={recipient}" for recipient in recipients]
        settings.write_text(f"keys-recipient = {list(recipients)}\n")
        return []

    refused = world.backup(*pinned(other), expect=5)
    assert f"/keys is sealed to {right}, but {other} is pinned" in refused.err
    world.backup(*pinned(right, other), expect=5)
    assert (all_bytes(world.folder / "data"), all_bytes(world.folder / "keys")) == before
    words = ("preflight", "hosted", NAME, "-n", NAMESPACE, "--json")
    looked = world.cli(*words, *pinned(other), expect=3).json
    failed = [check["name"] for check in looked["checks"] if check["verdict"] == "FAIL"]
    assert failed == ["keys repository"]
    assert f"but {other} is pinned" in detail(looked, "keys repository")
    # The pin of the one is none of the other.
    world.cli(*words, *pinned(right))
    world.backup(*pinned(right))
    settings.unlink(missing_ok=True)
    world.backup("--recipient", other, *pinned(right), expect=5)
    settings.unlink(missing_ok=True)


def test_a_dry_run_shows_its_hands_and_leaves_nothing(world):
    before = all_bytes(world.folder / "data"), all_bytes(world.folder / "keys")
    done = world.backup("--dry-run", "--quiesce")
    assert "oc patch hostedcluster -n clusters blue" in done.out
    assert "etcdctl" in done.out
    assert (all_bytes(world.folder / "data"), all_bytes(world.folder / "keys")) == before
    assert not [seen for seen in world.kube.requests if seen.verb in {"patch", "delete"}]
    steps = world.backup("--dry-run", "--json").json["steps"]
    assert steps[0]["commands"]


def test_preflight_is_what_a_dry_run_asks(world):
    looked = world.cli("preflight", "hosted", NAME, "-n", NAMESPACE, "--json").json
    asked = world.backup("--dry-run", "--json").json
    assert [c["name"] for c in looked["checks"]] == [c["name"] for c in asked["checks"]]
    assert {c["verdict"] for c in looked["checks"]} == {"PASS"}


BY_EXEC = ("preflight", "hosted", NAME, "-n", NAMESPACE, "--transport", "exec", "--json")


def test_a_preflight_by_exec_asks_the_pods_themselves(world):
    # Our certificate is none of its business: nobody may read it.
    world.kube.remove(SECRETS, CLIENT_SECRET, world.control_plane)
    looked = world.cli(*BY_EXEC, "--quota", "8GiB").json
    assert verdicts(looked) == dict.fromkeys([c["name"] for c in looked["checks"]], "PASS")
    assert {"rights", "pods", "members", "alarms", "quota", "space"} <= set(verdicts(looked))
    assert "certificates" not in verdicts(looked)
    assert "etcd-0.etcd-discovery" in detail(looked, "members")
    assert "bytes, 0% of its quota" in detail(looked, "quota")
    assert not [path for path in (world.folder / "pod").iterdir() if path.is_file()]
    asked = world.backup("--dry-run", "--transport", "exec", "--json").json
    assert [c["name"] for c in asked["checks"] if c["verdict"] != "PASS"] == []


def test_a_preflight_by_exec_looks_at_each_etcd(tmp_path):
    with hosted_world(tmp_path, shards=("events",)) as world:
        looked = world.cli(*BY_EXEC).json
        assert set(verdicts(looked).values()) == {"PASS"}
        for pod in ("etcd-0", "etcd-events-0"):
            assert f"{pod}." in detail(looked, "members")


LIES = {
    "alarm": ("echo memberID:0 alarm:NOSPACE", "alarms", "NOSPACE"),
    "no room": ("echo /dev/x 100 50 4 50% /var/lib", "members", "4096 bytes free on its volume"),
    "not reached": ("exit 1", "members", "no member is fit"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_preflight_by_exec_tells_what_the_pod_answers(world, what):
    answer, name, text = LIES[what]
    path = world.folder / "lies"
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    told = {"alarm": "ctl alarm list", "no room": "df -Pk", "not reached": "ctl endpoint status"}
    inside = inside_of(world, "etcd-0", world.folder / "pod") | {told[what]: str(path)}
    world.streams.pod(world.control_plane, "etcd-0", rewrite=inside)
    looked = world.cli(*BY_EXEC, expect=3).json
    failed = {name for name, verdict in verdicts(looked).items() if verdict == "FAIL"}
    assert failed == {name}
    assert text in detail(looked, name)


def test_a_denied_right_is_named(world):
    world.kube.deny("get", PODS, "portforward")
    looked = world.cli("preflight", "hosted", NAME, "-n", NAMESPACE, expect=3)
    assert "get pods/portforward in clusters-blue" in looked.err


def test_by_exec_the_pod_keeps_nothing(world):
    manifest = world.backup("--transport", "exec", "--json").json
    assert manifest["hosted"]["transport"] == "exec"
    assert verdicts(manifest) == dict.fromkeys(CHECKS, "PASS")
    assert not [path for path in (world.folder / "pod").iterdir() if path.is_file()]


def test_both_transports_give_the_same_snapshot(world):
    forwarded = world.backup("--transport", "port-forward", "--json").json
    executed = world.backup("--transport", "exec", "--json").json
    assert forwarded["hashkv"] == executed["hashkv"]
    assert forwarded["snapshots"][0]["cluster_id"] == executed["snapshots"][0]["cluster_id"]


def test_it_fails_before_anything_is_stored_where_a_key_may_not_be_read(world):
    world.kube.deny("get", SECRETS)
    world.backup(expect=1)
    assert not list((world.folder / "data").rglob("snapshot*"))
