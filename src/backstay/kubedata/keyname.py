"""What HyperShift calls an AES key: the name in etcd's values, and the hash in the status.

Both are made from the raw bytes of the key (what Secret data `key` decodes to), so a saved key
can be matched with a snapshot and with a HostedCluster's status without opening anything.

Source: openshift/hypershift, control-plane-operator (v2/kas/aescbc.go): `key-` and Go's
fnv.New32, which is FNV-1 and not FNV-1a; status.secretEncryption.activeKey.aescbc.dataHash.
"""

import hashlib

_OFFSET = 0x811C9DC5
_PRIME = 0x01000193


def fnv1_32(data: bytes) -> int:
    """FNV-1, 32 bit: multiply, then xor."""
    value = _OFFSET
    for byte in data:
        value = (value * _PRIME & 0xFFFF_FFFF) ^ byte
    return value


def key_name(raw: bytes) -> str:
    """Name a key as it stands in encrypted values: `key-881413397`."""
    return f"key-{fnv1_32(raw)}"


def data_hash(raw: bytes) -> str:
    """Hash a key as the status has it: SHA-256, in hexadecimal."""
    return hashlib.sha256(raw).hexdigest()
