"""What a backup is taken from, as the flows see it; each kind of cluster has its own."""

from typing import Protocol

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
