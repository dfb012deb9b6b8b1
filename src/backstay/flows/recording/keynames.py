"""The names of the keys that encrypted what comes, and who saves these keys.

kube-apiserver writes the name of the key at the beginning of each value. A name that has not been
seen means that keys were rotated: whoever has the keys must save them before the delta that needs
them is stored, or it may never be opened.
"""

from typing import Protocol

from backstay.kubedata.encryption import KMS
from backstay.kubedata.envelope import ENCRYPTED_MAGIC, Encrypted, read_encrypted
from backstay.mvcc.keyvalue import parse_keyvalue
from backstay.mvcc.wire import MalformedError

#: Names that are looked after. An API server has a handful; who writes to etcd may invent any.
_MOST = 64


class KeySaver(Protocol):
    """Saves the keys of a kind of cluster."""

    @property
    def prefix(self) -> bytes:
        """Where etcd's keys begin whose values are encrypted with them; others' are not."""
        ...

    def save(self, names: frozenset[str], lineage: str) -> bool:
        """Save the keys of some names, unless they are saved already.

        Args:
            names: as they stand in values.
            lineage: of the changes that need them.

        Returns:
            Whether something was saved: a full backup has the new keys then, too.

        Raises:
            BackstayError: they could not be saved now.
        """
        ...


class KeyNames:
    """Takes note of the names of keys.

    Args:
        prefix: only values of keys that begin so are looked at.
    """

    def __init__(self, prefix: bytes = b"") -> None:
        self._prefix = prefix
        self._seen: set[str] = set()
        self._new: set[str] = set()

    def see(self, keyvalue: bytes) -> None:
        """Look at a put.

        Args:
            keyvalue: the value as etcd stores it.
        """
        if ENCRYPTED_MAGIC not in keyvalue:
            return
        try:
            put = parse_keyvalue(keyvalue)
        except MalformedError:
            return
        if not put.value.startswith(ENCRYPTED_MAGIC) or not put.key.startswith(self._prefix):
            return
        found = read_encrypted(put.value)
        # What a KMS has nobody can save.
        if isinstance(found, Encrypted) and found.provider != KMS and len(self._seen) < _MOST:
            if found.key_name not in self._seen:
                self._new.add(found.key_name)
            self._seen.add(found.key_name)

    def take(self) -> frozenset[str]:
        """Give the names that are new since the last time."""
        new, self._new = frozenset(self._new), set()
        return new

    def forget(self) -> None:
        """Take every name for a new one again: a new full backup has keys of its own."""
        self._seen.clear()
