"""The client of an etcd that is followed for months, which can be had anew.

Members, certificates and tokens may be others by the time that one fails.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from backstay.client.etcd import Etcd
from backstay.closing import Closing


class Line(Closing):
    """A client, one after the other.

    Args:
        reach: reaches etcd by what is so now, and gives a client for as long as the block lasts.
    """

    def __init__(self, reach: Callable[[], AbstractContextManager[Etcd]]) -> None:
        self._reach = reach
        self._stack = ExitStack()

    def open(self) -> Etcd:
        """Reach etcd; the client of before is given up once there is another.

        Raises:
            BackstayError: there is no way; the client of before is as it was.
        """
        with ExitStack() as stack:
            etcd = stack.enter_context(self._reach())
            self.close()
            self._stack = stack.pop_all()
        return etcd

    def close(self) -> None:
        """Hang up."""
        self._stack.close()
