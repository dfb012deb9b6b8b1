"""What a backup is taken from, as the flows see it; each kind of cluster has its own."""

from typing import Protocol

from backstay.client.hashing import Poll
from backstay.client.snapshot import Received, Sink
from backstay.report import Report


class Source(Protocol):
    """A cluster that is about to be backed up."""

    @property
    def kind(self) -> str:
        """`etcd`, `hosted` or `okd`."""
        ...

    def choose(self, report: Report) -> int:
        """Look at the members, and choose those that may give the snapshot.

        Returns:
            Bytes that the snapshot will have at most, as far as the members know.

        Raises:
            EtcdError: none is fit.
        """
        ...

    def fetch(self, sink: Sink, report: Report) -> Received:
        """Write a whole snapshot to a sink, which is reset before each new try.

        Raises:
            EtcdError: no member gave a whole one.
        """
        ...


class Poller(Protocol):
    """Asks the members of a cluster for their HashKV."""

    def poll(self, revision: int, *, elements: int | None, took: float | None) -> Poll:
        """Ask every member, one after another; raises nothing of ours.

        Args:
            revision: up to which; 0 = the newest that any of them has.
            elements: how many elements they have, where that is known.
            took: seconds that a member took before, where one was asked.
        """
        ...
