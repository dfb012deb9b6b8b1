"""The two places that a backup with keys goes to: its data to one, its keys to the other."""

from dataclasses import dataclass

from backstay.errors import RefusedError
from backstay.repo import keyring as keyrings
from backstay.repo.catalogue import Repository
from backstay.repo.place import same_place


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a backup goes.

    Attributes:
        data: the repository of the snapshots.
        keys: that of the keyring, and of what else is secret.
    """

    data: Repository
    keys: Repository

    def check(self) -> None:
        """Hold the two repositories to be two places (promise 5).

        Raises:
            RefusedError: they are one, or the second is not for keys.
            NotVerifiedError: it can't be told.
            StoreError: a store refuses.
        """
        keyrings.check_place(self.keys)
        data, keys = self.data, self.keys
        why = same_place(data.store, data.config, keys.store, keys.config)
        if why:
            raise RefusedError(
                f"keys must not lie with the data: {why}", "name another --keys-repo"
            )
