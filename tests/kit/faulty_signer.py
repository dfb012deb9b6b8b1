"""A store that fails on purpose, and can presign as the one in it: for staging places.

Signing asks nothing of a server, so it is no operation that is counted.
"""

from kit.faulty_store import FaultyStore


class FaultySigner(FaultyStore):
    """See `FaultyStore`."""

    @property
    def authorities(self):
        return self.store.authorities

    def presign(self, path, seconds, method="GET"):
        return self.store.presign(path, seconds, method)
