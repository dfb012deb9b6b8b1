"""Names of deltas in a repository: what a plan and a timeline need is in them.

    deltas/CLUSTER/LINEAGE/BEGIN-END-FIRST-LAST-SIZE-DIGEST.zst[.age]
    deltas/CLUSTER/LINEAGE/BEGIN-...-DIGEST-GENERATION-RECIPIENTS-RAND.zst.age

`BEGIN` and `END` are positions, 16 hex digits of the revision, a dot, 8 of the place in its
transaction; they sort as the history does. `FIRST` and `LAST` are the seconds since 1970 between
which its times lie, `SIZE` its bytes in the clear, all in hex; `DIGEST` is the beginning of its
digest, which no two share, since a writer's random id is in it.

The second form is a copy that was sealed anew: the same bytes in the clear, for the recipients of
generation `GENERATION`; `RECIPIENTS` says which these are. Source: docs/formats.md.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from backstay.mvcc.delta import MAX_REVISIONS, Position
from backstay.mvcc.deltawriter import Written
from backstay.repo.name import check_cluster

PLAIN, SEALED = ".zst", ".zst.age"
LINEAGE = re.compile(r"[0-9a-f]{16}")
_POSITION = r"([0-7][0-9a-f]{15})\.([0-9a-f]{8})"
_NAME = re.compile(
    rf"{_POSITION}-{_POSITION}-([0-9a-f]{{9}})-([0-9a-f]{{9}})-([0-9a-f]{{9}})-([0-9a-f]{{16}})"
)
_RESEALED = re.compile(r"-([0-9]{6})-([0-9a-f]{8})-([0-9a-f]{8})")
_FINGERPRINT = 8
#: Of its digest that many hex digits are in a delta's name.
DIGEST_DIGITS = 16


def deltas_of(cluster: str, lineage: str = "") -> str:
    """Prefix of the deltas of a cluster, or of one of its lineages."""
    return f"deltas/{check_cluster(cluster)}/" + (f"{lineage}/" if lineage else "")


@dataclass(frozen=True, slots=True, order=True)
class DeltaName:
    """What the name of a delta says; names sort as the history does.

    Attributes:
        begin: the position of the first change that it may have.
        end: the position after the last.
        first: no time of it is before this second since 1970.
        last: none is after this one.
        size: bytes in the clear.
        digest: how its digest begins, 16 hex digits.
    """

    begin: Position
    end: Position
    first: int
    last: int
    size: int
    digest: str

    def __str__(self) -> str:
        span = f"{position(self.begin)}-{position(self.end)}"
        return f"{span}-{self.first:09x}-{self.last:09x}-{self.size:09x}-{self.digest}"

    @classmethod
    def of(cls, written: Written) -> Self:
        """Name a delta."""
        return cls(
            Position(*written.header.begin),
            Position(*written.header.end),
            written.first // 1000,
            -(-written.last // 1000),
            written.size,
            written.digest[:DIGEST_DIGITS],
        )

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a name, without its suffix; None where it is none, or says what can't be."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        numbers = [int(word, 16) for word in found.groups()[:7]]
        begin, end = Position(*numbers[:2]), Position(*numbers[2:4])
        if not begin <= end or begin.main < 1 or end.main - begin.main > MAX_REVISIONS:
            return None
        first, last, size = numbers[4:]
        return cls(begin, end, first, last, size, found[8])


@dataclass(frozen=True, slots=True, order=True)
class Resealed:
    """What the name of a copy says that was sealed anew.

    Attributes:
        generation: of the repository's configuration, whose recipients it was sealed to.
        recipients: which these are, see `fingerprint`.
        random: 8 hex digits, so that no two writers share a name.
    """

    generation: int
    recipients: str
    random: str

    def __str__(self) -> str:
        return f"-{self.generation:06}-{self.recipients}-{self.random}"

    @classmethod
    def mint(cls, generation: int, recipients: Iterable[str]) -> Self:
        """Name a new copy."""
        return cls(generation, fingerprint(recipients), secrets.token_hex(4))


def fingerprint(recipients: Iterable[str]) -> str:
    """Tell sets of recipients apart: 8 hex digits of the SHA-256 of their sorted lines."""
    lines = "".join(f"{recipient}\n" for recipient in sorted(recipients))
    return hashlib.sha256(lines.encode()).hexdigest()[:_FINGERPRINT]


def parse_file(last: str) -> tuple[DeltaName, Resealed | None] | None:
    """Read the last part of a delta's path; None where it is none of ours."""
    suffix = next((word for word in (SEALED, PLAIN) if last.endswith(word)), "")
    found = _NAME.match(last) if suffix else None
    name = DeltaName.parse(found[0]) if found else None
    if found is None or name is None:
        return None
    rest = last.removesuffix(suffix)[found.end() :]
    if not rest:
        return name, None
    copy = _RESEALED.fullmatch(rest)
    if copy is None or suffix != SEALED:
        return None
    return name, Resealed(int(copy[1]), copy[2], copy[3])


def delta_of(last: str) -> str:
    """Name the delta that a file is a copy of; what is none is its own."""
    found = parse_file(last)
    return str(found[0]) if found else last


def position(at: Position) -> str:
    """Write a position as names have it."""
    return f"{at.main:016x}.{at.sub:08x}"
