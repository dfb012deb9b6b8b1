"""Secrets as a kube-apiserver writes them to etcd: encrypted with aescbc, under a key with a name.

Source: k8s.io/apiserver, value/encrypt/aes and value/encrypt/envelope prefixes.
"""

import base64
import json
from random import Random

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from backstay.kubedata.keyname import key_name

NAMESPACE = "demo"
_BITS = 128


def encrypted_secret(name: str, key: bytes, source: Random) -> tuple[bytes, bytes]:
    """Make a Secret; gives its key in etcd, and its value there.

    Args:
        name: of the Secret.
        key: of AES, 32 bytes.
        source: of what is in it, and of the initial vector: the play is the same each time.
    """
    password = base64.b64encode(source.randbytes(12)).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {"password": password},
    }
    padder = PKCS7(_BITS).padder()
    plain = padder.update(json.dumps(document).encode()) + padder.finalize()
    vector = source.randbytes(_BITS // 8)
    encryptor = Cipher(AES(key), CBC(vector)).encryptor()
    sealed = vector + encryptor.update(plain) + encryptor.finalize()
    prefix = f"k8s:enc:aescbc:v1:{key_name(key)}:".encode()
    return f"/registry/secrets/{NAMESPACE}/{name}".encode(), prefix + sealed


def configuration(key: bytes, named: bytes) -> str:
    """Write an EncryptionConfiguration, as kube-apiserver reads it.

    Args:
        key: that is in it.
        named: the key whose name it bears: a wrong key can have the right name.
    """
    secret = base64.b64encode(key).decode()
    keys = [{"name": key_name(named), "secret": secret}]
    providers = [{"aescbc": {"keys": keys}}, {"identity": {}}]
    return json.dumps(
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": providers}],
        }
    )
