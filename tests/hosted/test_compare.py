"""The saved HostedCluster against the rendered one."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from backstay.kinds.hosted.manifests.compare import compare, release_of, take_saved
from backstay.kinds.hosted.manifests.documents import Documents, parse_documents
from kit.fixtures import FOLDER
from kit.hosted import hosted_objects, one

IMAGE = "quay.io/openshift-release-dev/ocp-release:{}-x86_64"
RENDERED = (FOLDER / "hosted" / "aws-render-sensitive.yaml").read_text()


def saved() -> dict:
    """What `aws-render-sensitive.yaml` became, in all that is compared but its clusterID."""
    found = one(hosted_objects("blue"), "HostedCluster")
    found["spec"]["release"]["image"] = IMAGE.format("4.20.3")
    del found["spec"]["serviceAccountSigningKey"]
    return found


def rendered() -> dict:
    return one(list(filter(None, YAML(typ="safe", pure=True).load_all(RENDERED))), "HostedCluster")


def put(document: dict, path: str, value: object) -> dict:
    document = copy.deepcopy(document)
    *steps, last = path.split(".")
    tree = document
    for step in steps:
        tree = tree.setdefault(step, {})
    if value is None:
        tree.pop(last, None)
    else:
        tree[last] = value
    return document


def paths(one_: dict, other: dict, **more) -> dict[str, str]:
    return {it.path: it.severity for it in compare(one_, other, **more)}


def test_a_cluster_does_not_differ_from_itself():
    for platform in ("AWS", "Agent", "KubeVirt", "IBMCloud"):
        found = one(hosted_objects("blue", platform=platform), "HostedCluster")
        assert compare(found, found) == ()


def test_a_rendered_cluster_differs_in_what_the_operator_minted():
    # The saved one has hostPrefix, which is the default of the rendered one.
    (found,) = compare(saved(), rendered())
    assert (found.path, found.severity, found.can_take) == ("spec.clusterID", "refuse", True)
    assert found.rendered == ""
    assert found.line == (
        "differs: spec.clusterID: saved 0f3c4a5e-2f66-4f55-9a0e-6f1d7b9a1c22, rendered (none);"
        " the snapshot belongs to the saved one; absent, a new one is minted"
    )


@pytest.mark.parametrize(
    ("path", "value", "severity", "can_take"),
    [
        ("spec.networking.networkType", "Other", "refuse", True),
        ("spec.networking.clusterNetwork", [{"cidr": "10.0.0.0/14"}], "refuse", True),
        (
            "spec.networking.clusterNetwork",
            [{"cidr": "10.132.0.0/14", "hostPrefix": 24}],
            "refuse",
            True,
        ),
        ("spec.networking.serviceNetwork", [{"cidr": "172.30.0.0/16"}], "refuse", True),
        ("spec.networking.serviceNetwork", [], "refuse", True),
        ("spec.networking.machineNetwork", None, "refuse", True),
        ("spec.clusterID", "0f3c4a5e-2f66-4f55-9a0e-6f1d7b9a1c23", "refuse", True),
        ("spec.infraID", "blue-other", "refuse", True),
        ("spec.infraID", None, "refuse", True),
        ("spec.issuerURL", None, "refuse", True),
        ("spec.serviceAccountSigningKey", {"name": "signer"}, "refuse", True),
        ("spec.dns.baseDomain", "example.org", "refuse", True),
        ("spec.dns", None, "refuse", True),
        ("spec.platform.type", "Agent", "refuse", False),
        ("spec.fips", True, "refuse", True),
        ("metadata.name", "red", "refuse", False),
        ("metadata.namespace", "others", "warn", False),
        ("spec.controllerAvailabilityPolicy", "SingleReplica", "warn", True),
        ("spec.olmCatalogPlacement", "guest", "warn", True),
        ("spec.kubeAPIServerDNSName", "api.example.com", "warn", True),
    ],
)
def test_what_matters_is_found_both_ways(path, value, severity, can_take):
    base = saved()
    other = put(base, path, value)
    for one_, two in ((base, other), (other, base)):
        (found,) = compare(one_, two)
        assert found.path.startswith(path)
        assert (found.severity, found.can_take) == (severity, can_take)
        assert found.reason
        assert found.saved != found.rendered


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.networking.networkType", None),
        ("spec.networking.clusterNetwork", None),
        ("spec.networking.clusterNetwork", [{"cidr": "10.132.0.0/14"}]),
        ("spec.networking.clusterNetwork", [{"cidr": "10.132.7.9/14", "hostPrefix": 23}]),
        ("spec.networking.serviceNetwork", None),
        ("spec.fips", None),
        ("spec.controllerAvailabilityPolicy", None),
        ("spec.olmCatalogPlacement", None),
        ("spec.kubeAPIServerDNSName", ""),
        ("spec.dns.baseDomainPrefix", ""),
        ("spec.serviceAccountSigningKey", {"name": ""}),
        # Nothing of these is compared.
        ("spec.channel", "fast"),
        ("spec.pullSecret", {"name": "other"}),
        ("status", None),
    ],
)
def test_a_default_is_what_is_absent(path, value):
    base = saved()
    other = put(base, path, value)
    assert compare(base, other) == ()
    assert compare(other, base) == ()


def with_api(kind: str, **parts) -> dict:
    found = saved()
    found["spec"]["services"][0]["servicePublishingStrategy"] = {"type": kind, **parts}
    return found


@pytest.mark.parametrize(
    "other",
    [
        with_api("Route", route={"hostname": "api.red.example.com"}),
        with_api("Route"),
        with_api("LoadBalancer"),
        with_api("LoadBalancer", loadBalancer={"hostname": "api.blue.example.com"}),
        with_api("NodePort", nodePort={"address": "192.0.2.1"}),
    ],
)
def test_the_address_of_the_api_is_refused(other):
    (found,) = compare(saved(), other)
    assert found.path == "spec.services[APIServer].servicePublishingStrategy"
    assert found.severity == "refuse"


def test_addresses_of_other_services_are_notes():
    other = saved()
    other["spec"]["services"][1]["servicePublishingStrategy"] = {"type": "NodePort"}
    assert paths(saved(), other) == {"spec.services[OAuthServer].servicePublishingStrategy": "warn"}


def test_an_empty_part_of_a_strategy_is_an_absent_one():
    assert compare(with_api("Route"), with_api("Route", route={})) == ()
    zero = with_api("NodePort", nodePort={"address": "a", "port": 0})
    assert compare(with_api("NodePort", nodePort={"address": "a"}), zero) == ()


# --- the release


@pytest.mark.parametrize(
    ("before", "after", "severity"),
    [
        ("4.20.3", "4.20.3", None),
        ("4.20.3", "4.20.4", "warn"),
        ("4.20.9", "4.20.10", "warn"),
        ("4.20.3", "4.20.2", "refuse"),
        ("4.20.3", "4.21.0", "refuse"),
        ("4.20.3", "4.19.9", "refuse"),
        ("4.9.0", "4.10.0", "refuse"),
        ("4.20.3", "5.20.3", "refuse"),
        ("4.20.0-rc.1", "4.20.0", "warn"),
        ("4.20.0", "4.20.0-ec.1", "warn"),
        ("4.20.3", "latest", "refuse"),
        ("4.20.3", "4.20", "refuse"),
        ("", "4.20.3", "refuse"),
    ],
)
def test_releases(before, after, severity):
    base = saved()
    base["spec"]["release"]["image"] = "quay.io/x@sha256:" + "5e" * 32
    other = put(base, "spec.release.image", "quay.io/x@sha256:" + "6f" * 32)
    found = paths(base, other, saved_version=before, rendered_version=after)
    assert found == ({} if severity is None else {"spec.release.image": severity})


def test_one_image_is_one_release_whatever_it_is():
    base = put(saved(), "spec.release.image", "quay.io/x@sha256:" + "5e" * 32)
    assert compare(base, base) == ()
    # Of the saved one the version is known, from its status; the image says the rest.
    assert paths(base, base, saved_version="4.20.3") == {}
    other = put(base, "spec.release.image", "quay.io/x@sha256:" + "6f" * 32)
    assert paths(base, other) == {"spec.release.image": "refuse"}


@pytest.mark.parametrize(
    ("image", "release"),
    [
        (IMAGE.format("4.20.3"), "4.20.3"),
        ("quay.io/x/release:4.20.3-multi", "4.20.3"),
        ("host:5000/x/release:4.20.0-rc.1-aarch64", "4.20.0-rc.1"),
        ("host:5000/x/release", ""),
        ("quay.io/x/release@sha256:" + "5e" * 32, ""),
        ("quay.io/x/release:4.20.3@sha256:" + "5e" * 32, "4.20.3"),
        ("quay.io/x/release:latest", ""),
        ("", ""),
    ],
)
def test_the_release_of_an_image(image, release):
    assert release_of(put(saved(), "spec.release.image", image)) == release


# --- taking the saved values over


def taken(documents: Documents, found: dict) -> tuple[str, ...]:
    changes, left = take_saved(documents, compare(found, documents.hosted_cluster.value))
    assert compare(found, documents.hosted_cluster.value) == left
    return changes


def test_saved_values_are_written_over_and_comments_stay():
    base = saved()
    for path, value in (
        ("spec.networking.clusterNetwork", [{"cidr": "10.8.0.0/14", "hostPrefix": 24}]),
        ("spec.networking.machineNetwork", None),
        ("spec.infraID", "blue-older"),
        ("spec.fips", True),
        ("spec.serviceAccountSigningKey", {"name": "sa-signer"}),
        ("spec.controllerAvailabilityPolicy", "SingleReplica"),
        ("spec.release.image", IMAGE.format("4.20.2")),
    ):
        base = put(base, path, value)
    base["spec"]["services"][0]["servicePublishingStrategy"] = {"type": "LoadBalancer"}
    documents = parse_documents(RENDERED, "it")
    changes = taken(documents, base)
    assert len(changes) == 9
    (written,) = [
        it
        for it in YAML(typ="safe", pure=True).load_all(documents.render())
        if it and it["kind"] == "HostedCluster"
    ]
    spec = written["spec"]
    assert spec["networking"]["clusterNetwork"] == [{"cidr": "10.8.0.0/14", "hostPrefix": 24}]
    assert "machineNetwork" not in spec["networking"]
    assert (spec["infraID"], spec["fips"]) == ("blue-older", True)
    assert spec["clusterID"] == base["spec"]["clusterID"]
    assert spec["serviceAccountSigningKey"] == {"name": "sa-signer"}
    assert spec["services"][0] == {
        "service": "APIServer",
        "servicePublishingStrategy": {"type": "LoadBalancer"},
    }
    for line in RENDERED.splitlines():
        if "#" in line:
            assert line.split("#")[1] in documents.render()
    assert (
        "  # three members, on three zones\n  controllerAvailabilityPolicy:" in documents.render()
    )


def test_what_can_not_be_taken_is_left():
    documents = parse_documents(RENDERED, "it")
    base = put(put(saved(), "metadata.name", "red"), "spec.platform.type", "Agent")
    changes, left = take_saved(documents, compare(base, documents.hosted_cluster.value))
    assert [it.path for it in left] == ["metadata.name", "spec.platform.type"]
    assert len(changes) == 1


def test_nothing_is_written_where_nothing_differs():
    documents = parse_documents(RENDERED, "it")
    assert taken(documents, put(saved(), "spec.clusterID", None)) == ()
    assert documents.render() == RENDERED


# --- whatever comes


def test_what_is_shown_is_short_and_can_be_printed():
    base = put(saved(), "spec.infraID", "\x1b[31m" + "x" * 5000)
    (found,) = compare(base, saved())
    assert len(found.saved) <= 100
    assert "\x1b" not in found.line


_FIELDS = (
    "networking",
    "clusterNetwork",
    "cidr",
    "services",
    "service",
    "dns",
    "baseDomain",
    "servicePublishingStrategy",
    "route",
    "hostname",
    "release",
    "image",
    "name",
    "fips",
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_FIELDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=20, deadline=None)
@given(_ANYTHING)
def test_no_saved_cluster_raises_anything(spec):
    base = {"kind": "HostedCluster", "metadata": spec, "spec": spec}
    documents = parse_documents(RENDERED, "it")
    differences = compare(base, documents.hosted_cluster.value)
    assert all(len(it.line) < 600 for it in differences)
    changes, left = take_saved(documents, differences)
    assert len(changes) + len(left) == len(differences)
    parse_documents(documents.render(), "again")
    assert compare(documents.hosted_cluster.value, base) is not None
