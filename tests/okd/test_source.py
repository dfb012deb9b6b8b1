"""A snapshot that is read no faster than is wanted."""

import pytest

from backstay.kinds.okd.source import Limited


class Sink:
    def __init__(self):
        self.data = b""
        self.resets = 0

    def write(self, data):
        self.data += data

    def reset(self):
        self.data, self.resets = b"", self.resets + 1


class Clock:
    """Time that goes on by sleeping alone."""

    def __init__(self):
        self.time = 100.0
        self.slept = []

    def now(self):
        raise AssertionError("the time of day is none of its business")

    def monotonic(self):
        return self.time

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds


def test_it_takes_as_long_as_the_rate_says():
    sink, clock = Sink(), Clock()
    limited = Limited(sink, 1000, clock)
    for _ in range(5):
        limited.write(b"x" * 500)
    assert clock.time - 100.0 == pytest.approx(2.5)
    assert sink.data == b"x" * 2500
    # Whoever is told to stop need not wait for long.
    assert max(clock.slept) <= 0.25


def test_what_comes_slowly_is_not_slowed_down():
    sink, clock = Sink(), Clock()
    limited = Limited(sink, 1000, clock)
    clock.time += 10
    limited.write(b"x" * 500)
    assert clock.slept == []


def test_each_try_is_measured_by_itself():
    sink, clock = Sink(), Clock()
    limited = Limited(sink, 1000, clock)
    limited.write(b"x" * 1000)
    limited.reset()
    assert (sink.data, sink.resets) == (b"", 1)
    began = clock.time
    limited.write(b"x" * 1000)
    assert clock.time - began == pytest.approx(1.0)
