"""Which rights a command needs, and which of them we have."""

from datetime import UTC, datetime

import pytest

from backstay.errors import KubeError
from backstay.kinds.hosted.cluster import Hosted
from backstay.kinds.hosted.find import find
from backstay.kinds.hosted.keys import saved_keys
from backstay.kinds.hosted.resources import collect
from backstay.kinds.hosted.rights import RIGHTS, Right, Where, ask, needed, told
from backstay.kinds.hosted.tls import client_tls
from backstay.kubeapi.connect import connect
from backstay.kubeapi.resource import CONFIG_MAPS, DEPLOYMENTS, HOSTED_CLUSTERS, PODS, SECRETS
from kit.hosted import hosted_objects, load
from kit.kubeserver import KubeServer

HOSTED = Hosted(
    name="blue", namespace="clusters", control_plane_namespace="clusters-blue", hosted_cluster={}
)


@pytest.fixture
def kube(tmp_path):
    with KubeServer.start(tmp_path / "kube") as server:
        yield server


@pytest.fixture
def api(kube):
    with connect(kube.kubeconfig, None) as opened:
        yield opened


def _where(namespace):
    return Where.CLUSTER if namespace == "clusters" else Where.CONTROL_PLANE


def test_a_backup_asks_for_what_it_calls_and_no_verb_more(kube, api):
    """What the parts call is recorded; the table says just that."""
    load(kube, hosted_objects(shards=("events",)))
    hosted = find(api, "blue", "clusters")
    saved_keys(api, hosted)
    collect(api, hosted)
    called = {(s.verb, s.resource, s.subresource, _where(s.namespace)) for s in kube.requests}
    table = {(r.verb, r.resource.plural, r.subresource, r.where) for r in RIGHTS["backup"]}
    assert called == table


def test_the_certificates_of_etcd_ask_for_what_they_call(kube, api):
    load(kube, hosted_objects())
    hosted = find(api, "blue", "clusters")
    kube.requests.clear()
    client_tls(api, hosted, datetime.now(UTC))
    called = {(s.verb, s.resource, _where(s.namespace)) for s in kube.requests}
    assert called == {(r.verb, r.resource.plural, r.where) for r in RIGHTS["direct"]}


def test_nothing_is_changed_by_a_backup_that_does_not_quiesce():
    for command in ("backup", "direct"):
        assert {right.verb for right in RIGHTS[command]} <= {"get", "list"}
    for command in ("exec", "port-forward"):
        changing = [r for r in RIGHTS[command] if r.verb not in ("get", "list")]
        assert all(r.subresource for r in changing)


def test_no_command_may_delete_or_list_secrets():
    for rights in RIGHTS.values():
        assert all(right.verb != "delete" for right in rights)
        assert all(r.verb in ("get", "create") for r in rights if r.resource is SECRETS)


def test_needed_has_each_right_once():
    rights = needed("direct", "backup", "quiesce", "resume")
    keys = [(r.verb, r.resource, r.where, r.subresource) for r in rights]
    assert len(keys) == len(set(keys))
    # Who needs all Secrets of a namespace is not content with one.
    (secrets,) = [r for r in rights if r.resource is SECRETS and r.where is Where.CONTROL_PLANE]
    assert secrets.name == ""
    assert set(rights) == set(needed("resume", "quiesce", "backup", "direct"))


def test_all_are_there(kube, api):
    assert ask(api, HOSTED, needed("backup", "exec", "quiesce")) == ()


@pytest.mark.parametrize("command", RIGHTS)
def test_each_right_is_missed_where_it_is_denied(kube, api, command):
    rights = needed(command)
    right = rights[-1]
    kube.deny(right.verb, right.resource, right.subresource)
    lacking = ask(api, HOSTED, rights)
    assert right in lacking
    assert {(r.verb, r.what) for r in lacking} == {(right.verb, right.what)}


def test_told():
    exec_right = Right("create", PODS, Where.CONTROL_PLANE, "exec")
    assert told(exec_right, HOSTED) == "create pods/exec in clusters-blue"
    right = Right("patch", DEPLOYMENTS, Where.CONTROL_PLANE)
    assert told(right, HOSTED) == "patch deployments.apps in clusters-blue"
    assert told(Right("get", SECRETS, Where.CLUSTER), HOSTED) == "get secrets in clusters"


class OnlyNamed:
    """An API where a role names the objects that it is for."""

    def __init__(self, **allowed):
        self.allowed = allowed
        self.asked = []

    def may(self, verb, resource, namespace="", *, name="", subresource=""):
        self.asked.append((verb, resource.plural, name))
        return name in self.allowed.get(resource.plural, ())


def test_a_role_that_names_its_objects_will_do():
    rights = (
        Right("get", HOSTED_CLUSTERS, Where.CLUSTER, name="{name}"),
        Right("get", CONFIG_MAPS, Where.CONTROL_PLANE, name="etcd-ca"),
        Right("get", SECRETS, Where.CLUSTER),
    )
    api = OnlyNamed(hostedclusters=("blue",), configmaps=("etcd-ca",), secrets=("any",))
    assert ask(api, HOSTED, rights) == (rights[2],)
    assert ask(OnlyNamed(hostedclusters=("green",)), HOSTED, rights[:1]) == rights[:1]


class Silent:
    def may(self, *_, **__):
        raise KubeError("the server does not say")


def test_promise_4_a_server_that_does_not_say():
    with pytest.raises(KubeError):
        ask(Silent(), HOSTED, needed("backup"))
