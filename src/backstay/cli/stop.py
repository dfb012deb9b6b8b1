"""What happens when the program is told to stop: it tidies up, and in bounded time it is gone.

A signal raises `Stopped` in the main thread, so that every `finally` on the way out puts back what
it holds. Python does that only when it next runs a line of its own: while a library waits
for a silent server, it does not. So a thread hears of the signal too, and ends the process when
it takes too long. What such an end leaves behind is what a kill leaves: nothing that is
listed, and what the next run sweeps.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

#: Seconds to tidy up; Kubernetes kills after 30.
GRACE = 10.0
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WORDS = {130: "interrupted", 143: "stopped", 129: "the terminal has gone"}


class Stopped(BaseException):
    """A signal came: everything is put back on the way out."""


class Stop:
    """Whether a signal came, and which; knows nothing before `listen`."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._instead: Callable[[], object] | None = None

    @property
    def code(self) -> int | None:
        """The exit code of the process that was told to stop; None where it was not."""
        return None if self._number is None else CODES[signal.Signals(self._number)]

    def listen(self) -> None:
        """From now on be told of signals; called once, from the main thread of the process."""
        heard, wake = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in CODES:
            # nohup, and a shell that starts something behind it, want a signal to be ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._come)
        threading.Thread(target=_watch, args=(heard,), name="stop", daemon=True).start()

    @contextmanager
    def told(self, instead: Callable[[], object]) -> Iterator[None]:
        """Inside the block a signal raises nothing; it calls something, which must not wait.

        What runs until it is stopped ends in order so; it has `GRACE` for that as others have.
        """
        self._instead = instead
        try:
            yield
        finally:
            self._instead = None

    def _come(self, number: int, frame: FrameType | None) -> None:
        del frame
        # A second one must not disturb the tidying up; the thread sees to it that that ends.
        if self._number is None:
            self._number = number
            if self._instead is None:
                raise Stopped
            self._instead()


def _watch(heard: int) -> None:
    number = 0
    while number not in CODES:
        (number,) = os.read(heard, 1)
    time.sleep(GRACE)
    code = CODES[signal.Signals(number)]
    with suppress(OSError):
        os.write(2, f"backstay: {WORDS[code]}, and tidying up took too long\n".encode())
    os._exit(code)


def leave(code: int) -> None:
    """End the process at once: threads of libraries that still wait are not waited for."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
