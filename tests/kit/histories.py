"""Random histories on a real etcd: what clients do, and what a watch saw of it.

player = Player(etcd, seed=1)
player.play(50)
elements(client, start=2, until=player.revision)     as bucket `key` has them
"""

import base64
import json
import random
from urllib.request import urlopen

from backstay.client.etcd import Etcd as Client
from backstay.mvcc.keyvalue import encode_key, parse_keyvalue
from backstay.mvcc.revision import element_key


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Player:
    """Does what etcd can do, by its JSON gateway: transactions inside transactions, too.

    Args:
        etcd: one that talks plain http.
        seed: another one does other things.
    """

    def __init__(self, etcd, seed: int) -> None:
        self.etcd = etcd
        self.random = random.Random(seed)
        self.leases: list[str] = []
        self.revision = 1

    def ask(self, path: str, **body):
        data = json.dumps(body).encode()
        with urlopen(f"{self.etcd.endpoint}/v3/{path}", data, timeout=30) as answer:
            found = json.load(answer)
        self.revision = max(self.revision, int(found["header"].get("revision", 0)))
        return found

    def play(self, steps: int) -> None:
        """Do some things."""
        todo = [self.put, self.put, self.change, self.nested, self.remove, self.remove_range]
        todo += [self.leased, self.no_change]
        for _ in range(steps):
            self.random.choice(todo)()

    def _key(self) -> bytes:
        return b"key/%03d" % self.random.randrange(120)

    def _keys(self, number: int) -> list[bytes]:
        return [b"key/%03d" % n for n in self.random.sample(range(120), number)]

    def _put(self, key: bytes) -> dict:
        size = self.random.choice([0, 1, 30, 300, 5000])
        body = {"key": b64(key), "value": b64(self.random.randbytes(size))}
        if self.leases and self.random.random() < 0.1:
            body["lease"] = self.random.choice(self.leases)
        return body

    def put(self) -> None:
        self.ask("kv/put", **self._put(self._key()))

    def _operations(self, keys: list[bytes]) -> list[dict]:
        return [
            {"requestPut": self._put(key)}
            if self.random.random() < 0.7
            else {"requestDeleteRange": {"key": b64(key)}}
            for key in keys
        ]

    def change(self) -> None:
        """Puts and deletes of different keys in one transaction."""
        self.ask("kv/txn", success=self._operations(self._keys(self.random.randint(1, 12))))

    def nested(self) -> None:
        """A transaction inside a transaction inside a transaction."""
        keys = self._keys(9)
        inner = {"requestTxn": {"success": self._operations(keys[:3])}}
        middle = {"requestTxn": {"success": [*self._operations(keys[3:6]), inner]}}
        self.ask("kv/txn", success=[middle, *self._operations(keys[6:])])

    def remove(self) -> None:
        self.ask("kv/deleterange", key=b64(self._key()))

    def remove_range(self) -> None:
        first = self.random.randrange(120)
        end = b"key/%03d" % (first + self.random.randint(1, 30))
        self.ask("kv/deleterange", key=b64(b"key/%03d" % first), range_end=b64(end))

    def leased(self) -> None:
        """Grant a lease and use it, or revoke one."""
        if self.leases and self.random.random() < 0.3:
            found = self.leases.pop(self.random.randrange(len(self.leases)))
            self.ask("lease/revoke", ID=found)
            return
        self.leases.append(self.ask("lease/grant", TTL="3600")["ID"])
        self.ask("kv/put", **self._put(self._key()) | {"lease": self.leases[-1]})

    def no_change(self) -> None:
        """What makes no revision."""
        self.ask("kv/txn", success=[{"requestRange": {"key": b64(self._key())}}])
        self.ask("kv/deleterange", key=b64(b"nothing"))


def elements(client: Client, start: int, until: int) -> list[tuple[bytes, bytes]]:
    """Watch from a revision up to another one; gives it as bucket `key` has it."""
    found: list[tuple[bytes, bytes]] = []
    if until < start:
        return found
    main, sub = 0, 0
    with client.watch(start_revision=start) as watch:
        for message in watch:
            for change in message.changes:
                pair = parse_keyvalue(change.keyvalue)
                if pair.mod_revision > until:
                    return found
                sub = sub + 1 if pair.mod_revision == main else 0
                main = pair.mod_revision
                value = encode_key(pair.key) if change.delete else change.keyvalue
                found.append((element_key(main, sub, tombstone=change.delete), value))
            if main == until and not message.more:
                return found
    raise AssertionError("the watch ended")
