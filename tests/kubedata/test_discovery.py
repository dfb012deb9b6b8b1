"""Keys that lie inside a snapshot: OpenShift's API servers and their Secrets."""

import base64
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstay.errors import DamagedError
from backstay.kubedata.configuration import parse_configuration
from backstay.kubedata.discovery import discover
from backstay.kubedata.encryption import hypershift_configuration
from backstay.kubedata.proof import prove_keys
from backstay.kubedata.resource import Resource
from backstay.kubedata.secretsearch import MOST
from backstay.report import Verdict
from kit import kube
from kit import openshift as ocp
from kit.openshift import KUBE, OAUTH, OPENSHIFT

PASS, FAIL, COULD_NOT = Verdict.PASS, Verdict.FAIL, Verdict.COULD_NOT_VERIFY
ROUTES, TOKENS = "routes.route.openshift.io", "oauthaccesstokens.oauth.openshift.io"
ROUTE_RESOURCE = Resource.parse(ROUTES)


def parse(document, name="x"):
    return parse_configuration(document, name=name)


GIVEN = (parse(ocp.configuration(KUBE, 1)),)


def looked(history, known=GIVEN):
    """What was found, and the groups of the proof by resource and key."""
    with kube.made_snapshot(history) as snapshot:
        found = discover(snapshot, known)
        proof = prove_keys(snapshot, [*known, *found.configurations], prove_all=True)
    proof = found.explain(proof)
    return found, {(group.resource, group.key_name): group for group in proof.groups}


def raws(found):
    return {
        key.secret for configuration in found.configurations for key in configuration.all_keys()
    }


def without(history, *names):
    return [(key, value) for key, value in history if key.decode().rpartition("/")[2] not in names]


CONFIG = {name: f"encryption-config-{name}" for name in (KUBE, OPENSHIFT, OAUTH)}
KEYS = {name: f"encryption-key-{name}-1" for name in (KUBE, OPENSHIFT, OAUTH)}


# A whole cluster.


def test_each_api_servers_key_1_is_found_and_opens_its_own():
    found, groups = looked(ocp.cluster())
    assert {key: group.verdict for key, group in groups.items()} == {
        ("secrets", "1"): PASS, (ROUTES, "1"): PASS, (TOKENS, "1"): PASS,
    }  # fmt: skip
    assert all(group.opened == group.values for group in groups.values())
    assert raws(found) == {ocp.raw(OPENSHIFT, 1), ocp.raw(OAUTH, 1)}
    assert {(keys.server, keys.prefix) for keys in found.servers} == {
        ("openshift-apiserver", "/openshift.io"), ("oauth-apiserver", "/openshift.io"),
    }  # fmt: skip
    assert found.summary == (
        "found in the snapshot: keys of openshift-apiserver in"
        " Secret openshift-config-managed/encryption-config-openshift-apiserver,"
        " Secret openshift-config-managed/encryption-key-openshift-apiserver-1;"
        " of oauth-apiserver in"
        " Secret openshift-config-managed/encryption-config-openshift-oauth-apiserver,"
        " Secret openshift-config-managed/encryption-key-openshift-oauth-apiserver-1"
    )


@pytest.mark.parametrize("kind", ["aescbc", "aesgcm", "secretbox"])
@pytest.mark.parametrize("inner", ["aescbc", "aesgcm", "secretbox"])
def test_any_provider_inside_any_provider(kind, inner):
    document = ocp.configuration(OPENSHIFT, 7, kind=inner)
    history = [
        ocp.secret(CONFIG[OPENSHIFT], {"encryption-config": document}, under=4, kind=kind),
        ocp.route(7, kind=inner),
    ]
    _, groups = looked(history, [parse(ocp.configuration(KUBE, 4, kind=kind))])
    assert [group.verdict for group in groups.values()] == [PASS, PASS]


def test_yaml_is_read_too():
    secret = base64.b64encode(ocp.raw(OPENSHIFT, 1)).decode()
    document = f"""
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [routes.route.openshift.io]
  providers:
  - aescbc: {{keys: [{{name: "1", secret: {secret}}}]}}
  - identity: {{}}
"""
    _, groups = looked([ocp.managed(OPENSHIFT, document.encode()), ocp.route(1)])
    assert groups[ROUTES, "1"].verdict is PASS


def test_secrets_in_the_clear_are_read_too():
    plain = ocp.managed(OPENSHIFT, ocp.configuration(OPENSHIFT, 1), under=0)
    found, groups = looked([plain, ocp.route(1)])
    assert groups[ROUTES, "1"].verdict is PASS
    assert found.configurations


@pytest.mark.parametrize("which", [OPENSHIFT, OAUTH])
def test_a_configuration_does_without_minted_keys_and_they_without_it(which):
    for gone in (CONFIG[which], KEYS[which]):
        _, groups = looked(without(ocp.cluster(), gone))
        assert {group.verdict for group in groups.values()} == {PASS}


def test_promise_4_nothing_found_is_no_pass_and_is_said():
    history = without(ocp.cluster(), CONFIG[OAUTH], KEYS[OAUTH], CONFIG[OPENSHIFT])
    found, groups = looked(history)
    assert groups[ROUTES, "1"].verdict is PASS
    assert groups[TOKENS, "1"].verdict is COULD_NOT
    assert "oauth-apiserver has encrypted them" in groups[TOKENS, "1"].reason
    assert "none was found in the snapshot" in groups[TOKENS, "1"].reason
    assert "oauth" not in found.summary


def test_deleted_secrets_and_old_versions_do_not_count():
    key, value = ocp.managed(OPENSHIFT, ocp.configuration(OPENSHIFT, 1))
    history = without(ocp.cluster(), CONFIG[OPENSHIFT], KEYS[OPENSHIFT])
    _, groups = looked([(key, value), (key, None), *history])
    assert groups[ROUTES, "1"].verdict is COULD_NOT
    _, changed = ocp.managed(OPENSHIFT, ocp.configuration(OPENSHIFT, 2))
    _, groups = looked([(key, value), (key, changed), *history])
    assert groups[ROUTES, "1"].verdict is FAIL
    assert "the key 1 is missing; there is 2" in groups[ROUTES, "1"].reason


def test_what_is_given_is_not_looked_for():
    other = parse(ocp.configuration(OPENSHIFT, 2))
    found, groups = looked(ocp.cluster(), [*GIVEN, other])
    assert [keys.server for keys in found.servers] == ["oauth-apiserver"]
    assert groups[ROUTES, "1"].verdict is FAIL
    assert groups[ROUTES, "1"].reason == "the key 1 is missing; there is 2"
    assert groups[TOKENS, "1"].verdict is PASS


# Wrong keys.


def test_a_wrong_key_inside_fails_and_its_secret_is_named():
    wrong = kube.configuration(([ROUTES], [kube.provider("aescbc", **{"1": bytes(32)})]))
    history = without(ocp.cluster(), CONFIG[OPENSHIFT], KEYS[OPENSHIFT])
    _, groups = looked([*history, ocp.managed(OPENSHIFT, wrong)])
    group = groups[ROUTES, "1"]
    assert (group.verdict, group.opened) == (FAIL, 0)
    assert f"its keys are those in Secret openshift-config-managed/{CONFIG[OPENSHIFT]}" in (
        group.reason
    )
    assert groups[TOKENS, "1"].verdict is PASS


def test_the_key_of_one_api_server_is_not_tried_for_another():
    history = without(ocp.cluster(), CONFIG[OAUTH], KEYS[OAUTH])
    history = [*without(history, "sha256~t"), ocp.token(1, OPENSHIFT)]
    # It would open; but openshift-apiserver's configuration does not speak of tokens.
    _, groups = looked(history)
    assert groups[TOKENS, "1"].verdict is COULD_NOT


def test_without_the_outer_key_nothing_inside_is_read():
    found, groups = looked(ocp.cluster(), [parse(ocp.configuration(KUBE, 2))])
    assert found.configurations == ()
    assert groups["secrets", "1"].verdict is FAIL
    for group in (groups[ROUTES, "1"], groups[TOKENS, "1"]):
        assert group.verdict is COULD_NOT
        assert "can't be opened: the key 1 of kube-apiserver is missing" in group.reason


def test_with_a_wrong_outer_key_nothing_inside_is_read():
    wrong = parse(kube.configuration((["secrets"], [kube.provider("aescbc", **{"1": bytes(32)})])))
    found, groups = looked(ocp.cluster(), [wrong])
    assert found.configurations == ()
    assert groups["secrets", "1"].verdict is FAIL
    assert groups[ROUTES, "1"].verdict is COULD_NOT
    assert "the key 1 of kube-apiserver does not open it" in groups[ROUTES, "1"].reason


def test_what_lies_inside_says_nothing_of_secrets():
    # kube-apiserver starts with what it was given: the key inside does not help it.
    history = [
        *ocp.cluster(),
        ocp.minted(KUBE, 2),
        ocp.secret("b", {}, namespace="ns", under=2),
    ]
    _, groups = looked(history)
    assert groups["secrets", "1"].verdict is PASS
    group = groups["secrets", "2"]
    assert (group.verdict, group.tried) == (FAIL, 0)
    assert group.reason == (
        "the key 2 is missing; there is 1; one of that name lies in"
        f" Secret openshift-config-managed/encryption-key-{KUBE}-2"
    )


def test_a_key_inside_opens_more_secrets():
    # A chain: 1 was given, 2 lies under 1, 3 under 2, and what is asked for under 3.
    history = [
        ocp.managed(OPENSHIFT, ocp.configuration(OPENSHIFT, 1), under=3),
        ocp.minted(KUBE, 3, under=2),
        ocp.minted(KUBE, 2, under=1),
        ocp.route(1),
    ]
    _, groups = looked(history)
    assert groups[ROUTES, "1"].verdict is PASS
    assert groups["secrets", "3"].verdict is FAIL


def test_secrets_that_need_each_other_end():
    history = [ocp.minted(KUBE, 2, under=3), ocp.minted(KUBE, 3, under=2), ocp.route(1)]
    _, groups = looked(history)
    assert groups[ROUTES, "1"].verdict is COULD_NOT


def test_a_configuration_speaks_for_its_own_api_server_only():
    grasping = kube.configuration(
        (["secrets", "configmaps", ROUTES], ocp.providers(OPENSHIFT, 1)),
        ([TOKENS], ocp.providers(OPENSHIFT, 9)),
    )
    history = without(ocp.cluster(), CONFIG[OPENSHIFT])
    history += [ocp.managed(OPENSHIFT, grasping), ocp.token(1)]
    history += [(b"/kubernetes.io/configmaps/ns/c", kube.built_in("ConfigMap", "c", "ns"))]
    found, groups = looked(
        history, [parse(kube.configuration((["secrets"], ocp.providers(KUBE, 1))))]
    )
    assert ("configmaps", "") not in groups
    assert {group.verdict for group in groups.values()} == {PASS}
    assert ocp.raw(OPENSHIFT, 9) not in raws(found)


@pytest.mark.parametrize("everything", ["*.*", "*.route.openshift.io"])
def test_wildcards_inside(everything):
    document = kube.configuration(([everything], ocp.providers(OPENSHIFT, 1)))
    history = without(ocp.cluster(), CONFIG[OPENSHIFT], KEYS[OPENSHIFT])
    clear = (b"/openshift.io/routes/ns/c", kube.built_in("Route", "c", "ns"))
    _, groups = looked([*history, ocp.managed(OPENSHIFT, document), clear])
    assert {group.verdict for group in groups.values()} == {PASS}
    assert groups[ROUTES, ""].values == 1


def test_tokens_of_old_were_openshift_apiservers():
    document = ocp.configuration(OPENSHIFT, 1, resources=[ROUTES, TOKENS])
    history = [ocp.managed(OPENSHIFT, document), ocp.route(1), ocp.token(1, OPENSHIFT)]
    _, groups = looked(history)
    assert groups[TOKENS, "1"].verdict is PASS
    # Where oauth-apiserver has its own, the other's word does not count, read or not.
    _, groups = looked([*history, ocp.managed(OAUTH, b"{")])
    assert groups[TOKENS, "1"].verdict is COULD_NOT
    _, groups = looked([*history, ocp.managed(OAUTH, ocp.configuration(OAUTH, 1))])
    assert groups[TOKENS, "1"].verdict is FAIL


# Prefixes.


def test_other_prefixes_than_openshifts():
    def secret(name, data, namespace=ocp.MANAGED):
        key = f"/registry/secrets/{namespace}/{name}".encode()
        return ocp.stored(key, kube.secret(name, namespace, data), KUBE, 1)

    document = ocp.configuration(OPENSHIFT, 1)
    config = secret(CONFIG[OPENSHIFT], {"encryption-config": document})
    text = kube.built_in("Route", "r", "ns")
    for prefix in ("/registry", "/elsewhere"):
        route = ocp.stored(f"{prefix}/routes/ns/r".encode(), text, OPENSHIFT, 1)
        found, groups = looked([config, route])
        assert groups[ROUTES, "1"].verdict is PASS
        assert [keys.prefix for keys in found.servers] == [prefix]


def test_another_clusters_routes_in_the_same_etcd_are_not_judged():
    text = kube.built_in("Route", "r", "ns")
    other = (b"/other/routes/ns/r", kube.sealed("aescbc", "1", bytes(32), text, b"/other"))
    with kube.made_snapshot([*ocp.cluster(), other]) as snapshot:
        found = discover(snapshot, GIVEN)
        proof = found.explain(prove_keys(snapshot, [*GIVEN, *found.configurations]))
    verdicts = {(g.prefix, g.resource): g.verdict for g in proof.groups}
    assert verdicts["/openshift.io", ROUTES] is PASS
    assert verdicts["/other", ROUTES] is COULD_NOT


def test_secrets_elsewhere_are_not_looked_at():
    data = {"encryption-config": ocp.configuration(OPENSHIFT, 1)}
    history = [
        ocp.secret(CONFIG[OPENSHIFT], data, namespace="a-users"),
        ocp.secret("encryption-config-openshift-etcd", data),
        ocp.secret("encryption-config", data),
        ocp.secret("encryption-config-x", data, namespace=OPENSHIFT),
        ocp.secret(f"encryption-key-{OPENSHIFT}-x", data),
        ocp.secret(f"encryption-key-{OPENSHIFT}-", data),
        ocp.secret(f"encryption-key-{OPENSHIFT}", data),
        (b"/kubernetes.io/configmaps/openshift-config-managed/" + CONFIG[OPENSHIFT].encode(), b""),
    ]
    found, _ = looked([*history, ocp.route(1)])
    assert found.servers == ()
    assert found.summary == ""


# Rotations.


def test_a_rotation_old_and_new_keys_side_by_side():
    history = [
        *without(ocp.cluster(), CONFIG[OPENSHIFT]),
        ocp.managed(OPENSHIFT, ocp.configuration(OPENSHIFT, 2, 1), under=2),
        ocp.minted(OPENSHIFT, 2, under=2),
        ocp.route(2, "new"),
    ]
    found, groups = looked(history, [parse(ocp.configuration(KUBE, 2, 1))])
    assert {group.verdict for group in groups.values()} == {PASS}
    assert groups[ROUTES, "1"].values == groups[ROUTES, "2"].values == 1
    assert {ocp.raw(OPENSHIFT, 1), ocp.raw(OPENSHIFT, 2)} <= raws(found)


def test_copies_and_minted_keys_add_what_the_configuration_has_no_more():
    history = [
        ocp.managed(OPENSHIFT, ocp.configuration(OPENSHIFT, 3)),
        ocp.copy(OPENSHIFT, ocp.configuration(OPENSHIFT, 1), revision=4),
        ocp.minted(OPENSHIFT, 2),
        *(ocp.route(n, f"r{n}") for n in (1, 2, 3)),
    ]
    _, groups = looked(history)
    assert {group.verdict for group in groups.values()} == {PASS}
    _, groups = looked([*history, ocp.route(4, "r4")])
    assert groups[ROUTES, "4"].verdict is FAIL
    assert "the key 4 is missing; there is 3, 1, 2" in groups[ROUTES, "4"].reason


@pytest.mark.parametrize("revision", [None, 12])
def test_copies_do_where_the_configuration_is_gone(revision):
    history = [ocp.copy(OAUTH, ocp.configuration(OAUTH, 1), revision), ocp.token(1)]
    _, groups = looked(history)
    assert groups[TOKENS, "1"].verdict is PASS


def test_an_older_copy_does_not_say_what_is_encrypted():
    # Encryption was turned off: what lies in the clear is as it should be.
    off = kube.configuration(
        ([ROUTES], [ocp.IDENTITY, *ocp.providers(OPENSHIFT, 1)[:1]]),
    )
    clear = (b"/openshift.io/routes/ns/c", kube.built_in("Route", "c", "ns"))
    history = [
        ocp.managed(OPENSHIFT, off),
        ocp.copy(OPENSHIFT, ocp.configuration(OPENSHIFT, 1), revision=1),
        ocp.minted(OPENSHIFT, 1),
        ocp.route(1),
        clear,
    ]
    found, groups = looked(history)
    assert (ROUTES, "") not in groups
    assert groups[ROUTES, "1"].verdict is PASS
    assert not any(
        configuration.encrypts("/openshift.io", ROUTE_RESOURCE)
        for configuration in found.configurations
    )


def test_minted_keys_alone_do_not_say_what_is_encrypted():
    clear = (b"/openshift.io/routes/ns/c", kube.built_in("Route", "c", "ns"))
    _, groups = looked([ocp.minted(OPENSHIFT, 1), ocp.route(1), clear])
    assert (ROUTES, "") not in groups
    assert groups[ROUTES, "1"].verdict is PASS


def test_an_older_copy_does_not_let_values_be_in_the_clear():
    strict = kube.configuration(([ROUTES], ocp.providers(OPENSHIFT, 1)[:1]))
    clear = (b"/openshift.io/routes/ns/c", kube.built_in("Route", "c", "ns"))
    history = [
        ocp.managed(OPENSHIFT, strict),
        ocp.copy(OPENSHIFT, ocp.configuration(OPENSHIFT, 1), revision=1),
        clear,
    ]
    _, groups = looked(history)
    assert groups[ROUTES, ""].verdict is FAIL
    assert "no identity provider" in groups[ROUTES, ""].reason


def test_encryption_turned_off_leaves_keys_for_show():
    # library-go keeps the number of such a "key" as aesgcm with sixteen bytes of zero.
    show = kube.provider("aesgcm", **{"2": bytes(16)})
    off = kube.configuration(([ROUTES], [ocp.IDENTITY, *ocp.providers(OPENSHIFT, 1)[:1], show]))
    history = [
        ocp.managed(OPENSHIFT, off, under=0),
        ocp.minted(OPENSHIFT, 2, key=bytes(16), mode="identity", under=0),
        ocp.route(1),
    ]
    found, groups = looked(history)
    assert groups[ROUTES, "1"].verdict is PASS
    assert [keys.unread for keys in found.servers] == [()]


def test_a_kms_inside_could_not_be_verified():
    kms = {"kms": {"apiVersion": "v2", "name": "1-vault", "endpoint": "unix:///x", "timeout": "1s"}}
    value = b"k8s:enc:kms:v2:1-vault:" + bytes(50)
    history = [
        ocp.managed(OPENSHIFT, kube.configuration(([ROUTES], [kms, ocp.IDENTITY]))),
        ocp.minted(OPENSHIFT, 1, mode="KMS"),
        (ocp.ROUTE, value),
    ]
    _, groups = looked(history)
    assert groups[ROUTES, "1-vault"].verdict is COULD_NOT
    assert "only the KMS" in groups[ROUTES, "1-vault"].reason


# What can't be read.

SECRET = base64.b64encode(ocp.raw(OPENSHIFT, 1)).decode()
BROKEN = {
    "empty": (b"", "is no EncryptionConfiguration"),
    "cut": (ocp.configuration(OPENSHIFT, 1)[:-20], "neither YAML nor JSON"),
    "noise": (b"\xff\xfe\x00", "neither YAML nor JSON"),
    "another kind": (b'{"apiVersion": "v1", "kind": "Secret"}', "no EncryptionConfiguration"),
    "no rules": (kube.configuration(), "resources must be a list"),
    "null rules": (
        kube.configuration().replace(b"[]", b"null"),
        "resources must be a list",
    ),
    "a short key": (
        kube.configuration(([ROUTES], [kube.provider("aescbc", **{"1": b"short"})])),
        "has 5 bytes",
    ),
    "deep": (b"[" * 5000, "too many brackets"),
    "deep json": (b'{"a":' * 5000, "neither YAML nor JSON"),
    "large": (b" " * 70_000, "more than"),
    "of others": (
        kube.configuration((["secrets"], ocp.providers(OPENSHIFT, 1))),
        "says nothing of what openshift-apiserver stores",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_promise_4_a_broken_configuration_is_named_and_hides_nothing(case):
    document, wanted = BROKEN[case]
    history = without(ocp.cluster(), CONFIG[OPENSHIFT], KEYS[OPENSHIFT])
    found, groups = looked([*history, ocp.managed(OPENSHIFT, document)])
    group = groups[ROUTES, "1"]
    assert group.verdict is COULD_NOT
    assert f"Secret openshift-config-managed/{CONFIG[OPENSHIFT]}" in group.reason
    assert wanted in group.reason
    assert SECRET[:10] not in group.reason
    assert groups["secrets", "1"].verdict is groups[TOKENS, "1"].verdict is PASS
    assert "openshift-apiserver" not in found.summary


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_configuration_does_not_stand_in_the_way_of_minted_keys(case):
    history = without(ocp.cluster(), CONFIG[OPENSHIFT])
    history.append(ocp.managed(OPENSHIFT, BROKEN[case][0]))
    _, groups = looked(history)
    assert groups[ROUTES, "1"].verdict is PASS
    # The broken one might have had this key: it is not known to be lost.
    _, groups = looked([*history, ocp.route(2, "new")])
    assert groups[ROUTES, "2"].verdict is COULD_NOT
    assert "the key 2 is missing; there is 1" in groups[ROUTES, "2"].reason
    assert CONFIG[OPENSHIFT] in groups[ROUTES, "2"].reason


def test_a_broken_copy_does_not_make_a_missing_key_less_missing():
    history = [*ocp.cluster(), ocp.copy(OPENSHIFT, b"{", 3), ocp.route(2, "new")]
    _, groups = looked(history)
    assert groups[ROUTES, "2"].verdict is FAIL
    assert "encryption-config-3 is neither YAML nor JSON" in groups[ROUTES, "2"].reason


@pytest.mark.parametrize(
    ("data", "annotations"),
    [
        ({}, {"encryption.apiserver.operator.openshift.io/mode": "aescbc"}),
        ({"encryption.apiserver.operator.openshift.io-key": bytes(32)}, {}),
        (
            {"encryption.apiserver.operator.openshift.io-key": bytes(31)},
            {"encryption.apiserver.operator.openshift.io/mode": "aescbc"},
        ),
        (
            {"encryption.apiserver.operator.openshift.io-key": bytes(16)},
            {"encryption.apiserver.operator.openshift.io/mode": "secretbox"},
        ),
        (
            {"encryption.apiserver.operator.openshift.io-key": bytes(32)},
            {"encryption.apiserver.operator.openshift.io/mode": "\x1b[2J"},
        ),
    ],
)
def test_broken_minted_keys_are_named(data, annotations):
    history = without(ocp.cluster(), CONFIG[OPENSHIFT], KEYS[OPENSHIFT])
    history.append(ocp.secret(KEYS[OPENSHIFT], data, annotations=annotations))
    _, groups = looked(history)
    assert groups[ROUTES, "1"].verdict is COULD_NOT
    assert KEYS[OPENSHIFT] in groups[ROUTES, "1"].reason
    assert "\x1b" not in groups[ROUTES, "1"].reason


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"", "no Kubernetes object"),
        (b"noise", "no Kubernetes object"),
        (kube.secret("another", ocp.MANAGED), "the object is named 'another'"),
        (kube.built_in("Pod", CONFIG[OPENSHIFT], ocp.MANAGED), "no Secret"),
        (kube.secret(CONFIG[OPENSHIFT], ocp.MANAGED, {}), "has no encryption-config"),
        (b"k8s:enc:aescbc:v1:", "says that it is encrypted, and not how"),
        (b"k8s:enc:kms:v2:vault:x", "it is encrypted by kms"),
        (b"k8s:enc:new:v1:k:x", "it is encrypted by new"),
        (b"k8s:enc:aescbc:v1:1:" + bytes(31), "the key 1 of kube-apiserver does not open it"),
        (
            b"k8s:enc:aescbc:v1:\x1b[2J:" + bytes(32),
            "the key \\x1b[2J of kube-apiserver is missing",
        ),
        (kube.secret(CONFIG[OPENSHIFT], ocp.MANAGED, {"a": bytes(3 << 20)}), "it is too large"),
    ],
)
def test_broken_secrets_are_named(value, wanted):
    key, _ = ocp.managed(OPENSHIFT, b"")
    history = without(ocp.cluster(), CONFIG[OPENSHIFT], KEYS[OPENSHIFT])
    _, groups = looked([*history, (key, value)])
    assert groups[ROUTES, "1"].verdict is COULD_NOT
    assert wanted in groups[ROUTES, "1"].reason
    assert groups[TOKENS, "1"].verdict is PASS


def test_too_many_secrets_are_not_looked_into_and_that_is_said():
    history = [ocp.minted(OPENSHIFT, n) for n in range(1, MOST + 2)]
    found, groups = looked([*history, ocp.route(1), ocp.route(MOST + 1, "new")])
    assert groups[ROUTES, str(MOST + 1)].verdict is PASS
    assert groups[ROUTES, "1"].verdict is COULD_NOT
    assert "encryption-key-openshift-apiserver-1 was not looked into" in groups[ROUTES, "1"].reason
    (keys,) = found.servers
    assert len(keys.read) == MOST


def test_long_lists_are_shortened():
    history = [ocp.minted(OPENSHIFT, n, key=b"short") for n in range(1, 9)]
    _, groups = looked([*history, ocp.route(1)])
    assert groups[ROUTES, "1"].reason.endswith("; and 5 more")


def test_a_damaged_snapshot_is_a_typed_error():
    elements = [(b"no revision", b"/secrets/openshift-config-managed/encryption-")]
    with kube.raw_snapshot(elements) as snapshot, pytest.raises(DamagedError):
        discover(snapshot, GIVEN)


KEY, VALUE = ocp.managed(OPENSHIFT, ocp.configuration(OPENSHIFT, 1), under=0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    document=st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda at, more: ocp.configuration(OPENSHIFT, 1)[:at] + more,
            st.integers(0, 220),
            st.binary(max_size=20),
        ),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(
                    st.sampled_from(["resources", "providers", "aescbc", "keys", "name", "secret"]),
                    inner,
                    max_size=3,
                ),
            ),
        ).map(
            lambda rules: json.dumps(
                {
                    "apiVersion": "apiserver.config.k8s.io/v1",
                    "kind": "EncryptionConfiguration",
                    "resources": [rules],
                }
            ).encode()
        ),
    )
)
def test_promise_4_whatever_a_configuration_says_nothing_passes_by_it(document):
    _, groups = looked([ocp.managed(OPENSHIFT, document), ocp.route(2)])
    assert groups[ROUTES, "2"].verdict is not PASS
    assert groups["secrets", "1"].verdict is PASS


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, len(VALUE) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_promise_4_a_secret_with_any_byte_changed(at, byte, cut):
    value = VALUE[:at] if cut else VALUE[:at] + bytes([byte]) + VALUE[at + 1 :]
    found, groups = looked([(KEY, value), ocp.route(1)])
    if value == VALUE:
        assert groups[ROUTES, "1"].verdict is PASS
    if groups[ROUTES, "1"].verdict is PASS:
        assert ocp.raw(OPENSHIFT, 1) in raws(found)
    # The last four bytes are two empty fields, which can be left out.
    if cut and at < len(VALUE) - 4:
        assert groups[ROUTES, "1"].verdict is COULD_NOT


# Where there is nothing to find.


@pytest.mark.parametrize("name", kube.ALL)
def test_real_snapshots_of_other_clusters_are_as_before(name):
    keys = [base64.b64decode(key["key_base64"]) for key in kube.facts(name)["encryption_keys"]]
    data = json.dumps(kube.facts(name)["encryption_configuration"]).encode()
    given = [[parse(data)]] if keys else []
    given += [[hypershift_configuration(keys or [bytes(32)])]]
    with kube.real_snapshot(name) as snapshot:
        for known in given:
            found = discover(snapshot, known)
            assert (found.servers, found.configurations, found.summary) == ((), (), "")
            proof = prove_keys(snapshot, known)
            assert found.explain(proof) == proof


def test_promise_5_no_key_is_in_any_text():
    history = [
        *ocp.cluster(),
        ocp.copy(OPENSHIFT, ocp.configuration(OPENSHIFT, 5)[:-9], 1),
        ocp.copy(OAUTH, ocp.configuration(OAUTH, 5).replace(b"aescbc", b"aesxyz"), 1),
        ocp.minted(OPENSHIFT, 6, mode="none"),
        ocp.minted(KUBE, 2),
        ocp.route(5, "x"),
        ocp.secret("b", {}, namespace="ns", under=2),
    ]
    found, groups = looked(history)
    assert any(keys.unread for keys in found.servers)
    seen = repr(found) + str(found) + found.summary + "".join(map(repr, groups.values()))
    seen += repr(found.configurations) + json.dumps([group.to_json() for group in groups.values()])
    for component in (KUBE, OPENSHIFT, OAUTH):
        for number in (1, 2, 5, 6):
            key = ocp.raw(component, number)
            for shape in (base64.b64encode(key).decode(), key.hex(), repr(key)[2:-1]):
                assert shape[:12] not in seen
    assert "not-to-be-seen" not in seen
