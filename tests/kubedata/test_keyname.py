"""HyperShift's names of keys."""

import base64
import hashlib

import pytest

from backstay.kubedata.keyname import data_hash, key_name
from kit import kube


def test_a_name_that_hypershift_gave():
    # FNV-1a would give another number.
    assert key_name(b"0123456789abcdef" * 2) == "key-881413397"


@pytest.mark.parametrize("name", ["kube-aescbc", "kube-aescbc-rotation"])
def test_names_in_real_snapshots(name):
    keys = kube.facts(name)["encryption_keys"]
    assert keys
    for key in keys:
        assert key_name(base64.b64decode(key["key_base64"])) == key["name"]


def test_data_hash_is_sha256_in_hexadecimal():
    assert data_hash(b"a key") == hashlib.sha256(b"a key").hexdigest()
