"""Generations: who can read what is written from now on, changed without replacing anything.

    backstay.json               generation 1, written by `init`
    config/NNNNNN-RAND.json     a later one, from 000002 on; whole, as `backstay.json` is

The newest counts: the highest number. No two writers share a name, so that a store need not honour
create-only puts. Whoever finds that another took the same number takes its own back, and says so;
where both were killed before that, the later name counts. Only the recipients may differ: what a
repository is, and whether it is encrypted, is said once.

A generation that can't be read is an error and never passed over: an older one may name a recipient
that was removed since. Source: docs/formats.md.
"""

import re
import secrets
import string
from contextlib import suppress

from backstay.errors import AlreadyExistsError, BackstayError, FormatError, RefusedError
from backstay.repo.config import Config, parse_config
from backstay.repo.document import MAX_SIZE, encode
from backstay.repo.store import Store

FOLDER = "config"
#: The last number that a name has room for.
LAST = 999_999
_PATH = re.compile(rf"{FOLDER}/([0-9]{{6}})-([a-z0-9]{{4}})\.json")
_ALPHABET = string.ascii_lowercase + string.digits
_MEND = "find out who wrote it; once it is deleted the one before it counts again"


def newest(store: Store, first: Config) -> Config:
    """Find the generation that counts.

    Args:
        store: of the repository.
        first: what `backstay.json` says.

    Raises:
        FormatError: the newest generation can't be read, or is of something else.
        StoreError: the store refuses.
    """
    paths = _paths(store)
    return _read(store, paths[-1], first) if paths else first


def history(store: Store, first: Config) -> tuple[Config, ...]:
    """Read all generations, oldest first.

    Raises: as `newest`.
    """
    return (first, *(_read(store, path, first) for path in _paths(store)))


def publish(store: Store, current: Config, config: Config) -> None:
    """Make a generation the newest.

    Args:
        store: of the repository.
        current: the newest generation so far.
        config: the one after it.

    Raises:
        RefusedError: somebody else made a generation meanwhile; this one does not count then.
        StoreError: the store refuses.
    """
    if config.generation != current.generation + 1 or config.generation > LAST:
        raise RefusedError(
            f"generation {config.generation} can't follow {current.generation}",
            "look at `backstay recipients list`, and try again",
        )
    path = _mint(config.generation)
    store.put_new(path, encode(config))
    # Each of two writers lists after it has written, so at least one of them sees both.
    if [other for other in _paths(store) if _number(other) >= config.generation] != [path]:
        with suppress(BackstayError):
            store.delete(path)
        raise RefusedError(
            f"somebody else changed the recipients of {store.url} at the same time, and this change"
            " was not made",
            "look at `backstay recipients list`, and try again",
        )


def check_none(store: Store) -> None:
    """Hold a place where a repository is to be made to have no generations of an earlier one.

    Raises:
        AlreadyExistsError: it has some: its `backstay.json` was lost, or deleted.
    """
    paths = _paths(store)
    if paths:
        raise AlreadyExistsError(
            f"{store.url} has {paths[0]}: there was a repository, whose backstay.json is gone",
            "bring that back, or name another place",
        )


def _mint(number: int) -> str:
    random = "".join(secrets.choice(_ALPHABET) for _ in range(4))
    return f"{FOLDER}/{number:06}-{random}.json"


def _paths(store: Store) -> list[str]:
    """Name the later generations, oldest first; other names are none of ours."""
    return sorted(info.path for info in store.list(FOLDER) if _number(info.path) > 1)


def _number(path: str) -> int:
    match = _PATH.fullmatch(path)
    return int(match[1]) if match else 0


def _read(store: Store, path: str, first: Config) -> Config:
    name = f"{store.url}/{path}"
    try:
        config = parse_config(store.read(path, MAX_SIZE), name)
    except FormatError as error:
        raise FormatError(error.what, error.do or _MEND) from error
    if config.generation != _number(path):
        raise FormatError(f"{name} says that it is generation {config.generation}", _MEND)
    for word in ("repository", "role", "encryption", "lock"):
        if getattr(config, word) != getattr(first, word):
            raise FormatError(f"{name} has another {word} than backstay.json", _MEND)
    return config
