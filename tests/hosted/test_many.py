"""Hosted control planes that are not the usual one: several etcds, several members, none of ours,
odd names, things that are missing; by the command line, with real etcds.
"""

import threading

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.kinds.hosted.quiescing.quiesce import Options
from backstay.kubeapi.resource import HOSTED_CONTROL_PLANES, PODS, SECRETS
from kit import process
from kit.kubeserver import HangUpError
from kit.kubestreams import Fault
from kit.world import CLUSTER, hosted_world

ID = f"{CLUSTER}/latest"
CHECKS = {"transfer", "stored", "structure", "content", "members", "keys"}


def verdicts(manifest):
    return {check["name"]: check["verdict"] for check in manifest["checks"]}


def detail(manifest, name):
    [check] = [check for check in manifest["checks"] if check["name"] == name]
    return check["detail"]


def with_identity(world):
    world.cli.variables["BACKSTAY_IDENTITY"] = str(world.identity)
    return world


def hashkv(etcd):
    """What a member says of itself, at its head."""
    [answer] = etcd.ctl_json("endpoint", "hashkv")
    return answer["HashKV"]["hash"]


# Several etcds.


@pytest.fixture
def sharded(tmp_path):
    with hosted_world(tmp_path, shards=("events",)) as world:
        # Something that only this etcd has; its Events are others than those of the main one.
        world.etcds["etcd-events-0"].ctl("put", "/kubernetes.io/events/default/only-here", "x")
        yield with_identity(world)


@pytest.mark.parametrize("transport", ["port-forward", "exec"])
def test_each_etcd_has_its_snapshot_and_one_manifest_binds_them(sharded, transport):
    manifest = sharded.backup("--transport", transport, "--json").json
    found = {snapshot["name"]: snapshot for snapshot in manifest["snapshots"]}
    assert list(found) == ["etcd", "etcd-events"]
    for name, snapshot in found.items():
        etcd = sharded.etcds[f"{name}-0"]
        assert snapshot["hashkv"]["hash"] == hashkv(etcd)
        status = etcd.ctl_json("endpoint", "status")[0]["Status"]
        assert snapshot["revision"] == status["header"]["revision"]
    assert len({snapshot["lineage"] for snapshot in found.values()}) == 2
    assert [one["role"] for one in manifest["objects"]] == ["snapshot"] * 2 + ["resources.yaml"]
    # One verdict a question, with what was said of each.
    assert verdicts(manifest) == dict.fromkeys(CHECKS, "PASS")
    assert len(manifest["checks"]) == len(CHECKS)
    for name in ("etcd: ", "etcd-events: "):
        assert name in detail(manifest, "keys")
    assert manifest["revision"] == found["etcd"]["revision"]


def test_verify_looks_into_all_of_them(sharded):
    manifest = sharded.backup("--json").json
    keys = sharded.cli.variables["BACKSTAY_KEYS_REPO"]
    words = ("verify", ID, "--read-data", "--keys-repo", keys, "--json")
    good = sharded.cli(*words).json
    assert {"stored", "structure", "content", "keys"} <= set(verdicts(good))
    assert set(verdicts(good).values()) == {"PASS"}
    assert "etcd-events: " in detail(good, "structure")
    # One byte of the second one changes.
    [second] = [one for one in manifest["snapshots"] if one["name"] == "etcd-events"]
    path = sharded.folder / "data" / second["object"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    bad = sharded.cli(*words, expect=3)
    assert "FAIL" in set(verdicts(bad.json).values())
    assert "etcd-events" in bad.out + bad.err


def test_restored_and_exported_is_the_main_one_unless_another_is_named(sharded):
    sharded.backup()
    done = sharded.cli("restore", "etcd", ID, "--data-dir", "main")
    assert "has etcd, etcd-events: this is etcd" in done.err
    sharded.cli("export", ID, "-o", "main.db")
    sharded.cli("export", ID, "-o", "events.db", "--snapshot", "etcd-events")
    sharded.cli("restore", "etcd", ID, "--data-dir", "events", "--snapshot", "etcd-events")
    key = b"/kubernetes.io/events/default/only-here"
    assert key in (sharded.folder / "events.db").read_bytes()
    assert key not in (sharded.folder / "main.db").read_bytes()
    assert key in (sharded.folder / "events" / "member" / "snap" / "db").read_bytes()
    assert key not in (sharded.folder / "main" / "member" / "snap" / "db").read_bytes()
    unknown = sharded.cli("export", ID, "-o", "x.db", "--snapshot", "etcd-pods", expect=1)
    assert "it has etcd, etcd-events" in unknown.err
    assert not (sharded.folder / "x.db").exists()
    file = sharded.cli("export", "./main.db", "-o", "x.db", "--snapshot", "etcd", expect=2)
    assert "leave out --snapshot" in file.err


def test_a_hosted_restore_would_lose_the_others_and_is_refused(sharded):
    sharded.backup()
    # Nothing is asked of this store: it is refused before that.
    nowhere = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "x"}
    done = sharded.cli(
        *("restore", "hosted", ID, "--from-backup", "--staging", "s3://nowhere/at-all"),
        expect=5,
        **nowhere,
        AWS_ENDPOINT_URL="https://127.0.0.1:9",
    )
    assert "etcds beside the main one (events)" in done.err
    assert "what the others hold would be gone" in done.err
    assert "--force" in done.err


def test_a_dry_run_and_a_preflight_tell_of_both(sharded):
    steps = sharded.backup("--dry-run", "--json").json["steps"]
    titles = [step["step"] for step in steps]
    for name in ("etcd", "etcd-events"):
        assert any(title.startswith(f"take a snapshot of {name}") for title in titles)
    looked = sharded.cli("preflight", "hosted", "blue", "-n", "clusters", "--json").json
    assert "etcd-events: " in detail(looked, "members")


def test_promise_1_where_one_etcd_gives_nothing_there_is_no_backup(sharded):
    sharded.etcds["etcd-events-0"].kill()
    done = sharded.backup(expect=1)
    assert "etcd-events-0" in done.err
    assert sharded.cli("list", "--json").json == []


def test_quiet_is_what_all_of_them_are(sharded, monkeypatch):
    monkeypatch.setitem(Options.__init__.__kwdefaults__, "quiet", 0.3)
    bench = sharded.operated()
    before = bench.state()
    ending = threading.Event()
    written = []

    def write():
        with Client(sharded.etcds["etcd-events-0"].access) as client:
            while not ending.wait(0.02):
                written.append(client.put(b"/kubernetes.io/events/default/y", b""))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        process.wait_until(lambda: written)
        done = sharded.backup("--quiesce", "--quiesce-timeout", "4s", expect=1)
    finally:
        ending.set()
        writer.join(20)
    assert "last under /kubernetes.io/events/..." in done.err
    assert bench.state() == before
    manifest = sharded.backup("--quiesce", "--json").json
    assert manifest["hosted"]["quiesced"] is True
    assert bench.state() == before


# Several members.


@pytest.fixture
def three(tmp_path):
    with hosted_world(tmp_path, members=3) as world:
        yield with_identity(world)


def leader(world):
    """The pod whose member leads."""
    found = {
        pod: etcd.ctl_json("endpoint", "status")[0]["Status"] for pod, etcd in world.etcds.items()
    }
    [name] = [pod for pod, it in found.items() if it["leader"] == it["header"]["member_id"]]
    return name


def streamed_most(world):
    """Ask each member how many snapshots it has sent."""
    return {
        pod: "sending database snapshot to client" in etcd.log.read_text()
        for pod, etcd in world.etcds.items()
    }


def test_a_healthy_follower_gives_the_snapshot(three):
    first = leader(three)
    manifest = three.backup("--json").json
    assert verdicts(manifest) == dict.fromkeys(CHECKS, "PASS")
    gave = [pod for pod, sent in streamed_most(three).items() if sent]
    assert len(gave) == 1
    assert gave != [first]
    forwarded = {pod for kind, _, pod, _ in three.streams.opened if kind == "portforward"}
    assert forwarded == set(three.etcds)


@pytest.mark.parametrize("how", ["member", "forward"])
def test_one_pod_that_is_down_is_told_and_another_gives_it(three, how):
    down = next(pod for pod in three.etcds if pod != leader(three))
    if how == "member":
        three.etcds[down].kill()
    else:
        three.streams.fault = lambda _, pod, __: Fault(refuse=500) if pod == down else None
    done = three.backup("--json")
    assert verdicts(done.json) == dict.fromkeys(CHECKS, "PASS")
    [told] = [line for line in done.err.splitlines() if line.startswith(f"https://{down}.")]
    assert "not asked, can't be reached" in told
    looked = three.cli("preflight", "hosted", "blue", "-n", "clusters", "--json", expect=None)
    assert looked.code in {3, 4}
    assert down in detail(looked.json, "members")


@pytest.mark.soak
def test_without_quorum_what_is_left_still_gives_one(three):
    """What one member has is better than nothing, and the only thing to restore from."""
    for pod in ("etcd-0", "etcd-1"):
        three.etcds[pod].kill()
    done = three.backup("--json", expect=4)
    # One of three is no majority.
    wanted = dict.fromkeys(CHECKS, "PASS") | {"members": "COULD NOT VERIFY"}
    assert verdicts(done.json) == wanted
    for pod in ("etcd-0", "etcd-1"):
        assert f"https://{pod}.etcd-discovery.clusters-blue.svc:2379: not asked" in done.err


# An etcd that someone else runs.


def test_an_unmanaged_etcd_is_reached_at_its_own_address(tmp_path):
    with hosted_world(tmp_path, unmanaged=True) as world:
        manifest = with_identity(world).backup("--json").json
        assert verdicts(manifest) == dict.fromkeys(CHECKS, "PASS")
        assert manifest["hosted"]["etcd"] == "unmanaged"
        assert manifest["hosted"]["transport"] == "direct"
        assert manifest["snapshots"][0]["hashkv"]["hash"] == hashkv(world.etcd)
        assert world.streams.opened == []
        done = world.backup("--transport", "exec", expect=2)
        assert "--transport direct" in done.err
        steps = world.backup("--dry-run").out
        assert world.etcd.endpoint in steps


# Odd names, and things that are missing.


def test_dots_in_a_name_are_dashes_in_its_namespace(tmp_path):
    with hosted_world(tmp_path, name="prod.eu", namespace="my-clusters") as world:
        manifest = world.backup("--json").json
        assert manifest["cluster"] == "my-clusters.prod.eu"
        assert verdicts(manifest) == dict.fromkeys(CHECKS, "PASS")
        assert {namespace for _, namespace, _, _ in world.streams.opened} == {"my-clusters-prod-eu"}
        assert "my-clusters-prod-eu" in world.backup("--dry-run").out
        # Another name in the repository; what it is restored as does not change.
        other = world.backup("--cluster", "eu-1", "--json").json
        assert other["cluster"] == "eu-1"
        assert (other["hosted"]["namespace"], other["hosted"]["name"]) == ("my-clusters", "prod.eu")
        clusters = {listed["cluster"] for listed in world.cli("list", "--json").json}
        assert clusters == {"my-clusters.prod.eu", "eu-1"}
        world.backup("--cluster", "No/Name", expect=2)
        world.cli("show", "eu-1/latest")


@pytest.fixture
def world(tmp_path):
    with hosted_world(tmp_path) as world:
        yield world


def nothing_stored(world):
    """Whether no backup is listed, and nothing lies beside the two configurations."""
    listed = world.cli("list", "--json").json
    kept = [path for name in ("data", "keys") for path in (world.folder / name).rglob("*")]
    return not listed and not [path for path in kept if "keyring" in path.name]


def test_a_cluster_that_is_not_there_is_told_with_those_that_are(world):
    done = world.cli("backup", "hosted", "blu", "-n", "clusters", expect=1)
    assert "no HostedCluster clusters/blu" in done.err
    assert "in clusters there are blue" in done.err
    elsewhere = world.cli("backup", "hosted", "blue", "-n", "nowhere", expect=1)
    assert "namespace nowhere has none" in elsewhere.err
    assert nothing_stored(world)


def test_without_a_control_plane_there_is_nothing_to_back_up(world):
    world.kube.remove(HOSTED_CONTROL_PLANES, "blue", "clusters-blue")
    done = world.backup(expect=1)
    assert "has no etcd yet" in done.err
    assert nothing_stored(world)


def test_without_pods_there_is_nothing_to_reach(world):
    world.kube.remove(PODS, "etcd-0", "clusters-blue")
    done = world.backup("--transport", "port-forward", expect=1)
    assert "etcd has no pods" in done.err
    world.backup(expect=1)
    assert nothing_stored(world)


def test_a_secret_that_is_referred_to_and_missing_is_named(world):
    world.kube.remove(SECRETS, "github-client", "clusters")
    done = world.backup("--json")
    [missing] = done.json["hosted"]["missing"]
    assert "github-client" in missing
    assert f"the spec refers to {missing}, which is not there" in done.err
    assert verdicts(done.json) == dict.fromkeys(CHECKS, "PASS")


def test_an_api_that_goes_away_ends_it_and_nothing_is_listed(world):
    began = len(world.kube.requests)
    world.backup()
    asked = len(world.kube.requests) - began
    before = world.cli("list", "--json").json
    assert len(before) == 1
    for after in (1, asked // 2, asked - 1):
        limit = len(world.kube.requests) + after

        def gone(number, _, limit=limit):
            if number > limit:
                raise HangUpError

        world.kube.on_request = gone
        done = world.backup(expect=1)
        world.kube.on_request = None
        assert world.kube.url in done.err
        assert world.cli("list", "--json").json == before
    # Whatever these runs have left stands in nobody's way.
    world.backup()
