"""Etcd keys of objects: prefix, resource, namespace, name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.kubedata.envelope import Unreadable, read_envelope
from backstay.kubedata.keypath import parse_path
from backstay.kubedata.objects import misplaced, read_object
from backstay.kubedata.resource import BY_PATH, Resource, api_server, path_segment
from kit import kube


@pytest.mark.parametrize(
    ("key", "prefix", "resource", "namespace", "name"),
    [
        ("/registry/secrets/ns/a", "/registry", "secrets", "ns", "a"),
        ("/kubernetes.io/secrets/ns/a", "/kubernetes.io", "secrets", "ns", "a"),
        ("/registry/namespaces/a", "/registry", "namespaces", "", "a"),
        ("/registry/namespaces/secrets", "/registry", "namespaces", "", "secrets"),
        ("/registry/pods/secrets/a", "/registry", "pods", "secrets", "a"),
        ("/registry/deployments/ns/a", "/registry", "deployments.apps", "ns", "a"),
        ("/registry/minions/a.b", "/registry", "nodes", "", "a.b"),
        ("/registry/services/specs/ns/a", "/registry", "services", "ns", "a"),
        ("/registry/services/endpoints/ns/a", "/registry", "endpoints", "ns", "a"),
        ("/registry/x.io/secrets/ns/a", "/registry", "secrets.x.io", "ns", "a"),
        ("/registry/x.io/widgets/a", "/registry", "widgets.x.io", "", "a"),
        (
            "/registry/apiregistration.k8s.io/apiservices/v1.apps",
            *("/registry", "apiservices.apiregistration.k8s.io", "", "v1.apps"),
        ),
        ("/openshift.io/routes/ns/a", "/openshift.io", "routes.route.openshift.io", "ns", "a"),
        (
            "/openshift.io/oauth/accesstokens/sha256~x",
            *("/openshift.io", "oauthaccesstokens.oauth.openshift.io", "", "sha256~x"),
        ),
        (
            "/openshift.io/useridentities/ldap:x",
            *("/openshift.io", "identities.user.openshift.io", "", "ldap:x"),
        ),
        ("/my/own/prefix/secrets/ns/a", "/my/own/prefix", "secrets", "ns", "a"),
        ("/my/own/namespaces/a", "/my/own", "namespaces", "", "a"),
        ("/registry/gadgets/ns/a", "/registry", "gadgets", "ns", "a"),
        ("/registry/gadgets/a.b.c", "/registry", "gadgets", "", "a.b.c"),
        ("/registry/ranges/serviceips", "/registry", "ranges", "", "serviceips"),
    ],
)
def test_paths(key, prefix, resource, namespace, name):
    found = parse_path(key.encode())
    assert (found.prefix, str(found.resource)) == (prefix, resource)
    assert (found.namespace, found.name) == (namespace, name)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"/",
        b"compact_rev_key",
        b"/registry",
        b"/registry/secrets",
        b"/registry/secrets/",
        b"/registry/secrets/ns/",
        b"/registry/secrets//a",
        b"//secrets/ns/a",
        b"/registry/secrets/ns/a/b",
        b"/a/b/c/d/e/f",
        b"/registry/secrets/ns/\xff",
        b"registry/secrets/ns/a",
    ],
)
def test_other_keys_are_none(key):
    assert parse_path(key) is None


@pytest.mark.parametrize("name", kube.ALL)
def test_each_object_of_a_real_snapshot_says_itself_what_its_path_says(name):
    seen = set()
    with kube.real_snapshot(name) as snapshot:
        for _, version in kube.versions(snapshot):
            if not version.value or version.value.startswith(b"k8s:enc:"):
                continue
            path = parse_path(version.key)
            if path is None:
                assert version.key == b"compact_rev_key"
                assert isinstance(read_envelope(version.value), Unreadable)
                continue
            found = read_object(version.value)
            assert misplaced(found, path) == ""
            assert path.prefix == "/kubernetes.io"
            if path.resource.plural != "ranges":
                group = found.api_version.rpartition("/")[0]
                assert path.resource.group == group, version.key
                assert path.resource.plural.startswith(found.kind.lower()[:-1]), version.key
                seen.add(path.resource)
    assert len(seen) >= 12


def test_each_known_resource_is_found_under_its_path_and_has_its_word_in_it():
    for path, resource in BY_PATH.items():
        key = f"/registry/{path}/ns/name".encode()
        assert parse_path(key).resource == resource
        assert path_segment(resource) in key
        assert Resource.parse(str(resource)) == resource


def test_who_stores_what():
    assert api_server(Resource("secrets")) == "kube-apiserver"
    assert api_server(Resource("hostedclusters", "hypershift.openshift.io")) == "kube-apiserver"
    assert api_server(Resource("routes", "route.openshift.io")) == "openshift-apiserver"
    assert api_server(Resource("oauthaccesstokens", "oauth.openshift.io")) == "oauth-apiserver"


@given(st.one_of(st.binary(max_size=60), st.text("/ab.", max_size=30).map(str.encode)))
def test_no_bytes_raise(key):
    found = parse_path(b"/" + key)
    assert found is None or (found.name and found.prefix.startswith("/"))
