"""Which rights a command needs, and which of them we have."""

from dataclasses import replace

import pytest

from backstay.errors import KubeError
from backstay.kinds.hosted.cluster import Hosted
from backstay.kinds.hosted.rights import RIGHTS, Right, Where, ask, needed
from backstay.kubeapi.resource import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    HOSTED_CLUSTERS,
    NAMESPACES,
    PODS,
    SECRETS,
)
from backstay.kubeapi.review import Wanted, lacking

HOSTED = Hosted(
    name="blue", namespace="clusters", control_plane_namespace="clusters-blue", hosted_cluster={}
)
TRANSPORTS = ("direct", "port-forward", "exec")


# The table: tests/hosted/test_deploy.py holds it to the calls that were recorded


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


def test_no_secret_of_the_control_plane_may_be_read_that_is_not_named():
    """The administrator's kubeconfigs and the cloud's credentials lie there too."""
    for rights in RIGHTS.values():
        for right in rights:
            if right.resource is SECRETS and right.where is Where.CONTROL_PLANE:
                assert right.names or right.verb == "create"


def test_what_cannot_be_named_is_not():
    """A role's resourceNames grant no list, and no creation of objects."""
    for rights in RIGHTS.values():
        for right in rights:
            if right.verb == "list" or (right.verb == "create" and not right.subresource):
                assert not right.names


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_putting_back_needs_nothing_that_quiescing_did_not(transport):
    assert set(needed("resume")) <= set(needed("backup", transport, "quiesce"))


# Several commands together


def test_needed_has_each_right_once():
    rights = needed("direct", "backup", "quiesce", "resume")
    keys = [(r.verb, r.resource, r.where, r.subresource) for r in rights]
    assert len(keys) == len(set(keys))
    # The Secrets of both commands.
    (secrets,) = [r for r in rights if r.resource is SECRETS and r.where is Where.CONTROL_PLANE]
    assert {"etcd-client-tls", "kas-secret-encryption-config"} < set(secrets.names)
    other = needed("resume", "quiesce", "backup", "direct")
    assert {replace(r, names=()) for r in other} == {replace(r, names=()) for r in rights}


def test_who_needs_any_object_is_not_content_with_some(monkeypatch):
    some, any_ = (Right("get", SECRETS, Where.CLUSTER, names=n) for n in (("a",), ()))
    monkeypatch.setattr("backstay.kinds.hosted.rights.RIGHTS", {"some": (some,), "any": (any_,)})
    assert needed("some", "any") == needed("any", "some") == (any_,)


# Asking


def test_all_are_there(api):
    assert ask(api, HOSTED, needed("backup", "exec", "quiesce")) == ()


@pytest.mark.parametrize("command", RIGHTS)
def test_each_right_is_missed_where_it_is_denied(kube, api, command):
    rights = needed(command)
    right = rights[-1]
    kube.deny(right.verb, right.resource, right.subresource)
    denied = ask(api, HOSTED, rights)
    assert right.wanted(HOSTED) in denied
    assert {(w.verb, w.resource, w.subresource) for w in denied} == {
        (right.verb, right.resource, right.subresource)
    }


def test_a_role_that_names_its_objects_will_do(kube, api):
    rights = (
        Right("get", HOSTED_CLUSTERS, Where.CLUSTER, names=("{name}",)),
        Right("get", CONFIG_MAPS, Where.CONTROL_PLANE, names=("etcd-ca",)),
        Right("create", PODS, Where.CONTROL_PLANE, "exec", ("etcd-0", "etcd-1")),
        Right("get", SECRETS, Where.CLUSTER),
    )
    group = HOSTED_CLUSTERS.group
    named = [
        rule("get", "secrets", "any"),
        rule("get", "hostedclusters", "blue", group=group),
        rule("get", "configmaps", "etcd-ca"),
        rule("create", "pods/exec", "etcd-0"),
    ]
    kube.only(named)
    assert list(map(str, ask(api, HOSTED, rights))) == [
        # Of the names just those that are denied.
        "create pods/exec in clusters-blue (etcd-1)",
        # Some will not do where it may be any.
        "get secrets in clusters",
    ]


def test_it_is_asked_about_the_namespace_that_is_meant(kube, api):
    rights = tuple(Right("list", PODS, where) for where in Where)
    kube.only([rule("list", "pods")], "clusters-blue")
    assert [w.namespace for w in ask(api, HOSTED, rights)] == ["clusters"]


def rule(verb, resource, *names, group=""):
    made = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
    return made | ({"resourceNames": list(names)} if names else {})


class Silent:
    def may(self, *_, **__):
        raise KubeError("the server does not say")


def test_promise_4_a_server_that_does_not_say():
    with pytest.raises(KubeError):
        ask(Silent(), HOSTED, needed("backup"))


# Telling


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("create", PODS, "ns", "exec"), "create pods/exec in ns"),
        (Wanted("patch", DEPLOYMENTS, "ns"), "patch deployments.apps in ns"),
        (Wanted("create", NAMESPACES, ""), "create namespaces"),
        (Wanted("get", SECRETS, "ns", names=("a", "b")), "get secrets in ns (a, b)"),
        (
            Wanted("get", SECRETS, "ns", names=tuple("abcdef")),
            "get secrets in ns (a, b, c, d, e, ...)",
        ),
    ],
)
def test_told(wanted, words):
    assert str(wanted) == words


def test_lacking_takes_what_is_in_no_namespace(kube, api):
    assert lacking(api, [Wanted("create", NAMESPACES, "")]) == ()
    kube.deny("create", NAMESPACES)
    assert list(map(str, lacking(api, [Wanted("create", NAMESPACES, "")]))) == ["create namespaces"]
