"""etcd's JSON gateway, for tests that want an answer which none of our own code has touched.

gateway = Gateway(etcd)                    # an Etcd of kit.etcd, started with tls=None
gateway.put(b"k", b"v")
gateway.hashkv(revision=7)
"""

import json
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterable
from random import Random

import grpc

from kit.snapfile import varint


def text(data: bytes) -> str:
    return b64encode(data).decode()


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] > 0x7F:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


class Gateway:
    def __init__(self, etcd):
        self.url = etcd.endpoint

    def call(self, path: str, **body):
        request = urllib.request.Request(f"{self.url}/v3/{path}", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {body}: {error.read()[:300]}") from None

    @property
    def head(self) -> int:
        return int(self.call("kv/range", key=text(b"x"))["header"]["revision"])

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        self.call("kv/put", key=text(key), value=text(value), lease=lease)

    def delete(self, key: bytes, end: bytes = b"") -> None:
        self.call("kv/deleterange", key=text(key), range_end=text(end))

    def txn(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes]) -> None:
        operations = [
            {"requestPut": {"key": text(key), "value": text(value)}} for key, value in puts
        ]
        operations += [{"requestDeleteRange": {"key": text(key)}} for key in deletes]
        self.call("kv/txn", success=operations)

    def lease(self, number: int) -> None:
        self.call("lease/grant", ID=number, TTL=3600)

    def compact(self, revision: int) -> None:
        self.call("kv/compaction", revision=revision, physical=True)

    def hashkv(self, revision: int = 0) -> tuple[int, int]:
        """Hash, and the compact revision that it stands for; the gateway does not have this."""
        with grpc.insecure_channel(self.url.removeprefix("http://")) as channel:
            call = channel.unary_unary("/etcdserverpb.Maintenance/HashKV")
            answer = call(b"\x08" + varint(revision), timeout=20)
        at, found = 0, {}
        while at < len(answer):
            tag, at = read_varint(answer, at)
            value, at = read_varint(answer, at)
            found[tag] = value
            at += value if tag == 0x0A else 0
        compacted = found.get(0x18, 0)
        return found.get(0x10, 0), compacted - 2**64 if compacted >> 63 else compacted

    def live(self, revision: int = 0) -> list[tuple[bytes, int, int, int, bytes]]:
        """All pairs: key, create revision, mod revision, version, value; as base64."""
        found = self.call("kv/range", key=text(b"\0"), range_end=text(b"\0"), revision=revision)
        return [
            (kv["key"], int(kv["create_revision"]), int(kv["mod_revision"]), int(kv["version"]))
            for kv in found.get("kvs", [])
        ]

    def wander(self, random: Random, steps: int) -> None:
        """Change keys at random: puts, deletes, transactions, ranges, leases."""
        for _ in range(steps):
            key = b"key/%02d" % random.randrange(30)
            value = random.randbytes(random.choice([0, 5, 40, 300]))
            match random.randrange(10):
                case 0 | 1 | 2 | 3:
                    self.put(key, value)
                case 4 | 5:
                    self.delete(key)
                case 6:
                    self.delete(key, b"key/%02d" % random.randrange(30))
                case 7:
                    number = random.randrange(1, 1 << 60)
                    self.lease(number)
                    self.put(key, value, number)
                case _:
                    keys = random.sample(range(30), random.randrange(2, 9))
                    names = [b"key/%02d" % one for one in keys]
                    half = random.randrange(len(names) + 1)
                    self.txn([(name, value) for name in names[:half]], names[half:])
