"""The tip of a history: what was changed at one revision, and a fingerprint of that.

Who has the fingerprint of a revision can later hold an etcd to it, without having what was changed.
It lies in the clear, and a value may be guessed: so it is salted, and slow to work out.

Source: docs/formats.md.
"""

import hashlib
from collections.abc import Iterable
from struct import Struct

from backstay.mvcc.revision import SEPARATOR, element_key
from backstay.mvcc.snapshot import Snapshot

#: Rounds of PBKDF2: some 0.1 s for each guess, and for each of ours.
ROUNDS = 1 << 18
#: Bytes of a salt.
SALT_SIZE = 16
_SIZES = Struct(">II")
#: Bytes of an element's key that are its main revision.
_MAIN = 8

#: Key and value of an element, as bucket `key` has them.
Element = tuple[bytes, bytes]


def elements_at(snapshot: Snapshot, revision: int) -> tuple[Element, ...]:
    """Read the elements of one main revision, as far as the file has them, in order.

    Raises:
        DamagedError: the path to them is damaged.
    """
    bucket = snapshot.bucket(b"key")
    if bucket is None:
        return ()
    main = element_key(revision, 0)[:_MAIN]
    return tuple(bucket.between(main + SEPARATOR, main + bytes([SEPARATOR[0] + 1])))


class Fingerprint:
    """A fingerprint that grows: of changes that come one after the other.

    Attributes:
        count: how many have come.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._something = False
        self.count = 0

    def add(self, key: bytes, value: bytes) -> None:
        """Take the next element."""
        self._digest.update(_SIZES.pack(len(key), len(value)))
        self._digest.update(key)
        self._digest.update(value)
        self._something = self._something or bool(value)
        self.count += 1

    @property
    def plain(self) -> str:
        """What it comes to so far, for ourselves alone: without a salt; empty as `salted` is."""
        return self._digest.hexdigest() if self._something else ""

    @staticmethod
    def salted(plain: str, salt: bytes) -> str:
        """Give what may lie in the clear, hex; empty where there is nothing to know it by."""
        if not plain:
            return ""
        return hashlib.pbkdf2_hmac("sha256", bytes.fromhex(plain), salt, ROUNDS).hex()


def fingerprint(elements: Iterable[Element], salt: bytes) -> str:
    """Give the fingerprint of all changes of a revision, hex.

    The same comes of a file's elements and of a watch's events, written as elements.

    Args:
        elements: in order.
        salt: random, `SALT_SIZE` bytes; the same for what is to be compared.

    Returns:
        64 hex digits; empty where there is nothing to know a history by: no element at all, or
        the empty one that a restore with a bump leaves, which is the same in every one.
    """
    found = Fingerprint()
    for key, value in elements:
        found.add(key, value)
    return Fingerprint.salted(found.plain, salt)
