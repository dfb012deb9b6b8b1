"""What a restore needs beside etcd: found by reference, cleaned, and written as YAML."""

import copy
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from backstay.errors import BackstayError, FormatError, KubeForbiddenError
from backstay.kinds.hosted.belongings.clean import clean, dump
from backstay.kinds.hosted.belongings.references import MAX_REFERENCES, Kind, references
from backstay.kinds.hosted.belongings.resources import PKI, collect
from backstay.kinds.hosted.cluster import at
from backstay.kinds.hosted.find import find
from backstay.kinds.hosted.quiescing.record import ANNOTATION, Record, encode
from backstay.kubeapi import resource
from kit.hosted import hosted_objects, load, one, secret, without

HALF_AN_HOUR = timedelta(minutes=30)
CONFIG_MAPS = {
    *("corporate-cas", "ldap-ca", "proxy-ca", "registry-cas"),
    *("workers-kubelet", "workers-tuned"),
}
SECRETS = {
    *("blue-pull-secret", "blue-ssh-key", "sa-signer", "audit-webhook", "github-client", "people"),
    *("ldap-bind", "login-page", "api-cert", "blue-etcd-encryption-key"),
}
PLATFORMS = {
    "AWS": set(),
    "Agent": set(),
    "KubeVirt": {"blue-infra"},
    "Azure": {"azure-creds"},
    "PowerVS": {"pvs-cloud-controller", "pvs-node-pools", "pvs-storage"},
    "OpenStack": {"openstack-clouds"},
    "IBMCloud": set(),
}


@pytest.fixture
def resources(kube, api):
    """Load objects, and collect what the cluster that they make needs."""

    def read(objects):
        load(kube, objects)
        return collect(api, find(api, "blue", "clusters"))

    return read


def names(documents, kind, namespace="clusters"):
    return {
        document["metadata"]["name"]
        for document in documents
        if document["kind"] == kind and document["metadata"]["namespace"] == namespace
    }


@pytest.mark.parametrize("platform", PLATFORMS)
def test_everything_that_the_spec_names_on_any_platform(resources, platform):
    found = resources(hosted_objects(platform=platform))
    assert [(d["kind"], d["metadata"]["name"]) for d in found.public[:3]] == [
        ("HostedCluster", "blue"),
        ("NodePool", "blue-infra"),
        ("NodePool", "blue-workers"),
    ]
    assert names(found.public, "ConfigMap") == CONFIG_MAPS
    assert names(found.secret, "Secret") == SECRETS | PLATFORMS[platform]
    assert found.missing == ()


def test_promise_5_secrets_are_apart(resources):
    found = resources(hosted_objects())
    assert {document["kind"] for document in found.secret} == {"Secret"}
    assert "Secret" not in {document["kind"] for document in found.public}
    for document in found.secret:
        for value in document["data"].values():
            assert value not in found.public_yaml
    assert "data" not in repr(found)


def test_the_signers_of_the_control_plane(resources):
    found = resources(hosted_objects())
    signers = names(found.secret, "Secret", "clusters-blue")
    assert signers <= set(PKI)
    assert {"root-ca", "sa-signing-key", "etcd-signer", "konnectivity-signer"} <= signers
    # What they have signed, and others' credentials, are made anew.
    assert "etcd-server-tls" not in signers


def test_kms_credentials_and_unmanaged_clients(resources):
    found = resources(
        hosted_objects(encryption="kms", platform="IBMCloud", unmanaged="https://etcd:2379")
    )
    assert {"kms-creds", "their-etcd-client"} <= names(found.secret, "Secret")


def test_keys_that_only_the_status_names(resources):
    objects = hosted_objects(keys=(b"a" * 32, b"b" * 32), rotating=True)
    keys = {"blue-etcd-encryption-key", "blue-etcd-encryption-key-2"}
    assert keys <= names(resources(objects).secret, "Secret")


def test_what_is_not_there_is_named(resources):
    objects = without(hosted_objects(), "Secret", "people")
    objects = without(objects, "ConfigMap", "workers-tuned")
    found = resources(without(objects, "Secret", "root-ca"))
    assert found.missing == (
        "Secret clusters/people (spec.configuration.oauth.identityProviders[].htpasswd.fileData)",
        "ConfigMap clusters/workers-tuned (spec.tuningConfig[])",
        "Secret clusters-blue/root-ca (every control plane has it)",
    )
    assert "people" not in names(found.secret, "Secret")


def test_another_namespace_is_told_and_not_looked_into(kube, resources):
    objects = hosted_objects()
    one(objects, "HostedCluster")["spec"]["platform"]["someRef"] = {
        "name": "elsewhere",
        "namespace": "kube-system",
    }
    found = resources(objects)
    assert "kube-system/elsewhere" in found.missing[0]
    assert "kube-system" not in {seen.namespace for seen in kube.requests}


def test_a_reference_that_may_be_either(resources):
    objects = hosted_objects()
    one(objects, "HostedCluster")["spec"]["platform"]["someRef"] = {"name": "people"}
    found = resources(objects)
    assert "people" in names(found.secret, "Secret")
    assert found.missing == ()


def test_a_right_that_we_lack_is_no_missing_object(kube, resources):
    kube.deny("get", resource.CONFIG_MAPS)
    with pytest.raises(KubeForbiddenError):
        resources(hosted_objects())


def test_only_gets_and_in_two_namespaces(kube, api):
    load(kube, hosted_objects())
    hosted = find(api, "blue", "clusters")
    kube.requests.clear()
    collect(api, hosted)
    assert {seen.verb for seen in kube.requests} == {"get"}
    assert {seen.namespace for seen in kube.requests} == {"clusters", "clusters-blue"}
    asked = [(seen.resource, seen.namespace, seen.name) for seen in kube.requests]
    assert len(asked) == len(set(asked))


# What is a reference


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("pullSecret", {"name": "x"}, Kind.SECRET),
        ("sshKey", {"name": "x"}, Kind.SECRET),
        ("secretRefs", [{"name": "x"}], Kind.SECRET),
        ("configMapRefs", [{"name": "x"}], Kind.CONFIG_MAP),
        ("anyCredentials", {"name": "x", "key": "k"}, Kind.SECRET),
        ("cloudControllerCreds", {"name": "x"}, Kind.SECRET),
        ("trustBundle", {"name": "x"}, Kind.CONFIG_MAP),
        ("clientCA", {"name": "x"}, Kind.CONFIG_MAP),
        ("ca", {"name": "x"}, Kind.CONFIG_MAP),
        ("issuerCertificateAuthority", {"name": "x"}, Kind.CONFIG_MAP),
        ("someRef", {"name": "x"}, Kind.EITHER),
        ("someRef", {"name": "x", "kind": "ConfigMap"}, Kind.CONFIG_MAP),
        ("someRef", {"name": "x", "kind": "Secret"}, Kind.SECRET),
        ("config", [{"name": "x"}], Kind.CONFIG_MAP),
        # No references:
        ("someRef", {"name": "x", "kind": "Pod"}, None),
        ("vpc", {"name": "x"}, None),
        ("subnet", {"name": "x"}, None),
        ("shards", [{"name": "x"}], None),
        ("rolesRef", {"ingressARN": "arn:x"}, None),
        ("identityProviders", [{"name": "x", "type": "LDAP"}], None),
        ("credentialsSecretName", "x", None),
        ("pullSecret", {"name": ""}, None),
        ("pullSecret", {"name": 7}, None),
        ("pullSecret", {"name": "../x"}, None),
        ("secret", {"name": "x", "value": "y"}, None),
        ("placement", {"name": "x"}, None),
        ("africa", {"name": "x"}, None),
    ],
)
def test_rule(field, value, kind):
    found = references({"spec": {field: value}})
    assert [(r.name, r.kind) for r in found] == ([("x", kind)] if kind else [])


def test_one_object_that_is_named_twice():
    spec = {"pullSecret": {"name": "x"}, "sshKey": {"name": "x"}}
    assert len(references({"spec": spec})) == 1


def test_bounds():
    many = {"secrets": [{"name": f"s{n}"} for n in range(5000)]}
    assert len(references({"spec": many})) == MAX_REFERENCES
    deep = {"pullSecret": {"name": "x"}}
    for _ in range(200):
        deep = {"deep": deep}
    assert references({"spec": deep}) == ()


# Cleaning


def test_clean():
    document = one(hosted_objects(), "HostedCluster")
    document["metadata"] |= {
        "resourceVersion": "17",
        "selfLink": "/x",
        "deletionTimestamp": "2026-11-20T23:40:00Z",
        "deletionGracePeriodSeconds": 0,
        "ownerReferences": [{"name": "x"}],
    }
    before = copy.deepcopy(document)
    cleaned = clean(document)
    assert document == before
    assert cleaned == {
        "apiVersion": "hypershift.openshift.io/v1beta1",
        "kind": "HostedCluster",
        "metadata": {
            "name": "blue",
            "namespace": "clusters",
            "labels": {"environment": "production"},
            "annotations": {"example.com/owner": "platform-team"},
        },
        "spec": before["spec"],
    }


def test_a_finalizer_of_someone_else_stays():
    document = one(hosted_objects(), "HostedCluster")
    document["metadata"]["finalizers"] += ["example.com/keep"]
    assert clean(document)["metadata"]["finalizers"] == ["example.com/keep"]


def test_what_the_operator_notes_on_node_pools_goes():
    cleaned = clean(one(hosted_objects(), "NodePool", "blue-workers"))
    assert set(cleaned) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(cleaned["metadata"]) == {"name", "namespace"}


def test_the_users_own_pause_stays():
    document = one(hosted_objects(paused="true"), "HostedCluster")
    assert clean(document)["spec"]["pausedUntil"] == "true"


UNTIL = "2026-11-20T23:40:00Z"


def _quiesced(own, now=UNTIL, text=None):
    """A HostedCluster as it is while it is quiesced; `own` is what its user had set."""
    document = one(hosted_objects(), "HostedCluster")
    document["spec"]["pausedUntil"] = now
    began = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)
    record = Record(run="k3f9", by="host", since=began, until=began + HALF_AN_HOUR, own=own)
    document["metadata"]["annotations"][ANNOTATION] = text or encode(record)
    return document


@pytest.mark.parametrize("own", ["true", "2026-12-24T00:00:00+01:00"])
def test_our_pause_becomes_the_users_own(own):
    cleaned = clean(_quiesced(own))
    assert cleaned["spec"]["pausedUntil"] == own
    assert set(cleaned["metadata"]["annotations"]) == {"example.com/owner"}


def test_our_pause_goes_where_the_user_had_none():
    assert "pausedUntil" not in clean(_quiesced(None))["spec"]


def test_a_pause_that_someone_set_over_ours_stays():
    assert clean(_quiesced(None, now="true"))["spec"]["pausedUntil"] == "true"


def test_a_record_that_is_damaged():
    cleaned = clean(_quiesced(None, text="{"))
    assert cleaned["spec"]["pausedUntil"] == UNTIL
    assert ANNOTATION not in cleaned["metadata"]["annotations"]


def test_what_kubectl_remembers_of_a_secret_goes():
    document = secret("clusters", "x", {"key": b"the very key"})
    document["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": json.dumps(document)
    }
    cleaned = clean(document)
    assert "annotations" not in cleaned["metadata"]
    assert cleaned["data"] == document["data"]


def test_too_deep():
    deep: dict = {}
    for _ in range(100):
        deep = {"a": deep}
    with pytest.raises(FormatError, match="nested too deeply"):
        clean(deep)


# YAML


def test_dump_is_the_same_whatever_the_order():
    document = {"b": [1, {"d": 1, "c": None}], "a": "x"}
    turned = {"a": "x", "b": [1, {"c": None, "d": 1}]}
    assert dump([document]) == dump([turned]) == "---\na: x\nb:\n- 1\n- c: null\n  d: 1\n"


def test_dump_of_a_whole_cluster_comes_back(resources):
    found = resources(hosted_objects())
    for documents, text in (
        (found.public, found.public_yaml),
        (found.secret, found.secret_yaml),
    ):
        assert list(YAML(typ="safe", pure=True).load_all(text)) == list(documents)
        assert text.count("\n---\n") == len(documents) - 1
        assert "&" not in text


def test_one_object_in_two_places_is_no_anchor():
    shared = {"x": [1]}
    assert dump([{"a": shared, "b": shared}]) == "---\na:\n  x:\n  - 1\nb:\n  x:\n  - 1\n"


WORDS = ["yes", "No", "on", "OFF", "y", "n", "true", "null", "~", "1:30", "012", "0x1f", "1_000"]
TEXTS = [*WORDS, "1e3", ".5", "-", "", " x", "x ", "a: b", "# x", "2026-11-20", "a\nb", "a\nb\n"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(TEXTS)
    | st.text(max_size=12)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("version", ["1.1", "1.2"])
@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=6), JSON, max_size=4))
def test_dump_means_the_same_to_readers_of_both_versions(version, document):
    assert _read(dump([document]), version) == document


def _read(text, version):
    """Read one document as a reader of that version of YAML does."""
    return YAML(typ="safe", pure=True).load(f"%YAML {version}\n{text}")


@pytest.mark.parametrize("text", TEXTS)
def test_words_that_could_be_something_else(text):
    document = {"a": text, "b": [text], text: 1}
    for version in ("1.1", "1.2"):
        assert _read(dump([document]), version) == document


def test_promise_5_what_can_not_be_written_is_not_quoted():
    with pytest.raises(FormatError) as caught:
        dump([secret("a", "b", {"c": b"x"}) | {"data": {"key": {1, 2}, "other": "the-secret"}}])
    error = caught.value
    assert "the-secret" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["metadata", "spec", "status", "data", "kind"]),
        JSON
        | st.dictionaries(
            st.sampled_from(
                ["name", "annotations", "finalizers", "labels", "ca", "pullSecret", "config"]
            ),
            JSON | st.fixed_dictionaries({"backstay.dev/quiesced": JSON}) | st.just({"name": "x"}),
        ),
    )
)
def test_hostile_objects_raise_nothing_but_our_errors(document):
    for reference in references(document):
        assert reference.name
        assert "/" not in reference.name
    try:
        cleaned = clean(document)
        dump([cleaned])
    except BackstayError:
        return
    assert "status" not in cleaned
    annotations = at(cleaned, "metadata.annotations", {})
    assert "backstay.dev/quiesced" not in annotations
