"""Kubernetes in etcd for tests: real snapshots with what is known of them, and made ones."""

import base64
import hashlib
import json
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from nacl.secret import SecretBox

from backstay.bolt.write import NewBucket, write_file
from backstay.mvcc.keyvalue import KeyValue, parse_keyvalue
from backstay.mvcc.snapshot import Snapshot

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FIXTURES = Path(__file__).parent.parent / "fixtures"
ENCRYPTED = ("kube-aescbc", "kube-aescbc-rotation", "kube-aesgcm", "kube-secretbox")
ALL = ("kube-plain", *ENCRYPTED)


@cache
def facts(name: str) -> dict:
    """What kube-apiserver, kubectl and etcd said of a real snapshot."""
    return json.loads((FIXTURES / f"{name}.json").read_text())


@contextmanager
def real_snapshot(name: str) -> Iterator[Snapshot]:
    """A snapshot of a real kube-apiserver's etcd."""
    data = zstd.decompress((FIXTURES / f"{name}.db.zst").read_bytes())
    assert hashlib.sha256(data).hexdigest() == facts(name)["db_sha256"]
    with opened(data) as snapshot:
        yield snapshot


@contextmanager
def opened(data: bytes) -> Iterator[Snapshot]:
    """A snapshot from bytes."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "snapshot.db")
        path.write_bytes(data)
        with Snapshot.open(path) as snapshot:
            yield snapshot


@contextmanager
def made_snapshot(history: Iterable[tuple[bytes, bytes | None]]) -> Iterator[Snapshot]:
    """A snapshot with one put, or delete (None), for each revision from 2 on."""
    elements = [
        (
            struct.pack(">qcq", revision, b"_", 0) + (b"t" if value is None else b""),
            keyvalue(key, value, revision),
        )
        for revision, (key, value) in enumerate(history, start=2)
    ]
    with raw_snapshot(elements) as snapshot:
        yield snapshot


@contextmanager
def raw_snapshot(elements: Iterable[tuple[bytes, bytes]]) -> Iterator[Snapshot]:
    """A snapshot with just these elements in bucket `key`."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "snapshot.db")
        with path.open("w+b") as file:
            write_file(file, [NewBucket(b"key", elements)])
        with Snapshot.open(path) as snapshot:
            yield snapshot


def versions(snapshot: Snapshot) -> Iterator[tuple[bytes, KeyValue]]:
    """All elements of bucket `key`, with their revisions as they are stored."""
    for revision, stored in snapshot.bucket(b"key").items():
        yield revision, parse_keyvalue(stored)


def live(snapshot: Snapshot) -> dict[bytes, bytes]:
    """Keys and values at the head, by another way than the code under test takes."""
    found = {}
    for revision, version in versions(snapshot):
        found.pop(version.key, None)
        if len(revision) == 17:
            found[version.key] = version.value
    return found


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def text(number: int, value: bytes | str) -> bytes:
    """A field of bytes."""
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def keyvalue(key: bytes, value: bytes | None, revision: int, lease: int = 0) -> bytes:
    """What etcd stores for a put, or for a delete."""
    if value is None:
        return text(1, key)
    numbers = b"".join(
        bytes([tag]) + varint(n) for tag, n in ((16, revision), (24, revision), (32, 1))
    )
    return text(1, key) + numbers + text(5, value) + (b"\x30" + varint(lease) if lease else b"")


def metadata(name: str, namespace: str = "", annotations: Mapping[str, str] | None = None) -> bytes:
    notes = (text(12, text(1, k) + text(2, v)) for k, v in (annotations or {}).items())
    where = text(3, namespace) if namespace else b""
    return text(1, name) + where + text(5, "a-uid") + b"".join(notes)


def built_in(
    kind: str,
    name: str,
    namespace: str = "",
    more: bytes = b"",
    api: str = "v1",
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    """An object as the API server stores it."""
    raw = text(1, metadata(name, namespace, annotations)) + more
    unknown = text(1, text(1, api) + text(2, kind)) + text(2, raw) + text(3, "") + text(4, "")
    return b"k8s\x00" + unknown


def secret(
    name: str,
    namespace: str = "ns",
    data: Mapping[str, bytes] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    """A Secret as the API server stores it."""
    entries = ({"password": b"not-to-be-seen"} if data is None else data).items()
    fields = b"".join(text(2, text(1, k) + text(2, v)) for k, v in entries)
    return built_in("Secret", name, namespace, fields, annotations=annotations)


def sealed(provider: str, name: str, key: bytes, value: bytes, etcd_key: bytes) -> bytes:
    """A value as the API server encrypts it."""
    return f"k8s:enc:{provider}:v1:{name}:".encode() + encrypt(provider, key, value, etcd_key)


def encrypt(provider: str, key: bytes, value: bytes, etcd_key: bytes = b"") -> bytes:
    if provider == "aescbc":
        padding = 16 - len(value) % 16
        return encrypt_blocks(key, value + bytes([padding]) * padding)
    if provider == "aesgcm":
        nonce = os.urandom(12)
        return nonce + AESGCM(key).encrypt(nonce, value, etcd_key)
    return bytes(SecretBox(key).encrypt(value))


def encrypt_blocks(key: bytes, blocks: bytes) -> bytes:
    """AES-CBC without padding, behind its IV."""
    iv = os.urandom(16)
    encryptor = Cipher(AES(key), CBC(iv)).encryptor()
    return iv + encryptor.update(blocks) + encryptor.finalize()


def configuration(*rules: tuple[list[str], list[dict]]) -> bytes:
    """An EncryptionConfiguration of (resources, providers)."""
    return json.dumps(
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [{"resources": r, "providers": p} for r, p in rules],
        }
    ).encode()


def provider(kind: str, **keys: bytes) -> dict:
    """A provider of a configuration, with its keys by name (`_` stands for `-`)."""
    return {
        kind: {
            "keys": [
                {"name": name.replace("_", "-"), "secret": base64.b64encode(key).decode()}
                for name, key in keys.items()
            ]
        }
    }
