"""The keys of a snapshot file that no manifest names: matched by the names in its values.

Headers are matched in the clear, and only keyrings that have a key of such a name are opened. The
same key lies in the keyrings of many backups: where one can't be opened the next one will do.

That goes for clusters that name keys by what they are. On OKD keys are numbered: see `okdmatch`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from backstay.errors import BackstayError, DamagedError, FormatError, NotFoundError, SealError
from backstay.flows.keyring import Known, configuration, opened
from backstay.flows.okdmatch import samples, suit
from backstay.kubedata.encryption import KMS
from backstay.kubedata.inventory import IN_THE_CLEAR, MALFORMED, Inventory, take_inventory
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.catalogue import Repository
from backstay.repo.entry import Unreadable
from backstay.repo.identity import Identities
from backstay.repo.keyring import Saved, SavedKey, check_place, headers, load
from backstay.repo.keyring_document import OKD

#: Keys of one name that are tried. Names have 32 bits: two that meet by chance are rare.
_NAMESAKES = 16
#: Keyrings that are tried for each of them: more would hardly open where these do not.
_TRIES = 8
_UNFIT = (DamagedError, FormatError, NotFoundError, SealError)

#: A key in the clear: its name, and the SHA-256 of its bytes.
Wanted = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """What keyrings have for a snapshot file.

    Attributes:
        keys: those that bear a name that stands in the snapshot.
        warnings: keyrings that could not be matched or opened, though it may be for nothing.
    """

    keys: tuple[SavedKey, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileKeys:
    """The keys of a snapshot file, found when they are first asked for.

    Attributes:
        open: opens the repository that has keyrings.
        identities: private keys.
    """

    open: Callable[[], Repository]
    identities: Identities | None

    def prepare(self) -> None:
        """Find early what makes the question pointless.

        Raises:
            RefusedError: it is for data.
            StoreError: there is no such repository, or the store refuses.
        """
        check_place(self._place)

    def __call__(self, snapshot: Snapshot) -> Known:
        """Match and open keyrings; a file in which nothing is encrypted asks for none.

        Raises: as `match`.
        """
        inventory = encrypted_in(snapshot)
        names = names_of(inventory)
        if not names:
            return Known(configurations=(configuration(()),))
        listed = headers(self._place)
        readable = [one for one in listed if isinstance(one, Saved)]
        suited = suit(samples(snapshot, inventory), readable, self._place, self.identities)
        if suited.configuration is not None:
            note = "; ".join(suited.warnings[:3])
            return replace(Known.of_configuration(suited.configuration), note=note)
        matched = match(names, listed, self._place, self.identities)
        note = "; ".join(matched.warnings[:3])
        return Known(configurations=(configuration(matched.keys),), note=note)

    @cached_property
    def _place(self) -> Repository:
        return opened(self.open)


def encrypted_in(snapshot: Snapshot) -> Inventory:
    """Find what is encrypted in a snapshot.

    Raises:
        DamagedError: bucket `key` is damaged.
    """
    return take_inventory(snapshot, lambda _prefix, _resource: False, words=())


def names_of(inventory: Inventory) -> frozenset[str]:
    """Name the keys that encrypted the values of a snapshot; a KMS's are not among them."""
    return frozenset(
        group.key_name
        for group in inventory.groups
        if group.provider not in {IN_THE_CLEAR, MALFORMED, KMS} and group.key_name
    )


def match(
    names: frozenset[str],
    listed: Sequence[Saved | Unreadable],
    repository: Repository,
    identities: Identities | None,
) -> Matched:
    """Find and open the keyrings that have keys of some names.

    Args:
        names: of keys.
        listed: keyrings, newest first; those whose keys are numbered are passed over.
        repository: where they lie.
        identities: private keys.

    Raises:
        DamagedError: all keyrings that have a key of one of the names are damaged or gone.
        SealError: none of the identities opens one of these.
        FormatError: they are of a later version.
        StoreError: the store refuses.
    """
    named = [one for one in listed if isinstance(one, Saved) and one.header.kind != OKD]
    wanted = choose(names, named)
    opening = _Opening(repository, identities)
    keys = {key: opening.first(key, places) for key, places in wanted.items()}
    found = tuple(key for key in keys.values() if key is not None)
    opened = {key.key_name for key in found}
    for (name, _), places in wanted.items():
        if name not in opened:
            raise opening.failures[places[0].header.id]
    unread = (f"a keyring could not be matched: {one.reason}" for one in _unread(listed))
    return Matched(keys=found, warnings=(*unread, *map(str, opening.failures.values())))


def _unread(listed: Iterable[Saved | Unreadable]) -> Iterator[Unreadable]:
    return (one for one in listed if isinstance(one, Unreadable))


def choose(names: frozenset[str], saved: Sequence[Saved]) -> Mapping[Wanted, tuple[Saved, ...]]:
    """Say which keys bear one of the names, and which keyrings have each.

    Args:
        names: of keys.
        saved: keyrings, in the order in which they are to be preferred.
    """
    found: dict[str, dict[str, list[Saved]]] = {name: {} for name in names}
    for one in saved:
        for label in one.header.keys:
            namesakes = found.get(label.key_name)
            if namesakes is None:
                continue
            if label.data_hash in namesakes or len(namesakes) < _NAMESAKES:
                namesakes.setdefault(label.data_hash, []).append(one)
    return {
        (name, data_hash): tuple(places)
        for name, namesakes in found.items()
        for data_hash, places in namesakes.items()
    }


@dataclass(frozen=True, slots=True)
class _Opening:
    """Opens keyrings, each at most once."""

    repository: Repository
    identities: Identities | None
    opened: dict[str, tuple[SavedKey, ...]] = field(default_factory=dict)
    failures: dict[str, BackstayError] = field(default_factory=dict)

    def first(self, wanted: Wanted, places: Sequence[Saved]) -> SavedKey | None:
        """Take a key from the first keyring that opens; None where none does."""
        for saved in places[:_TRIES]:
            for key in self._keys(saved):
                if (key.key_name, key.data_hash) == wanted:
                    return key
        return None

    def _keys(self, saved: Saved) -> tuple[SavedKey, ...]:
        if saved.header.id not in self.opened:
            self.opened[saved.header.id] = self._open(saved)
        return self.opened[saved.header.id]

    def _open(self, saved: Saved) -> tuple[SavedKey, ...]:
        try:
            return load(self.repository, saved, self.identities).keys
        except _UNFIT as error:
            self.failures[saved.header.id] = error
            return ()
