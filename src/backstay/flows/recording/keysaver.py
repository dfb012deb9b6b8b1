"""Saving the keys that recorded changes need, beside those of backups.

They go to the repository for keys as a keyring of its own, which says the lineage that needs it.
What the keyring of the newest backup has, or one that a recorder of the lineage has saved, is not
saved again.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from backstay.clock import Clock
from backstay.errors import DamagedError, NotFoundError
from backstay.flows.ancestry import look_back
from backstay.flows.places import Places
from backstay.repo import keyring as keyrings
from backstay.repo.keyring import Keyring, Saved
from backstay.repo.name import Run
from backstay.repo.packing import Readable
from backstay.report import Report


@dataclass(frozen=True, slots=True)
class Found:
    """What a cluster has of keys now.

    Attributes:
        keyring: them.
        archive: what is to lie beside it; None where there is nothing.
    """

    keyring: Keyring
    archive: Readable | None = None


@dataclass(frozen=True, slots=True)
class RecordedKeys:
    """Saves the keys of one cluster.

    Attributes:
        places: where deltas and keys go.
        cluster: its name there.
        read: reads what the cluster has of keys, for as long as the block lasts.
        clock: for names.
        report: is told.
        prefix: where etcd's keys begin whose values are encrypted with them.
    """

    places: Places
    cluster: str
    read: Callable[[], AbstractContextManager[Found]]
    clock: Clock
    report: Report
    prefix: bytes = b""

    def save(self, names: frozenset[str], lineage: str) -> bool:
        """Save the keys of some names, unless they are saved already.

        Args:
            names: as they stand in values.
            lineage: of the changes that need them.

        Returns:
            Whether something was saved.

        Raises:
            BackstayError: the cluster does not tell its keys, or the store refuses.
        """
        new = names - self._saved(lineage)
        if not new:
            return False
        with self.read() as found:
            there = new & {label.key_name for label in found.keyring.labels}
            if there:
                run = Run.begin(self.cluster, self.clock.now())
                data = self.places.data.config.repository
                keyrings.save(
                    self.places.keys,
                    found.keyring,
                    run,
                    data=data,
                    archive=found.archive,
                    lineage=lineage,
                )
                told = ", ".join(sorted(there))
                self.report.say(
                    f"keys are new ({told}), and are saved as {self.cluster}/{run.name}"
                )
        for name in sorted(new - there):
            self.report.warn(
                f"values are encrypted with the key {name[:100]!r}, which the cluster does not have"
                " among its keys: what is recorded of them may never be opened"
            )
        return bool(there)

    def _saved(self, lineage: str) -> frozenset[str]:
        """Name the keys that are saved where who restores this lineage will look."""
        found = [*self._recorded(lineage), *self._backed_up()]
        return frozenset(label.key_name for one in found for label in one.header.keys)

    def _recorded(self, lineage: str) -> list[Saved]:
        listed = keyrings.headers(self.places.keys, self.cluster)
        return [one for one in listed if isinstance(one, Saved) and one.header.lineage == lineage]

    def _backed_up(self) -> list[Saved]:
        newest = look_back(self.places.data, self.cluster).newest
        entry = None if newest is None else newest.manifest.keyring
        if newest is None or entry is None:
            return []
        try:
            return [keyrings.find(self.places.keys, entry, newest.manifest.name)]
        except (NotFoundError, DamagedError):
            return []
