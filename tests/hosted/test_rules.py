"""Rules of the CRDs: every case of the tables that they were taken from."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import FormatError
from backstay.kinds.hosted.manifests.quantity import parse_quantity
from backstay.kinds.hosted.manifests.rules import (
    api_violations,
    is_rfc3339,
    restore_url_problems,
    stricter,
    violations,
)
from kit import crd
from kit.hosted import hosted_objects, one

POOL = "blue-workers"
URL = "https://s3.example/bucket/blue.db"


def cluster(**spec) -> dict:
    found = one(hosted_objects("blue"), "HostedCluster")
    found["spec"].update(spec)
    return found


def with_urls(urls: object, scheme: str = "Managed") -> dict:
    found = cluster()
    found["spec"]["etcd"]["managed"]["storage"]["restoreSnapshotURL"] = urls
    return found


@pytest.mark.parametrize("platform", ["AWS", "Agent", "KubeVirt", "Azure", "IBMCloud"])
@pytest.mark.parametrize("encryption", ["aescbc", "kms", None])
def test_what_runs_breaks_no_rule(platform, encryption):
    found = hosted_objects("blue", platform=platform, encryption=encryption)
    for kind in ("HostedCluster", "HostedControlPlane"):
        assert violations(one(found, kind)) == ()
    existing = one(found, "HostedCluster")
    assert violations(existing, existing) == ()
    assert violations(one(found, "NodePool", POOL)) == ()


def test_an_unmanaged_etcd_breaks_no_rule():
    found = one(hosted_objects("blue", unmanaged="https://etcd.example:2379"), "HostedCluster")
    assert violations(found, found) == ()


# --- pausedUntil: what the API takes, and what HyperShift makes of it

PAUSED = [
    ("true", True, True),
    ("false", True, True),
    ("True", True, True),
    ("False", True, True),
    ("2026-11-20T23:10:00Z", True, True),
    ("2026-11-20T23:10:00+02:00", True, True),
    ("2026-11-20T23:10:00.123456Z", True, True),
    # Taken, and then silently no pause at all.
    ("2026-11-20T23:10:00", True, False),
    ("2026-11-20T23:10:00 and so on", True, False),
    ("2026-13-20T23:10:00Z", True, False),
    ("2026-11-20T23:10:00z", True, False),
    ("2026-11-20T23:10:00+0200", True, False),
    # strconv.ParseBool would take these; the CRD does not.
    ("TRUE", False, False),
    ("1", False, False),
    ("t", False, False),
    ("", False, False),
    ("null", False, False),
    ("tomorrow", False, False),
    ("2026-11-20", False, False),
    ("2026-11-20 23:10:00Z", False, False),
    ("2026-11-20T23:10:00\n", False, False),
    ("true\n", False, False),
    ("٢٠٢٦-11-20T23:10:00Z", False, False),
    ("2026-11-20T23:10:00.1234567890123456789Z", False, False),
]


@pytest.mark.parametrize(("value", "taken", "works"), PAUSED)
def test_paused_until_of_a_hosted_cluster(value, taken, works):
    found = cluster(pausedUntil=value)
    assert (api_violations(found) == ()) == taken
    assert (violations(found) == ()) == works


@pytest.mark.parametrize(("value", "taken", "works"), PAUSED)
def test_paused_until_of_a_node_pool(value, taken, works):
    found = one(hosted_objects("blue"), "NodePool", POOL)
    found["spec"]["pausedUntil"] = value
    assert (api_violations(found) == ()) == taken
    assert (violations(found) == ()) == works


def test_paused_until_has_other_lengths_for_other_kinds():
    short = cluster(pausedUntil="abc")
    assert any("3 characters, and must have 4 to 35" in it for it in violations(short))
    pool = {"kind": "NodePool", "spec": {"pausedUntil": "abc"}}
    assert not any("characters" in it for it in violations(pool))
    plane = {"kind": "HostedControlPlane", "spec": {"pausedUntil": "x" * 255}}
    assert violations(plane) == ()
    plane["spec"]["pausedUntil"] += "x"
    assert violations(plane)


def test_paused_until_is_a_text():
    for value in (True, 1, ["true"], {}):
        assert any("text" in it for it in violations(cluster(pausedUntil=value)))
    assert violations(cluster(pausedUntil=None)) == ()


def test_a_time_is_rfc3339_only_with_a_zone():
    assert is_rfc3339("2026-11-20T23:10:00.5+01:00")
    assert not is_rfc3339("2026-11-20T23:10")
    assert not is_rfc3339("2026-02-30T00:00:00Z")


# --- restoreSnapshotURL


URLS = [
    ([URL], True),
    ([], True),
    (None, True),
    (["s3://bucket/blue.db"], True),
    (["https://" + "x" * 1016], True),
    (["https://" + "x" * 1017], False),
    ([URL, URL + "2"], False),
    ([URL, URL + "2", URL + "3"], False),
    (["http://minio.example/blue.db"], False),
    (["HTTPS://s3.example/blue.db"], False),
    (["file:///blue.db"], False),
    ([""], False),
    ([1], False),
    (URL, False),
    ({}, False),
]


@pytest.mark.parametrize(("urls", "taken"), URLS)
def test_restore_urls_that_the_api_takes(urls, taken):
    found = with_urls(urls)
    assert (api_violations(found) == ()) == taken
    assert "s3.example" not in str(violations(found))


def test_an_s3_url_is_taken_by_the_api_and_can_not_work():
    found = with_urls(["s3://bucket/blue.db"])
    assert api_violations(found) == ()
    assert len(stricter(found)) == 1
    assert "curl" in violations(found)[0]
    assert restore_url_problems("s3://bucket/blue.db")
    assert restore_url_problems(URL) == ()


@pytest.mark.parametrize(
    ("etcd", "word"),
    [
        ([], "object"),
        ({}, "managementType"),
        ({"managementType": "managed"}, "managementType"),
        ({"managementType": "Unmanaged", "managed": {}}, "managed"),
        ({"managementType": "Managed", "unmanaged": {}}, "unmanaged"),
        ({"managementType": "Managed", "managed": {"storage": {}}}, "PersistentVolume"),
        ({"managementType": "Managed", "managed": {"storage": {"type": "EmptyDir"}}}, "type"),
    ],
)
def test_etcd_has_its_rules(etcd, word):
    assert any(word in it for it in violations(cluster(etcd=etcd)))


@pytest.mark.parametrize(
    ("block", "word"),
    [
        ({}, "type"),
        ({"type": "AESCBC"}, "type"),
        ([], "type"),
        ({"type": "aescbc"}, "aescbc is missing"),
        ({"type": "aescbc", "kms": {}}, "aescbc is missing"),
        ({"type": "aescbc", "aescbc": {}}, "activeKey"),
        ({"type": "aescbc", "aescbc": {"activeKey": {"name": ""}}}, "activeKey"),
        ({"type": "kms"}, "kms is missing"),
        ({"type": "kms", "kms": {"provider": "aws"}}, "provider"),
    ],
)
def test_secret_encryption_has_its_rules(block, word):
    assert any(word in it for it in violations(cluster(secretEncryption=block)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clusterID", "blue"),
        ("clusterID", "0f3c4a5e-2f66-4f55-9a0e-6f1d7b9a1c22\n"),
        ("clusterID", 5),
        ("infraID", "Blue"),
        ("infraID", "-blue"),
        ("infraID", "b" * 254),
        ("issuerURL", "https://" + "x" * 250),
    ],
)
def test_identities_have_their_rules(field, value):
    assert any(field in it for it in violations(cluster(**{field: value})))


# --- what can't be changed


def changed(path: str, value: object) -> tuple[str, ...]:
    old = cluster()
    new = copy.deepcopy(old)
    *steps, last = path.split(".")
    tree = new
    for step in steps:
        tree = tree[step]
    if value is None:
        tree.pop(last, None)
    else:
        tree[last] = value
    return violations(new, old)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.etcd.managed.storage.restoreSnapshotURL", [URL]),
        ("spec.etcd.managed.storage.persistentVolume.size", "9Gi"),
        ("spec.etcd.managed.storage.persistentVolume.storageClassName", "other"),
        ("spec.etcd.managed.storage.persistentVolume.storageClassName", None),
        ("spec.clusterID", "0f3c4a5e-2f66-4f55-9a0e-6f1d7b9a1c23"),
        ("spec.clusterID", None),
        ("spec.infraID", "red-x"),
        ("spec.issuerURL", None),
        ("spec.fips", True),
        ("spec.controllerAvailabilityPolicy", "SingleReplica"),
        ("spec.olmCatalogPlacement", "guest"),
        ("spec.services", []),
    ],
)
def test_what_can_not_be_changed_of_a_cluster_that_exists(path, value):
    (found,) = changed(path, value)
    assert path in found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # Absent is the default.
        ("spec.etcd.managed.storage.persistentVolume.size", None),
        ("spec.olmCatalogPlacement", None),
        ("spec.fips", None),
        ("spec.controllerAvailabilityPolicy", None),
        # What may be changed.
        ("spec.pausedUntil", "true"),
        ("spec.channel", "fast-4.20"),
    ],
)
def test_what_can_be_changed_or_is_no_change(path, value):
    assert changed(path, value) == ()


def test_a_url_is_neither_changed_nor_removed():
    for new in ([URL + "2"], [], None):
        assert len(violations(with_urls(new), with_urls([URL]))) == 1
    assert violations(with_urls([URL]), with_urls([URL])) == ()


def test_an_id_is_set_once():
    old, new = cluster(), cluster()
    del old["spec"]["clusterID"]
    assert violations(new, old) == ()
    assert violations(old, new)


def test_services_of_ibm_cloud_can_be_changed():
    old = one(hosted_objects("blue", platform="IBMCloud"), "HostedCluster")
    new = copy.deepcopy(old)
    new["spec"]["services"] = new["spec"]["services"][:3]
    assert violations(new, old) == ()


# --- whatever comes

_FIELDS = (
    "kind",
    "spec",
    "etcd",
    "managed",
    "storage",
    "restoreSnapshotURL",
    "type",
    "aescbc",
    "pausedUntil",
    "secretEncryption",
    "services",
    "platform",
    "kms",
    "issuerURL",
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
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


@given(_ANYTHING, _ANYTHING)
def test_no_object_raises_anything(spec, old):
    for kind in ("HostedCluster", "NodePool", "HostedControlPlane"):
        found = violations({"kind": kind, "spec": spec}, {"kind": kind, "spec": old})
        assert all(isinstance(it, str) and len(it) < 400 for it in found)
    violations(spec, old)


# --- quantities


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8Gi", 8 << 30),
        ("4096Mi", 4 << 30),
        ("0.5Ti", 1 << 39),
        ("1.Ki", 1024),
        (".5Ki", 512),
        ("+1k", 1000),
        ("-1", -1),
        ("1500m", 2),
        ("1n", 1),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1Ei", 1 << 60),
        ("1e-3", 1),
        (0, 0),
        (8589934592, 8 << 30),
        (1e10, 10**10),
        ("0", 0),
    ],
)
def test_quantities(text, number):
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Gi",
        "8gi",
        "8 Gi",
        " 8Gi",
        "8Gi\n",
        "8GiB",
        "8K",
        "0x8",
        "1_000",
        "8,5Gi",
        ".",
        "1e",
        "1e999",
        "٨Gi",
        "--8",
        "8Zi",
        "NaN",
        "9E99",
        "9" * 40,
        None,
        True,
        [8],
        float("inf"),
        float("nan"),
        1 << 80,
    ],
    ids=repr,
)
def test_what_is_no_quantity(text):
    with pytest.raises(FormatError):
        parse_quantity(text)


# --- the tests' own schemas say the same


def server(new: dict, old: dict | None = None) -> list[str]:
    return crd.violations(new["kind"], new, old)


# Of digits that are none in ASCII only ours knows, as CEL does.
@pytest.mark.parametrize(("value", "taken", "works"), [it for it in PAUSED if it[0].isascii()])
def test_the_server_of_the_tests_agrees_on_paused_until(value, taken, works):
    pool = one(hosted_objects("blue"), "NodePool", POOL)
    pool["spec"]["pausedUntil"] = value
    for found in (cluster(pausedUntil=value), pool):
        assert (server(found) == []) == taken == (api_violations(found) == ())


@pytest.mark.parametrize(("urls", "taken"), [case for case in URLS if case[0] is not None])
def test_the_server_of_the_tests_agrees_on_urls(urls, taken):
    assert (server(with_urls(urls)) == []) == taken


def test_the_server_of_the_tests_agrees_on_what_is_immutable():
    for old, new in (
        (cluster(), with_urls([URL])),
        (with_urls([URL]), cluster()),
        (with_urls([URL]), with_urls([URL + "2"])),
        (with_urls([URL]), with_urls([URL])),
        (cluster(), cluster(channel="other")),
    ):
        assert (server(new, old) == []) == (api_violations(new, old) == ())
