"""Work that no signal may cut: a signal is waited with until the work is done.

Python hands signals to the main thread alone, whatever line that is in, so such work is done in
another. What still cuts it is a SIGKILL, and the bounded time that a stopped program has.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from backstay.report import Report

T = TypeVar("T")


def shielded(work: Callable[[], T], report: Report) -> T:
    """Do something to its end, and only then raise what a signal has raised meanwhile.

    Args:
        work: what to do.
        report: is warned of an error of the work, where a signal's exception goes before it.

    Raises:
        BackstayError: as the work does.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    signals: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the other thread
            errors.append(error)

    thread = threading.Thread(target=run, name="backstay-shield")
    try:
        thread.start()
    except BaseException as error:
        if thread.ident is None:
            raise
        signals.append(error)
    while thread.is_alive():
        try:
            thread.join()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            signals.append(error)
    if signals:
        for failure in errors:
            report.warn(str(failure))
        raise signals[0]
    if errors:
        raise errors[0]
    return results[0]
