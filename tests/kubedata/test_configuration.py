"""EncryptionConfiguration files: read as the API server reads them, and as strictly."""

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import FormatError
from backstay.kubedata.configuration import parse_configuration
from backstay.kubedata.encryption import Key, Provider
from backstay.kubedata.resource import Resource
from kit import kube

KEY = b"0123456789abcdef" * 2
TEXT = base64.b64encode(KEY).decode()
SECRETS = Resource("secrets")

YAML = f"""
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets, configmaps]
    providers:
      - secretbox:
          keys:
            - name: "1"
              secret: {TEXT}
      - aescbc:
          keys:
            - name: old
              secret: {TEXT}   # a comment
      - kms:
          apiVersion: v2
          name: vault
          endpoint: unix:///kms.sock
          timeout: 3s
      - identity: {{}}
"""


def parse(data):
    return parse_configuration(data if isinstance(data, bytes) else data.encode(), name="enc.yaml")


def one(**change):
    """A configuration of one rule with something changed."""
    rule = {"resources": ["secrets"], "providers": [kube.provider("aescbc", a=KEY)]} | change
    document = json.loads(kube.configuration(([], [])))
    return json.dumps(document | {"resources": [rule]}).encode()


def keys(kind, *entries):
    return one(providers=[{kind: {"keys": list(entries)}}])


def test_yaml_with_all_providers():
    found = parse(YAML).providers("/registry", SECRETS)
    assert found == (
        Provider("secretbox", (Key("1", KEY),)),
        Provider("aescbc", (Key("old", KEY),)),
        Provider("kms", (), "vault"),
        Provider("identity"),
    )


@pytest.mark.parametrize("name", kube.ENCRYPTED)
def test_configurations_that_a_real_api_server_had(name):
    facts = kube.facts(name)
    document = facts["encryption_configuration"]
    found = parse(json.dumps(document).encode())
    names = {(provider.kind, key.name) for rule in found.rules for provider in rule.providers
             for key in provider.keys}  # fmt: skip
    assert names == {(key["provider"], key["name"]) for key in facts["encryption_keys"]}
    assert {base64.b64encode(key.secret).decode() for key in found.all_keys()} == {
        key["key_base64"] for key in facts["encryption_keys"]
    }


def test_the_kind_of_old():
    data = one().replace(b"EncryptionConfiguration", b"EncryptionConfig")
    assert parse(data.replace(b"apiserver.config.k8s.io/v1", b"v1")).rules == parse(one()).rules


def test_a_secret_may_have_line_breaks_as_go_takes_them():
    found = parse(keys("aescbc", {"name": "a", "secret": f"{TEXT[:20]}\r\n{TEXT[20:]}\n"}))
    assert [key.secret for key in found.all_keys()] == [KEY]


@pytest.mark.parametrize(
    ("kind", "size"),
    [("aescbc", 16), ("aescbc", 24), ("aescbc", 32), ("aesgcm", 16), ("aesgcm", 24),
     ("aesgcm", 32), ("secretbox", 32)],
)  # fmt: skip
def test_lengths_that_are_taken(kind, size):
    assert parse(one(providers=[kube.provider(kind, a=bytes(size))]))


@pytest.mark.parametrize(
    ("kind", "size"),
    [("aescbc", 0), ("aescbc", 31), ("aesgcm", 33), ("secretbox", 16), ("secretbox", 24)],
)
def test_lengths_that_are_refused(kind, size):
    with pytest.raises(FormatError, match=f"has {size} bytes|not empty"):
        parse(one(providers=[kube.provider(kind, a=bytes(size))]))


@pytest.mark.parametrize(
    "resources",
    [["secrets"], ["*."], ["*.*"], ["*.apps"], ["*.apps", "*.batch"], ["secrets", "*.apps"],
     ["secrets", "deployments.apps", "foos.example.com"]],
)  # fmt: skip
def test_resources_that_are_taken(resources):
    assert [str(r) for rule in parse(one(resources=resources)).rules for r in rule.resources] == [
        resource.removesuffix(".") for resource in resources
    ]


@pytest.mark.parametrize(
    ("resources", "reason"),
    [
        ([], "at least one"),
        ("secrets", "list"),
        ([""], "not empty"),
        ([1], "text"),
        (["Secrets"], "capital"),
        (["*"], "too little"),
        ([".apps"], "no resource"),
        (["secrets.*"], "all groups"),
        (["events.events.k8s.io"], "nothing is stored"),
        (["ingresses.extensions"], "nothing is stored"),
        (["serviceipallocations"], "no resource of the API"),
        (["secrets", "secrets"], "twice"),
        (["secrets", "*."], "wildcard"),
        (["deployments.apps", "*.apps"], "wildcard"),
        (["secrets", "*.*"], "wildcard"),
        (["*.apps", "*.*"], "wildcard"),
    ],
)
def test_resources_that_are_refused(resources, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        parse(one(resources=resources))
    assert "enc.yaml: resources[0]" in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"), [("*.*", "secrets"), ("*.", "secrets"), ("*.*", "*.apps"), ("*.*", "*.*")]
)
def test_a_rule_behind_a_wildcard_is_refused(first, second):
    rule = [kube.provider("aescbc", a=KEY)]
    with pytest.raises(FormatError, match=r"resources\[1\] is hidden"):
        parse(kube.configuration(([first], rule), ([second], rule)))
    if first != second:
        assert parse(kube.configuration(([second], rule), ([first], rule)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (one(providers=[]), "at least one"),
        (one(providers=[{}]), "exactly one"),
        (one(providers=[{"identity": {}, "kms": {"name": "a"}}]), "exactly one"),
        (one(providers=[{"identity": None}]), "must be an object"),
        (one(providers=[{"aescfb": {}}]), "none of identity"),
        (one(providers=["identity"]), "must be an object"),
        (one(providers=[{"aescbc": {}}]), "keys must be a list"),
        (keys("aescbc"), "at least one"),
        (keys("aescbc", {"secret": TEXT}), r"keys\[0\]\.name"),
        (keys("aescbc", {"name": "a"}), r"keys\[0\]\.secret"),
        (keys("aescbc", {"name": 1, "secret": TEXT}), "text"),
        (keys("aescbc", {"name": "a", "secret": TEXT[:-1]}), "no base64"),
        (keys("aescbc", {"name": "a", "secret": TEXT + "="}), "no base64"),
        (keys("aescbc", {"name": "a", "secret": "-" + TEXT[1:]}), "no base64"),
        (keys("aescbc", {"name": "a", "secret": TEXT + " "}), "no base64"),
        (keys("aescbc", *[{"name": "a", "secret": TEXT}] * 2), "two keys of one name"),
        (one(providers=[{"kms": {"apiVersion": "v2"}}]), r"kms\.name"),
        (one(providers=[{"kms": {"apiVersion": "v3", "name": "a"}}]), "neither v1 nor v2"),
        (one(providers=[{"kms": {"apiVersion": [2], "name": "a"}}]), r"kms\.apiVersion"),
        (one(providers=[{"kms": {"apiVersion": "v2", "name": "a:b"}}]), "colon"),
        (one().replace(b'"resources": [{', b'"resource": [{'), "at least one"),
        (one().replace(b"k8s.io/v1", b"k8s.io/v2"), "no EncryptionConfiguration"),
        (one().replace(b"Configuration", b"Config"), "no EncryptionConfiguration"),
        (b'{"apiVersion": ["v1"], "kind": {}}', "no EncryptionConfiguration"),
        (b"[]", "no EncryptionConfiguration"),
        (b"", "no EncryptionConfiguration"),
    ],
)
def test_what_an_api_server_refuses(data, reason):
    with pytest.raises(FormatError, match=reason):
        parse(data)


@pytest.mark.parametrize(
    "data",
    [
        YAML.replace(TEXT, TEXT[:-2]),
        YAML.replace("aescbc", "aescfb"),
        YAML.replace("name: old", f"name: &{TEXT[:9]} old"),
        YAML.replace("  # a", ": #"),
        YAML.replace('name: "1"', "name: 1"),
        YAML.replace("name: old", f"name: {TEXT}").replace(f"secret: {TEXT}", "secret: x"),
        YAML.replace("secret: ", "secret: AAAA"),
        YAML.replace("EncryptionConfiguration", TEXT),
        one(resources=[TEXT]).decode(),
        keys("aescbc", *[{"name": TEXT, "secret": TEXT}] * 2).decode(),
        keys(TEXT, {"name": "a", "secret": TEXT}).decode(),
    ],
)  # fmt: skip
def test_promise_5_no_error_shows_a_key(data):
    with pytest.raises(FormatError) as caught:
        parse(data)
    error = caught.value
    assert TEXT[:8] not in repr(error) + str(error) + repr(error.args)
    assert error.__cause__ is None
    assert error.__context__ is None


@given(st.data())
def test_damage_gives_a_configuration_or_a_typed_error(data):
    text = data.draw(st.sampled_from([YAML.encode(), one()]))
    damaged = bytearray(text)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    with suppress(FormatError):
        assert parse(bytes(damaged)).rules


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda child: (
        st.lists(child, max_size=3)
        | st.dictionaries(
            st.sampled_from(["resources", "providers", "keys", "name", "secret", "aescbc", "kms"]),
            child,
            max_size=3,
        )
    ),
    max_leaves=15,
)


@given(JSON)
def test_no_document_of_the_kind_raises_anything_else(resources):
    document = json.loads(one()) | {"resources": resources}
    with suppress(FormatError):
        assert parse(json.dumps(document)).rules
