"""Which values of a snapshot matter for encryption at rest, and how each is stored.

One pass over bucket `key` in revision order: the newest element of a key wins, a tombstone removes
it. Only encrypted values, and those of resources that should be encrypted, are kept in mind: their
key and where in the file the value lies, never the value. Pages on which nothing of that can be
are told by a search for a few words, without a look at their elements.
"""

import mmap
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from backstay.kubedata.envelope import ENCRYPTED_MAGIC, HEADER_LIMIT, Encrypted, read_encrypted
from backstay.kubedata.keypath import parse_path
from backstay.kubedata.resource import UNKNOWN, WITHOUT_API, Resource, path_segment
from backstay.mvcc.keyvalue import parse_keyvalue
from backstay.mvcc.revision import parse_revision
from backstay.mvcc.snapshot import Snapshot
from backstay.mvcc.wire import MalformedError, read_varint

#: The provider of a group of values that are stored in the clear.
IN_THE_CLEAR = "identity"
#: The provider of a group of values that say they are encrypted, and then do not say how.
MALFORMED = "unknown"

#: After its key a stored KeyValue has create_revision, mod_revision, version and value, in order;
#: what is left of it after the value can be a lease id.
_TO_VALUE = re.compile(
    rb"\x10[\x80-\xff]*[\x00-\x7f]\x18[\x80-\xff]*[\x00-\x7f]\x20[\x80-\xff]*[\x00-\x7f]\x2a"
)
_LEASE = re.compile(rb"\x30[\x80-\xff]{0,9}[\x00-\x7f]")
_KEY_TAG = 0x0A
#: Bytes of an element that are looked at first; longer keys take the slower way.
_HEAD = 512 + HEADER_LIMIT
#: Directories that are remembered; each namespace has one for each resource.
_MAX_DIRECTORIES = 100_000


class Group(NamedTuple):
    """What values have in common that one key opens.

    API servers number their own keys, so prefix and resource belong to a key's identity.

    Attributes:
        prefix: etcd prefix; empty for keys outside of Kubernetes's layout.
        resource: the resource.
        provider: who encrypted them, `IN_THE_CLEAR` or `MALFORMED`.
        key_name: name of the key; of the kms provider; empty where there is none.
    """

    prefix: str
    resource: Resource
    provider: str
    key_name: str


class Place(NamedTuple):
    """Where a stored KeyValue lies in the file, as offsets."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """The values that matter, by group, in the order in which they were last written."""

    groups: dict[Group, list[tuple[bytes, Place]]]


def take_inventory(
    snapshot: Snapshot,
    encrypted: Callable[[str, Resource], bool],
    *,
    words: Collection[bytes] | None = None,
    colon_names: Collection[str] = (),
) -> Inventory:
    """Find the values that are encrypted, or should be, at the snapshot's revision.

    Memory: about 400 bytes for each such key.

    Args:
        snapshot: an open snapshot.
        encrypted: tells of an etcd prefix and a resource whether its values should be encrypted.
        words: one of these is in each etcd key for which `encrypted` says yes; None where there
            is no such list.
        colon_names: key names with a colon in them (see `envelope.read_envelope`).

    Raises:
        DamagedError: bucket `key` is damaged, or an element is no KeyValue.
    """
    sorter = _Sorter(encrypted, words, tuple(colon_names))
    found: dict[bytes, tuple[Group, Place]] = {}
    for tombstone, key, head, place in _elements(snapshot, sorter.can_matter):
        found.pop(key, None)
        group = None if tombstone else sorter.group(key, head)
        if group is not None:
            found[key] = (group, place)
    groups: dict[Group, list[tuple[bytes, Place]]] = {}
    for key, (group, place) in found.items():
        groups.setdefault(group, []).append((key, place))
    return Inventory(groups)


def read_value(snapshot: Snapshot, place: Place) -> bytes:
    """Read the value of a key of an inventory.

    Raises:
        DamagedError: what lies there is no KeyValue.
    """
    try:
        return parse_keyvalue(snapshot.bolt.image.data[place.start : place.end]).value
    except MalformedError as error:
        raise snapshot.damaged(f"an element of bucket key is no KeyValue: {error}") from error


def _elements(
    snapshot: Snapshot, can_matter: Callable[[bytes], bool]
) -> Iterator[tuple[bool, bytes, bytes, Place]]:
    """Each element in order: whether a tombstone, key, the value's first bytes, where it lies."""
    bucket = snapshot.bucket(b"key")
    if bucket is None:
        return
    image = snapshot.bolt.image
    data = image.data
    for page in bucket.leaves():
        if not can_matter(data[page.data : page.end]):
            continue
        for element in image.elements(page, bucket.owner):
            name = data[element.key : element.value]
            revision = parse_revision(name)
            if revision is None or element.flags:
                raise snapshot.damaged(f"key {name[:32].hex()} of bucket key is no revision")
            place = Place(element.value, element.end)
            key, head = _short_parts(data, place) or _parts(snapshot, place)
            yield revision.tombstone, key, head, place


def _short_parts(data: mmap.mmap, place: Place) -> tuple[bytes, bytes] | None:
    """Key and first bytes of the value, as etcd writes them; None where that takes more care."""
    head = data[place.start : min(place.end, place.start + _HEAD)]
    try:
        tag, (length, start) = head[0], read_varint(head, 1)
        match = _TO_VALUE.match(head, start + length)
        if tag != _KEY_TAG or match is None:
            return None
        size, begin = read_varint(head, match.end())
    except (IndexError, MalformedError):
        return None
    rest = data[place.start + begin + size : place.end]
    whole = place.start + begin + size <= place.end and (not rest or _LEASE.fullmatch(rest))
    if not whole or len(head) - begin < min(size, HEADER_LIMIT):
        return None
    return head[start : start + length], head[begin : begin + min(size, HEADER_LIMIT)]


def _parts(snapshot: Snapshot, place: Place) -> tuple[bytes, bytes]:
    try:
        found = parse_keyvalue(snapshot.bolt.image.data[place.start : place.end])
    except MalformedError as error:
        raise snapshot.damaged(f"an element of bucket key is no KeyValue: {error}") from error
    return found.key, found.value[:HEADER_LIMIT]


class _Sorter:
    """Puts values into groups; remembers what it found out about directories."""

    def __init__(
        self,
        encrypted: Callable[[str, Resource], bool],
        words: Collection[bytes] | None,
        colon_names: tuple[str, ...],
    ) -> None:
        self._encrypted = encrypted
        self._words = None if words is None else {ENCRYPTED_MAGIC, *words}
        self._colon_names = colon_names
        self._directories: dict[bytes, tuple[str, Resource, bool]] = {}
        self._groups: dict[Group, Group] = {}

    def can_matter(self, page: bytes) -> bool:
        """Tell whether a page can have values that matter, or change what is known of some."""
        return self._words is None or any(word in page for word in self._words)

    def group(self, key: bytes, head: bytes) -> Group | None:
        """Tell where a value belongs; None where it does not matter."""
        prefix, resource, expected = self._directory(key.rpartition(b"/")[0])
        if not head.startswith(ENCRYPTED_MAGIC):
            return self._one(Group(prefix, resource, IN_THE_CLEAR, "")) if expected else None
        header = read_encrypted(head, self._colon_names)
        if isinstance(header, Encrypted):
            group = Group(prefix, resource, header.provider, header.key_name)
        else:
            group = Group(prefix, resource, MALFORMED, "")
        return self._one(group)

    def _one(self, group: Group) -> Group:
        # One object for all values of a group: there can be a million of them.
        if group not in self._groups:
            self._watch(group)
        return self._groups.setdefault(group, group)

    def _watch(self, group: Group) -> None:
        """See to it that pages which overwrite or delete a group's keys count as well."""
        if self._words is not None and group.prefix:
            self._words.add(path_segment(group.resource))
        else:
            self._words = None

    def _directory(self, directory: bytes) -> tuple[str, Resource, bool]:
        known = self._directories.get(directory)
        if known is None:
            if len(self._directories) >= _MAX_DIRECTORIES:
                self._directories.clear()
            known = self._directories[directory] = self._look_at(directory)
        return known

    def _look_at(self, directory: bytes) -> tuple[str, Resource, bool]:
        path = parse_path(directory + b"/-")
        if path is None:
            return "", Resource("", UNKNOWN), False
        has_api = path.resource.plural not in WITHOUT_API
        return path.prefix, path.resource, has_api and self._encrypted(path.prefix, path.resource)
