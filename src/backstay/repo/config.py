"""The repository's own object: who it is, what it is for, and whom it is sealed to.

Source: docs/formats.md. It is written once, by `init`; see `generation` for what comes later.
"""

import secrets
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from backstay import __version__
from backstay.errors import FormatError, RefusedError, UsageError
from backstay.repo.document import FORMAT, check_time, decode
from backstay.repo.identity import check_recipients
from backstay.repo.lock import Lock
from backstay.repo.manifest import Short

PATH = "backstay.json"
MAX_RECIPIENTS = 256


class Role(StrEnum):
    """What lies in a repository."""

    DATA = "data"
    KEYS = "keys"


class Encryption(StrEnum):
    """How objects are sealed."""

    AGE = "age"
    NONE = "none"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What a repository says of itself."""

    format: Annotated[int, Meta(ge=1)] = FORMAT
    requires: tuple[Short, ...] = ()
    repository: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    generation: Annotated[int, Meta(ge=1, le=999_999)] = 1
    role: Role
    encryption: Encryption
    recipients: Annotated[tuple[Short, ...], Meta(max_length=MAX_RECIPIENTS)]
    created_at: datetime
    capabilities: dict[str, Any]
    lock: Lock | None = None
    backstay_version: Short = __version__

    @property
    def suffix(self) -> str:
        """How the names of sealed objects end: they say which programs open them."""
        return ".zst.age" if self.encryption is Encryption.AGE else ".zst"


def new_config(
    role: Role,
    recipients: Sequence[str],
    capabilities: dict[str, Any],
    now: datetime,
    lock: Lock | None = None,
) -> Config:
    """Make the configuration of a new repository.

    Args:
        role: what will lie in it.
        recipients: age recipients; none means that objects are not encrypted.
        capabilities: what the probe found.
        now: the time of day.
        lock: how what is written is locked; None: not at all.

    Raises:
        UsageError: a recipient is none, or keys would lie unencrypted.
    """
    sealed_to = check_recipients(recipients)
    if role is Role.KEYS and not sealed_to:
        raise UsageError("a repository for keys is always encrypted", "give a --recipient")
    return Config(
        repository=secrets.token_hex(16),
        role=role,
        encryption=Encryption.AGE if sealed_to else Encryption.NONE,
        recipients=sealed_to,
        created_at=now,
        capabilities=capabilities,
        lock=lock,
    )


def with_recipients(current: Config, recipients: Sequence[str], now: datetime) -> Config:
    """Make the generation that follows one, sealed to others.

    Args:
        current: the newest generation.
        recipients: whom what is written from now on is sealed to.
        now: the time of day.

    Raises:
        UsageError: a recipient is none.
        RefusedError: the repository is not encrypted, or would be sealed to nobody or to too many.
    """
    sealed_to = check_recipients(recipients)
    if current.encryption is not Encryption.AGE:
        raise RefusedError(
            "the repository is not encrypted, and what lies in it would stay so",
            "make a new one with `backstay init --recipient`",
        )
    if not sealed_to:
        raise RefusedError(
            "nobody could read what is sealed to no recipient", "add another recipient first"
        )
    if len(sealed_to) > MAX_RECIPIENTS:
        raise RefusedError(f"there are {MAX_RECIPIENTS} recipients already", "remove one first")
    return msgspec.structs.replace(
        current,
        generation=current.generation + 1,
        recipients=sealed_to,
        created_at=now,
        backstay_version=__version__,
    )


def parse_config(data: bytes, name: str) -> Config:
    """Read a repository's configuration.

    Raises:
        FormatError: it is none, contradicts itself, or is too new.
    """
    config = decode(data, Config, name)
    check_time(config.created_at, name)
    try:
        recipients = check_recipients(config.recipients)
    except UsageError as error:
        raise FormatError(f"{name}: {error.what}") from error
    # Without this, who can write to the bucket could turn encryption off by emptying a list.
    if bool(recipients) != (config.encryption is Encryption.AGE):
        raise FormatError(f"{name}: its recipients contradict encryption {config.encryption}")
    return config


def check_pins(config: Config, pinned: Sequence[str], name: str) -> None:
    """Hold the repository to the recipients that the caller expects, where it expects some.

    Args:
        config: what the repository says.
        pinned: what the caller expects; empty expects nothing.
        name: what messages call the repository.

    Raises:
        RefusedError: they differ: someone may have changed whom backups are sealed to.
    """
    expected = check_recipients(pinned)
    if expected and expected != config.recipients:
        raise RefusedError(
            f"{name} is sealed to {_list(config.recipients)}, but {_list(expected)} is pinned",
            "find out who changed it, then mend the pins or the repository",
        )


def _list(recipients: Sequence[str]) -> str:
    return ", ".join(recipients) or "nobody"
