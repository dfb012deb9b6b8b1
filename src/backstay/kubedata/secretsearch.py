"""The search for Secrets with keys in a snapshot, and the opening of those that open.

A Secret that opens can have keys of kube-apiserver, and these can open more of them: the search
goes on until a round finds nothing new. What can't be read never raises; it is kept, with the
reason. What the keys are good for is the business of `discovery`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from backstay.errors import CheckFailedError, FormatError
from backstay.kubedata.cipher import KEY_SIZES
from backstay.kubedata.encryption import EncryptionConfiguration, Rule
from backstay.kubedata.inventory import (
    IN_THE_CLEAR,
    MALFORMED,
    Group,
    Inventory,
    Place,
    read_value,
    take_inventory,
)
from backstay.kubedata.keypath import parse_path
from backstay.kubedata.opening import colon_names, keys_named, open_value
from backstay.kubedata.openshift import (
    MARKS,
    Document,
    Form,
    Source,
    parse_source,
    read_document,
)
from backstay.kubedata.outcome import shown
from backstay.kubedata.resource import KUBE_APISERVER, Resource, everything_of, path_segment
from backstay.mvcc.snapshot import Snapshot

#: Secrets of one form that are looked into for each API server; operators keep about ten keys.
MOST = 24
#: Each round opens what the keys of the last one open. A rotation needs two.
_ROUNDS = 8
#: Bytes; etcd takes no more than 1.5 MiB by default.
_SIZE_LIMIT = 2 << 20
_SECRETS = Resource("secrets")


@dataclass(frozen=True, slots=True)
class Unread:
    """A Secret that should have keys, and could not be read.

    Attributes:
        source: which.
        reason: one line that names it; it quotes nothing of it.
    """

    source: Source
    reason: str


@dataclass(slots=True)
class Search:
    """A search.

    Attributes:
        inventory: the Secrets of the snapshot, and whatever else is encrypted in it; empty where
            no Secret can have keys.
        documents: what was read, what tells most first.
        unread: what could not be read, in the same order.
    """

    inventory: Inventory
    documents: list[Document] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)

    @classmethod
    def of(cls, snapshot: Snapshot, known: Sequence[EncryptionConfiguration]) -> "Search":
        """Search a snapshot at its revision.

        Args:
            snapshot: an open snapshot.
            known: keys to begin with.

        Raises:
            DamagedError: the snapshot's bucket `key` is damaged.
        """
        data = snapshot.bolt.image.data
        if all(data.find(mark) < 0 for mark in MARKS):
            # Most clusters have none: that is known without a look at each element.
            return cls(Inventory({}))
        inventory = take_inventory(
            snapshot,
            lambda _prefix, resource: resource == _SECRETS,
            words={path_segment(_SECRETS)},
            colon_names=colon_names(known),
        )
        search = cls(inventory)
        pending = search._bounded(sorted(_candidates(inventory), key=_rank))
        for _ in range(_ROUNDS):
            keys = [*known, *search._own()]
            before = len(search._own())
            pending = [one for one in pending if not search._settle(snapshot, one, keys)]
            if len(search._own()) == before:
                break
        for one in pending:
            why = _why_shut(one.group, [*known, *search._own()])
            search._drop(one.source, f"{one.source.name} can't be opened: {why}")
        search.documents.sort(key=lambda document: document.source.rank)
        search.unread.sort(key=lambda unread: unread.source.rank)
        return search

    def sources(self) -> Iterator[Source]:
        """Name all Secrets that were found, read or not."""
        yield from (document.source for document in self.documents)
        yield from (unread.source for unread in self.unread)

    def _bounded(self, candidates: Iterable["_Candidate"]) -> list["_Candidate"]:
        """Leave out what is more than any cluster has."""
        counts: dict[tuple[str, str, Form], int] = {}
        kept = []
        for one in candidates:
            source = one.source
            alike = (source.prefix, source.server, source.form)
            counts[alike] = counts.get(alike, 0) + 1
            if counts[alike] <= MOST:
                kept.append(one)
            elif counts[alike] == MOST + 1:
                self._drop(source, f"{source.name} was not looked into: there are too many")
        return kept

    def _settle(
        self, snapshot: Snapshot, one: "_Candidate", known: Sequence[EncryptionConfiguration]
    ) -> bool:
        """Try to read one Secret; whether more keys could change nothing."""
        source, in_the_clear = one.source, one.group.provider == IN_THE_CLEAR
        if one.place.end - one.place.start > _SIZE_LIMIT:
            self._drop(source, f"{source.name} can't be read: it is too large")
            return True
        secrets = _secrets(one.group, known)
        if not secrets and not in_the_clear:
            return False
        try:
            value = open_value(
                read_value(snapshot, one.place), one.key, secrets, colon_names(known)
            )
        except CheckFailedError as error:
            if in_the_clear:
                self._drop(source, f"{source.name} can't be read: {error.what}")
            return in_the_clear
        try:
            self.documents.append(read_document(source, value))
        except FormatError as error:
            self._drop(source, error.what)
        except CheckFailedError as error:
            self._drop(source, f"{source.name} can't be read: {error.what}")
        return True

    def _drop(self, source: Source, reason: str) -> None:
        self.unread.append(Unread(source, reason))

    def _own(self) -> list[EncryptionConfiguration]:
        """Give what was found of kube-apiserver's keys, to open Secrets with."""
        everything = everything_of(KUBE_APISERVER)
        return [
            EncryptionConfiguration((Rule(everything, document.providers()),), source.prefix)
            for document in self.documents
            if (source := document.source).server == KUBE_APISERVER
        ]


@dataclass(frozen=True, slots=True)
class _Candidate:
    source: Source
    group: Group
    key: bytes
    place: Place


def _candidates(inventory: Inventory) -> Iterator[_Candidate]:
    for group, stored in inventory.groups.items():
        if group.resource == _SECRETS:
            for key, place in stored:
                path = parse_path(key)
                source = parse_source(path) if path else None
                if source is not None:
                    yield _Candidate(source, group, key, place)


def _rank(one: _Candidate) -> tuple[object, ...]:
    return one.source.rank


def _secrets(group: Group, known: Iterable[EncryptionConfiguration]) -> tuple[bytes, ...]:
    providers = (
        provider
        for configuration in known
        for provider in configuration.providers(group.prefix, group.resource)
    )
    return keys_named(providers, group.provider, group.key_name)


def _why_shut(group: Group, known: Iterable[EncryptionConfiguration]) -> str:
    if group.provider == MALFORMED:
        return "it says that it is encrypted, and not how"
    if group.provider not in KEY_SIZES:
        return f"it is encrypted by {shown(group.provider)}"
    if _secrets(group, known):
        return f"the key {shown(group.key_name)} of {KUBE_APISERVER} does not open it"
    return f"the key {shown(group.key_name)} of {KUBE_APISERVER} is missing"
