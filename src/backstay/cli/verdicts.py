"""What verdicts mean for the exit code, and for the reader."""

from collections.abc import Sequence
from typing import Any, Protocol

from backstay.cli.session import Session
from backstay.errors import CheckFailedError, NotVerifiedError
from backstay.report import Check, Verdict


class Judged(Protocol):
    """A check that has its verdict."""

    @property
    def name(self) -> str:
        """What was asked."""
        ...

    @property
    def verdict(self) -> Verdict:
        """The answer."""
        ...


def exit_code(checks: Sequence[Judged]) -> int:
    """3 where a check failed, 4 where one could not verify and none failed, else 0."""
    verdicts = {check.verdict for check in checks}
    if Verdict.FAIL in verdicts:
        return CheckFailedError.exit_code
    return NotVerifiedError.exit_code if Verdict.COULD_NOT_VERIFY in verdicts else 0


def tell_checks(session: Session, checks: Sequence[Judged], *, good: str = "verified") -> None:
    """Sum verdicts up: a line for each kind, what is wrong first."""
    for verdict, words in (
        (Verdict.FAIL, "FAILED"),
        (Verdict.COULD_NOT_VERIFY, "COULD NOT VERIFY"),
        (Verdict.PASS, good),
    ):
        named = [check.name for check in checks if check.verdict is verdict]
        if named:
            session.tell(f"{words}: {', '.join(named)}")


def answer_checks(checks: Sequence[Check], **more: Any) -> dict[str, Any]:
    """Make the document that --json prints of checks."""
    listed = [
        {
            "name": check.name,
            "verdict": str(check.verdict),
            "detail": check.detail,
            "seconds": round(check.seconds, 3),
        }
        for check in checks
    ]
    return {**more, "checks": listed}
