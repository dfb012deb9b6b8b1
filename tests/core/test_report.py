import threading

import pytest

from backstay.clock import SystemClock
from backstay.errors import BackstayError, NotFoundError
from backstay.report import Advanced, Check, Finished, Judged, Report, Said, Started, Verdict


def test_events_come_in_order_to_all():
    one, two = [], []
    report = Report(one.append, two.append)
    check = Check(name="stored", verdict=Verdict.PASS, detail="", seconds=0)
    report.say("a")
    report.warn("b")
    report.judge(check)
    with report.task("upload", 10, "pages") as advance:
        advance(4)
    assert (
        one
        == two
        == [
            Said("a"),
            Said("b", warning=True),
            Judged(check),
            Started(1, "upload", 10, "pages"),
            Advanced(1, 4),
            Finished(1, ok=True),
        ]
    )


def test_work_that_fails_is_told_as_such_and_fails():
    events = []
    with pytest.raises(ValueError), Report(events.append).task("upload"):
        raise ValueError
    assert events[-1] == Finished(1, ok=False)
    assert events[0] == Started(1, "upload", None, "bytes")


def test_tasks_of_many_threads_have_numbers_of_their_own():
    events = []
    report = Report(events.append)

    def work():
        with report.task("x"):
            pass

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [event.task for event in events if isinstance(event, Started)]
    assert sorted(numbers) == list(range(1, 21))


def test_nobody_has_to_listen():
    Report().say("to nobody")


def test_an_error_is_what_happened_and_what_to_do():
    assert str(BackstayError("it broke", "mend it")) == "it broke: mend it"
    assert str(NotFoundError("it is gone")) == "it is gone"
    assert NotFoundError("x").exit_code == 1


def test_the_clock_of_the_machine():
    clock = SystemClock()
    before = clock.monotonic()
    clock.sleep(0.01)
    assert clock.monotonic() - before >= 0.01
    assert clock.now().utcoffset().total_seconds() == 0
