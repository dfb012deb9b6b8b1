"""How values are wrapped: every form that Kubernetes writes, and bytes that are none of them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.kubedata.envelope import (
    HEADER_LIMIT,
    Encrypted,
    Json,
    Protobuf,
    Unreadable,
    read_envelope,
)
from kit import kube


@pytest.mark.parametrize("name", kube.ALL)
def test_forms_in_real_snapshots_are_those_that_were_counted(name):
    forms = {Protobuf: "protobuf", Json: "json", Encrypted: "encrypted", Unreadable: "other"}
    with kube.real_snapshot(name) as snapshot:
        found = Counter(forms[type(read_envelope(v))] for v in kube.live(snapshot).values())
    assert found == kube.facts(name)["keys_by_stored_form"]


def test_protobuf_has_kind_and_raw():
    found = read_envelope(kube.built_in("Deployment", "web", "shop", api="apps/v1"))
    assert found == Protobuf("apps/v1", "Deployment", kube.text(1, kube.metadata("web", "shop")))


def test_json_has_kind_and_document():
    found = read_envelope(b'{"kind":"NodePool","apiVersion":"x.io/v1","metadata":{"name":"a"}}')
    assert isinstance(found, Json)
    assert (found.api_version, found.kind) == ("x.io/v1", "NodePool")
    assert found.document["metadata"] == {"name": "a"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"k8s:enc:aescbc:v1:key-1:\x00:\xff", Encrypted("aescbc", "v1", "key-1", b"\x00:\xff")),
        (b"k8s:enc:kms:v2:vault:abc", Encrypted("kms", "v2", "vault", b"abc")),
        (b"k8s:enc:kms:v1:vault:abc", Encrypted("kms", "v1", "vault", b"abc")),
        (b"k8s:enc:new:v12:n:", Encrypted("new", "v12", "n", b"")),
    ],
)
def test_encrypted_headers(value, expected):
    assert read_envelope(value) == expected
    assert read_envelope(value).payload == expected.payload


def test_a_key_name_with_a_colon_is_told_by_the_configuration_alone():
    value = b"k8s:enc:aescbc:v1:a:b:payload"
    assert read_envelope(value).key_name == "a"
    assert read_envelope(value, ("a:b",)) == Encrypted("aescbc", "v1", "a:b", b"payload")
    assert read_envelope(value, ("a:c", "a:b:payload")).key_name == "a"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"plain text",
        b"k8s",
        b"k8s\x00",
        b"k8s\x00\xff\xff\xff",
        b"k8s\x00" + kube.text(2, b"raw and no kind"),
        b"k8s\x00" + kube.text(1, kube.text(1, "v1") + kube.text(2, b"\xff")),
        b"k8s\x00" + kube.text(1, kube.text(1, "v1") + b"\x10\x01"),
        kube.built_in("Secret", "a")[:-1],
        kube.built_in("Secret", "a") + kube.text(3, "gzip"),
        b"k8s:enc:",
        b"k8s:enc:aescbc",
        b"k8s:enc:aescbc:v1:",
        b"k8s:enc:aescbc:v1::payload",
        b"k8s:enc:aescbc:v1:name",
        b"k8s:enc:aescbc:one:name:x",
        b"k8s:enc:AESCBC:v1:name:x",
        b"k8s:enc:aescbc:v1:\xff\xfe:x",
        b"k8s:enc:aescbc:v1:" + b"n" * HEADER_LIMIT + b":x",
        b"{",
        b"{}",
        b'{"kind":"A"}',
        b'{"kind":1,"apiVersion":"v1"}',
        b'{"kind":"A","apiVersion":"v1","x":NaN}',
        b'{"kind":"A","apiVersion":"v1","x":' + b"9" * 9000 + b"}",
        b'{"a":' * 200_000,
        b'{"kind":"\xff","apiVersion":"v1"}',
        b"[]",
    ],
)
def test_what_is_no_form_has_a_reason_that_quotes_nothing(value):
    found = read_envelope(value)
    assert isinstance(found, Unreadable)
    assert found.reason
    assert "payload" not in found.reason
    assert "99" not in found.reason


@given(st.binary(max_size=200), st.sampled_from([b"", b"k8s\x00", b"k8s:enc:", b"{", b'{"a":"']))
def test_no_bytes_raise(data, start):
    read_envelope(start + data, ("a:b",))


@given(st.data())
def test_no_damage_to_a_real_form_raises(data):
    value = bytearray(kube.secret("a"))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    read_envelope(bytes(value[: data.draw(st.integers(0, len(value)))]))
