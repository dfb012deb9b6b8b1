"""Metadata of stored objects, and the data of Secrets."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import DamagedError
from backstay.kubedata.keypath import parse_path
from backstay.kubedata.objects import (
    StoredObject,
    misplaced,
    read_annotations,
    read_object,
    read_secret_data,
)
from kit import kube


def document(**changes):
    base = {"apiVersion": "x.io/v1", "kind": "W", "metadata": {"name": "a", "namespace": "n"}}
    return json.dumps(base | changes).encode()


def test_identity_from_both_forms():
    assert read_object(kube.secret("a", "n")) == StoredObject("v1", "Secret", "n", "a", "a-uid")
    assert read_object(document()) == StoredObject("x.io/v1", "W", "n", "a", "")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"noise", "neither protobuf nor JSON"),
        (b"k8s:enc:aescbc:v1:k:x", "encrypted"),
        (document(metadata=[]), "metadata is broken"),
        (document(metadata={"name": 1}), "metadata is broken"),
        (kube.built_in("Secret", "a", more=b"\x07"), "metadata is broken"),
        (kube.built_in("Secret", "a", more=b"\x12\x7f"), "metadata is broken"),
        (kube.built_in("Secret", "a", more=b"\x08\x01"), "metadata is broken"),
    ],
)
def test_noise_is_no_object(value, reason):
    with pytest.raises(DamagedError, match=reason):
        read_object(value)


def test_an_object_elsewhere_is_misplaced():
    found = read_object(kube.secret("a", "n"))
    assert misplaced(found, parse_path(b"/registry/secrets/n/a")) == ""
    assert misplaced(found, None) == ""
    assert "'a'" in misplaced(found, parse_path(b"/registry/secrets/n/b"))
    assert "'n'" in misplaced(found, parse_path(b"/registry/secrets/m/a"))
    assert "'n'" in misplaced(found, parse_path(b"/registry/secrets/a"))


def test_data_of_real_secrets():
    wanted = {
        secret["key"]: secret["data_sha256"] for secret in kube.facts("kube-plain")["secrets"]
    }
    found = {}
    with kube.real_snapshot("kube-plain") as snapshot:
        for _, version in kube.versions(snapshot):
            if version.key.decode() in wanted and version.value:
                found[version.key.decode()] = {
                    name: hashlib.sha256(value).hexdigest()
                    for name, value in read_secret_data(version.value).items()
                }
    assert found == wanted


def test_data_of_a_secret_in_json():
    value = document(apiVersion="v1", kind="Secret", data={"a": "Yg=="})
    assert read_secret_data(value) == {"a": b"b"}
    assert read_secret_data(document(apiVersion="v1", kind="Secret")) == {}


NOTES = {"a.io/mode": "x", "b": ""}


@pytest.mark.parametrize("notes", [{}, NOTES])
def test_annotations_from_both_forms(notes):
    assert read_annotations(kube.secret("a", annotations=notes)) == notes
    assert read_annotations(document(metadata={"name": "a", "annotations": notes})) == notes


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"k8s:enc:aescbc:v1:k:x",
        document(metadata={"annotations": ["not-to-be-seen"]}),
        document(metadata={"annotations": {"a": ["not-to-be-seen"]}}),
        kube.built_in("Secret", "a", annotations={"a": "not-to-be-seen"})[:-20],
        kube.built_in("Secret", "a", more=kube.text(1, kube.text(12, b"not-to-be-seen"))),
        kube.built_in("Secret", "a", more=kube.text(1, kube.text(12, kube.text(2, b"\xff")))),
    ],
)
def test_promise_5_broken_annotations_are_refused_and_not_quoted(value):
    with pytest.raises(DamagedError) as caught:
        read_annotations(value)
    assert "not-to-be-seen" not in str(caught.value)
    assert caught.value.__context__ is None


def test_no_metadata_is_no_annotation():
    assert read_annotations(document(metadata=[])) == {}
    assert read_annotations(document(metadata=None)) == {}


@pytest.mark.parametrize(
    "value",
    [
        kube.built_in("ConfigMap", "a"),
        b"k8s:enc:aescbc:v1:k:x",
        b"",
        document(apiVersion="v1", kind="Secret", data={"a": "not-to-be-seen"}),
        document(apiVersion="v1", kind="Secret", data={"a": "\xe9"}),
        document(apiVersion="v1", kind="Secret", data={"a": 1}),
        document(apiVersion="v1", kind="Secret", data=["not-to-be-seen"]),
        kube.built_in("Secret", "a", more=kube.text(2, b"not-to-be-seen")),
        kube.built_in("Secret", "a", more=kube.text(2, kube.text(1, b"\xff"))),
    ],
)
def test_promise_5_broken_secrets_are_refused_and_not_quoted(value):
    with pytest.raises(DamagedError) as caught:
        read_secret_data(value)
    assert "not-to-be-seen" not in str(caught.value)
    assert caught.value.__context__ is None


@given(st.data())
def test_damage_gives_an_object_or_a_typed_error(data):
    value = bytearray(kube.secret("a"))
    for _ in range(data.draw(st.integers(0, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(value[: data.draw(st.integers(0, len(value)))])
    for read in (read_object, read_secret_data, read_annotations):
        try:
            read(damaged)
        except DamagedError:
            assert damaged != kube.secret("a")
