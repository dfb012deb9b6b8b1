import threading
import time

import pytest

from backstay.errors import SpaceError, StoreError
from backstay.flows import beside
from backstay.flows.beside import Beside
from backstay.flows.intake import Intake
from backstay.flows.spool import CutShortError
from backstay.report import Report


def read_all(follower):
    parts = []
    while part := follower.read():
        parts.append(part)
    return b"".join(parts)


class Keeper:
    """Takes in what comes; remembers each try and how it ended."""

    def __init__(self):
        self.tries = {}
        self.began = threading.Semaphore(0)

    def __call__(self, follower, number):
        self.began.release()
        try:
            self.tries[number] = read_all(follower)
        except CutShortError:
            self.tries[number] = "cut short"
            raise
        return self.tries[number]


def test_what_comes_is_kept_beside(tmp_path):
    keep = Keeper()
    with Intake(tmp_path, 10, keep) as intake:
        intake.write(b"abc")
        intake.write(b"def")
        intake.finish()
        assert intake.kept(Report()) == b"abcdef"
    assert keep.tries == {0: b"abcdef"}


def test_a_new_try_begins_with_nothing(tmp_path):
    keep = Keeper()
    with Intake(tmp_path, 0, keep) as intake:
        intake.write(b"half")
        keep.began.acquire()
        intake.reset()
        intake.write(b"whole")
        intake.finish()
        assert intake.kept(Report()) == b"whole"
    assert keep.tries == {0: "cut short", 1: b"whole"}


def test_a_stream_that_never_begins_is_not_kept(tmp_path):
    keep = Keeper()
    with Intake(tmp_path, 0, keep):
        pass
    assert keep.tries == {}


def test_an_empty_stream_is_kept_as_such(tmp_path):
    keep = Keeper()
    with Intake(tmp_path, 0, keep) as intake:
        intake.finish()
        assert intake.kept(Report()) == b""


def test_an_error_of_the_source_ends_the_keeper(tmp_path):
    keep = Keeper()
    with pytest.raises(ValueError), Intake(tmp_path, 0, keep) as intake:
        intake.write(b"half")
        keep.began.acquire()
        raise ValueError
    assert keep.tries == {0: "cut short"}
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_keeper_ends_the_source(tmp_path):
    def keep(follower, number):
        follower.read()
        raise StoreError("refused")

    with Intake(tmp_path, 0, keep) as intake, pytest.raises(StoreError, match="refused"):
        for _ in range(500):
            intake.write(b"more")
            time.sleep(0.01)
    with Intake(tmp_path, 0, keep) as intake:
        intake.write(b"all")
        intake.finish()
        with pytest.raises(StoreError, match="refused"):
            intake.kept(Report())


def test_too_little_room_is_found_before_anything_begins(tmp_path):
    with pytest.raises(SpaceError):
        Intake(tmp_path, 1 << 60, Keeper())
    assert threading.active_count() < 20


def test_work_beside_gives_its_result_or_its_error():
    assert Beside(lambda: 5).result() == 5
    broken = Beside(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        broken.result()
    assert isinstance(broken.error, ZeroDivisionError)

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Beside(interrupted).result()


def test_work_that_does_not_stop_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(beside, "STOP_SECONDS", 0.2)
    hold = threading.Event()
    hanging = Beside(lambda: hold.wait(20))
    began = time.monotonic()
    hanging.stopped()
    assert time.monotonic() - began < 5
    assert hanging.error is None
    hold.set()
    assert hanging.result()
