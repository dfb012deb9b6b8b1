"""`backup okd` into repositories: the snapshot to the one, the tar and the keys to the other."""

import io
import json
import tarfile
from contextlib import contextmanager

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.clock import SystemClock
from backstay.errors import BackstayError, RefusedError, StoreError
from backstay.flows.places import Places
from backstay.kinds.okd.backup import Options, backup_okd
from backstay.kinds.okd.cluster import Cluster
from backstay.kinds.okd.host import open_host
from backstay.repo import keyring as keyrings
from backstay.repo.archive import fetch_archive
from backstay.repo.catalogue import Repository
from backstay.repo.identity import Identities
from backstay.repo.stores.file import FileStore
from backstay.report import Check, Report, Started, Verdict
from kit import openshift
from kit.okd_host import (
    DIGEST,
    IMAGE,
    INFRASTRUCTURE,
    NODE,
    PODS,
    REVISIONS,
    VERSION,
    OkdHost,
    okd_etcd,
)


def words(host, *more):
    return ("backup", "okd", "--host-root", host.root, *more)


def verdicts(document):
    return {check["name"]: check["verdict"] for check in document["checks"]}


def detail(document, name):
    return next(check["detail"] for check in document["checks"] if check["name"] == name)


def repository(cli, variable):
    return Repository.open(FileStore(cli.folder.parent / {"R": "data", "K": "keys"}[variable]))


def all_files(cli):
    return {
        str(path.relative_to(cli.folder.parent)): path.read_bytes()
        for name in ("data", "keys")
        for path in (cli.folder.parent / name).rglob("*")
        if path.is_file()
    }


def kept(cli):
    """Everything that lies in the two repositories beside their configurations."""
    names = ("backstay.json", "clock")
    return sorted(name for name in all_files(cli) if not name.endswith(names))


def opened(cli):
    """The one keyring, and the tar beside it, as a restore opens them."""
    keys = repository(cli, "K")
    identities = Identities.read(cli.folder / "identity.txt")
    [saved] = keyrings.headers(keys)
    sink = io.BytesIO()
    fetch_archive(keys, saved.header, sink, identities)
    return keyrings.load(keys, saved, identities), sink.getvalue()


def test_its_metrics_tell_how_it_ended_and_which_release_it_restores(host, cli, tmp_path):
    path = tmp_path / "runs.prom"
    cli(*words(host, "--metrics-file", path))
    label = f'cluster="",command="backup okd",repository="{cli.variables["BACKSTAY_REPO"]}"'
    assert f"backstay_run_exit_code{{{label}}} 0.0" in path.read_text()
    [one] = [it for it in cli("metrics", "--json").json if "restorable" in it["name"]]
    assert (one["labels"]["cluster"], one["labels"]["version"]) == (INFRASTRUCTURE, VERSION)


def test_the_snapshot_goes_to_the_one_and_the_tar_to_the_other(host, cli):
    manifest = cli(*words(host, "--json")).json
    assert (manifest["cluster"], manifest["kind"]) == (INFRASTRUCTURE, "okd")
    assert set(verdicts(manifest).values()) == {"PASS"}
    assert {"transfer", "stored", "structure", "content", "keys", "partner"} < set(
        verdicts(manifest)
    )
    okd = manifest["okd"]
    assert (okd["infrastructure"], okd["version"]) == (INFRASTRUCTURE, VERSION)
    assert (okd["release_image"], okd["release_digest"]) == (IMAGE, DIGEST)
    assert (okd["node"], okd["static_pods"], okd["encryption"]) == (NODE, REVISIONS, "aescbc")
    assert okd["etcd_revision"]["max_raft_index"] == 21345
    assert okd["forced"] == []
    keyring, tar = opened(cli)
    assert okd["archive_size"] == len(tar)
    assert keyring.encryption_configuration == host.encryption_config.read_text()
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        found = {name.split("/")[1] for name in archive.getnames()}
        assert found == {f"{name}-pod-{number}" for name, number in REVISIONS.items()}
    assert [name.split("/")[0] for name in kept(cli)] == ["data"] * 2 + ["keys"] * 3
    began = manifest["taken_at"][:10]
    assert okd["snapshot_name"].startswith(f"snapshot_{began}_")
    assert okd["archive_name"] == okd["snapshot_name"].replace(
        "snapshot", "static_kuberesources"
    ).replace(".db", ".tar.gz")


def test_it_verifies_with_its_keys_and_its_partner(host, cli):
    done = cli(*words(host))
    assert "found latest etcd: /etc/kubernetes/static-pod-resources/etcd-pod-3\n" in done.err
    [listed] = cli("list", "--json").json
    assert listed["kind"] == "okd"
    cli("show", f"{INFRASTRUCTURE}/latest-verified")
    verified = cli(
        *("verify", f"{INFRASTRUCTURE}/latest", "--read-data", "--json"),
        *("--identity", "identity.txt", "--keys-repo", cli.variables["BACKSTAY_KEYS_REPO"]),
    ).json
    assert verdicts(verified)["keys"] == "PASS"
    assert verdicts(verified)["partner"] == "PASS"


def test_promise_5_nothing_of_the_tar_lies_with_the_data_or_in_the_clear(host, cli):
    key = json.loads(host.encryption_config.read_text())["resources"][0]["providers"][0]
    text = key["aescbc"]["keys"][0]["secret"]
    done = cli(*words(host, "--json", "--log-format", "json"))
    assert text not in done.out + done.err
    for name, content in all_files(cli).items():
        assert text.encode() not in content, name
        assert b"BEGIN" not in content, name
    assert not [name for name in kept(cli) if name.startswith("data") and "tar" in name]


def change_key(host, **changed):
    document = json.loads(host.encryption_config.read_text())
    document["resources"][0]["providers"][0]["aescbc"]["keys"][0].update(changed)
    host.encryption_config.write_text(json.dumps(document))


@pytest.mark.parametrize("how", ["another", "renamed", "none"])
def test_keys_that_do_not_open_the_snapshot_fail_the_backup(host, cli, how):
    if how == "none":
        host.encryption_config.unlink()
    else:
        another = {"secret": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}
        change_key(host, **(another if how == "another" else {"name": "1"}))
    manifest = cli(*words(host, "--json"), expect=3).json
    assert verdicts(manifest)["keys"] == "FAIL"
    cli("show", f"{INFRASTRUCTURE}/latest", expect=1)


def test_promise_4_a_configuration_that_cannot_be_read_never_passes(host, cli):
    host.encryption_config.write_text("kind: [")
    manifest = cli(*words(host, "--json"), expect=4).json
    assert verdicts(manifest)["keys"] == "COULD NOT VERIFY"
    # What was there is kept as it was.
    assert opened(cli)[0].encryption_configuration == "kind: ["


@pytest.fixture(scope="module")
def three_servers(tmp_path_factory):
    """An etcd in which three API servers have encrypted, each with a key that it calls "1"."""
    with okd_etcd(tmp_path_factory.mktemp("three"), "kube-plain") as etcd:
        with Client(etcd.access) as client:
            for key, value in openshift.cluster():
                client.put(key, value)
        yield etcd


def test_each_api_servers_keys_are_proven_by_those_before(three_servers, cli, tmp_path):
    host = OkdHost.make(tmp_path / "host", three_servers)
    host.encryption_config.write_bytes(openshift.configuration(openshift.KUBE, 1))
    manifest = cli(*words(host, "--json")).json
    assert verdicts(manifest)["keys"] == "PASS"
    told = detail(manifest, "keys")
    for resource in ("secrets", "routes.route.openshift.io", "oauthaccesstokens"):
        assert resource in told


def test_the_key_of_one_api_server_is_none_of_another(three_servers, cli, tmp_path):
    """All three are called "1": openshift-apiserver's does not open what kube-apiserver wrote."""
    host = OkdHost.make(tmp_path / "host", three_servers)
    resources = openshift.RESOURCES[openshift.KUBE]
    other = openshift.configuration(openshift.OPENSHIFT, 1, resources=resources)
    host.encryption_config.write_bytes(other)
    manifest = cli(*words(host, "--json"), expect=3).json
    assert verdicts(manifest)["keys"] == "FAIL"


def test_the_clusters_name_must_be_known(cli, tmp_path):
    with okd_etcd(tmp_path / "etcd", "kube-plain", told=False) as etcd:
        host = OkdHost.make(tmp_path / "host", etcd, "kube-plain")
        before = all_files(cli)
        done = cli(*words(host), expect=1, KUBECONFIG="")
        assert "--cluster" in done.err
        assert all_files(cli) == before
        alone = words(host, "--cluster", "lab", "--json", "--force")
        manifest = cli(*alone, expect=4, KUBECONFIG="").json
    assert manifest["cluster"] == "lab"
    assert verdicts(manifest)["keys"] == "PASS"
    assert opened(cli)[0].encryption_configuration == ""


def test_another_name_may_be_given(host, cli):
    manifest = cli(*words(host, "--cluster", "lab", "--json")).json
    assert manifest["cluster"] == "lab"
    assert manifest["okd"]["infrastructure"] == INFRASTRUCTURE


def test_both_repositories_must_be_two_places(host, cli):
    nested = f"{cli.variables['BACKSTAY_REPO']}/keys"
    recipient = cli("keygen", "-o", "other.txt", "--json").json["recipient"]
    cli("init", "--repo", nested, "--role", "keys", "--recipient", recipient)
    before = all_files(cli)
    refused = cli(*words(host, "--keys-repo", nested), expect=5)
    assert "keys must not lie with the data" in refused.err
    assert all_files(cli) == before


def test_a_tar_that_would_write_elsewhere_when_it_is_unpacked_fails_the_backup(host, cli):
    (host.resources("etcd") / "secrets/out").symlink_to("/etc/shadow")
    manifest = cli(*words(host, "--json"), expect=3).json
    assert verdicts(manifest)["partner"] == "FAIL"
    cli("show", f"{INFRASTRUCTURE}/latest", expect=1)


@pytest.mark.parametrize("gone", ["BACKSTAY_REPO", "BACKSTAY_KEYS_REPO"])
def test_both_repositories_must_be_named(host, cli, gone):
    del cli.variables[gone]
    done = cli(*words(host), expect=2)
    assert "--keys-repo" in done.err


# By the flow itself: with what happens meanwhile.


def make(host, cli, *listeners, guards=lambda: (), keys=None, **more):
    places = Places(data=repository(cli, "R"), keys=keys or repository(cli, "K"))
    spool = cli.folder.parent / "spool"
    spool.mkdir(exist_ok=True)
    with open_host(host.root, SystemClock()) as opened_host:
        made = backup_okd(
            opened_host,
            Cluster(),
            places,
            Options(spool_dir=spool, **more),
            guards=guards,
            clock=SystemClock(),
            report=Report(*listeners),
        )
    assert list(spool.iterdir()) == []
    return made


def once(name, action):
    done = []

    def listen(event):
        if isinstance(event, Started) and event.name.startswith(name) and not done:
            done.append(event)
            action()

    return listen


@pytest.mark.parametrize("name", PODS)
def test_a_rollout_that_moves_latest_after_the_tar_is_no_backup(host, cli, name):
    listen = once("snapshot from", lambda: host.roll_out(name, REVISIONS[name] + 1))
    with pytest.raises(BackstayError, match=f"rollout went on .*{name} from revision"):
        make(host, cli, listen)
    assert cli("list", "--json").json == []
    # An object that no manifest names; nothing of keys.
    assert [name.split("/")[0] for name in kept(cli)] == ["data"]


def test_a_rollout_during_the_tar_is_in_the_backup(host, cli):
    manifest = make(host, cli, once("static pod", lambda: host.roll_out("kube-apiserver", 7)))
    assert manifest.okd.static_pods["kube-apiserver"] == 7
    _, tar = opened(cli)
    assert len(tar) == manifest.okd.archive_size
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert "static-pod-resources/kube-apiserver-pod-7" in archive.getnames()


class ForgetsTars(FileStore):
    """A store that says that it has a tar, and has none."""

    @contextmanager
    def writer(self, path):
        with super().writer(path) as file:
            yield file
        if ".tar." in path:
            self.delete(path)


def test_a_store_that_loses_the_tar_makes_no_backup(host, cli):
    config = repository(cli, "K").config
    keys = Repository(ForgetsTars(cli.folder.parent / "keys"), config)
    with pytest.raises(StoreError, match=r"tar.*is not what was written"):
        make(host, cli, keys=keys)
    assert cli("list", "--json").json == []


def guard(name, verdict):
    return Check(name=name, verdict=verdict, detail=f"about {name}", seconds=0.0)


def test_a_guard_that_refuses_leaves_nothing(host, cli):
    before = all_files(cli)
    with pytest.raises(RefusedError, match="about rotation"):
        make(host, cli, guards=lambda: (guard("rotation", Verdict.FAIL),))
    assert all_files(cli) == before


def test_what_force_skips_is_named_in_the_manifest(host, cli):
    checks = (
        guard("rotation", Verdict.FAIL),
        guard("interval", Verdict.COULD_NOT_VERIFY),
        guard("space", Verdict.PASS),
    )
    manifest = make(host, cli, guards=lambda: checks, force=True)
    assert manifest.okd.forced == ("rotation",)
    assert "__POSSIBLY_DIRTY__" in manifest.okd.snapshot_name
    assert "__POSSIBLY_DIRTY__" in manifest.okd.archive_name
    found = {check.name: check.verdict for check in manifest.checks}
    assert "rotation" not in found
    assert found["interval"] is Verdict.COULD_NOT_VERIFY
    # It restores: that a rule was skipped does not make it damaged.
    cli("show", f"{INFRASTRUCTURE}/latest-verified")
