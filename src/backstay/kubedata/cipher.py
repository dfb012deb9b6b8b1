"""The providers of encryption at rest whose keys are just bytes: aescbc, aesgcm, secretbox.

Only opening: Backstay never encrypts what goes into etcd. kms is missing on purpose, since its
keys never leave the KMS.

Source: k8s.io/apiserver, storage/value/encrypt. aescbc: IV of 16 bytes, AES-CBC, PKCS#7; aesgcm:
nonce of 12 bytes, AES-GCM with the etcd key as additional data; secretbox: nonce of 24 bytes,
XSalsa20-Poly1305.

aescbc has no seal: a wrong key passes the check of the padding about once in 256 times, and then
gives noise. Whoever asks whether a key is right has to look at what comes out.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from backstay.errors import CheckFailedError

AES_CBC = "aescbc"
AES_GCM = "aesgcm"
SECRETBOX = "secretbox"

#: Bytes that a key may have.
KEY_SIZES = {AES_CBC: (16, 24, 32), AES_GCM: (16, 24, 32), SECRETBOX: (32,)}

_BLOCK = 16
_GCM_NONCE = 12
_GCM_TAG = 16


def decrypt(provider: str, secret: bytes, payload: bytes, etcd_key: bytes) -> bytes:
    """Open one value.

    Args:
        provider: `AES_CBC`, `AES_GCM` or `SECRETBOX`.
        secret: the raw key.
        payload: the value after its header.
        etcd_key: where the value lies; aesgcm values open nowhere else.

    Raises:
        CheckFailedError: the key does not open it, or is no key of that provider.
    """
    if len(secret) not in KEY_SIZES.get(provider, ()):
        raise CheckFailedError(f"{provider} has no keys of {len(secret)} bytes")
    if provider == AES_CBC:
        return _open_cbc(secret, payload)
    if provider == AES_GCM:
        return _open_gcm(secret, payload, etcd_key)
    return _open_secretbox(secret, payload)


def _open_cbc(secret: bytes, payload: bytes) -> bytes:
    # The least is the IV and one block of nothing but padding.
    if len(payload) < 2 * _BLOCK or len(payload) % _BLOCK:
        raise CheckFailedError(f"aescbc writes no values of {len(payload)} bytes")
    decryptor = Cipher(AES(secret), CBC(payload[:_BLOCK])).decryptor()
    padded = decryptor.update(payload[_BLOCK:]) + decryptor.finalize()
    padding = padded[-1]
    if not 1 <= padding <= _BLOCK or padded[-padding:] != bytes([padding]) * padding:
        raise CheckFailedError("the key does not fit: what comes out has no padding")
    return padded[:-padding]


def _open_gcm(secret: bytes, payload: bytes, etcd_key: bytes) -> bytes:
    if len(payload) < _GCM_NONCE + _GCM_TAG:
        raise CheckFailedError(f"aesgcm writes no values of {len(payload)} bytes")
    try:
        return AESGCM(secret).decrypt(payload[:_GCM_NONCE], payload[_GCM_NONCE:], etcd_key)
    except InvalidTag:
        reason = "the key does not fit, or the value is damaged or belongs to another etcd key"
    raise CheckFailedError(reason)


def _open_secretbox(secret: bytes, payload: bytes) -> bytes:
    if len(payload) < SecretBox.NONCE_SIZE + SecretBox.MACBYTES:
        raise CheckFailedError(f"secretbox writes no values of {len(payload)} bytes")
    try:
        return SecretBox(secret).decrypt(payload)
    except CryptoError:
        reason = "the key does not fit, or the value is damaged"
    raise CheckFailedError(reason)
