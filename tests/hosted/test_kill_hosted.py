"""Backups and restores of a hosted control plane, killed at every moment: what is left then."""

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from backstay.kubeapi.connect import connect
from backstay.kubeapi.resource import HOSTED_CLUSTERS, NODE_POOLS, SECRETS
from backstay.repo import keyring as keyrings
from backstay.repo import leftovers
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Entry
from backstay.repo.identity import Identities
from backstay.repo.keyring import Saved
from backstay.repo.url import open_store
from kit import process
from kit.cli import environment
from kit.hypershift_operator import HypershiftOperator
from kit.killing import Killing, writes
from kit.kubeobjects import KNOWN
from kit.kubeserver import KubeServer
from kit.quiescing import Bench
from kit.world import CLUSTER, CONTROL_PLANE, NAME, NAMESPACE, hosted_world, prepare

BACKUP = ("backup", "hosted", NAME, "-n", NAMESPACE)
#: Everything that is there, as the store tells the time: none of it is too young to be swept.
ALL = timedelta(minutes=-5)
KILLED = -9


@dataclass
class Scene:
    """A control plane that is backed up, and everything that a kill may leave."""

    world: object
    killing: Killing
    bench: Bench
    before: str
    empty: set

    def repository(self, which):
        with environment(self.world.cli.variables):
            return Repository.open(open_store(self.world.cli.variables[which]))

    @property
    def data(self):
        return self.repository("BACKSTAY_REPO")

    @property
    def keys(self):
        return self.repository("BACKSTAY_KEYS_REPO")


@contextmanager
def scene(folder):
    with (
        Killing.start(folder / "killing") as killing,
        hosted_world(folder / "world", repositories=False) as world,
        connect(world.kube.kubeconfig, None) as api,
    ):
        killing.variables["KUBECONFIG"] = str(world.kube.kubeconfig)
        world.cli.variables |= killing.variables
        prepare(world)
        operator = HypershiftOperator(NAME, NAMESPACE, replicas=1)
        world.kube.actor(operator)
        bench = Bench(world.kube, operator, api, None)
        bench.settle()
        killing.moments.watch(world.kube)
        yield Scene(world, killing, bench, bench.state(), killing.objects())


def swept(scene):
    """Delete what dead runs left, as the next run does, however young; give the names."""
    data, keys = scene.data, scene.keys
    names = {f"keys/hosted/{path}" for path in keyrings.sweep(keys, ALL).paths}
    for lost in keyrings.of_runs(keys, data.config.repository, leftovers.dead_runs(data, ALL)):
        keyrings.remove(keys, lost)
        names |= keyring_objects(lost)
    return names | {f"backups/hosted/{path}" for path in leftovers.sweep(data, ALL).paths}


def keyring_objects(saved):
    path = f"keys/hosted/{saved.header.object.path}"
    return {path, path.removesuffix(".zst.age") + ".json"}


def listed(scene):
    """All backups that are listed, each of them whole; and the objects that are theirs."""
    found = scene.world.cli("list", "--json").json
    entries = scene.data.backups()
    assert all(isinstance(entry, Entry) for entry in entries), entries
    assert [entry.manifest.id for entry in entries] == [one["id"] for one in found]
    rings = keyrings.headers(scene.keys)
    assert all(isinstance(one, Saved) for one in rings), rings
    identities = Identities.read(scene.world.identity)
    for one in rings:
        keyrings.load(scene.keys, one, identities)
    theirs = set()
    for entry in entries:
        manifest = entry.manifest
        folder = f"backups/hosted/clusters/{CLUSTER}"
        theirs |= {f"{folder}/backups/{manifest.name.name}.json"}
        theirs |= {f"backups/hosted/{item.path}" for item in manifest.objects}
        theirs |= keyring_objects(keyrings.find(scene.keys, manifest.keyring, manifest.name))
    return entries, theirs


def verify(scene, entry):
    words = ("verify", entry.manifest.id, "--read-data", "--json", "--identity")
    keys = scene.world.cli.variables["BACKSTAY_KEYS_REPO"]
    done = scene.world.cli(*words, scene.world.identity, "--keys-repo", keys).json
    verdicts = {check["name"]: check["verdict"] for check in done["checks"]}
    assert {"transfer", "structure", "content", "keys"} <= set(verdicts)
    assert set(verdicts.values()) == {"PASS"}


def put_back(scene):
    """Resume twice: once is enough, and twice is no harm."""
    words = ("resume", "hosted", NAME, "-n", NAMESPACE, "--json")
    first, again = scene.world.cli(*words).json, scene.world.cli(*words).json
    assert first["as_it_was"] is not False
    assert again["changes"] == []
    assert scene.bench.state() == scene.before
    return bool(first["changes"])


def in_pod(scene):
    """What lies in the pod. A script there ends by itself, when it finds that we have gone."""
    return [path for path in (scene.world.folder / "pod").rglob("*") if path.is_file()]


def judge(scene):
    """Hold what a killed backup left to the promises; gives what there was to mend."""
    changed = put_back(scene)
    process.wait_until(lambda: not in_pod(scene), 60)
    left = scene.killing.objects() - scene.empty
    entries, theirs = listed(scene)
    named = swept(scene)
    assert left == theirs | named
    assert not theirs & named
    assert scene.killing.objects() == scene.empty | theirs
    for entry in entries:
        verify(scene, entry)
    scene.killing.clear(scene.empty)
    return {"resumed": changed, "listed": len(entries), "left": len(named)}


def kill_backups(scene, moments, *words, **more):
    """Kill backups at one moment after the other, until one lives; gives what was found."""
    found = []
    for at in moments:
        run = scene.killing.run((*BACKUP, *words), at, **more)
        told = judge(scene)
        if not run.killed:
            assert run.code == 0, run.told
            assert told == {"resumed": False, "listed": 1, "left": 0}
            return found
        assert run.code == KILLED
        found.append(told | {"at": run.killed})
    raise AssertionError("it never came to its end")


def assert_next_run_cleans(scene, *words):
    """What was left outside the stores is gone with the next run."""
    scene.killing.age(25 * 3600)
    assert scene.killing.run((*BACKUP, *words)).code == 0
    assert scene.killing.temporary == []


def number(found, what):
    return sum(bool(one[what]) for one in found)


def test_promise_3_killed_at_some_writes_everything_is_put_back_and_named(tmp_path):
    with scene(tmp_path) as place:
        found = kill_backups(place, range(3, 999, 7), "--quiesce", only=writes)
        assert number(found, "resumed") >= 2
        assert number(found, "left") >= 2
        assert_next_run_cleans(place)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("words", [("--quiesce",), ("--transport", "exec")], ids=" ".join)
def test_promise_3_killed_at_every_moment_everything_is_put_back_and_named(
    tmp_path, words, record_property
):
    with scene(tmp_path) as place:
        found = kill_backups(place, range(1, 9999), *words)
        assert len(found) > 150
        assert_next_run_cleans(place)


def stored(name):
    """The moment when an object of that name is stored, and nothing else has happened yet."""
    return lambda what: bool(re.fullmatch(f"after PUT /.*/{name}", what))


@pytest.mark.soak
def test_promise_1_the_next_runs_sweep_what_dead_ones_left_though_they_are_killed_over_it(tmp_path):
    with scene(tmp_path) as place:
        for name in ("snapshot.zst.age", "keyrings/.*.age", "keyrings/.*.json", "resources.*"):
            assert place.killing.run(BACKUP, 1, only=stored(name)).code == KILLED
        left = place.killing.objects() - place.empty
        assert len(left) == 1 + 2 + 3 + 4
        place.killing.age(25 * 3600)
        runs = [place.killing.run(BACKUP, 3, only=swept_one) for _ in range(4)]
        assert [run.code for run in runs] == [KILLED, KILLED, KILLED, 0]
        entries, theirs = listed(place)
        # A run that is killed while it sweeps keys has not begun its backup.
        assert 1 <= len(entries) < len(runs)
        assert place.killing.objects() == place.empty | theirs
        assert not left & theirs


def swept_one(what):
    return what.startswith("after DELETE")


RESTORE = ("restore", "hosted", f"{CLUSTER}/latest", "--from-backup", "--identity")
_URL = re.compile(r"https://127\.0\.0\.1:[0-9]+/[^\s\"']+")


def slim(kube):
    """Leave out what a HostedCluster may have beside: its manifests take a while to read."""
    without = {"configuration": None, "additionalTrustBundle": None}
    kube.patch(HOSTED_CLUSTERS, NAME, {"spec": without}, NAMESPACE)
    for pool in kube.list(NODE_POOLS, NAMESPACE):
        without = {"config": None, "tuningConfig": None}
        kube.patch(NODE_POOLS, pool["metadata"]["name"], {"spec": without}, NAMESPACE)
    for secret in kube.list(SECRETS, CONTROL_PLANE):
        name = secret["metadata"]["name"]
        if name not in {"etcd-client-tls", "root-ca", "sa-signing-key"}:
            kube.remove(SECRETS, name, CONTROL_PLANE)


@contextmanager
def backed_up(folder):
    """A scene with one backup, and the API of another cluster."""
    with scene(folder) as place, KubeServer.start(folder / "target") as target:
        slim(place.world.kube)
        run = place.killing.run(BACKUP)
        assert run.code == 0, run.told
        place.empty = place.killing.objects()
        place.killing.moments.watch(target)
        place.killing.variables["KUBECONFIG"] = str(target.kubeconfig)
        place.world.cli.variables["KUBECONFIG"] = str(target.kubeconfig)
        yield place, target


def staged(scene):
    """What `list --staging` shows; what else there is, is a probe."""
    listed = {
        f"backups/hosted.staging/{one['path']}"
        for one in scene.world.cli("list", "--staging", "--json").json
    }
    left = scene.killing.objects() - scene.empty
    assert listed <= left
    assert all(name.startswith("backups/hosted.staging/probe/") for name in left - listed)
    return listed, left - listed


def same(text):
    """Manifests, but for the URL."""
    assert len(set(_URL.findall(text))) == 1
    return _URL.sub("URL", text)


def kill_restores(scene, moments, **more):
    """Kill restores to a file at one moment after the other, until one lives."""
    output, written, found = scene.killing.folder / "restore.yaml", [], []
    words = (*RESTORE, scene.world.identity, "-o", output)
    for at in moments:
        run = scene.killing.run(words, at, **more)
        objects, probes = staged(scene)
        assert {path.name for path in scene.killing.folder.glob("*restore.yaml*")} <= {output.name}
        assert scene.killing.temporary == []
        if output.exists():
            written.append(same(output.read_text()))
            output.unlink()
        found.append({"staged": len(objects), "probes": len(probes), "at": run.killed})
        if not run.killed:
            assert run.code == 0, run.told
            assert written
            assert len(set(written)) == 1
            return found
        assert run.code == KILLED
        scene.killing.clear(scene.empty | probes)
        # A probe that is an hour old is deleted by the next run that gets so far.
        scene.killing.age(2 * 3600)
    raise AssertionError("it never came to its end")


@pytest.mark.soak
def test_a_restore_that_is_killed_leaves_nothing_that_is_not_listed(tmp_path):
    with backed_up(tmp_path) as (place, _):
        found = kill_restores(place, range(1, 999), only=writes)
        assert found[-1] == {"staged": 1, "probes": 0, "at": ""}
        assert number(found, "probes") >= 1
        assert number(found[:-1], "staged") >= 1


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_restore_that_is_killed_at_any_moment_leaves_nothing_that_is_not_listed(tmp_path):
    with backed_up(tmp_path) as (place, _):
        found = kill_restores(place, range(1, 9999))
        assert found[-1] == {"staged": 1, "probes": 0, "at": ""}
        assert len(found) > 20


def everything(kube):
    """All objects of an API."""
    return [one for resource in set(KNOWN.values()) for one in kube.list(resource)]


def by_name(documents):
    return {
        (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one
        for one in documents
    }


def content(documents):
    """What is there, but for what differs from run to run."""
    kept = [{name: part for name, part in one.items() if name != "metadata"} for one in documents]
    return sorted(_URL.sub("URL", json.dumps(one, sort_keys=True)) for one in kept)


def kill_applies(scene, target, moments, **more):
    """Kill restores that apply at one moment after the other, until one lives."""
    words, whole, found = (*RESTORE, scene.world.identity, "--apply"), None, []
    for at in moments:
        run = scene.killing.run(words, at, **more)
        made = by_name(everything(target))
        scene.killing.age(2 * 3600)
        again = scene.world.cli(*words, "--json").json
        assert len(again["created"]) + len(made) == len(everything(target))
        objects, probes = staged(scene)
        assert not probes
        after = by_name(everything(target))
        # What the killed run had made was not touched, and all that belongs to it is there.
        assert {name: after[name] for name in made} == made
        whole = whole or content(after.values())
        assert content(after.values()) == whole
        [url] = set(_URL.findall(json.dumps(list(after.values()))))
        assert f"backups{urlsplit(url).path.removeprefix('/backups')}" in objects
        found.append({"made": len(made), "staged": len(objects), "at": run.killed})
        for kind, namespace, name in after:
            [resource] = {it for it in KNOWN.values() if it.kind == kind}
            target.remove(resource, name, namespace)
        scene.killing.clear(scene.empty)
        if not run.killed:
            assert run.code == 0, run.told
            assert again["created"] == []
            return found
        assert run.code == KILLED
    raise AssertionError("it never came to its end")


@pytest.mark.soak
def test_promise_6_a_restore_that_was_killed_while_it_applied_goes_on(tmp_path):
    with backed_up(tmp_path) as (place, target):
        found = kill_applies(place, target, range(2, 999, 7), only=writes)
        assert len({one["made"] for one in found}) >= 3


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_promise_6_a_restore_that_was_killed_at_any_moment_of_applying_goes_on(tmp_path):
    with backed_up(tmp_path) as (place, target):
        found = kill_applies(place, target, range(1, 9999))
        assert len(found) > 50
