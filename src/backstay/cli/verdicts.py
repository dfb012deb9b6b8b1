"""What verdicts mean for the exit code, and for the reader."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from backstay.cli.session import Session
from backstay.errors import CheckFailedError, NotVerifiedError
from backstay.report import Check, Verdict

if TYPE_CHECKING:
    from backstay.repo.manifest import Manifest


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


def exit_code(checks: Sequence[Judged], accepted: Collection[str] = ()) -> int:
    """3 where a check failed, 4 where one could not verify and none failed, else 0.

    Args:
        checks: with their verdicts.
        accepted: names of checks that may be left without an answer.
    """
    verdicts = {check.verdict for check in checks if not _is_accepted(check, accepted)}
    if Verdict.FAIL in verdicts:
        return CheckFailedError.exit_code
    return NotVerifiedError.exit_code if Verdict.COULD_NOT_VERIFY in verdicts else 0


def _is_accepted(check: Judged, accepted: Collection[str]) -> bool:
    return check.verdict is Verdict.COULD_NOT_VERIFY and check.name in accepted


def tell_checks(
    session: Session,
    checks: Sequence[Judged],
    *,
    good: str = "verified",
    accepted: Collection[str] = (),
) -> None:
    """Sum verdicts up: a line for each kind, what is wrong first."""
    for verdict, words, open_ones in (
        (Verdict.FAIL, "FAILED", False),
        (Verdict.COULD_NOT_VERIFY, "COULD NOT VERIFY", False),
        (Verdict.COULD_NOT_VERIFY, "COULD NOT VERIFY, which is accepted", True),
        (Verdict.PASS, good, False),
    ):
        named = [
            check.name
            for check in checks
            if check.verdict is verdict and _is_accepted(check, accepted) is open_ones
        ]
        if named:
            session.tell(f"{words}: {', '.join(named)}")


def tell_backup(
    session: Session, manifest: "Manifest", accepted: Collection[str] = (), more: str = ""
) -> int:
    """Say what a backup came to, as all kinds of backup do; give the exit code.

    Args:
        session: how the program talks.
        manifest: as it was published.
        accepted: names of checks that may be left without an answer.
        more: a line for people; empty where there is nothing more to say.
    """
    from backstay.repo.document import plain

    session.close()
    if session.json:
        session.answer(plain(manifest))
    else:
        session.tell(f"{manifest.id}: revision {manifest.revision}, {manifest.total_keys} keys")
        if more:
            session.tell(more)
        tell_checks(session, manifest.checks, accepted=accepted)
    return exit_code(manifest.checks, accepted)


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
