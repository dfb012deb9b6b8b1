"""age keys: the identity that opens backups, and the recipients that they are sealed to.

Source: the age specification, X25519 (age-encryption.org/v1). An identity file is what age-keygen
writes: comments, and one secret key a line.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

import pyrage

from backstay.errors import FormatError, UsageError
from backstay.files import new_file, read_private

_SECRET = "AGE-SECRET-KEY-"  # noqa: S105 - how secrets begin, not one
_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Identities:
    """Private keys; their repr says how many, and no more.

    Attributes:
        keys: pyrage's identities.
        name: the file that they came from, for messages.
    """

    keys: tuple[pyrage.x25519.Identity, ...] = field(repr=False)
    name: str

    @property
    def recipients(self) -> tuple[str, ...]:
        """The public keys that belong to them."""
        return tuple(str(key.to_public()) for key in self.keys)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an identity file.

        Raises:
            FormatError: it holds no identity that we know.
            BackstayError: it can't be read.
        """
        return cls.parse(read_private(path, limit=_LIMIT), str(path))

    @classmethod
    def parse(cls, data: bytes, name: str) -> Self:
        """Read the text of an identity file; what it holds is never shown in an error.

        Raises:
            FormatError: it holds no identity that we know.
        """
        keys = []
        for number, line in enumerate(data.decode("ascii", errors="replace").splitlines(), 1):
            word = line.strip()
            if not word or word.startswith("#"):
                continue
            try:
                keys.append(pyrage.x25519.Identity.from_str(word))
            except pyrage.IdentityError:
                raise FormatError(
                    f"{name}, line {number}, is no age identity",
                    "name the file that `backstay keygen` or age-keygen wrote",
                ) from None
        if not keys:
            raise FormatError(f"{name} holds no age identity", "name the file that keygen wrote")
        return cls(tuple(keys), name)


def check_recipient(text: str) -> str:
    """Give a recipient back if it is one.

    Raises:
        UsageError: it is none; a private key is not shown.
    """
    word = text.strip()
    if word.upper().startswith(_SECRET):
        raise UsageError(
            "a private key was given as recipient",
            "give its public key (age1...), and make a new pair: this one was in the open",
        )
    try:
        return str(pyrage.x25519.Recipient.from_str(word))
    except pyrage.RecipientError:
        raise UsageError(
            f"{word[:80]!r} is no age recipient", "give the age1... of `backstay keygen`"
        ) from None


def check_recipients(texts: Iterable[str]) -> tuple[str, ...]:
    """Check recipients, and bring them into one order without doubles.

    Raises:
        UsageError: one of them is none.
    """
    return tuple(sorted({check_recipient(text) for text in texts}))


def generate(now: datetime) -> tuple[str, str]:
    """Make a key pair.

    Args:
        now: the time for the comment.

    Returns:
        The text of the identity file, as age-keygen writes it, and the recipient.
    """
    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    created = now.astimezone().replace(microsecond=0).isoformat().replace("+00:00", "Z")
    return f"# created: {created}\n# public key: {recipient}\n{identity}\n", recipient


def write_identity(path: Path, text: str) -> None:
    """Write an identity file, 0600; an existing file stays.

    Raises:
        AlreadyExistsError: something has that name.
    """
    with new_file(path) as file:
        file.write(text.encode())
