"""How a question is asked: timed, and with a verdict whatever comes of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from backstay.clock import Clock
from backstay.errors import BackstayError, CheckFailedError, NotFoundError, RefusedError
from backstay.report import Check, Verdict


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question came to.

    Attributes:
        verdict: PASS, FAIL or COULD NOT VERIFY.
        detail: one line that says what was compared, or what is wrong.
    """

    verdict: Verdict
    detail: str


def passed(detail: str) -> Answer:
    """Answer that all is well, and say what was looked at."""
    return Answer(Verdict.PASS, detail)


def failed(detail: str) -> Answer:
    """Answer that something is wrong, and say what."""
    return Answer(Verdict.FAIL, detail)


def unknown(detail: str) -> Answer:
    """Answer that the question could not be asked, and say why."""
    return Answer(Verdict.COULD_NOT_VERIFY, detail)


def both(first: Answer, second: Callable[[], Answer]) -> Answer:
    """Ask a second question where the first was answered with PASS; what both told is told."""
    if first.verdict is not Verdict.PASS:
        return first
    answer = second()
    return Answer(answer.verdict, f"{first.detail}; {answer.detail}")


def ask(name: str, question: Callable[[], Answer], clock: Clock) -> Check:
    """Ask one question.

    An error that says that something is damaged or gone is a FAIL; any other error of ours means
    that the question could not be asked (promise 4). What is no error of ours passes through.

    Args:
        name: what the check is called.
        question: gives the answer, or raises.
        clock: measures the seconds.
    """
    began = clock.monotonic()
    try:
        answer = question()
    except (CheckFailedError, NotFoundError) as error:
        answer = failed(str(error))
    except BackstayError as error:
        answer = unknown(str(error))
    seconds = clock.monotonic() - began
    return Check(name=name, verdict=answer.verdict, detail=answer.detail, seconds=seconds)


def unrefused(question: Callable[[], Answer]) -> Answer:
    """Ask about something that a command would be refused: a look before it is a FAIL."""
    try:
        return question()
    except RefusedError as error:
        return failed(str(error))


def worst(checks: Iterable[Check | Answer]) -> Verdict:
    """Sum up: FAIL where one failed, else COULD NOT VERIFY where one could not be asked."""
    verdicts = {check.verdict for check in checks}
    for verdict in (Verdict.FAIL, Verdict.COULD_NOT_VERIFY):
        if verdict in verdicts:
            return verdict
    return Verdict.PASS
