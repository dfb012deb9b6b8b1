"""The keyring that suits a snapshot file of an OKD cluster: found by trying, not by names.

Each API server there numbers its keys: what is called `1` in one cluster is another key than the
`1` of the next one. Names only say which keyrings need not be tried. A configuration suits a file
when it opens values of it; the same configuration lies in the keyrings of many backups, and is
tried once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backstay.errors import (
    BackstayError,
    CheckFailedError,
    DamagedError,
    FormatError,
    NotFoundError,
    NotVerifiedError,
    SealError,
)
from backstay.kubedata.cipher import KEY_SIZES
from backstay.kubedata.encryption import EncryptionConfiguration
from backstay.kubedata.inventory import Group, Inventory, read_value
from backstay.kubedata.opening import colon_names, keys_named, open_value
from backstay.kubedata.resource import KUBE_APISERVER, api_server
from backstay.mvcc.snapshot import Snapshot
from backstay.repo.catalogue import Repository
from backstay.repo.identity import Identities
from backstay.repo.keyring import Saved, load
from backstay.repo.keyring_document import OKD

#: Different configurations that are tried.
TRIES = 32
#: Groups of values that are tried with each, and values of each group.
_GROUPS = 16
_VALUES = 2
_UNFIT = (DamagedError, FormatError, NotFoundError, SealError)


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a snapshot that a key should open."""

    group: Group
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Suited:
    """What came of trying.

    Attributes:
        configuration: the one that opens most; None where none opens any.
        warnings: keyrings that could not be opened.
    """

    configuration: EncryptionConfiguration | None = None
    warnings: tuple[str, ...] = ()


def samples(snapshot: Snapshot, inventory: Inventory) -> tuple[Sample, ...]:
    """Choose values that kube-apiserver has encrypted, the newest of each group first.

    Raises:
        DamagedError: a value is none.
    """
    groups = [
        (group, stored)
        for group, stored in sorted(inventory.groups.items())
        if group.provider in KEY_SIZES and api_server(group.resource) == KUBE_APISERVER
    ]
    return tuple(
        Sample(group, key, read_value(snapshot, place))
        for group, stored in groups[:_GROUPS]
        for key, place in stored[: -_VALUES - 1 : -1]
    )


def suit(
    wanted: Sequence[Sample],
    listed: Sequence[Saved],
    repository: Repository,
    identities: Identities | None,
) -> Suited:
    """Find the configuration that opens most of some values.

    Args:
        wanted: the values.
        listed: keyrings of any kind, in the order in which they are to be preferred.
        repository: where they lie.
        identities: private keys.

    Raises:
        NotVerifiedError: there are more to try than are tried, and none of these opens a value.
        BackstayError: none could be opened that might.
    """
    best: EncryptionConfiguration | None = None
    most, tried = 0, 0
    failures: list[BackstayError] = []
    for saved in candidates(wanted, listed):
        if tried == TRIES:
            if best is None:
                raise NotVerifiedError(
                    f"{TRIES} configurations have keys of these names, and none of them opens a"
                    " value; there are more",
                    "give the right one with --encryption-config",
                )
            break
        tried += 1
        try:
            configuration = load(repository, saved, identities).configuration
        except _UNFIT as error:
            failures.append(error)
            continue
        opened = opens(configuration, wanted)
        if opened > most:
            best, most = configuration, opened
        if most == len(wanted):
            break
    if best is None and failures:
        raise failures[0]
    return Suited(configuration=best, warnings=tuple(map(str, failures)))


def candidates(wanted: Sequence[Sample], listed: Sequence[Saved]) -> Iterator[Saved]:
    """Give the OKD keyrings that have a key of a name that is wanted, each set of keys once.

    Where one of a set can't be opened, another one is not looked for: it holds the same keys, and
    lies in the same place.
    """
    names = {(sample.group.provider, sample.group.key_name) for sample in wanted}
    seen: set[frozenset[str]] = set()
    for saved in listed:
        if saved.header.kind != OKD:
            continue
        labels = saved.header.keys
        keys = frozenset(label.data_hash for label in labels)
        if keys in seen or not names & {(label.provider, label.key_name) for label in labels}:
            continue
        seen.add(keys)
        yield saved


def opens(configuration: EncryptionConfiguration, wanted: Sequence[Sample]) -> int:
    """Count the values that a configuration opens."""
    colons = colon_names([configuration])
    return sum(_opens(configuration, sample, colons) for sample in wanted)


def _opens(configuration: EncryptionConfiguration, sample: Sample, colons: Sequence[str]) -> bool:
    group = sample.group
    providers = configuration.providers(group.prefix, group.resource)
    secrets = keys_named(providers, group.provider, group.key_name)
    if not secrets:
        return False
    try:
        open_value(sample.value, sample.key, secrets, colons)
    except CheckFailedError:
        return False
    return True
