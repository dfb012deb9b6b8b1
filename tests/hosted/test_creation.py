"""The plan of what a restore creates, and what speaks against it: pure, from hostile input too."""

import base64
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import UsageError
from backstay.kinds.hosted.recovery.creation import (
    MARK,
    Found,
    differences,
    judge,
    members_of,
    plan,
)
from kit.restore_documents import VALUE, documents, one


def look(creation, objects=(), claims=(), control_plane=None):
    """What is there: these objects, of whichever of the items has kind and name."""
    known = {(o["kind"], o["metadata"]["name"]): o for o in objects}
    found = tuple(known.get((item.resource.kind, item.name)) for item in creation.items)
    return Found(objects=found, claims=claims, control_plane=control_plane)


def reasons(creation, *arguments, **more):
    return [reason.what for reason in judge(creation, look(creation, *arguments, **more))]


def as_created(creation):
    """The objects as a server has them: with defaults, status and its own metadata."""
    made = [copy.deepcopy(item.body) for item in creation.items]
    for number, document in enumerate(made):
        document["metadata"] |= {"uid": f"u{number}", "resourceVersion": "7", "generation": 1}
        document["status"] = {"phase": "x"}
        if document["kind"] == "HostedCluster":
            document["spec"]["fips"] = False
            document["spec"]["etcd"]["managed"]["storage"]["type"] = "PersistentVolume"
    return made


def test_what_others_refer_to_comes_first():
    creation = plan(list(reversed(documents())), "r1")
    kinds = [item.resource.kind for item in creation.items]
    assert kinds == ["Namespace", "ConfigMap", "Secret", "Secret", "HostedCluster", "NodePool"]
    assert all(item.body["metadata"]["annotations"][MARK] == "r1" for item in creation.items)
    assert (creation.name, creation.namespace) == ("blue", "clusters")
    assert creation.control_plane_namespace == "clusters-blue"
    assert creation.release_image == "quay.io/x:4.20.3"


def test_a_namespace_that_is_missing_is_made_up():
    creation = plan([d for d in documents() if d["kind"] != "Namespace"], "r1")
    assert [i.name for i in creation.items if i.resource.kind == "Namespace"] == ["clusters"]


def test_documents_are_not_changed_by_planning():
    before = documents()
    after = copy.deepcopy(before)
    plan(after, "r1")
    assert after == before


def changed(kind, /, **parts):
    found = documents()
    one(found, kind).update(parts)
    return found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "0 HostedClusters"),
        ([*documents(), one(documents(), "HostedCluster")], "is there twice"),
        (
            [*documents(), changed("HostedCluster", metadata={"name": "b", "namespace": "c"})[-2]],
            "2 H",
        ),
        (changed("NodePool", kind="Deployment"), "does not create hypershift"),
        (changed("NodePool", kind=None, apiVersion=7), "what has no kind"),
        (changed("NodePool", metadata={"name": "x"}), "no name, or no namespace"),
        (changed("NodePool", metadata=None), "no name, or no namespace"),
        (changed("HostedCluster", spec={"etcd": {"managed": 7}}), "would come up empty"),
    ],
)
def test_what_can_not_be_created_is_said_beforehand(given, words):
    with pytest.raises(UsageError, match=words):
        plan(given, "r1")


@pytest.mark.parametrize(
    ("policy", "members"), [("SingleReplica", 1), ("HighlyAvailable", 3), (None, 3)]
)
def test_members_follow_the_availability_policy(policy, members):
    assert members_of({"spec": {"controllerAvailabilityPolicy": policy}}) == members


def test_nothing_speaks_against_an_empty_place():
    assert reasons(plan(documents(), "r1")) == []


def test_the_same_restore_goes_on_with_what_it_has_made():
    creation = plan(documents(), "r1")
    assert reasons(creation, as_created(creation), claims=("data-etcd-0",)) == []
    # Presigned anew, the URL is another.
    other = documents(url="https://bucket.example/x?other")
    assert reasons(plan(other, "r1"), as_created(creation)) == []


def test_promise_6_a_hosted_cluster_of_anybody_else_is_refused():
    creation = plan(documents(), "r1")
    for mark in ({MARK: "r2"}, {}, None):
        there = as_created(creation)
        one(there, "HostedCluster")["metadata"]["annotations"] = mark
        (said,) = reasons(creation, there)
        assert said.startswith("HostedCluster clusters/blue exists: a snapshot is restored only")


def test_promise_6_what_differs_is_named_by_field_and_never_by_value():
    creation = plan(documents(), "r1")
    there = as_created(creation)
    secret = one(there, "Secret")
    secret["data"] = {"key": base64.b64encode(b"another").decode()}
    one(there, "ConfigMap")["data"]["ca-bundle.crt"] = "other"
    said = reasons(creation, there)
    assert said == [
        "ConfigMap clusters/trust exists and is another: data.ca-bundle.crt",
        "Secret clusters/blue-etcd-encryption-key exists and is another: data.key",
    ]
    assert VALUE not in str(said)


def test_promise_6_volumes_of_an_etcd_are_refused():
    creation = plan(documents(), "r1")
    said = judge(creation, look(creation, claims=("data-etcd-0", "data-etcd-1", "other")))
    assert "data-etcd-0, data-etcd-1)" in said[0].what
    assert said[0].do.endswith("`oc delete pvc -n clusters-blue data-etcd-0 data-etcd-1`")
    assert reasons(creation, claims=("other",)) == []


def test_what_is_being_deleted_is_waited_for():
    creation = plan(documents(), "r1")
    there = as_created(creation)
    one(there, "HostedCluster")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    leaving = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert reasons(creation, there, control_plane=leaving) == [
        "HostedCluster clusters/blue is being deleted",
        "Namespace clusters-blue is being deleted",
    ]


def test_secrets_in_plain_text_compare_by_what_the_server_makes_of_them():
    given = documents()
    secret = one(given, "Secret")
    secret["stringData"] = {"key": VALUE}
    del secret["data"]
    creation = plan(given, "r1")
    assert reasons(creation, as_created(plan(documents(), "r1"))) == []
    item = next(i for i in creation.items if i.resource.kind == "Secret")
    plain = {"type": "Opaque", "data": {"key": VALUE}}
    assert differences(item, plain) == ("data.key",)


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(ANYTHING, ANYTHING)
def test_no_object_of_the_server_breaks_the_judging(spec, metadata):
    creation = plan(documents(), "r1")
    there = {"spec": spec, "metadata": metadata, "data": spec}
    said = judge(creation, Found(objects=(there,) * len(creation.items), control_plane=there))
    assert said
    assert len(differences(creation.items[-1], creation.items[-1].body)) == 0


def test_no_depth_breaks_the_comparison():
    deep = {}
    for _ in range(900):
        deep = {"a": deep, "b": [deep]} if not deep else {"a": deep}
    given = changed("NodePool", spec=deep)
    creation = plan(given, "r1")
    assert differences(creation.items[-1], creation.items[-1].body)
