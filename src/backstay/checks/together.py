"""One verdict for each question, where a backup has several snapshots."""

from collections.abc import Sequence

from backstay.checks.question import worst
from backstay.report import Check


def together(found: Sequence[tuple[str, tuple[Check, ...]]]) -> tuple[Check, ...]:
    """Sum up what was asked of several snapshots: one verdict for each question, the worst.

    Args:
        found: each snapshot's name and its checks; where there is one, its checks stay as they
            are.
    """
    if len(found) == 1:
        return found[0][1]
    asked: dict[str, list[tuple[str, Check]]] = {}
    for name, checks in found:
        for check in checks:
            asked.setdefault(check.name, []).append((name, check))
    return tuple(
        Check(
            name=question,
            verdict=worst(tuple(check for _, check in answers)),
            detail="; ".join(f"{name}: {check.detail}" for name, check in answers),
            seconds=sum(check.seconds for _, check in answers),
        )
        for question, answers in asked.items()
    )
