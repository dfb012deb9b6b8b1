"""The ciphers of encryption at rest: right keys open, others do not."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import CheckFailedError
from backstay.kubedata.cipher import AES_CBC, AES_GCM, KEY_SIZES, SECRETBOX, decrypt
from backstay.kubedata.objects import read_object
from kit import kube

PROVIDERS = (AES_CBC, AES_GCM, SECRETBOX)
ETCD_KEY = b"/registry/secrets/ns/a"
CASES = [(provider, size) for provider in PROVIDERS for size in KEY_SIZES[provider]]


@pytest.mark.parametrize(("provider", "size"), CASES)
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 1000])
def test_a_right_key_opens(provider, size, length):
    key, value = random.Random(size).randbytes(size), bytes(length)
    assert decrypt(provider, key, kube.encrypt(provider, key, value, ETCD_KEY), ETCD_KEY) == value


@pytest.mark.parametrize(("provider", "size"), CASES)
def test_a_key_with_one_other_bit_does_not_give_the_object(provider, size):
    key = random.Random(size).randbytes(size)
    payload = kube.encrypt(provider, key, kube.secret("a"), ETCD_KEY)
    assert read_object(decrypt(provider, key, payload, ETCD_KEY)).name == "a"
    for bit in range(8 * size):
        other = (int.from_bytes(key, "big") ^ 1 << bit).to_bytes(size, "big")
        with pytest.raises(CheckFailedError):
            read_object(decrypt(provider, other, payload, ETCD_KEY))


def test_wrong_aescbc_keys_that_pass_the_padding_are_found_by_the_object():
    source = random.Random(7)
    payload = kube.encrypt(AES_CBC, source.randbytes(32), kube.secret("a"))
    padded = 0
    for _ in range(4000):
        try:
            noise = decrypt(AES_CBC, source.randbytes(32), payload, ETCD_KEY)
        except CheckFailedError:
            continue
        padded += 1
        with pytest.raises(CheckFailedError):
            read_object(noise)
    # About one in 256: else the object's check would have had nothing to do here.
    assert 3 <= padded <= 50


@pytest.mark.parametrize(
    "block",
    [
        b"x" * 15 + b"\x00",
        b"x" * 15 + b"\x11",
        b"x" * 15 + b"\xff",
        b"x" * 13 + b"\x02\x01\x03",
        b"x" + b"\x0f" * 14 + b"\x10",
        b"x" * 14 + b"\x03\x03",
        b"\x20" * 32,
    ],
)
def test_padding_is_checked_to_the_last_byte(block):
    key = bytes(32)
    with pytest.raises(CheckFailedError, match="padding"):
        decrypt(AES_CBC, key, kube.encrypt_blocks(key, bytes(16) + block), ETCD_KEY)


def test_aesgcm_values_open_only_where_they_were_written():
    key = bytes(32)
    payload = kube.encrypt(AES_GCM, key, b"value", ETCD_KEY)
    assert decrypt(AES_GCM, key, payload, ETCD_KEY) == b"value"
    with pytest.raises(CheckFailedError, match="another etcd key"):
        decrypt(AES_GCM, key, payload, b"/registry/secrets/ns/b")


@pytest.mark.parametrize("provider", [AES_GCM, SECRETBOX])
def test_every_changed_bit_of_a_sealed_value_is_found(provider):
    key = bytes(32)
    payload = kube.encrypt(provider, key, b"value", ETCD_KEY)
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckFailedError):
            decrypt(provider, key, bytes(damaged), ETCD_KEY)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_payloads_of_every_length_are_a_typed_error(provider):
    for length in range(70):
        with pytest.raises(CheckFailedError):
            read_object(decrypt(provider, bytes(32), bytes(length), ETCD_KEY))


@pytest.mark.parametrize("provider", [*PROVIDERS, "kms", "identity", ""])
@pytest.mark.parametrize("size", [0, 1, 15, 17, 31, 33, 64])
def test_keys_of_other_lengths_are_refused(provider, size):
    with pytest.raises(CheckFailedError, match=f"{size} bytes"):
        decrypt(provider, b"k" * size, bytes(64), ETCD_KEY)


@given(st.sampled_from(PROVIDERS), st.binary(max_size=100))
def test_no_payload_raises_anything_else(provider, payload):
    try:
        decrypt(provider, bytes(32), payload, ETCD_KEY)
    except CheckFailedError as error:
        assert error.__context__ is None  # noqa: PT017 - a pass is no failure here
