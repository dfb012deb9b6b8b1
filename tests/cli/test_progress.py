"""What people, and machines that read logs, see of the events of a flow."""

import io
import json
import re
import sys

import pytest

from backstay.cli import progress
from backstay.cli.progress import Bars, JsonLines, Lines, listener
from backstay.cli.session import Session
from backstay.errors import BackstayError
from backstay.report import Advanced, Check, Finished, Report, Started, Verdict

BAD = Check(name="stored", verdict=Verdict.FAIL, detail="[bold]3 bytes\x1b[1m differ", seconds=0.25)
GOOD = Check(name="transfer", verdict=Verdict.PASS, detail="as sent", seconds=0.5)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when told to."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def session(**how):
    made = Session()
    for name, value in how.items():
        setattr(made, name, value)
    return made


def test_whoever_listens_gets_what_fits(monkeypatch):
    assert isinstance(listener(session()), Lines)
    assert isinstance(listener(session(log_format="json")), JsonLines)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert isinstance(listener(session()), Bars)
    assert isinstance(listener(session(quiet=True)), Lines)
    assert isinstance(listener(session(json=True)), Lines)
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(listener(session(json=True)), Lines)


def test_lines_tell_of_long_work_now_and_then(capsys, clock):
    show = Lines(session())
    show(Started(1, "upload", 100 << 20, "bytes"))
    for _ in range(12):
        clock.now += 1
        show(Advanced(1, 5 << 20))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "upload: 25.0 MiB of 100.0 MiB, 5.0 MiB/s, 15s left",
        "upload: 50.0 MiB of 100.0 MiB, 5.0 MiB/s, 10s left",
    ]
    show(Finished(1, ok=True))
    assert capsys.readouterr().err == "upload: 60.0 MiB in 12s\n"


def test_lines_do_without_a_total_and_with_other_units(capsys, clock):
    show = Lines(session())
    show(Started(1, "examining", None, "pages"))
    clock.now += 10
    show(Advanced(1, 30))
    assert capsys.readouterr().err == "examining: 30 pages, 3 pages/s\n"
    show(Finished(1, ok=False))
    assert capsys.readouterr().err == ""
    show(Started(2, "waiting", None, "bytes"))
    show(Finished(2, ok=True))
    assert capsys.readouterr().err == "waiting\n"


def test_lines_of_verdicts_and_words(capsys):
    report = Report(Lines(session()))
    report.judge(BAD)
    report.say("chosen: a")
    report.warn("look at b")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "FAIL             stored: [bold]3 bytes\\x1b[1m differ",
        "chosen: a",
        "warning: look at b",
    ]


def test_quiet_means_quiet(capsys):
    report = Report(Lines(session(quiet=True)))
    report.say("chosen: a")
    report.judge(BAD)
    assert capsys.readouterr() == ("", "")


def test_json_lines(capsys, clock):
    show = JsonLines(session(log_format="json"))
    report = Report(show)
    report.judge(BAD)
    report.judge(GOOD)
    report.say("chosen: \udcff")
    report.warn("look")
    show(Started(1, "upload", 10, "bytes"))
    clock.now += 6
    show(Advanced(1, 4))
    out, err = capsys.readouterr()
    assert out == ""
    found = [json.loads(line) for line in err.splitlines()]
    assert all(line.pop("time") for line in found)
    assert found == [
        {
            "level": "warning",
            "message": BAD.detail,
            "check": "stored",
            "verdict": "FAIL",
            "seconds": 0.25,
        },
        {
            "level": "info",
            "message": "as sent",
            "check": "transfer",
            "verdict": "PASS",
            "seconds": 0.5,
        },
        {"level": "info", "message": "chosen: \udcff"},
        {"level": "warning", "message": "look"},
        {"level": "info", "message": "upload: 4 B of 10 B, 1 B/s, 9.0s left"},
    ]


def make_terminal(monkeypatch):
    """Make standard output a terminal of 120 columns; in the test's own time, as pytest has one."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_bars_leave_verdicts_and_sums_behind(monkeypatch):
    terminal = make_terminal(monkeypatch)
    bars = Bars(session())
    report = Report(bars)
    with report.task("writing [red]x.db", 1000) as advance:
        advance(400)
        advance(600)
    report.judge(BAD)
    report.judge(GOOD)
    report.warn("[b]look")
    report.say("said")
    bars.close()
    text = terminal.getvalue()
    assert re.search(r"writing \[red\]x\.db: 1000 B in \d+\.\ds", text)
    assert "\x1b[31mFAIL" in text
    assert "\x1b[32mPASS" in text
    assert "[bold]3 bytes\\x1b[1m differ" in text
    assert "[b]look" in text
    assert not bars._moving


def test_bars_are_taken_down_when_work_fails(monkeypatch):
    terminal = make_terminal(monkeypatch)
    bars = Bars(session())
    report = Report(bars)
    with pytest.raises(ValueError), report.task("upload", 1000):
        raise ValueError
    bars.close()
    assert "upload: " not in terminal.getvalue()


def test_a_stream_that_takes_no_more_ends_no_work(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stderr", Full())
    report = Report(Lines(session()))
    report.say("nobody reads this")
    with report.task("upload"):
        pass
    session().complain("nor this", do="")
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(BackstayError, match="No space left"):
        session(json=True).answer({})


def test_an_error_is_one_line(capsys):
    session().complain("what\n  it\twas \x1b[0m", do="try\nagain")
    assert capsys.readouterr().err == "backstay: what it was \\x1b[0m: try again\n"


def test_an_answer_is_a_document_whatever_is_in_it(capsys):
    session(json=True).answer({"name": "\x1b\x7f\udcff\n"})
    assert json.loads(capsys.readouterr().out) == {"name": "\x1b\x7f\udcff\n"}
