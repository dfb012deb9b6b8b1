"""members: has every live member the history that the snapshot has?

HashKV sums all keys and values up to a revision; members of one cluster must agree on it. A
snapshot whose HashKV is that of the members holds what the cluster had agreed on, and a member that
says something else has other data. Hashes are compared at the compact revision that each answer
names.

They were asked before the snapshot came and after it: one answer that can be compared is enough of
each, and none may differ.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from backstay.checks.question import Answer, failed, passed, unknown
from backstay.client.answer import Hash
from backstay.client.hashing import Answered, Poll, Silent

NAME = "members"

#: What the snapshot has for an answer's revision and compact revision; None where it can't tell.
Expected = Callable[[Hash], int | None]


@dataclass(slots=True)
class _Member:
    """All that was heard of one member."""

    title: str
    corrupt: bool = False
    agreed: Hash | None = None
    differs: str = ""
    missing: str = ""

    def take(self, answer: Answered, expected: int | None) -> None:
        found = answer.hash
        at = f"at revision {found.revision}, compacted at {found.compact_revision}"
        self.corrupt = self.corrupt or answer.corrupt
        if expected is None:
            self.missing = f"its HashKV is {at}, which the snapshot can't be compared at"
        elif expected == found.hash:
            self.agreed = found
        else:
            self.differs = f"HashKV {found.hash} {at}, the snapshot has {expected}"


@dataclass(slots=True)
class _Heard:
    voters: int = 0
    members: dict[int, _Member] = field(default_factory=dict)
    longest: float = 0.0

    def take(self, poll: Poll, expected: Expected) -> None:
        self.voters = max(self.voters, poll.voters)
        for answer in poll.answered:
            member = self.members.setdefault(answer.id, _Member(answer.title))
            member.take(answer, expected(answer.hash))
            self.longest = max(self.longest, answer.seconds)
        for one in poll.silent:
            if one.live and one.id is not None:
                self.members.setdefault(one.id, _Member(one.title)).missing = one.reason

    @property
    def agreed(self) -> list[_Member]:
        return [one for one in self.members.values() if one.agreed and not one.differs]

    def lacking(self) -> Iterator[str]:
        """Say of whom nothing is known that should be."""
        for one in self.members.values():
            if not one.agreed and not one.differs:
                yield f"{one.title}: {one.missing}"
            elif one.corrupt:
                yield f"{one.title} agrees, but has the alarm CORRUPT"


def members(polls: Sequence[Poll], expected: Expected, source: int) -> Answer:
    """Judge what members answered.

    Args:
        polls: what was heard, oldest first.
        expected: what the snapshot has.
        source: id of the member that the snapshot came from.
    """
    heard = _Heard()
    for poll in polls:
        heard.take(poll, expected)
    away = [f"{one.title} could not be asked: {one.reason}" for one in _away(polls)]
    named = [one.title for one in heard.agreed]
    different = [f"{m.title} has {m.differs}" for m in heard.members.values() if m.differs]
    if different:
        return failed("; ".join([*different, _whose(heard, named, source), *away]))
    voters = max(heard.voters, len(heard.members))
    found = next((one.agreed for one in reversed(heard.agreed) if one.agreed), None)
    if found is None:
        return unknown("; ".join(["no member can be compared", *heard.lacking(), *away]))
    # A member that is reached may be one of many.
    of = f" of {voters} members" if heard.voters else " members, of nobody knows how many"
    told = (
        f"HashKV {found.hash} at revision {found.revision} on {len(named)}{of};"
        f" none could write for {heard.longest:.2f} s at most"
    )
    lacking = [*heard.lacking()]
    if not lacking and not heard.voters:
        lacking = ["no member told who the others are: look whether the user may ask for them"]
    if not lacking and 2 * len(named) <= voters:
        lacking = [
            "that is no majority of them: look whether the others are named, and can be reached"
        ]
    if lacking:
        return unknown("; ".join([told, *lacking, *away]))
    return passed("; ".join([told, *away]))


def _away(polls: Sequence[Poll]) -> list[Silent]:
    """Those of whom no answer could be expected when they were asked last."""
    return [one for one in polls[-1].silent if not one.live or one.id is None] if polls else []


def _whose(heard: _Heard, agreed: list[str], source: int) -> str:
    """Say with whom the snapshot agrees, and whom it came from."""
    giver = heard.members[source].title if source in heard.members else f"member {source:x}"
    rest = f"{', '.join(agreed)} agree" if agreed else "nobody agrees"
    return f"{rest} with the snapshot, which came from {giver}"
