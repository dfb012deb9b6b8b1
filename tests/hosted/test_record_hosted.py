"""`record hosted`: what a hosted control plane's etcd is told, and the keys that it comes under."""

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.kubedata.keyname import key_name
from backstay.repo.catalogue import Repository
from backstay.repo.keyring import headers
from backstay.repo.stores.file import FileStore
from kit import kube
from kit.hosted import TARGET, hosted_objects, load
from kit.rbac import held_to
from kit.recorder import last_recorded, running
from kit.world import CLUSTER, NAME, NAMESPACE, hosted_world, keys_of

WORDS = ("hosted", NAME, "-n", NAMESPACE, "--transport", "port-forward")
SECRET = b"/kubernetes.io/secrets/default/late"


@pytest.fixture
def world(tmp_path):
    with hosted_world(tmp_path) as world:
        world.cli.variables["BACKSTAY_IDENTITY"] = str(world.identity)
        yield world


def put(world, key, value):
    with Client(world.etcd.access) as client:
        return client.put(key, value)


def encrypted(raw):
    """A Secret as kube-apiserver writes it under a key."""
    return kube.sealed("aescbc", key_name(raw), raw, kube.secret("late", "default"), SECRET)


def rotate(world):
    """The operator goes over to another key."""
    [old] = keys_of("kube-aescbc")
    objects = hosted_objects(
        NAME, NAMESPACE, members=1, tls=world.etcd.tls, keys=(old, TARGET), rotating=True
    )
    load(world.kube, objects)


def saved(world):
    """Keyrings of the repository for keys: those of backups, and those of recorders."""
    found = headers(Repository.open(FileStore(world.folder / "keys")))
    return (
        [one for one in found if not one.header.lineage],
        [one for one in found if one.header.lineage],
    )


def fulls(world):
    """The backups, newest first."""
    return sorted(world.cli("list", "--json").json, key=lambda one: one["revision"], reverse=True)


def test_it_records_what_comes_and_a_point_of_it_opens_with_the_saved_keys(world):
    with running(world.cli, *WORDS) as recorder:
        recorder.until(lambda: last_recorded(world.cli, CLUSTER))
        [key] = keys_of("kube-aescbc")
        put(world, SECRET, encrypted(key))
        head = put(world, b"/later", b"2")
        recorder.until(lambda: last_recorded(world.cli, CLUSTER) >= head)
    [full] = fulls(world)
    assert full["kind"] == "hosted"
    assert {check["name"]: check["verdict"] for check in full["checks"]}["keys"] == "PASS"
    assert full["revision"] < head
    # The key is that of the backup: nothing more is saved.
    ofbackups, ofrecorders = saved(world)
    assert len(ofbackups) == 1
    assert ofrecorders == []
    world.cli("export", f"{CLUSTER}/latest", "--to-revision", head, "-o", "there.db")
    assert world.cli("status", "there.db", "-w", "json").json["revision"] == head
    # It goes on where it ended, and makes no other backup.
    with running(world.cli, *WORDS) as recorder:
        head = put(world, b"/later", b"3")
        recorder.until(lambda: last_recorded(world.cli, CLUSTER) >= head)
    assert len(fulls(world)) == 1
    [found] = world.cli("timeline", "--json").json
    assert len(found["lineages"]) == 1
    assert found["lineages"][0]["missing"] == []


def keys_verdict(world, path):
    keys = world.cli.variables["BACKSTAY_KEYS_REPO"]
    found = world.cli("verify", path, "--keys-repo", keys, "--json", expect=None).json
    return {check["name"]: check["verdict"] for check in found["checks"]}["keys"]


def test_promise_5_a_new_key_is_saved_before_the_changes_that_need_it_are(world):
    with running(world.cli, *WORDS) as recorder:
        recorder.until(lambda: last_recorded(world.cli, CLUSTER))
        base = fulls(world)[0]["id"]
        before = put(world, b"/before", b"1")
        recorder.until(lambda: last_recorded(world.cli, CLUSTER) >= before)
        rotate(world)
        head = put(world, SECRET, encrypted(TARGET))
        recorder.until(lambda: last_recorded(world.cli, CLUSTER) >= head)
        # It is stored: so the key is.
        _, [keyring] = saved(world)
        assert key_name(TARGET) in {label.key_name for label in keyring.header.keys}
        recorder.says(f"{CLUSTER}/{keyring.header.name}")
        # A backup that has both keys comes at once.
        recorder.until(lambda: len(fulls(world)) == 2)
    newest = fulls(world)[0]
    # What that backup sweeps, it is not.
    assert [one.header.name for one in saved(world)[1]] == [keyring.header.name]
    assert newest["hosted"]["rotating"]
    assert {check["name"]: check["verdict"] for check in newest["checks"]}["keys"] == "PASS"
    assert keyring.header.lineage == newest["snapshots"][0]["lineage"]
    # The old backup and the delta make a snapshot that opens with what was saved.
    done = world.cli("export", base, "--to-revision", head, "-o", "there.db", "--json")
    assert done.json["point"]["deltas"] > 0
    assert keys_verdict(world, "there.db") == "PASS"
    for path in (world.folder / "keys").rglob("*"):
        if path.name.startswith(keyring.header.name):
            path.unlink()
    for path in (world.folder / "keys").rglob("*"):
        if path.name.startswith(newest["id"].split("/")[1].split("-r")[0]):
            path.unlink()
    assert keys_verdict(world, "there.db") != "PASS"


def test_promise_5_what_needs_a_key_that_cannot_be_saved_waits(world):
    with running(world.cli, *WORDS) as recorder:
        recorder.until(lambda: last_recorded(world.cli, CLUSTER))
        rotate(world)
        # The API lets it read nothing.
        with held_to(world.kube, ()) as began:
            head = put(world, SECRET, encrypted(TARGET))
            recorder.says("a delta can't be stored")
            recorder.until(lambda: len(world.kube.requests) >= began + 3)
            assert last_recorded(world.cli, CLUSTER) < head
            assert saved(world)[1] == []
        recorder.until(lambda: last_recorded(world.cli, CLUSTER) >= head)
        recorder.says("deltas are stored again")
    assert len(saved(world)[1]) == 1


def test_a_key_that_the_cluster_does_not_have_is_told_and_nothing_is_held_back(world):
    with running(world.cli, *WORDS) as recorder:
        recorder.until(lambda: last_recorded(world.cli, CLUSTER))
        head = put(world, SECRET, encrypted(TARGET))
        recorder.until(lambda: last_recorded(world.cli, CLUSTER) >= head)
        recorder.says(f"encrypted with the key {key_name(TARGET)!r}")
    assert saved(world)[1] == []


def test_a_member_that_comes_back_is_watched_on(world):
    with running(world.cli, *WORDS, "--patience", "2s") as recorder:
        recorder.until(lambda: last_recorded(world.cli, CLUSTER))
        world.etcd.kill()
        recorder.says("another one begins")
        world.etcd.launch()
        head = put(world, b"/later", b"2")
        recorder.until(lambda: last_recorded(world.cli, CLUSTER) >= head)
    assert len(fulls(world)) == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--transport", "exec"), 2, "exec"),
        (("--every", "0s"), 2, "--every"),
        (("--cluster", "NO"), 2, "no name for a cluster"),
        (("--keys-repo", "file:///nowhere"), 1, "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(world, words, code, told):
    assert told in world.cli("record", *WORDS, *words, expect=code).err


def test_of_several_etcds_none_is_recorded_for_all(tmp_path):
    with hosted_world(tmp_path, shards=("events",)) as world:
        assert "2 etcds" in world.cli("record", *WORDS, expect=2).err


def consolidate(world, *words, expect=0):
    return world.cli("consolidate", "--cluster", CLUSTER, *words, "--json", expect=expect)


def test_promise_5_a_consolidated_backup_has_keys_of_its_own_and_needs_no_other(world):
    with running(world.cli, *WORDS) as recorder:
        recorder.until(lambda: last_recorded(world.cli, CLUSTER))
        [key] = keys_of("kube-aescbc")
        put(world, SECRET, encrypted(key))
        head = put(world, b"/later", b"2")
        recorder.until(lambda: last_recorded(world.cli, CLUSTER) >= head)
    [base] = fulls(world)
    keys = world.cli.variables.pop("BACKSTAY_KEYS_REPO")
    assert "--keys-repo" in consolidate(world, expect=2).err
    made = consolidate(world, "--keys-repo", keys).json["manifest"]
    assert (made["kind"], made["revision"], made["base"]) == ("hosted", head, base["id"])
    assert {check["verdict"] for check in made["checks"]} == {"PASS"}
    assert made["hosted"]["release_image"] == base["hosted"]["release_image"]
    assert made["keyring"]["digest"] != base["keyring"]["digest"]
    assert [item["role"] for item in made["objects"]] == ["snapshot", "resources.yaml"]
    # The old one goes, keys and all.
    name = base["id"].split("/")[1]
    run = name.split("-r")[0] + name[-5:]
    gone = [
        path
        for place in ("data", "keys")
        for path in (world.folder / place).rglob("*")
        if path.is_file() and {name, run} & {part.split(".")[0] for part in path.parts}
    ]
    assert len(gone) >= 4
    for path in gone:
        path.unlink()
    found = world.cli(
        "verify", made["id"], "--read-data", "--keys-repo", keys, "--json", expect=None
    ).json
    assert {check["name"]: check["verdict"] for check in found["checks"]}["keys"] == "PASS"
    assert world.cli("show", made["id"]).out


def test_what_came_under_another_key_is_not_consolidated_with_the_old_ones(world):
    with running(world.cli, *WORDS) as recorder:
        recorder.until(lambda: last_recorded(world.cli, CLUSTER))
        head = put(world, SECRET, encrypted(TARGET))
        recorder.until(lambda: last_recorded(world.cli, CLUSTER) >= head)
    before = fulls(world)
    done = consolidate(world, expect=None)
    assert done.code in {1, 3}
    assert "backstay backup hosted" in done.err
    assert fulls(world) == before
    assert len(saved(world)[0]) == 1
