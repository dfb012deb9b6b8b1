import pytest

from backstay.checks.question import ask, failed, passed, unknown, worst
from backstay.errors import (
    BackstayError,
    CheckFailedError,
    DamagedError,
    EtcdError,
    NotFoundError,
    SealError,
    StoreError,
)
from backstay.report import Check, Verdict


class Clock:
    """Every look takes two seconds."""

    def __init__(self):
        self.seconds = 0.0

    def monotonic(self):
        self.seconds += 2
        return self.seconds


def raising(error):
    def question():
        raise error

    return question


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (passed("yes"), Verdict.PASS),
        (failed("no"), Verdict.FAIL),
        (unknown("who knows"), Verdict.COULD_NOT_VERIFY),
    ],
)
def test_an_answer_becomes_a_check(answer, verdict):
    assert ask("stored", lambda: answer, Clock()) == Check(
        name="stored", verdict=verdict, detail=answer.detail, seconds=2
    )


@pytest.mark.parametrize("kind", [CheckFailedError, DamagedError, NotFoundError])
def test_what_is_damaged_or_gone_is_a_fail(kind):
    check = ask("stored", raising(kind("it is gone", "look")), Clock())
    assert (check.verdict, check.detail) == (Verdict.FAIL, "it is gone: look")


@pytest.mark.parametrize("kind", [BackstayError, StoreError, EtcdError, SealError])
def test_promise_4_a_question_that_could_not_be_asked_is_no_pass(kind):
    check = ask("stored", raising(kind("no answer")), Clock())
    assert (check.verdict, check.detail) == (Verdict.COULD_NOT_VERIFY, "no answer")


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), MemoryError()])
def test_what_is_no_error_of_ours_passes_through(error):
    with pytest.raises(type(error)):
        ask("stored", raising(error), Clock())


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), Verdict.PASS),
        ((Verdict.PASS,), Verdict.PASS),
        ((Verdict.PASS, Verdict.COULD_NOT_VERIFY), Verdict.COULD_NOT_VERIFY),
        ((Verdict.COULD_NOT_VERIFY, Verdict.FAIL, Verdict.PASS), Verdict.FAIL),
    ],
)
def test_promise_4_the_worst_verdict_counts(verdicts, expected):
    checks = tuple(Check(name="x", verdict=v, detail="", seconds=0) for v in verdicts)
    assert worst(checks) is expected
