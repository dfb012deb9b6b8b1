"""A control plane that is quiesced for its backup, by the command line, with its operator at work.

What writes to etcd here is a thread that lives as long as kube-apiserver has pods.
"""

import os
import signal
import threading
from contextlib import contextmanager

import pytest

from backstay.client.etcd import Etcd as Client
from backstay.kinds.hosted.quiescing.quiesce import Options
from backstay.kubeapi.resource import DEPLOYMENTS, HOSTED_CLUSTERS, NODE_POOLS
from kit import process
from kit.world import hosted_world

KEY = b"/kubernetes.io/leases/kube-system/of-a-writer"


@pytest.fixture
def world(tmp_path):
    with hosted_world(tmp_path) as world:
        yield world


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Be quiet for less than 5 seconds, so that tests are not."""
    monkeypatch.setitem(Options.__init__.__kwdefaults__, "quiet", 0.3)
    monkeypatch.setitem(Options.__init__.__kwdefaults__, "poll", 0.1)


class Writer:
    """Writes to etcd for as long as it may."""

    def __init__(self, etcd, may):
        self.etcd, self.may = etcd, may
        self.revisions = []
        self.ending = threading.Event()

    def run(self):
        with Client(self.etcd.access) as client:
            while not self.ending.wait(0.02):
                if self.may():
                    self.revisions.append(client.put(KEY, b"%d" % len(self.revisions)))


@contextmanager
def writing(world, may):
    """Have something write until the block ends."""
    writer = Writer(world.etcd, may)
    thread = threading.Thread(target=writer.run, daemon=True)
    thread.start()
    try:
        process.wait_until(lambda: writer.revisions)
        yield writer
    finally:
        writer.ending.set()
        thread.join(20)


def apiserver_runs(bench):
    return lambda: any(name.startswith("kube-apiserver") for name in bench.pods())


def changes(kube, since=0):
    """What was asked for that changes something."""
    return [
        (seen.verb, seen.resource)
        for seen in kube.requests[since:]
        if seen.verb not in {"get", "list"} and seen.resource != "selfsubjectaccessreviews"
    ]


def test_promise_3_quiesced_it_holds_all_that_was_written_and_is_put_back(world):
    bench = world.operated()
    before, replicas = bench.state(), bench.replicas()
    stopped = []
    world.kube.after_request = lambda *_: stopped.append(set(bench.replicas().values()) == {0})
    with writing(world, apiserver_runs(bench)) as writer:
        began = len(writer.revisions)

        def put_back(number, seen):
            # The first change after the scaling down is that of putting back: all is written.
            if seen.verb == "patch" and set(bench.replicas().values()) == {0}:
                written.append(writer.revisions[-1])

        written = []
        world.kube.on_request = put_back
        manifest = world.backup("--quiesce", "--json").json
        world.kube.on_request = world.kube.after_request = None
        # The API server came back, and goes on.
        process.wait_until(lambda: writer.revisions[-1] > written[-1])
    assert began
    assert any(stopped)
    assert manifest["hosted"]["quiesced"] is True
    assert 0 < manifest["hosted"]["api_downtime"] < 60
    # Nothing was written after the last that is in the snapshot, until it was put back.
    assert manifest["revision"] == written[0]
    assert bench.replicas() == replicas
    assert bench.state() == before
    [listed] = world.cli("list", "--json").json
    assert listed["id"] == manifest["id"]


def test_by_default_nothing_is_changed_and_the_api_is_never_down(world):
    bench = world.operated()
    before = bench.state()
    with writing(world, apiserver_runs(bench)):
        began = len(world.kube.requests)
        manifest = world.backup("--json").json
        assert changes(world.kube, began) == []
    assert (manifest["hosted"]["quiesced"], manifest["hosted"]["api_downtime"]) == (None, None)
    assert bench.state() == before


def test_promise_3_what_never_stops_to_write_ends_it_and_all_is_put_back(world):
    bench = world.operated()
    before = bench.state()
    with writing(world, lambda: True):
        done = world.backup("--quiesce", "--quiesce-timeout", "4s", expect=1)
    assert "did not become quiet in 4 s" in done.err
    assert "under /kubernetes.io/leases/..." in done.err
    assert "of-a-writer" not in done.err
    assert bench.state() == before
    assert world.cli("list", "--json").json == []
    assert not list((world.folder / "keys").rglob("keyring*"))


def test_a_pause_that_does_not_hold_makes_no_quiesced_backup(world):
    bench = world.operated()
    before = bench.state()

    def meddle(_, seen):
        """Somebody takes the pause away while the snapshot comes, before we look at it again."""
        asked = (seen.verb, seen.resource) == ("get", "hostedclusters")
        if asked and not done and not bench.pods() and set(bench.replicas().values()) == {0}:
            done.append(True)
            spec = {"spec": {"pausedUntil": None}}
            world.kube.patch(HOSTED_CLUSTERS, "blue", spec, "clusters")

    done = []
    world.kube.on_request = meddle
    told = world.backup("--quiesce", "--json", expect=4)
    assert done
    assert told.json["hosted"]["quiesced"] is False
    verdicts = {check["name"]: check["verdict"] for check in told.json["checks"]}
    assert verdicts["quiesced"] == "COULD NOT VERIFY"
    assert {verdicts[name] for name in ("transfer", "content", "keys")} == {"PASS"}
    assert "this snapshot is not quiesced" in told.err
    assert bench.state() == before


@pytest.mark.parametrize(
    ("number", "code", "resource"),
    [(signal.SIGTERM, 143, DEPLOYMENTS), (signal.SIGINT, 130, NODE_POOLS)],
)
def test_promise_3_stopped_in_the_middle_it_puts_back(world, number, code, resource):
    bench = world.operated()
    before = bench.state()
    children = []

    def act(_, seen):
        if (seen.verb, seen.resource) == ("patch", resource.plural) and children:
            os.kill(children.pop().pid, number)

    world.kube.on_request = act
    words = (*world.words, "--quiesce")
    child = process.start(words, world.folder, world.cli.variables)
    children.append(child)
    _, err = child.communicate(timeout=60)
    world.kube.on_request = None
    assert not children
    assert child.returncode == code, err
    bench.settle()
    assert bench.state() == before
    assert world.cli("list", "--json").json == []


def test_promise_3_a_snapshot_that_breaks_puts_back(world):
    bench = world.operated()
    before = bench.state()

    def act(_, seen):
        if (seen.verb, seen.resource) == ("patch", "deployments"):
            scaled.append(seen.name)
            if len(scaled) == len(bench.replicas()):
                world.etcd.kill()

    scaled = []
    world.kube.on_request = act
    done = world.backup("--quiesce", "--quiesce-timeout", "60s", expect=None)
    assert len(scaled) >= len(bench.replicas())
    assert done.code == 1, done
    assert bench.state() == before
    assert world.cli("list", "--json").json == []


def test_by_exec_nobody_could_see_whether_it_is_quiet_so_it_is_refused(world):
    bench = world.operated()
    before = bench.state()
    began = len(world.kube.requests)
    done = world.backup("--quiesce", "--transport", "exec", expect=2)
    assert "--transport port-forward or direct" in done.err
    assert changes(world.kube, began) == []
    assert world.streams.opened == []
    assert bench.state() == before


def test_where_it_may_not_be_paused_nothing_was_touched(world):
    bench = world.operated()
    before = bench.state()
    world.kube.deny("patch", HOSTED_CLUSTERS)
    world.backup("--quiesce", expect=1)
    assert bench.state() == before
    assert world.cli("list", "--json").json == []
