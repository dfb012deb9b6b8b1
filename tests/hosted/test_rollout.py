"""A backup restored into another management cluster by one command line, and proven there.

All is real but Kubernetes: the S3 server and its presigned URL, etcd-init's own script with curl
and etcdutl, the members that come of it, and the hosted cluster's API, which reads from them.
"""

import base64
import copy
import os
import signal
import threading
import time

import pytest
from ruamel.yaml import YAML

from backstay.kinds.hosted.recovery import rollout
from backstay.kinds.hosted.recovery.creation import MARK
from backstay.kinds.hosted.recovery.waiting import Options as Patience
from backstay.kubeapi.resource import HOSTED_CLUSTERS, NODE_POOLS, SECRETS
from kit import process, s3
from kit.hosted import one
from kit.newcluster import new_cluster
from kit.world import CLUSTER, hosted_world, keys_of

ID = f"{CLUSTER}/latest"
PROOF = ("one-cluster", "hashkv", "revision", "keys")
ALL = ("etcd-init", "snapshot-restored", *PROOF, "available", "canary")


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Look more often than is polite; patience is as it was."""
    monkeypatch.setitem(Patience.__init__.__kwdefaults__, "interval", 0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3.over_tls(tmp_path_factory.mktemp("s3")) as server:
        yield server


def backed_up(world, server):
    """Back a world up, and let it be restored."""
    world.cli.variables |= server.environment | {
        "BACKSTAY_IDENTITY": str(world.identity),
        "SSL_CERT_FILE": server.environment["AWS_CA_BUNDLE"],
    }
    world.backup()
    return world


@pytest.fixture(scope="module")
def small(tmp_path_factory, server):
    """A control plane of one member, backed up."""
    with hosted_world(tmp_path_factory.mktemp("small")) as world:
        yield backed_up(world, server)


@pytest.fixture(scope="module")
def large(tmp_path_factory, server):
    """A control plane that will have three members, backed up."""
    with hosted_world(tmp_path_factory.mktemp("large"), members=3) as world:
        yield backed_up(world, server)


@pytest.fixture
def place(request):
    """A staging place of the test's own."""
    return f"s3://backups/staging-{abs(hash(request.node.nodeid)) % 10**9}"


def words(place, *more):
    wanted = more or ("--from-backup",)
    apply = () if "--apply" in wanted else ("--apply", "--wait")
    return ("restore", "hosted", ID, "--staging", place, *wanted, *apply, "--json")


def restore(world, new, place, *more, **options):
    return world.cli(*words(place, *more), **new.variables, **options)


def staged(world, place):
    return world.cli("list", "--staging", place, "--json").json


def files(server, place):
    """The restore objects, as they lie in the server's directory."""
    folder = server.root / place.removeprefix("s3://")
    return [path for path in folder.rglob("*.db") if path.is_file()]


def verdicts(done):
    return {check["name"]: check["verdict"] for check in done.json["checks"]}


def detail(done, name):
    [check] = [check for check in done.json["checks"] if check["name"] == name]
    return check["detail"]


def url_in(new):
    hosted = new.kube.get(HOSTED_CLUSTERS, "blue", "clusters")
    [url] = hosted["spec"]["etcd"]["managed"]["storage"]["restoreSnapshotURL"]
    return url


def changes(kube):
    """What was asked for that changes something."""
    return [
        (seen.verb, seen.resource)
        for seen in kube.requests
        if seen.verb not in {"get", "list"} and seen.resource != "selfsubjectaccessreviews"
    ]


@pytest.mark.parametrize(
    ("members", "fixed"), [pytest.param(1, False, marks=pytest.mark.soak), (3, True)]
)
def test_it_is_applied_restored_and_proven(request, tmp_path, server, place, members, fixed):
    world = request.getfixturevalue("small" if members == 1 else "large")
    with new_cluster(tmp_path, members=members, fixed=fixed, ca=server.authority) as new:
        # Before etcd-init has left the StatefulSet a pod that restarts needs the object.
        early = []
        new.plane.held = lambda _: early.append(len(files(server, place)))
        done = restore(world, new, place)
        assert verdicts(done) == dict.fromkeys(ALL, "PASS")
        assert early == [1] * members
        assert done.json["removed"]
        assert staged(world, place) == []
        names = [f"etcd-{number}" for number in range(members)]
        assert ", ".join(names) in detail(done, "etcd-init")
        # What etcdctl says of the members, and what the backup says of itself.
        manifest = world.cli("show", ID, "--json").json
        revisions = {
            etcd.ctl_json("endpoint", "status")[0]["Status"]["header"]["revision"]
            for etcd in new.plane.etcds.values()
        }
        assert min(revisions) >= manifest["revision"] + 1_000_000_000
        found = new.plane.etcds["etcd-0"].ctl_json("member", "list")["members"]
        assert len(found) == members
        # The hosted cluster's API was asked for Secrets, and nothing else.
        assert {(seen.verb, seen.resource) for seen in new.guest.requests} == {("get", "secrets")}
        assert {verb for verb, _ in changes(new.kube)} == {"create"}
        assert "X-Amz-Signature" not in done.out + done.err


@pytest.mark.soak
def test_rendered_manifests_are_applied_with_the_saved_key(small, tmp_path, server, place):
    output = tmp_path / "from-backup.yaml"
    small.cli("restore", "hosted", ID, "--staging", place, "--from-backup", "-o", output)
    documents = list(YAML(typ="safe").load_all(output.read_text()))
    kinds = {"HostedCluster", "NodePool", "Secret", "ConfigMap"}
    rendered = [
        document
        for document in documents
        if document["kind"] in kinds and document["metadata"]["namespace"] == "clusters"
    ]
    hosted = one(rendered, "HostedCluster")
    del hosted["spec"]["etcd"]["managed"]["storage"]["restoreSnapshotURL"]
    fresh = base64.b64encode(os.urandom(32)).decode()
    one(rendered, "Secret", "blue-etcd-encryption-key")["data"]["key"] = fresh
    path = tmp_path / "rendered.yaml"
    with path.open("w") as stream:
        YAML(typ="safe").dump_all(rendered, stream)
    with new_cluster(tmp_path / "new", ca=server.authority) as new:
        done = restore(small, new, f"{place}-2", "--rendered", path)
        assert verdicts(done) == dict.fromkeys(ALL, "PASS")
        applied = new.kube.get(SECRETS, "blue-etcd-encryption-key", "clusters")
        assert base64.b64decode(applied["data"]["key"]) == keys_of("kube-aescbc")[0]


def test_a_key_that_was_changed_behind_our_back_fails_the_canary(small, tmp_path, server, place):
    """Of all questions only the API of the restored cluster can tell."""
    with new_cluster(tmp_path, ca=server.authority) as new:

        def spoil(_):
            key = new.kube.get(SECRETS, "blue-etcd-encryption-key", "clusters")
            new.kube.put(key | {"data": {"key": base64.b64encode(b"0" * 32).decode()}})

        new.plane.held = spoil
        done = restore(small, new, place, expect=3)
        assert verdicts(done) == dict.fromkeys(ALL, "PASS") | {"canary": "FAIL"}


def test_several_members_by_an_unfixed_etcd_init_fail_and_say_what_to_do(
    large, tmp_path, server, place
):
    told = threading.Event()
    with new_cluster(
        tmp_path, members=3, fixed=False, ca=server.authority, held=lambda _: told.wait(60)
    ) as new:
        try:
            done = restore(large, new, place, expect=3)
        finally:
            new.plane.ready = False
            told.set()
        assert verdicts(done)["etcd-init"] == "FAIL"
        assert "3 clusters of one" in detail(done, "etcd-init")
        assert "controllerAvailabilityPolicy SingleReplica" in done.err
        # It stays where it is, and is named: etcd-init is there, and would download it.
        [there] = staged(large, place)
        assert there["path"] in done.err
        assert not done.json["removed"]
        assert {verb for verb, _ in changes(new.kube)} == {"create"}


@pytest.mark.soak
def test_a_volume_with_data_fails_though_upstream_calls_it_restored(small, tmp_path, server, place):
    with new_cluster(tmp_path, ca=server.authority) as new:
        new.plane.fleet.occupy("etcd-0")
        done = restore(small, new, place, expect=3)
        assert verdicts(done)["etcd-init"] == "FAIL"
        assert "found data in its volume and did not restore" in detail(done, "etcd-init")
        assert "delete the HostedCluster and the volume claims" in done.err


def test_an_object_that_is_gone_fails_with_what_the_server_said(small, tmp_path, server, place):
    def held(_):
        for path in files(server, place):
            path.unlink()
        # The server looks into its directory again after this time.
        time.sleep(0.3)

    with new_cluster(tmp_path, ca=server.authority, held=held) as new:
        done = restore(small, new, place, expect=3)
        assert verdicts(done)["etcd-init"] == "FAIL"
        assert "the URL gave an error page (NoSuchKey" in detail(done, "etcd-init")
        assert "with a new URL" in done.err


@pytest.mark.soak
def test_a_url_that_has_expired_fails(small, tmp_path, server, place):
    # Long enough for the look at the URL before it is applied, on any machine.
    more = ("--from-backup", "--url-expires", "10s")
    with new_cluster(tmp_path, ca=server.authority, held=lambda _: time.sleep(12)) as new:
        done = restore(small, new, place, *more, expect=3)
        assert "the URL gave an error page (AccessDenied" in detail(done, "etcd-init")


@pytest.mark.parametrize("given", ["HostedCluster", "Secret", "claim"])
def test_promise_6_what_exists_is_refused_and_nothing_is_left(
    small, tmp_path, server, place, given
):
    with new_cluster(tmp_path, ca=server.authority) as new:
        if given == "claim":
            there = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data-etcd-0", "namespace": "clusters-blue"},
                "spec": {},
            }
        else:
            name = "blue" if given == "HostedCluster" else "blue-etcd-encryption-key"
            there = copy.deepcopy(one(small.objects, given, name, "clusters"))
            if given == "Secret":
                there["data"]["key"] = base64.b64encode(b"another").decode()
            else:
                there["spec"]["etcd"]["managed"]["storage"].pop("restoreSnapshotURL", None)
        new.kube.put(there)
        before = new.kube.objects.changes
        done = restore(small, new, place, expect=5)
        assert "nothing was created" in done.err
        assert new.kube.objects.changes == before
        assert changes(new.kube) == []
        # Not even for a moment did the data lie there in the clear.
        assert not (server.root / place.removeprefix("s3://")).exists()


def test_missing_rights_are_told_before_anything_is_put_anywhere(small, tmp_path, server, place):
    with new_cluster(tmp_path, ca=server.authority) as new:
        new.kube.deny("create", NODE_POOLS)
        done = restore(small, new, place, expect=1)
        assert "create nodepools.hypershift.openshift.io" in done.err
        assert changes(new.kube) == []
        assert not (server.root / place.removeprefix("s3://")).exists()


def kill_at(new, verb, resource, number):
    """Run it in a process that gets a signal before a request is served."""
    children = []

    def act(_, seen):
        if (seen.verb, seen.resource) == (verb, resource.plural) and children:
            os.kill(children.pop().pid, number)

    new.kube.on_request = act
    return children


def start(world, new, place, *more):
    return process.start(words(place, *more), world.folder, world.cli.variables | new.variables)


def test_killed_between_hosted_cluster_and_node_pools_it_goes_on_with_the_url_it_has(
    small, tmp_path, server, place
):
    with new_cluster(tmp_path, ca=server.authority) as new:
        children = kill_at(new, "create", NODE_POOLS, signal.SIGKILL)
        child = start(small, new, place)
        children.append(child)
        child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL
        new.kube.settle()
        new.kube.on_request = None
        before = url_in(new)
        assert len(staged(small, place)) == 1
        done = restore(small, new, place)
        assert url_in(new) == before
        assert verdicts(done) == dict.fromkeys(ALL, "PASS")
        assert done.json["created"]
        assert {name.partition(" ")[0] for name in done.json["created"]} == {"NodePool"}
        marks = {
            pool["metadata"]["annotations"][MARK] for pool in new.kube.list(NODE_POOLS, "clusters")
        }
        assert len(marks) == 1
        # The object that the earlier run has put there is taken away by this one.
        assert done.json["removed"]
        assert staged(small, place) == []


def test_promise_5_stopped_before_the_hosted_cluster_is_there_nothing_is_left_in_the_clear(
    small, tmp_path, server, place
):
    with new_cluster(tmp_path, ca=server.authority) as new:
        children = kill_at(new, "create", SECRETS, signal.SIGTERM)
        child = start(small, new, place)
        children.append(child)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 143, err
        assert new.kube.get(HOSTED_CLUSTERS, "blue", "clusters") is None
        assert staged(small, place) == []


@pytest.mark.soak
def test_an_api_that_fails_after_the_hosted_cluster_leaves_the_object_and_names_it(
    small, tmp_path, server, place
):
    with new_cluster(tmp_path, ca=server.authority) as new:
        new.kube.fail(500, verb="create", resource=NODE_POOLS, times=99)
        done = restore(small, new, place, expect=1)
        [there] = staged(small, place)
        assert f"{there['path']} stays" in done.err
        assert "run the same again" in done.err


def test_applied_without_waiting_it_says_what_lies_in_the_clear_and_what_takes_it_away(
    small, tmp_path, server, place
):
    with new_cluster(tmp_path, ca=server.authority) as new:
        done = small.cli(
            *("restore", "hosted", ID, "--staging", place, "--from-backup", "--apply"),
            **new.variables,
        )
        [there] = staged(small, place)
        assert there["path"] in done.err
        assert "--wait" in done.err
        done = restore(small, new, place)
        assert done.json["created"] == []
        assert verdicts(done) == dict.fromkeys(ALL, "PASS")
        assert staged(small, place) == []


def test_an_object_stays_for_as_long_as_etcd_init_does(small, tmp_path, server, place, monkeypatch):
    monkeypatch.setattr(rollout, "_LEAVES", 0.2)
    with new_cluster(tmp_path, ca=server.authority, leave=False) as new:
        done = restore(small, new, place)
        assert verdicts(done) == dict.fromkeys(ALL, "PASS")
        assert not done.json["removed"]
        [there] = staged(small, place)
        assert f"{there['path']} stays" in done.err
        # Later it has left; the same command takes the object away.
        new.plane._stateful_set(new.kube, None)
        done = restore(small, new, place, expect=None)
        assert done.json["removed"]
        assert staged(small, place) == []


def test_a_wait_that_runs_out_could_not_verify(small, tmp_path, server, place):
    free = threading.Event()
    with new_cluster(tmp_path, ca=server.authority, held=lambda _: free.wait(60)) as new:
        try:
            more = ("--from-backup", "--wait-timeout", "1s")
            done = restore(small, new, place, *more, expect=4)
        finally:
            free.set()
        assert verdicts(done)["etcd-init"] == "COULD NOT VERIFY"
        assert "did not end within 1 s" in detail(done, "etcd-init")
        assert len(staged(small, place)) == 1


def test_an_api_that_never_comes_could_not_verify(small, tmp_path, server, place, monkeypatch):
    monkeypatch.setitem(Patience.__init__.__kwdefaults__, "available", 0.5)
    with new_cluster(tmp_path, ca=server.authority) as new:
        new.plane._available = lambda _: None
        done = restore(small, new, place, expect=4)
        found = verdicts(done)
        assert (found["available"], found["canary"]) == ("COULD NOT VERIFY",) * 2
        assert {found[name] for name in PROOF} == {"PASS"}


def test_promise_5_a_hosted_cluster_that_is_deleted_meanwhile_leaves_nothing_in_the_clear(
    small, tmp_path, server, place
):
    free = threading.Event()

    def held(_):
        new.kube.remove(HOSTED_CLUSTERS, "blue", "clusters")
        free.wait(60)

    with new_cluster(tmp_path, ca=server.authority, held=held) as new:
        # Nobody is there any more who would have the members started.
        new.plane.ready = False
        try:
            done = restore(small, new, place, expect=1)
        finally:
            free.set()
        assert "hostedclusters" in done.err
        assert staged(small, place) == []


@pytest.mark.soak
def test_a_member_that_can_not_be_reached_could_not_verify(large, tmp_path, server, place):
    with new_cluster(tmp_path, members=3, ca=server.authority) as new:
        condition = new.plane._condition

        def told(kube, status):
            condition(kube, status)
            del new.plane.streams.pods["clusters-blue", "etcd-2"]

        new.plane._condition = told
        done = restore(large, new, place, expect=4)
        found = verdicts(done)
        assert {found[name] for name in PROOF} == {"COULD NOT VERIFY"}
        assert "2 of 3 members" in detail(done, "one-cluster")
