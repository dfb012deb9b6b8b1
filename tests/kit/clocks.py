"""Clocks that tests set."""

from datetime import datetime, timedelta


class SetClock:
    """A clock that goes on only while somebody sleeps by it."""

    def __init__(self, now: datetime) -> None:
        self.began = now
        self.slept = 0.0

    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.slept)

    def monotonic(self) -> float:
        return self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
