"""Work in a thread of its own, beside the caller's: sealing behind the stream."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: How long a thread that is told to stop may take: a store that answers needs no more.
STOP_SECONDS = 10.0


class Beside(Generic[T]):
    """Work that runs beside the caller's own, and whose error is the caller's.

    Args:
        work: what to do; it ends soon after what it reads from has failed.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None
        # A daemon: a store that hangs must not keep a process that was told to stop.
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is taken
            self._error = error

    @property
    def error(self) -> BaseException | None:
        """What the work ended by, if it has ended by an error."""
        return self._error

    def result(self) -> T:
        """Wait for the work, and give what came of it.

        Raises:
            BaseException: what the work raised.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result[0]

    def stopped(self) -> None:
        """Wait until the work, told to stop, has stopped."""
        self._thread.join(STOP_SECONDS)
