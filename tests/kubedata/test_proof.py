"""The key proof on real snapshots, and on made ones for what real ones do not have."""

import base64
import hashlib
import json
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from backstay.errors import CheckFailedError, DamagedError
from backstay.kubedata.cipher import decrypt
from backstay.kubedata.configuration import parse_configuration
from backstay.kubedata.encryption import (
    EncryptionConfiguration,
    Key,
    Provider,
    hypershift_configuration,
)
from backstay.kubedata.envelope import Encrypted, read_envelope
from backstay.kubedata.objects import read_secret_data
from backstay.kubedata.proof import prove_keys, spread
from backstay.report import Verdict
from kit import kube

IDENTITY = {"identity": {}}
AESCBC = ("kube-aescbc", "kube-aescbc-rotation")


def parse(*rules, prefix=""):
    return parse_configuration(kube.configuration(*rules), name="x", prefix=prefix)


def real_configuration(name):
    data = json.dumps(kube.facts(name)["encryption_configuration"]).encode()
    return parse_configuration(data, name=name)


def real_keys(name):
    return [base64.b64decode(key["key_base64"]) for key in kube.facts(name)["encryption_keys"]]


def with_keys(configuration, change):
    """The same configuration with each key changed, or left out where `change` gives None."""

    def changed(provider):
        keys = (change(key) for key in provider.keys)
        return replace(provider, keys=tuple(key for key in keys if key))

    return replace(
        configuration,
        rules=tuple(
            replace(rule, providers=tuple(changed(provider) for provider in rule.providers))
            for rule in configuration.rules
        ),
    )


def by_key(proof):
    return {(group.provider, group.key_name): group for group in proof.groups}


# Real snapshots of a kube-apiserver.


@pytest.mark.parametrize("name", kube.ENCRYPTED)
def test_each_value_opens_and_has_the_data_that_the_api_server_gave(name):
    keys = {
        (provider.kind, key.name): key.secret
        for rule in real_configuration(name).rules
        for provider in rule.providers
        for key in provider.keys
    }
    with kube.real_snapshot(name) as snapshot:
        head = kube.live(snapshot)
    secrets = kube.facts(name)["secrets"]
    assert secrets
    for secret in secrets:
        key = secret["key"].encode()
        value, stored_with = head[key], "identity"
        envelope = read_envelope(value)
        if isinstance(envelope, Encrypted):
            stored_with = envelope.provider
            assert envelope.key_name == secret["stored_key_name"]
            found = keys[envelope.provider, envelope.key_name]
            value = decrypt(envelope.provider, found, envelope.payload, key)
        assert stored_with == secret["stored_with"]
        data = read_secret_data(value)
        assert {k: hashlib.sha256(v).hexdigest() for k, v in data.items()} == secret["data_sha256"]


@pytest.mark.parametrize("name", kube.ENCRYPTED)
def test_the_right_configuration_passes(name):
    with kube.real_snapshot(name) as snapshot:
        proof = prove_keys(snapshot, [real_configuration(name)], prove_all=True)
    assert proof.verdict is Verdict.PASS
    counts = {}
    for group in proof.groups:
        assert (group.prefix, group.resource) == ("/kubernetes.io", "secrets")
        assert group.values == group.tried == group.opened
        counts[f"{group.provider}:{group.key_name}".removesuffix(":")] = group.values
    assert counts == kube.facts(name)["secrets_stored_with"]


@pytest.mark.parametrize("name", AESCBC)
def test_the_keys_of_a_hosted_cluster_pass(name):
    with kube.real_snapshot(name) as snapshot:
        proof = prove_keys(snapshot, [hypershift_configuration(real_keys(name))])
    assert proof.verdict is Verdict.PASS


def test_one_line_says_it_all():
    with kube.real_snapshot("kube-aescbc") as snapshot:
        known = [real_configuration("kube-aescbc")]
        whole = prove_keys(snapshot, known, prove_all=True)
        some = prove_keys(snapshot, known, sample=5)
    line = "77 secrets, all under key-3783090363, "
    assert whole.summary == line + "all open with the saved key"
    assert some.summary == line + "5 tried, all open with the saved key"
    assert (some.groups[0].values, some.groups[0].tried, some.groups[0].opened) == (77, 5, 5)


def test_three_forms_side_by_side_are_counted_and_named():
    name = "kube-aescbc-rotation"
    with kube.real_snapshot(name) as snapshot:
        proof = prove_keys(snapshot, [real_configuration(name)], prove_all=True)
    assert proof.summary == (
        "48 secrets: 15 under key-2046900461, 22 under key-3857105710, 11 stored without"
        " encryption; of the encrypted ones all open with the saved keys"
    )


def test_without_encryption_all_are_left_overs():
    known = [hypershift_configuration([bytes(32)])]
    with kube.real_snapshot("kube-plain") as snapshot:
        proof = prove_keys(snapshot, known, prove_all=True)
    assert proof.verdict is Verdict.PASS
    assert proof.summary == "85 secrets, all stored without encryption, all are readable"
    assert [group.provider for group in proof.groups] == ["identity"]


@pytest.mark.parametrize("name", kube.ENCRYPTED)
def test_another_key_of_the_same_name_fails(name):
    other = with_keys(real_configuration(name), lambda key: Key(key.name, b"\x07" * 32))
    with kube.real_snapshot(name) as snapshot:
        proof = prove_keys(snapshot, [other], prove_all=True)
    assert proof.verdict is Verdict.FAIL
    for group in proof.groups:
        if group.provider != "identity":
            assert (group.verdict, group.opened) == (Verdict.FAIL, 0)
            assert f"key {group.key_name} opens none of {group.tried}" in group.reason
            assert "/kubernetes.io/secrets/" in group.reason
            assert group.reason in proof.summary


@pytest.mark.parametrize("name", kube.ENCRYPTED)
def test_a_key_with_one_other_bit_fails(name):
    known = real_configuration(name)
    with kube.real_snapshot(name) as snapshot:
        for bit in random.Random(name).sample(range(256), 24):
            flip = 1 << bit

            def flipped(key, flip=flip):
                number = int.from_bytes(key.secret, "big") ^ flip
                return Key(key.name, number.to_bytes(32, "big"))

            proof = prove_keys(snapshot, [with_keys(known, flipped)], sample=3)
            assert proof.verdict is Verdict.FAIL
            assert all(group.opened == 0 for group in proof.groups if group.provider != "identity")


@pytest.mark.parametrize("lost", ["key-3857105710", "key-2046900461"])
def test_one_of_two_keys_missing_fails_and_is_named(lost):
    name = "kube-aescbc-rotation"
    rest = with_keys(real_configuration(name), lambda key: None if key.name == lost else key)
    hosted = [key for key in real_keys(name) if hypershift_name(key) != lost]
    with kube.real_snapshot(name) as snapshot:
        for known in (rest, hypershift_configuration(hosted)):
            proof = prove_keys(snapshot, [known])
            groups = by_key(proof)
            (kept,) = {"key-3857105710", "key-2046900461"} - {lost}
            assert proof.verdict is Verdict.FAIL
            assert groups["aescbc", lost].verdict is Verdict.FAIL
            assert groups["aescbc", lost].tried == 0
            assert groups["aescbc", lost].reason == f"the key {lost} is missing; there is {kept}"
            assert groups["aescbc", kept].verdict is Verdict.PASS
            assert groups["identity", ""].verdict is Verdict.PASS


def hypershift_name(key):
    return next(iter(hypershift_configuration([key]).all_keys())).name


def test_left_overs_that_no_provider_reads_fail():
    known = real_configuration("kube-aescbc-rotation")
    rules = tuple(
        replace(rule, providers=tuple(p for p in rule.providers if p.kind != "identity"))
        for rule in known.rules
    )
    with kube.real_snapshot("kube-aescbc-rotation") as snapshot:
        proof = prove_keys(snapshot, [EncryptionConfiguration(rules)])
    assert proof.verdict is Verdict.FAIL
    assert "no identity provider" in by_key(proof)["identity", ""].reason


@pytest.mark.parametrize("name", kube.ENCRYPTED)
def test_promise_4_without_keys_nothing_passes(name):
    with kube.real_snapshot(name) as snapshot:
        proof = prove_keys(snapshot, [])
    assert proof.verdict is Verdict.COULD_NOT_VERIFY
    assert {group.verdict for group in proof.groups} == {Verdict.COULD_NOT_VERIFY}
    assert all(group.tried == 0 for group in proof.groups)


# Made snapshots.

K, L = (bytes([i]) * 32 for i in (1, 2))
A, B = b"/registry/secrets/ns/a", b"/registry/secrets/ns/b"
SECRETS = (["secrets"], [kube.provider("aescbc", k=K), IDENTITY])
PROVIDERS = ("aescbc", "aesgcm", "secretbox")


def sealed(key, provider="aescbc", name="k", secret=K, value=None):
    text = kube.secret(key.decode().rpartition("/")[2]) if value is None else value
    return key, kube.sealed(provider, name, secret, text, key)


def prove(history, *configurations, **options):
    with kube.made_snapshot(history) as snapshot:
        return prove_keys(snapshot, configurations, **options)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_opens_and_is_no_kubernetes_object_fails(provider):
    known = parse((["secrets"], [kube.provider(provider, k=K)]))
    good = sealed(A, provider)
    assert prove([good], known).verdict is Verdict.PASS
    for text in (b"", b"noise", b"k8s\x00", kube.secret("a")[:-1]):
        proof = prove([good, sealed(B, provider, value=text)], known)
        assert proof.verdict is Verdict.FAIL
        assert "opens only 1 of 2; first /registry/secrets/ns/b: " in proof.groups[0].reason


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_value_that_was_moved_to_another_key_fails(provider):
    known = parse((["secrets"], [kube.provider(provider, k=K)]))
    _, value = sealed(A, provider)
    proof = prove([(A, value), (B, value)], known)
    assert proof.verdict is Verdict.FAIL
    wanted = "another etcd key" if provider == "aesgcm" else "the object is named 'a'"
    assert wanted in proof.groups[0].reason


def test_custom_resources_in_json_count_as_objects():
    known = parse((["widgets.example.com"], [kube.provider("secretbox", k=K)]))
    document = {"apiVersion": "example.com/v1", "kind": "W", "metadata": {"name": "w"}}
    key = b"/registry/example.com/widgets/w"
    text = json.dumps(document).encode()
    assert prove([sealed(key, "secretbox", value=text)], known).verdict is Verdict.PASS
    proof = prove([sealed(key, "secretbox", value=text.replace(b'"w"', b'"v"'))], known)
    assert proof.verdict is Verdict.FAIL


def test_the_same_name_in_two_resources_and_prefixes_is_two_keys():
    route = b"/openshift.io/routes/ns/r"
    token = b"/openshift.io/oauth/accesstokens/t"
    secret = b"/kubernetes.io/secrets/ns/s"
    third = bytes(32)

    def stored(key, raw, kind, name, namespace=""):
        return sealed(key, name="1", secret=raw, value=kube.built_in(kind, name, namespace))

    history = [
        stored(secret, K, "Secret", "s", "ns"),
        stored(route, L, "Route", "r", "ns"),
        stored(token, third, "OAuthAccessToken", "t"),
    ]
    kube_server = parse((["secrets"], [kube.provider("aescbc", **{"1": K})]))
    openshift = parse((["routes.route.openshift.io"], [kube.provider("aescbc", **{"1": L})]))
    oauth = ["oauthaccesstokens.oauth.openshift.io"]
    tokens = parse((oauth, [kube.provider("aescbc", **{"1": third})]))
    proof = prove(history, kube_server, openshift, tokens)
    assert proof.verdict is Verdict.PASS
    assert [(g.prefix, g.resource) for g in proof.groups] == [
        ("/kubernetes.io", "secrets"),
        ("/openshift.io", "oauthaccesstokens.oauth.openshift.io"),
        ("/openshift.io", "routes.route.openshift.io"),
    ]
    alone = prove(history, kube_server)
    assert alone.verdict is Verdict.COULD_NOT_VERIFY
    assert [group.verdict for group in alone.groups] == [
        Verdict.PASS, Verdict.COULD_NOT_VERIFY, Verdict.COULD_NOT_VERIFY,
    ]  # fmt: skip
    assert "oauth-apiserver has encrypted them" in alone.groups[1].reason
    assert "openshift-apiserver has encrypted them" in alone.groups[2].reason
    swapped = parse((["routes.route.openshift.io"], [kube.provider("aescbc", **{"1": K})]))
    assert prove(history, kube_server, swapped, tokens).verdict is Verdict.FAIL


def test_a_resource_that_its_api_server_has_no_rule_for_fails():
    key = b"/registry/configmaps/ns/a"
    proof = prove(
        [sealed(A), sealed(key, value=kube.built_in("ConfigMap", "a", "ns"))], parse(SECRETS)
    )
    assert [group.verdict for group in proof.groups] == [Verdict.FAIL, Verdict.PASS]
    assert "has no key for configmaps" in proof.groups[0].reason


def test_a_configuration_of_another_prefix_does_not_say_that_a_key_is_missing():
    proof = prove([sealed(A)], parse(SECRETS, prefix="/kubernetes.io"))
    assert proof.verdict is Verdict.COULD_NOT_VERIFY
    assert prove([sealed(A)], parse(SECRETS, prefix="/registry")).verdict is Verdict.PASS


def test_a_hosted_key_opens_more_than_secrets():
    key = b"/registry/configmaps/ns/a"
    name = hypershift_name(K)
    proof = prove(
        [sealed(A, name=name), sealed(key, name=name, value=kube.built_in("ConfigMap", "a", "ns"))],
        hypershift_configuration([K]),
    )
    assert proof.verdict is Verdict.PASS
    assert [group.resource for group in proof.groups] == ["configmaps", "secrets"]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_promise_4_kms_could_not_be_verified(version):
    value = f"k8s:enc:kms:{version}:vault:".encode() + bytes(50)
    kms = {"kms": {"apiVersion": version, "name": "vault"}}
    for known in ([], [parse((["secrets"], [kms, IDENTITY]))], [hypershift_configuration([K])]):
        proof = prove([(A, value)], *known)
        (group,) = proof.groups
        assert proof.verdict is group.verdict is Verdict.COULD_NOT_VERIFY
        assert (group.provider, group.key_name, group.tried) == ("kms", "vault", 0)
        assert "1 secrets, all under kms vault; only the KMS" in proof.summary


def test_promise_4_a_provider_of_tomorrow_could_not_be_verified():
    proof = prove([(A, b"k8s:enc:new:v1:k:x"), sealed(B)], parse(SECRETS))
    assert proof.verdict is Verdict.COULD_NOT_VERIFY
    assert by_key(proof)["new", "k"].verdict is Verdict.COULD_NOT_VERIFY


def test_promise_4_nothing_to_try_is_no_pass():
    for history in ([], [(b"/registry/pods/ns/a", kube.built_in("Pod", "a", "ns"))]):
        proof = prove(history, parse(SECRETS))
        assert proof.verdict is Verdict.COULD_NOT_VERIFY
        assert proof.to_json() == []
        assert "nothing to try" in proof.summary


def test_a_header_that_is_cut_off_fails():
    proof = prove([sealed(A), (B, b"k8s:enc:aescbc:v1:")], parse(SECRETS))
    assert by_key(proof)["unknown", ""].verdict is Verdict.FAIL
    assert proof.verdict is Verdict.FAIL


def test_left_overs_that_are_no_objects_fail():
    proof = prove([sealed(A), (B, b"noise")], parse(SECRETS))
    assert by_key(proof)["identity", ""].verdict is Verdict.FAIL
    assert "1 of 1 are no Kubernetes objects" in proof.summary


def test_wildcards_encrypt_everything_with_an_api():
    known = parse((["*.*"], [kube.provider("aescbc", k=K), IDENTITY]))
    pod = (b"/registry/pods/ns/p", kube.built_in("Pod", "p", "ns"))
    ranges = (b"/registry/ranges/serviceips", kube.built_in("RangeAllocation", ""))
    groups = prove([sealed(A), pod, ranges], known).groups
    assert {(group.resource, group.provider) for group in groups} == {
        ("secrets", "aescbc"), ("pods", "identity"),
    }  # fmt: skip
    assert [group.resource for group in prove([pod], known).groups] == ["pods"]


def test_of_two_keys_with_one_name_each_is_tried():
    both = parse(
        (["secrets"], [kube.provider("aescbc", k=L), kube.provider("aescbc", k=K), IDENTITY])
    )
    assert prove([sealed(A), sealed(B, secret=L)], both).verdict is Verdict.PASS


def test_a_key_name_with_a_colon_is_found():
    keys = [{"name": "a:b", "secret": base64.b64encode(K).decode()}]
    known = parse((["secrets"], [{"aescbc": {"keys": keys}}]))
    proof = prove([sealed(A, name="a:b")], known)
    assert proof.verdict is Verdict.PASS
    assert proof.groups[0].key_name == "a:b"


def test_a_name_of_two_providers_is_said_with_the_provider():
    known = parse((["secrets"], [kube.provider("secretbox", k=L), kube.provider("aescbc", k=K)]))
    proof = prove([sealed(A), sealed(B, "secretbox", secret=L)], known)
    assert proof.summary.startswith("2 secrets: 1 under aescbc k, 1 under secretbox k, all open")


def test_names_from_the_snapshot_can_not_write_on_the_terminal():
    proof = prove([(A, b"k8s:enc:aescbc:v1:\x1b[2J:x" + bytes(31))], parse(SECRETS))
    assert proof.verdict is Verdict.FAIL
    assert proof.groups[0].key_name == "\x1b[2J"
    assert "\x1b" not in proof.summary
    assert "\\x1b[2J" in proof.summary


def test_one_bad_value_among_many_is_found_by_trying_all():
    history = [sealed(b"/registry/secrets/ns/s%d" % i) for i in range(200)]
    history[101] = sealed(b"/registry/secrets/ns/s101", secret=L)
    assert prove(history, parse(SECRETS)).groups[0].tried == 64
    proof = prove(history, parse(SECRETS), prove_all=True)
    assert proof.verdict is Verdict.FAIL
    assert proof.groups[0].opened == 199
    assert "199 of 200" in proof.summary


@pytest.mark.parametrize("bad", [0, 199])
def test_the_oldest_and_the_newest_value_are_always_tried(bad):
    history = [sealed(b"/registry/secrets/ns/s%d" % i) for i in range(200)]
    history[bad] = sealed(b"/registry/secrets/ns/s%d" % bad, secret=L)
    assert prove(history, parse(SECRETS), sample=2).verdict is Verdict.FAIL


def test_json_has_every_field():
    (group,) = prove([sealed(A)], parse(SECRETS)).to_json()
    assert json.loads(json.dumps(group)) == {
        "prefix": "/registry",
        "resource": "secrets",
        "provider": "aescbc",
        "key_name": "k",
        "values": 1,
        "tried": 1,
        "opened": 1,
        "verdict": "PASS",
        "reason": "open with the saved key k",
    }


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 66, 1000, 812_345])
@pytest.mark.parametrize("sample", [1, 2, 3, 64])
def test_samples_are_spread_evenly(count, sample):
    chosen = spread(count, sample)
    assert len(set(chosen)) == len(chosen) == min(count, sample)
    assert all(0 <= index < count for index in chosen)
    if count > 1 < sample:
        assert (chosen[0], chosen[-1]) == (0, count - 1)
        gaps = {after - before for before, after in pairwise(chosen)}
        assert max(gaps) - min(gaps) <= 1


def test_a_damaged_snapshot_is_a_typed_error():
    elements = [(b"no revision", b"/secrets/")]
    with kube.raw_snapshot(elements) as snapshot, pytest.raises(DamagedError):
        prove_keys(snapshot, [parse(SECRETS)])


def test_promise_5_no_key_and_no_plaintext_is_in_any_text():
    text, other = b"a key of 32 bytes, not to be see", b"another one of just that length "
    assert len(text) == len(other) == 32
    shapes = [
        shape
        for key in (text, other)
        for shape in (key, key.hex().encode(), base64.b64encode(key), repr(key).encode()[2:-1])
    ]
    history = [sealed(A, secret=text), sealed(B, secret=bytes(32))]
    history += [
        (b"/registry/secrets/ns/c", kube.secret("c")),
        (b"/registry/secrets/ns/d", b"noise"),
    ]
    known = parse((["secrets"], [kube.provider("aescbc", k=text, j=other), IDENTITY]))
    hosted = hypershift_configuration([text, other])
    with kube.made_snapshot(history) as snapshot:
        proofs = [prove_keys(snapshot, [each]) for each in (known, hosted)]
    assert {proof.verdict for proof in proofs} == {Verdict.FAIL}
    document = b'{"apiVersion": "v1", "kind": "Secret", "data": {"a": "not-to-be-seen"}}'
    envelopes = [read_envelope(value) for value in (document, *(value for _, value in history))]
    errors = []
    for payload in (bytes(32), bytes(7)):
        with pytest.raises(CheckFailedError) as caught:
            decrypt("aescbc", text, payload, A)
        errors.append(caught.value)
    seen = [known, hosted, *known.rules, *known.all_keys(), proofs, envelopes, errors]
    seen += [Provider("aescbc", tuple(known.all_keys()))]
    seen += [proof.to_json() for proof in proofs] + [proof.summary for proof in proofs]
    everything = "\n".join(repr(thing) + str(thing) for thing in seen).encode()
    assert b"secrets/ns" in everything
    for shape in [*shapes, b"not-to-be-seen", text[:16]]:
        assert shape not in everything
