"""The roles that are shipped are what the code asks for, no verb more and none less.

The command lines are run, with everything real but Kubernetes, by who has just these roles; what
they asked for is what the table of `rights` says, and the table is what the roles say.
"""

import re
import signal
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from backstay.cli.main import main
from backstay.cli.stop import Stop
from backstay.client.endpoint import Endpoint, Scheme
from backstay.client.etcd import Etcd as Client
from backstay.kinds.hosted.belongings.resources import PKI
from backstay.kinds.hosted.reach import transport
from backstay.kinds.hosted.rights import RIGHTS, needed
from backstay.kubeapi.resource import SECRETS
from backstay.kubedata.keyname import key_name
from kit import kube, s3
from kit.cli import Cli, environment
from kit.etcd import Etcd, free_port
from kit.hosted import TARGET, secret
from kit.newcluster import new_cluster
from kit.process import wait_until
from kit.quiescing import Bench
from kit.rbac import Grant, grants, held_to, kinds, read, recorded, rules_of
from kit.recorder import last_recorded
from kit.world import CLUSTER, hosted_world, keys_of

FOLDER = Path(__file__).parents[2] / "deploy" / "hosted"
DOCUMENTS = read(FOLDER)
INSIDE = "clusters-blue"
ACCOUNT = ("ServiceAccount", "backstay", "backstay")
OPERATORS = ("Group", "backstay-operators")
RESTORERS = ("Group", "backstay-restorers")
LATE = b"/kubernetes.io/secrets/default/late"
PREFLIGHT = ("preflight", "hosted", "blue", "-n", "clusters")


def table(*commands):
    """What the table of rights says of cluster `blue`."""
    found = set()
    for right in needed(*commands):
        namespace = "clusters" if right.where == "hc" else INSIDE
        kind = (namespace, right.verb, right.resource.group, right.resource.plural)
        names = [name.format(name="blue") for name in right.names] or [""]
        found |= {Grant(*kind, right.subresource, name) for name in names}
    return found


def flat(rules):
    """What rules with their namespaces grant."""
    found = set()
    for namespace, rule in rules:
        version = "rbac.authorization.k8s.io/v1"
        found |= grants(
            {"apiVersion": version, "metadata": {"namespace": namespace}, "rules": [rule]}
        )
    return found


def assert_just(asked, commands, but=frozenset()):
    """What was asked for is the table of some commands; `but` of it was not asked for."""
    wanted = table(*commands)
    assert {g for g in asked if not {g, g.any_name} & wanted} == set()
    named = asked | {g.any_name for g in asked}
    assert {g for g in wanted if g not in named} == set(but)


# The table and the roles


@pytest.mark.parametrize("command", RIGHTS)
def test_the_roles_of_a_command_are_its_rights_no_verb_more(command):
    roles = [r for r in kinds(DOCUMENTS, "Role") if role_name(command) == r["metadata"]["name"]]
    assert set.union(*map(grants, roles)) == table(command)


def role_name(command):
    return f"backstay-{command}-blue"


def test_there_is_no_other_role_and_none_for_all_namespaces():
    names = {role["metadata"]["name"] for role in kinds(DOCUMENTS, "Role")}
    assert names == set(map(role_name, RIGHTS))
    assert not kinds(DOCUMENTS, "ClusterRole") + kinds(DOCUMENTS, "ClusterRoleBinding")
    assert {role["metadata"]["namespace"] for role in kinds(DOCUMENTS, "Role")} == {
        "clusters",
        INSIDE,
    }


@pytest.mark.parametrize(
    ("subject", "commands"),
    [
        (ACCOUNT, ("backup", "direct")),
        (OPERATORS, ("backup", "port-forward", "quiesce", "resume")),
        (RESTORERS, ("restore", "port-forward")),
    ],
)
def test_who_is_bound_to_what(subject, commands):
    granted = flat(rules_of(DOCUMENTS, *subject))
    assert granted == set().union(*(table(command) for command in commands))


def test_nobody_else_is_bound_to_anything():
    bound = [s for b in kinds(DOCUMENTS, "RoleBinding") for s in b["subjects"]]
    assert {(s["kind"], s["name"]) for s in bound} == {ACCOUNT[:2], OPERATORS, RESTORERS}


def test_the_account_changes_nothing_and_reads_no_secret_by_listing():
    granted = flat(rules_of(DOCUMENTS, *ACCOUNT))
    assert {grant.verb for grant in granted} == {"get", "list"}
    assert {grant.resource for grant in granted if grant.verb == "list"} == {"nodepools", "pods"}


# The table and the calls: each command by who has just its roles


class Inside(transport.Network):
    """The network of a pod: Services and pods have names."""

    etcds: ClassVar = {}

    def route(self, endpoint):
        first = endpoint.host.partition(".")[0]
        etcd = self.etcds["etcd-0" if first == "etcd-client" else first]
        return Endpoint(Scheme.HTTPS, "localhost", etcd.port)

    def problem(self, endpoint):
        return super().problem(self.route(endpoint))


def in_a_pod(world, monkeypatch):
    monkeypatch.setattr(transport, "Network", type("Here", (Inside,), {"etcds": world.etcds}))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A control plane of three members, with all signers that any release has."""
    with hosted_world(tmp_path_factory.mktemp("world"), members=3) as world:
        for name in PKI:
            if world.kube.get(SECRETS, name, INSIDE) is None:
                world.kube.put(secret(INSIDE, name, {"tls.crt": b"of a signer"}))
        yield world


def by(world, subject):
    return held_to(world.kube, rules_of(DOCUMENTS, *subject))


def bound_to(*commands):
    """The rules of roles that nobody is bound to by default."""
    names = set(map(role_name, commands))
    roles = [role for role in kinds(DOCUMENTS, "Role") if role["metadata"]["name"] in names]
    return [(role["metadata"]["namespace"], rule) for role in roles for rule in role["rules"]]


def test_the_cronjob_does_what_it_says_with_the_roles_of_its_account(world, monkeypatch):
    in_a_pod(world, monkeypatch)
    recipient = world.identity.read_text().split("public key: ")[1].split()[0]
    words = [re.sub("AGE_(KEYS_)?RECIPIENT", recipient, word) for word in container()["args"]]
    # Its root can't be written to: nothing but the spool may be.
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with by(world, ACCOUNT) as began:
        world.cli(*words)
    assert_just(recorded(world.kube, began), ("backup", "direct"))
    [listed] = world.cli("list", "--json").json
    assert (listed["cluster"], listed["hosted"]["transport"]) == (CLUSTER, "direct")
    assert {check["verdict"] for check in listed["checks"]} == {"PASS"}


def test_the_recorder_does_what_it_says_with_the_roles_of_its_account(world, monkeypatch):
    in_a_pod(world, monkeypatch)
    recipient = world.identity.read_text().split("public key: ")[1].split()[0]
    [deployment] = kinds(DOCUMENTS, "Deployment")
    [found] = deployment["spec"]["template"]["spec"]["containers"]
    words = [re.sub("AGE_(KEYS_)?RECIPIENT", recipient, word) for word in found["args"]]
    words = [f"--listen=127.0.0.1:{free_port()}" if "--listen" in w else w for w in words]
    # Sooner than in a pod.
    words += ["--every=300ms", "--full-every=3s"]
    before = len(world.cli("list", "--json").json)
    with by(world, ACCOUNT) as began, recording(world, words):
        wait_until(lambda: len(world.cli("list", "--json").json) > before, 60)
        # A key that is new: it looks for it, with the same rights.
        with Client(world.etcd.access) as client:
            value = kube.sealed("aescbc", key_name(TARGET), TARGET, b"x", LATE)
            head = client.put(LATE, value)
        wait_until(lambda: last_recorded(world.cli, CLUSTER) >= head, 60)
    assert_just(recorded(world.kube, began), ("backup", "direct"))
    # No other test knows that key.
    with Client(world.etcd.access) as client:
        client.delete(LATE)


@contextmanager
def recording(world, words):
    """Run a recorder in a thread, as its pod would."""
    stop, codes = Stop(), []
    with environment(world.cli.variables):
        thread = threading.Thread(target=lambda: codes.append(main(words, stop)))
        thread.start()
        try:
            yield
        finally:
            stop._come(signal.SIGTERM, None)
            thread.join(60)
    assert codes == [0]


def container():
    """What the CronJob runs."""
    [cronjob] = kinds(DOCUMENTS, "CronJob")
    [found] = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return found


def streamed(subresource):
    """Asked for by Kubernetes from 1.35 on, beside the `get` of a WebSocket."""
    names = ("etcd-0", "etcd-1", "etcd-2")
    return {Grant(INSIDE, "create", "", "pods", subresource, name) for name in names}


def test_from_an_administrators_machine(world):
    with by(world, OPERATORS) as began:
        world.backup("--transport", "port-forward")
    asked = recorded(world.kube, began)
    assert_just(asked, ("backup", "port-forward"), streamed("portforward"))


def test_by_exec_without_the_clients_certificate(world):
    with held_to(world.kube, bound_to("backup", "exec")) as began:
        world.backup("--transport", "exec")
    asked = recorded(world.kube, began)
    assert_just(asked, ("backup", "exec"), streamed("exec"))
    assert not [g for g in asked if g.name == "etcd-client-tls"]


def test_a_preflight_passes_and_asks_for_no_more_than_the_backup(world, monkeypatch):
    in_a_pod(world, monkeypatch)
    words = ("preflight", *container()["args"][1:5])
    with by(world, ACCOUNT) as began:
        world.cli(*words)
    wanted = table("backup", "direct")
    assert all({grant, grant.any_name} & wanted for grant in recorded(world.kube, began))


def test_a_preflight_by_exec_takes_the_role_of_exec_alone(world):
    with held_to(world.kube, bound_to("backup", "exec")) as began:
        looked = world.cli(*PREFLIGHT, "--transport", "exec", "--json").json
    assert {check["verdict"] for check in looked["checks"]} == {"PASS"}
    wanted = table("backup", "exec")
    assert all({grant, grant.any_name} & wanted for grant in recorded(world.kube, began))


def test_a_preflight_tells_of_each_role_that_is_missing(world):
    with held_to(world.kube, bound_to("backup")):
        looked = world.cli(*PREFLIGHT, expect=3)
    assert "get secrets in clusters-blue (etcd-client-tls)" in looked.err
    assert "get pods/portforward in clusters-blue (etcd-0, etcd-1, etcd-2)" in looked.err


def test_quiescing(world):
    world.operated(replicas=3)
    with by(world, OPERATORS) as began:
        manifest = world.backup("--transport", "port-forward", "--quiesce", "--json").json
    assert manifest["hosted"]["quiesced"] is True
    asked = recorded(world.kube, began)
    assert_just(asked, ("backup", "port-forward", "quiesce"), streamed("portforward"))


def test_resuming_takes_its_own_role_alone(tmp_path):
    with (
        Etcd.start(tmp_path / "etcd", tls=None) as etcd,
        Bench.start(tmp_path, etcd, members=1) as bench,
    ):
        before = bench.state()
        quiesce = bench.quiesce()
        quiesce.__enter__()
        # As a kill leaves it.
        quiesce._keeper.close()
        quiesce._open.close()
        assert bench.state() != before
        cli = Cli(tmp_path, {"KUBECONFIG": str(bench.kube.kubeconfig)})
        with held_to(bench.kube, bound_to("resume")) as began:
            cli("resume", "hosted", "blue", "-n", "clusters")
        assert bench.state() == before
        assert_just(recorded(bench.kube, began), ("resume",))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3.over_tls(tmp_path_factory.mktemp("s3")) as server:
        yield server


def test_restoring(world, server, tmp_path):
    trusted = server.environment["AWS_CA_BUNDLE"]
    world.backup("--transport", "port-forward")
    with new_cluster(tmp_path, members=3, ca=Path(trusted)) as new:
        for name in ("clusters", INSIDE):
            new.kube.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        with held_to(new.kube, rules_of(DOCUMENTS, *RESTORERS)) as began:
            done = world.cli(
                *("restore", "hosted", f"{CLUSTER}/latest", "--from-backup", "--apply", "--wait"),
                *("--staging", "s3://backups/staging", "--identity", world.identity, "--json"),
                **server.environment,
                **new.variables,
                SSL_CERT_FILE=trusted,
            ).json
        asked = recorded(new.kube, began)
    assert {check["verdict"] for check in done["checks"]} == {"PASS"}
    # What is tried, and done without: Namespaces that may not be seen are taken to be there, and
    # other clusters would only tell beforehand what this release's etcd-init can't do.
    group = "hypershift.openshift.io"
    tried = {
        *(Grant("", "get", "", "namespaces", "", name) for name in ("clusters", INSIDE)),
        Grant("clusters", "list", group, "hostedclusters"),
    }
    assert tried <= asked
    assert_just(asked - tried, ("restore", "port-forward"), streamed("portforward"))


# What only some clusters need


def test_shards_need_their_own_names(tmp_path):
    """docs say: add them to the names in the roles."""
    with hosted_world(tmp_path, shards=("events",)) as world:
        world.backup("--transport", "port-forward")
        wanted = table("backup", "port-forward")
        more = {g for g in recorded(world.kube) if not {g, g.any_name} & wanted}
    assert more == {
        Grant(INSIDE, "get", "apps", "statefulsets", "", "etcd-events"),
        Grant(INSIDE, "get", "", "pods", "portforward", "etcd-events-0"),
    }


@pytest.mark.parametrize("kind", ["unmanaged", "rotating", "key-replaced"])
def test_other_clusters_need_nothing_more(tmp_path, monkeypatch, kind):
    options = {
        "unmanaged": {"unmanaged": True},
        "rotating": {
            "fixture": "kube-aescbc-rotation",
            "keys": keys_of("kube-aescbc-rotation")[::-1],
            "rotating": True,
        },
        "key-replaced": {},
    }[kind]
    with hosted_world(tmp_path, **options) as world:
        if kind == "key-replaced":
            # It still is in what kube-apiserver reads, and so it is saved.
            world.kube.put(secret("clusters", "blue-etcd-encryption-key", {"key": b"n" * 32}))
        if kind != "unmanaged":
            in_a_pod(world, monkeypatch)
        with by(world, ACCOUNT):
            manifest = world.backup("--transport", "direct", "--json").json
        assert {check["verdict"] for check in manifest["checks"]} == {"PASS"}
