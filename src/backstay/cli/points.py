"""Points as documents: what --json says of --to-revision and --to-time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backstay.flows.fetch import Subject
    from backstay.mvcc.delta import Proof


def point_facts(subject: Subject, proof: Proof | None = None) -> dict[str, Any]:
    """Say what a point was made from; nothing where it is none.

    Args:
        subject: what was asked for.
        proof: what a member had said, and was compared.
    """
    from backstay.flows.timetravel import PointSubject

    if not isinstance(subject, PointSubject):
        return {}
    facts: dict[str, Any] = {
        "base": subject.base.name,
        "to_revision": subject.revision,
        "deltas": len(subject.deltas),
        "hashkv": proof._asdict() if proof else None,
    }
    if subject.moment:
        facts["time"] = _moment(subject)
    return {"point": facts}


def _moment(subject: Any) -> dict[str, Any]:
    from backstay.flows.point import rfc3339

    found = subject.moment
    return {
        "asked": rfc3339(found.asked),
        "recorded_before": rfc3339(found.before),
        "recorded_after": rfc3339(found.after),
        "next_revision": found.next_revision,
        "clock_went_back": found.astray,
    }
